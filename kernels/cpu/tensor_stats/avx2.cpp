// SPDX-License-Identifier: Apache-2.0

// Sixteen lanes are four registers of four doubles for each of five sums: more than the sixteen
// registers there are, so a chunk is walked twice, once for each half of the lanes. The second walk
// finds the chunk in the first cache. Values that are not finite become +0 and add +0, which leaves
// a sum that starts at +0 as it is.

#include <immintrin.h>

#include "kernels/cpu/tensor_stats/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX2)
namespace quell::kernels::avx2 {
namespace {

namespace family = tensor_stats;

QUELL_INLINE __m256i lanes_from(std::size_t i, std::size_t n) {
  const std::size_t left = i < n ? n - i : 0;
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(left < 8 ? static_cast<int>(left) : 8), lane);
}
QUELL_INLINE __m256 magnitude_of(__m256 x) {
  return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}
QUELL_INLINE __m256 finite(__m256 magnitude) {
  return _mm256_cmp_ps(magnitude, _mm256_set1_ps(__builtin_inff()), _CMP_LT_OQ);
}

/// The five sums of four lanes.
struct Sums {
  __m256d sum, sum2, sum3, sum4, sum_abs;
};

QUELL_INLINE void accumulate(Sums& s, __m256d d) {
  const __m256d q = _mm256_mul_pd(d, d);
  s.sum = _mm256_add_pd(s.sum, d);
  s.sum2 = _mm256_add_pd(s.sum2, q);
  s.sum3 = _mm256_add_pd(s.sum3, _mm256_mul_pd(q, d));
  s.sum4 = _mm256_add_pd(s.sum4, _mm256_mul_pd(q, q));
  s.sum_abs = _mm256_add_pd(s.sum_abs, _mm256_andnot_pd(_mm256_set1_pd(-0.0), d));
}
QUELL_INLINE __m256d low_half(__m256 x) {
  return _mm256_cvtps_pd(_mm256_castps256_ps128(x));
}
QUELL_INLINE __m256d high_half(__m256 x) {
  return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
}

/// Lanes `first` to `first` + 7 of the chunk.
struct HalfChunk {
  Sums low, high;
  __m256 top;
  unsigned count;
};
QUELL_INLINE HalfChunk half_chunk(const float* x, std::size_t first, std::size_t n) {
  const __m256d zero = _mm256_setzero_pd();
  HalfChunk half = {
      {zero, zero, zero, zero, zero}, {zero, zero, zero, zero, zero}, _mm256_set1_ps(-1.0f), 0};
  for (std::size_t i = first; i < n; i += 16) {
    const bool whole = i + 8 <= n;
    const __m256i lanes = lanes_from(i, n);
    const __m256 value = whole ? _mm256_loadu_ps(x + i) : _mm256_maskload_ps(x + i, lanes);
    const __m256 magnitude = magnitude_of(value);
    const __m256 good = _mm256_and_ps(finite(magnitude), _mm256_castsi256_ps(lanes));
    half.count +=
        static_cast<unsigned>(__builtin_popcount(static_cast<unsigned>(_mm256_movemask_ps(good))));
    half.top = _mm256_max_ps(_mm256_blendv_ps(_mm256_set1_ps(-1.0f), magnitude, good), half.top);
    const __m256 kept = _mm256_and_ps(good, value);
    accumulate(half.low, low_half(kept));
    accumulate(half.high, high_half(kept));
  }
  return half;
}

/// The tree of the contract over lanes 0-3, 4-7, 8-11 and 12-15.
QUELL_INLINE double fold(__m256d a, __m256d b, __m256d c, __m256d d) {
  const __m256d four = _mm256_add_pd(_mm256_add_pd(a, c), _mm256_add_pd(b, d));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

void chunk(const float* x, std::size_t n, family::ChunkSums* out) {
  const HalfChunk first = half_chunk(x, 0, n), second = half_chunk(x, 8, n);
  out->count = first.count + second.count;
  out->sum = fold(first.low.sum, first.high.sum, second.low.sum, second.high.sum);
  out->sum2 = fold(first.low.sum2, first.high.sum2, second.low.sum2, second.high.sum2);
  out->sum3 = fold(first.low.sum3, first.high.sum3, second.low.sum3, second.high.sum3);
  out->sum4 = fold(first.low.sum4, first.high.sum4, second.low.sum4, second.high.sum4);
  out->sum_abs =
      fold(first.low.sum_abs, first.high.sum_abs, second.low.sum_abs, second.high.sum_abs);
  float lane[8];
  _mm256_storeu_ps(lane, _mm256_max_ps(first.top, second.top));
  out->max_abs = -1.0f;
  for (const float value : lane) {
    if (value > out->max_abs) out->max_abs = value;
  }
}

std::size_t find(const float* x, std::size_t n, float magnitude) {
  for (std::size_t i = 0; i < n; i += 8) {
    const __m256i lanes = lanes_from(i, n);
    const __m256 value = magnitude_of(_mm256_maskload_ps(x + i, lanes));
    const __m256 equal = _mm256_and_ps(_mm256_cmp_ps(value, _mm256_set1_ps(magnitude), _CMP_EQ_OQ),
                                       _mm256_castsi256_ps(lanes));
    const unsigned bits = static_cast<unsigned>(_mm256_movemask_ps(equal));
    if (bits != 0) return i + static_cast<unsigned>(__builtin_ctz(bits));
  }
  return n;
}

QUELL_INLINE Sums load_sums(const family::ColumnSums* sums, std::size_t c) {
  return {_mm256_loadu_pd(sums->sum + c), _mm256_loadu_pd(sums->sum2 + c),
          _mm256_loadu_pd(sums->sum3 + c), _mm256_loadu_pd(sums->sum4 + c),
          _mm256_loadu_pd(sums->sum_abs + c)};
}
QUELL_INLINE void store_sums(family::ColumnSums* sums, std::size_t c, const Sums& s) {
  _mm256_storeu_pd(sums->sum + c, s.sum);
  _mm256_storeu_pd(sums->sum2 + c, s.sum2);
  _mm256_storeu_pd(sums->sum3 + c, s.sum3);
  _mm256_storeu_pd(sums->sum4 + c, s.sum4);
  _mm256_storeu_pd(sums->sum_abs + c, s.sum_abs);
}

// Eight columns at a time stay in registers over all rows of the call. A block has room for whole
// groups, so absent columns have accumulators as well; nobody reads them.
void columns(const float* x, std::size_t stride, std::size_t rows, std::size_t cols,
             std::uint32_t first_row, family::ColumnSums* sums) {
  for (std::size_t c = 0; c < cols; c += 8) {
    const __m256i lanes = lanes_from(c, cols);
    Sums low = load_sums(sums, c), high = load_sums(sums, c + 4);
    __m256i count = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums->count + c));
    __m256 top = _mm256_loadu_ps(sums->max_abs + c);
    __m256i argmax = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums->argmax + c));
    for (std::size_t r = 0; r < rows; ++r) {
      const __m256 value = _mm256_maskload_ps(x + r * stride + c, lanes);
      const __m256 magnitude = magnitude_of(value);
      const __m256 good = _mm256_and_ps(finite(magnitude), _mm256_castsi256_ps(lanes));
      count = _mm256_sub_epi32(count, _mm256_castps_si256(good));  // a true lane is -1
      const __m256 larger = _mm256_and_ps(good, _mm256_cmp_ps(magnitude, top, _CMP_GT_OQ));
      top = _mm256_blendv_ps(top, magnitude, larger);
      argmax = _mm256_blendv_epi8(
          argmax, _mm256_set1_epi32(static_cast<int>(first_row + static_cast<unsigned>(r))),
          _mm256_castps_si256(larger));
      const __m256 kept = _mm256_and_ps(good, value);
      accumulate(low, low_half(kept));
      accumulate(high, high_half(kept));
    }
    store_sums(sums, c, low);
    store_sums(sums, c + 4, high);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums->count + c), count);
    _mm256_storeu_ps(sums->max_abs + c, top);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums->argmax + c), argmax);
  }
}

