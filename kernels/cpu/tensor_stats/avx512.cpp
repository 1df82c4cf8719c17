// SPDX-License-Identifier: Apache-2.0

// Sixteen lanes are two registers of eight doubles for each of five sums. Values that are not
// finite become +0 and add +0, which leaves a sum that starts at +0 as it is.

#include <immintrin.h>

#include "kernels/cpu/tensor_stats/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512)
namespace quell::kernels::avx512 {
namespace {

namespace family = tensor_stats;

QUELL_INLINE __mmask16 lanes_from(std::size_t i, std::size_t n) {
  return n - i >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << (n - i)) - 1);
}
QUELL_INLINE __mmask16 finite(__mmask16 lanes, __m512 magnitude) {
  return _mm512_mask_cmp_ps_mask(lanes, magnitude, _mm512_set1_ps(__builtin_inff()), _CMP_LT_OQ);
}

/// The five sums of eight lanes.
struct Sums {
  __m512d sum, sum2, sum3, sum4, sum_abs;
};

QUELL_INLINE void accumulate(Sums& s, __m512d d) {
  const __m512d q = _mm512_mul_pd(d, d);
  s.sum = _mm512_add_pd(s.sum, d);
  s.sum2 = _mm512_add_pd(s.sum2, q);
  s.sum3 = _mm512_add_pd(s.sum3, _mm512_mul_pd(q, d));
  s.sum4 = _mm512_add_pd(s.sum4, _mm512_mul_pd(q, q));
  s.sum_abs = _mm512_add_pd(s.sum_abs, _mm512_abs_pd(d));
}
QUELL_INLINE __m512d low_half(__m512 x) {
  return _mm512_cvtps_pd(_mm512_castps512_ps256(x));
}
QUELL_INLINE __m512d high_half(__m512 x) {
  return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
}

QUELL_INLINE double fold(__m512d low, __m512d high) {
  const __m512d eight = _mm512_add_pd(low, high);
  const __m256d four =
      _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

void chunk(const float* x, std::size_t n, family::ChunkSums* out) {
  const __m512d zero = _mm512_setzero_pd();
  Sums low = {zero, zero, zero, zero, zero}, high = low;
  __m512 top = _mm512_set1_ps(-1.0f);
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    const __m512 value = _mm512_maskz_loadu_ps(lanes, x + i);
    const __m512 magnitude = _mm512_abs_ps(value);
    const __mmask16 good = finite(lanes, magnitude);
    count += static_cast<unsigned>(__builtin_popcount(good));
    top = _mm512_mask_max_ps(top, good, magnitude, top);
    const __m512 kept = _mm512_maskz_mov_ps(good, value);
    accumulate(low, low_half(kept));
    accumulate(high, high_half(kept));
  }
  out->count = count;
  out->sum = fold(low.sum, high.sum);
  out->sum2 = fold(low.sum2, high.sum2);
  out->sum3 = fold(low.sum3, high.sum3);
  out->sum4 = fold(low.sum4, high.sum4);
  out->sum_abs = fold(low.sum_abs, high.sum_abs);
  float lane[16];
  _mm512_storeu_ps(lane, top);
  out->max_abs = -1.0f;
  for (const float value : lane) {
    if (value > out->max_abs) out->max_abs = value;
  }
}

std::size_t find(const float* x, std::size_t n, float magnitude) {
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    const __mmask16 equal =
        _mm512_mask_cmp_ps_mask(lanes, _mm512_abs_ps(_mm512_maskz_loadu_ps(lanes, x + i)),
                                _mm512_set1_ps(magnitude), _CMP_EQ_OQ);
    if (equal != 0) return i + static_cast<unsigned>(__builtin_ctz(equal));
  }
  return n;
}

QUELL_INLINE Sums load_sums(const family::ColumnSums* sums, std::size_t c) {
  return {_mm512_loadu_pd(sums->sum + c), _mm512_loadu_pd(sums->sum2 + c),
          _mm512_loadu_pd(sums->sum3 + c), _mm512_loadu_pd(sums->sum4 + c),
          _mm512_loadu_pd(sums->sum_abs + c)};
}
QUELL_INLINE void store_sums(family::ColumnSums* sums, std::size_t c, const Sums& s) {
  _mm512_storeu_pd(sums->sum + c, s.sum);
  _mm512_storeu_pd(sums->sum2 + c, s.sum2);
  _mm512_storeu_pd(sums->sum3 + c, s.sum3);
  _mm512_storeu_pd(sums->sum4 + c, s.sum4);
  _mm512_storeu_pd(sums->sum_abs + c, s.sum_abs);
}