/// Sixteen values that have been written to the tile: their maxima, and whether all are finite.
struct Maxima {
  __m256 low, high;
};
QUELL_INLINE Maxima magnitudes_at(const float* x) {
  return {magnitude_of(_mm256_load_ps(x)), magnitude_of(_mm256_load_ps(x + 8))};
}
/// Row r where `here` is larger than `most`, as integers in float registers.
QUELL_INLINE __m256 row_if_larger(__m256 argmax, __m256 here, __m256 most, std::size_t r) {
  const __m256 row = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(r)));
  return _mm256_blendv_ps(argmax, row, _mm256_cmp_ps(here, most, _CMP_GT_OQ));
}
QUELL_INLINE Maxima larger_of(const Maxima& a, const Maxima& b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}

bool measure(std::size_t rows, std::size_t end, family::Tile* tile, family::RowLanes* lanes) {
  const __m256 zero = _mm256_setzero_ps(), infinity = _mm256_set1_ps(__builtin_inff());
  Maxima row_max[family::kTileRows];
  for (std::size_t r = 0; r < rows; ++r) row_max[r] = {zero, zero};
  __m256 bad = zero;
  for (std::size_t c = 0; c < end; c += 16) {
    Maxima most = {zero, zero}, argmax = most;
    for (std::size_t r = 0; r < rows; ++r) {
      const Maxima here = magnitudes_at(tile->x[r] + c);
      // Not below infinity: NaN too.
      bad = _mm256_or_ps(bad, _mm256_or_ps(_mm256_cmp_ps(here.low, infinity, _CMP_NLT_UQ),
                                           _mm256_cmp_ps(here.high, infinity, _CMP_NLT_UQ)));
      argmax = {row_if_larger(argmax.low, here.low, most.low, r),
                row_if_larger(argmax.high, here.high, most.high, r)};
      most = larger_of(most, here);
      row_max[r] = larger_of(row_max[r], here);
    }
    _mm256_store_ps(tile->column_max + c, most.low);
    _mm256_store_ps(tile->column_max + c + 8, most.high);
    auto* rows_of_maxima = reinterpret_cast<__m256i*>(tile->column_argmax + c);
    _mm256_store_si256(rows_of_maxima, _mm256_castps_si256(argmax.low));
    _mm256_store_si256(rows_of_maxima + 1, _mm256_castps_si256(argmax.high));
  }
  if (_mm256_movemask_ps(bad) != 0) return false;
  for (std::size_t r = 0; r < rows; ++r) {
    float* most = lanes[r].max_abs;
    const Maxima larger = larger_of({_mm256_load_ps(most), _mm256_load_ps(most + 8)}, row_max[r]);
    _mm256_store_ps(most, larger.low);
    _mm256_store_ps(most + 8, larger.high);
  }
  return true;
}

bool load_bf16(const std::uint16_t* x, std::size_t stride, std::size_t rows, std::size_t cols,
               family::Tile* tile, family::RowLanes* lanes) {
  const std::size_t end = (cols + 31) / 32 * 32;
  for (std::size_t r = 0; r < rows; ++r) {
    const std::uint16_t* from = x + r * stride;
    std::size_t c = 0;
    for (; c + 8 <= cols; c += 8) {
      const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + c));
      const __m256i wide = _mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16);
      _mm256_store_si256(reinterpret_cast<__m256i*>(tile->x[r] + c), wide);
    }
    for (; c < end; ++c) {
      const std::uint32_t bits = c < cols ? static_cast<std::uint32_t>(from[c]) << 16 : 0;
      __builtin_memcpy(tile->x[r] + c, &bits, sizeof(float));
    }
  }
  return measure(rows, end, tile, lanes);
}

bool load_f32(const float* x, std::size_t stride, std::size_t rows, std::size_t cols,
              family::Tile* tile, family::RowLanes* lanes) {
  const std::size_t end = (cols + 31) / 32 * 32;
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < end; c += 8) {
      _mm256_store_ps(tile->x[r] + c, _mm256_maskload_ps(x + r * stride + c, lanes_from(c, cols)));
    }
  }
  return measure(rows, end, tile, lanes);
}

void raise(const family::Tile* tile, std::size_t cols, std::uint32_t first_row,
           family::TileColumns* columns) {
  const __m256i first = _mm256_set1_epi32(static_cast<int>(first_row));
  for (std::size_t c = 0; c < cols; c += 8) {
    const __m256 most = _mm256_load_ps(tile->column_max + c);
    const __m256 larger = _mm256_cmp_ps(most, _mm256_load_ps(columns->max_abs + c), _CMP_GT_OQ);
    const __m256i lanes = _mm256_and_si256(_mm256_castps_si256(larger), lanes_from(c, cols));
    const __m256i argmax =
        _mm256_load_si256(reinterpret_cast<const __m256i*>(tile->column_argmax + c));
    _mm256_maskstore_ps(columns->max_abs + c, lanes, most);
    _mm256_maskstore_epi32(reinterpret_cast<int*>(columns->argmax + c), lanes,
                           _mm256_add_epi32(first, argmax));
  }
}