// Sixteen columns at a time stay in registers over all rows of the call. A block has room for whole
// groups, so absent columns have accumulators as well; nobody reads them.
void columns(const float* x, std::size_t stride, std::size_t rows, std::size_t cols,
             std::uint32_t first_row, family::ColumnSums* sums) {
  for (std::size_t c = 0; c < cols; c += 16) {
    const __mmask16 lanes = lanes_from(c, cols);
    Sums low = load_sums(sums, c), high = load_sums(sums, c + 8);
    __m512i count = _mm512_loadu_si512(sums->count + c);
    __m512 top = _mm512_loadu_ps(sums->max_abs + c);
    __m512i argmax = _mm512_loadu_si512(sums->argmax + c);
    for (std::size_t r = 0; r < rows; ++r) {
      const __m512 value = _mm512_maskz_loadu_ps(lanes, x + r * stride + c);
      const __m512 magnitude = _mm512_abs_ps(value);
      const __mmask16 good = finite(lanes, magnitude);
      count = _mm512_mask_add_epi32(count, good, count, _mm512_set1_epi32(1));
      const __mmask16 larger = _mm512_mask_cmp_ps_mask(good, magnitude, top, _CMP_GT_OQ);
      top = _mm512_mask_mov_ps(top, larger, magnitude);
      argmax = _mm512_mask_set1_epi32(argmax, larger,
                                      static_cast<int>(first_row + static_cast<unsigned>(r)));
      const __m512 kept = _mm512_maskz_mov_ps(good, value);
      accumulate(low, low_half(kept));
      accumulate(high, high_half(kept));
    }
    store_sums(sums, c, low);
    store_sums(sums, c + 8, high);
    _mm512_storeu_si512(sums->count + c, count);
    _mm512_storeu_ps(sums->max_abs + c, top);
    _mm512_storeu_si512(sums->argmax + c, argmax);
  }
}

QUELL_INLINE __mmask32 words_from(std::size_t c, std::size_t cols) {
  return cols - c >= 32 ? 0xffffffffu : (1u << (cols - c)) - 1;
}

QUELL_INLINE __m512 larger_of(__m512 a, __m512 b) {
  return _mm512_max_ps(a, b);
}
QUELL_INLINE void raise_lanes(float* most, __m512 magnitude) {
  _mm512_store_ps(most, larger_of(_mm512_load_ps(most), magnitude));
}

/// 32 words as the upper halves of 32 double words, in order: unpacking takes four words from each
/// 128 bits, so those that belong together are brought together before.
struct Widened {
  __m512i low, high;
};
QUELL_INLINE Widened widened(__m512i words) {
  const __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
  const __m512i zero = _mm512_setzero_si512();
  const __m512i mixed = _mm512_permutexvar_epi64(order, words);
  return {_mm512_unpacklo_epi16(zero, mixed), _mm512_unpackhi_epi16(zero, mixed)};
}

// Maxima are those of the sixteen bits below the sign, 32 at a time.
bool load_bf16(const std::uint16_t* x, std::size_t stride, std::size_t rows, std::size_t cols,
               family::Tile* tile, family::RowLanes* lanes) {
  const __m512i zero = _mm512_setzero_si512();
  __m512i row_max[family::kTileRows];
  for (std::size_t r = 0; r < rows; ++r) row_max[r] = zero;
  __m512i all = zero;
  for (std::size_t c = 0; c < cols; c += 32) {
    const __mmask32 words = words_from(c, cols);
    __m512i most = zero, argmax = zero;
    for (std::size_t r = 0; r < rows; ++r) {
      const std::uint16_t* from = x + r * stride + c;
      const __m512i w = _mm512_maskz_loadu_epi16(words, from);
      const __m512i magnitude = _mm512_and_si512(w, _mm512_set1_epi16(0x7fff));
      const __mmask32 larger = _mm512_cmpgt_epu16_mask(magnitude, most);
      argmax = _mm512_mask_set1_epi16(argmax, larger, static_cast<short>(r));
      most = _mm512_max_epu16(most, magnitude);
      row_max[r] = _mm512_max_epu16(row_max[r], magnitude);
      float* to = tile->x[r] + c;
      const Widened values = widened(w);
      _mm512_store_si512(to, values.low);
      _mm512_store_si512(to + 16, values.high);
    }
    all = _mm512_max_epu16(all, most);
    const Widened maxima = widened(most);
    _mm512_store_si512(tile->column_max + c, maxima.low);
    _mm512_store_si512(tile->column_max + c + 16, maxima.high);
    _mm512_store_si512(tile->column_argmax + c,
                       _mm512_cvtepu16_epi32(_mm512_castsi512_si256(argmax)));
    _mm512_store_si512(tile->column_argmax + c + 16,
                       _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(argmax, 1)));
  }
  if (_mm512_cmpge_epu16_mask(all, _mm512_set1_epi16(0x7f80)) != 0) return false;
  for (std::size_t r = 0; r < rows; ++r) {
    const __m512i even = _mm512_slli_epi32(row_max[r], 16);
    const __m512i odd = _mm512_and_si512(row_max[r], _mm512_set1_epi32(-0x10000));
    raise_lanes(lanes[r].max_abs, larger_of(_mm512_castsi512_ps(even), _mm512_castsi512_ps(odd)));
  }
  return true;
}