QUELL_INLINE void add_to(double* sum, __m256d value) {
  _mm256_store_pd(sum, _mm256_add_pd(_mm256_load_pd(sum), value));
}
QUELL_INLINE void add_product_to(double* sum, __m256d a, __m256d b) {
  _mm256_store_pd(sum, _mm256_fmadd_pd(a, b, _mm256_load_pd(sum)));
}

QUELL_INLINE Sums tile_sums(const family::TileColumns* columns, std::size_t c) {
  return {_mm256_load_pd(columns->sum + c), _mm256_load_pd(columns->sum2 + c),
          _mm256_load_pd(columns->sum3 + c), _mm256_load_pd(columns->sum4 + c),
          _mm256_load_pd(columns->sum_abs + c)};
}
QUELL_INLINE void store_tile_sums(family::TileColumns* columns, std::size_t c, const Sums& s) {
  _mm256_store_pd(columns->sum + c, s.sum);
  _mm256_store_pd(columns->sum2 + c, s.sum2);
  _mm256_store_pd(columns->sum3 + c, s.sum3);
  _mm256_store_pd(columns->sum4 + c, s.sum4);
  _mm256_store_pd(columns->sum_abs + c, s.sum_abs);
}

/// Four values: to their columns, and to the lanes from `l` of their row.
template <bool kPowers>
QUELL_INLINE void add_four(const float* x, Sums& column, family::RowLanes& row, std::size_t l) {
  const __m256d d = _mm256_cvtps_pd(_mm_load_ps(x));
  const __m256d q = _mm256_mul_pd(d, d);
  const __m256d magnitude = _mm256_andnot_pd(_mm256_set1_pd(-0.0), d);
  column.sum = _mm256_add_pd(column.sum, d);
  column.sum2 = _mm256_add_pd(column.sum2, q);
  column.sum3 = _mm256_fmadd_pd(q, d, column.sum3);
  column.sum4 = _mm256_fmadd_pd(q, q, column.sum4);
  column.sum_abs = _mm256_add_pd(column.sum_abs, magnitude);
  add_to(row.sum_abs + l, magnitude);
  if constexpr (kPowers) {
    add_to(row.sum + l, d);
    add_to(row.sum2 + l, q);
    add_product_to(row.sum3 + l, q, d);
    add_product_to(row.sum4 + l, q, q);
  }
}

// The ten sums of eight columns stay in registers over all rows.
template <bool kPowers>
void add(const family::Tile* tile, std::size_t rows, std::size_t cols, family::RowLanes* lanes,
         family::TileColumns* columns, const family::NextTile& next) {
  // A line of memory is 32 or 16 columns.
  const std::size_t line = 64 / (next.width != 0 ? next.width : 1);
  for (std::size_t c = 0; c < cols; c += 8) {
    Sums low = tile_sums(columns, c), high = tile_sums(columns, c + 4);
    const bool fetch = next.first != nullptr && c % line == 0;
    for (std::size_t r = 0; r < rows; ++r) {
      if (fetch) _mm_prefetch(next.first + r * next.stride + c * next.width, _MM_HINT_T0);
      add_four<kPowers>(tile->x[r] + c, low, lanes[r], c % 16);
      add_four<kPowers>(tile->x[r] + c + 4, high, lanes[r], c % 16 + 4);
    }
    store_tile_sums(columns, c, low);
    store_tile_sums(columns, c + 4, high);
  }
}

void add_counting(const family::Tile* tile, std::size_t rows, std::size_t cols,
                  family::RowLanes* lanes, family::TileColumns* columns,
                  const family::NextTile& next, const family::CountedWords& words) {
  for (std::size_t r = 0; r < rows; ++r) {
    const std::uint16_t* row = words.first + r * words.stride;
    for (std::size_t c = 0; c < cols; ++c) ++words.counts[row[c]];
  }
  add<false>(tile, rows, cols, lanes, columns, next);
}

}  // namespace

extern const tensor_stats::Entry tensor_stats_entry = {Isa::avx2,    chunk,    find,  columns,
                                                       load_bf16,    load_f32, raise, add<false>,
                                                       add_counting, add<true>};

}  // namespace quell::kernels::avx2
QUELL_TARGET_END