bool load_f32(const float* x, std::size_t stride, std::size_t rows, std::size_t cols,
              family::Tile* tile, family::RowLanes* lanes) {
  const __m512 zero = _mm512_setzero_ps();
  const std::size_t end = (cols + 31) / 32 * 32;
  __m512 row_max[family::kTileRows];
  for (std::size_t r = 0; r < rows; ++r) row_max[r] = zero;
  __mmask16 bad = 0;
  for (std::size_t c = 0; c < end; c += 16) {
    const __mmask16 present = c < cols ? lanes_from(c, cols) : static_cast<__mmask16>(0);
    __m512 most = zero;
    __m512i argmax = _mm512_setzero_si512();
    for (std::size_t r = 0; r < rows; ++r) {
      const __m512 value = _mm512_maskz_loadu_ps(present, x + r * stride + c);
      const __m512 magnitude = _mm512_abs_ps(value);
      // Not below infinity: NaN too.
      bad = static_cast<__mmask16>(
          bad | _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(__builtin_inff()), _CMP_NLT_UQ));
      const __mmask16 larger = _mm512_cmp_ps_mask(magnitude, most, _CMP_GT_OQ);
      argmax = _mm512_mask_set1_epi32(argmax, larger, static_cast<int>(r));
      most = larger_of(most, magnitude);
      row_max[r] = larger_of(row_max[r], magnitude);
      _mm512_store_ps(tile->x[r] + c, value);
    }
    _mm512_store_ps(tile->column_max + c, most);
    _mm512_store_si512(tile->column_argmax + c, argmax);
  }
  if (bad != 0) return false;
  for (std::size_t r = 0; r < rows; ++r) raise_lanes(lanes[r].max_abs, row_max[r]);
  return true;
}

void raise(const family::Tile* tile, std::size_t cols, std::uint32_t first_row,
           family::TileColumns* columns) {
  const __m512i first = _mm512_set1_epi32(static_cast<int>(first_row));
  for (std::size_t c = 0; c < cols; c += 16) {
    const __m512 most = _mm512_load_ps(tile->column_max + c);
    const __mmask16 larger = _mm512_mask_cmp_ps_mask(
        lanes_from(c, cols), most, _mm512_load_ps(columns->max_abs + c), _CMP_GT_OQ);
    const __m512i row = _mm512_add_epi32(first, _mm512_load_si512(tile->column_argmax + c));
    _mm512_mask_store_ps(columns->max_abs + c, larger, most);
    _mm512_mask_store_epi32(columns->argmax + c, larger, row);
  }
}

/// One of the five sums, of 32 columns.
struct GroupSum {
  __m512d lane[4];
};
QUELL_INLINE GroupSum load_group(const double* sums) {
  return {{_mm512_load_pd(sums), _mm512_load_pd(sums + 8), _mm512_load_pd(sums + 16),
           _mm512_load_pd(sums + 24)}};
}
QUELL_INLINE void store_group(double* sums, const GroupSum& group) {
  QUELL_UNROLL
  for (int i = 0; i < 4; ++i) _mm512_store_pd(sums + 8 * i, group.lane[i]);
}

QUELL_INLINE void count_four(const std::uint16_t* words, std::uint32_t* counts) {
  std::uint64_t four = 0;
  __builtin_memcpy(&four, words, sizeof four);
  ++counts[four & 0xffff];
  ++counts[(four >> 16) & 0xffff];
  ++counts[(four >> 32) & 0xffff];
  ++counts[four >> 48];
}

// The twenty sums of 32 columns stay in registers over all rows. A row has two vectors of lanes for
// each sum: vectors 0 and 2 of a group go to the first, 1 and 3 to the second.
template <bool kPowers, bool kCount>
QUELL_INLINE void add_tile(const family::Tile* tile, std::size_t rows, std::size_t cols,
                           family::RowLanes* lanes, family::TileColumns* columns,
                           const family::NextTile& next, const family::CountedWords& words) {
  for (std::size_t c = 0; c < cols; c += 32) {
    // 32 columns are one or two lines of memory. Where nothing is next the tile itself is
    // "fetched".
    const std::byte* fetch = reinterpret_cast<const std::byte*>(tile);
    std::size_t second = 0;
    if (next.first != nullptr) {
      fetch = next.first + c * next.width;
      second = next.width > 2 ? 64 : 0;
    }
    GroupSum sum = load_group(columns->sum + c), sum2 = load_group(columns->sum2 + c);
    GroupSum sum3 = load_group(columns->sum3 + c), sum4 = load_group(columns->sum4 + c);
    GroupSum sum_abs = load_group(columns->sum_abs + c);
    for (std::size_t r = 0; r < rows; ++r) {
      _mm_prefetch(fetch + r * next.stride, _MM_HINT_T0);
      _mm_prefetch(fetch + r * next.stride + second, _MM_HINT_T0);
      const float* x = tile->x[r] + c;
      const std::uint16_t* counted = kCount ? words.first + r * words.stride + c : nullptr;
      family::RowLanes& row = lanes[r];
      QUELL_UNROLL
      for (int half = 0; half < 2; ++half) {
        __m512d row_abs = _mm512_load_pd(row.sum_abs + 8 * half), s1, s2, s3, s4;
        if constexpr (kPowers) {
          s1 = _mm512_load_pd(row.sum + 8 * half);
          s2 = _mm512_load_pd(row.sum2 + 8 * half);
          s3 = _mm512_load_pd(row.sum3 + 8 * half);
          s4 = _mm512_load_pd(row.sum4 + 8 * half);
        }
        QUELL_UNROLL
        for (int i = half; i < 4; i += 2) {
          if constexpr (kCount) {
            count_four(counted + 8 * i, words.counts);
            count_four(counted + 8 * i + 4, words.counts);
          }
          const __m512d d = _mm512_cvtps_pd(_mm256_load_ps(x + 8 * i));
          const __m512d q = _mm512_mul_pd(d, d);
          const __m512d magnitude = _mm512_abs_pd(d);
          sum.lane[i] = _mm512_add_pd(sum.lane[i], d);
          sum2.lane[i] = _mm512_add_pd(sum2.lane[i], q);
          sum3.lane[i] = _mm512_fmadd_pd(q, d, sum3.lane[i]);
          sum4.lane[i] = _mm512_fmadd_pd(q, q, sum4.lane[i]);
          sum_abs.lane[i] = _mm512_add_pd(sum_abs.lane[i], magnitude);
          row_abs = _mm512_add_pd(row_abs, magnitude);
          if constexpr (kPowers) {
            s1 = _mm512_add_pd(s1, d);
            s2 = _mm512_add_pd(s2, q);
            s3 = _mm512_fmadd_pd(q, d, s3);
            s4 = _mm512_fmadd_pd(q, q, s4);
          }
        }
        _mm512_store_pd(row.sum_abs + 8 * half, row_abs);
        if constexpr (kPowers) {
          _mm512_store_pd(row.sum + 8 * half, s1);
          _mm512_store_pd(row.sum2 + 8 * half, s2);
          _mm512_store_pd(row.sum3 + 8 * half, s3);
          _mm512_store_pd(row.sum4 + 8 * half, s4);
        }
      }
    }
    store_group(columns->sum + c, sum);
    store_group(columns->sum2 + c, sum2);
    store_group(columns->sum3 + c, sum3);
    store_group(columns->sum4 + c, sum4);
    store_group(columns->sum_abs + c, sum_abs);
  }
}

template <bool kPowers>
void add(const family::Tile* tile, std::size_t rows, std::size_t cols, family::RowLanes* lanes,
         family::TileColumns* columns, const family::NextTile& next) {
  add_tile<kPowers, false>(tile, rows, cols, lanes, columns, next, {});
}

void add_counting(const family::Tile* tile, std::size_t rows, std::size_t cols,
                  family::RowLanes* lanes, family::TileColumns* columns,
                  const family::NextTile& next, const family::CountedWords& words) {
  if (cols == family::kTileCols) {
    add_tile<false, true>(tile, rows, cols, lanes, columns, next, words);
    return;
  }
  // Groups of 32 would count what is not there.
  for (std::size_t r = 0; r < rows; ++r) {
    const std::uint16_t* row = words.first + r * words.stride;
    for (std::size_t c = 0; c < cols; ++c) ++words.counts[row[c]];
  }
  add<false>(tile, rows, cols, lanes, columns, next);
}

}  // namespace

extern const tensor_stats::Entry tensor_stats_entry = {Isa::avx512,  chunk,    find,  columns,
                                                       load_bf16,    load_f32, raise, add<false>,
                                                       add_counting, add<true>};

}  // namespace quell::kernels::avx512
QUELL_TARGET_END
