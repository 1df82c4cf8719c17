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

/// Sixteen columns in two registers.
struct Pair {
  __m256 a, b;
};

/// The first eight and the last eight of sixteen that `low` and `high` have mixed in their halves.
QUELL_INLINE Pair halves(__m256 low, __m256 high) {
  return {_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)};
}

/// Sixteen words of bfloat16: `a` of their values has the even columns, `b` the odd ones.
struct Words {
  using Element = std::uint16_t;
  __m256i words;

  static QUELL_INLINE Words load(const std::uint16_t* x) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x))};
  }
  static QUELL_INLINE Words zero() { return {_mm256_setzero_si256()}; }
  QUELL_INLINE Pair values() const {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(words, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(-0x10000)))};
  }
  QUELL_INLINE Words magnitude() const {
    return {_mm256_and_si256(words, _mm256_set1_epi16(0x7fff))};
  }
  /// Of magnitudes.
  QUELL_INLINE void raise(const Words& other) { words = _mm256_max_epi16(words, other.words); }
  static QUELL_INLINE Pair in_order(const Pair& p) {
    return halves(_mm256_unpacklo_ps(p.a, p.b), _mm256_unpackhi_ps(p.a, p.b));
  }
  /// Sums of columns 2 l and 2 l + 1.
  static QUELL_INLINE __m256 neighbours(const Pair& p) { return _mm256_add_ps(p.a, p.b); }
};

/// Sixteen floats in order.
struct Floats {
  using Element = float;
  Pair x;

  static QUELL_INLINE Floats load(const float* x) {
    return {{_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}};
  }
  static QUELL_INLINE Floats zero() { return {{_mm256_setzero_ps(), _mm256_setzero_ps()}}; }
  QUELL_INLINE Pair values() const { return x; }
  QUELL_INLINE Floats magnitude() const { return {{magnitude_of(x.a), magnitude_of(x.b)}}; }
  /// A NaN of either stays: its bits are larger as integers.
  QUELL_INLINE void raise(const Floats& other) {
    x = {larger_of(x.a, other.x.a), larger_of(x.b, other.x.b)};
  }
  static QUELL_INLINE Pair in_order(const Pair& p) { return p; }
  static QUELL_INLINE __m256 neighbours(const Pair& p) {
    const __m256d mixed = _mm256_castps_pd(_mm256_hadd_ps(p.a, p.b));
    return _mm256_castpd_ps(_mm256_permute4x64_pd(mixed, 0xd8));
  }

 private:
  static QUELL_INLINE __m256 larger_of(__m256 a, __m256 b) {
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
  }
};

/// Eight runs times `scale` to eight sums.
QUELL_INLINE void add_runs(double* sums, __m256 runs, double scale) {
  const __m256d factor = _mm256_set1_pd(scale);
  _mm256_store_pd(sums, _mm256_fmadd_pd(low_half(runs), factor, _mm256_load_pd(sums)));
  _mm256_store_pd(sums + 4, _mm256_fmadd_pd(high_half(runs), factor, _mm256_load_pd(sums + 4)));
}

/// The five runs of eight columns.
struct Runs {
  __m256 sum, sum2, sum3, sum4, sum_abs;
};
QUELL_INLINE void add_row(Runs& s, __m256 x) {
  const __m256 q = _mm256_mul_ps(x, x);
  s.sum = _mm256_add_ps(s.sum, x);
  s.sum2 = _mm256_fmadd_ps(x, x, s.sum2);
  s.sum3 = _mm256_fmadd_ps(q, x, s.sum3);
  s.sum4 = _mm256_fmadd_ps(q, q, s.sum4);
  s.sum_abs = _mm256_add_ps(s.sum_abs, magnitude_of(x));
}
template <typename V>
QUELL_INLINE void add_pair(double* sums, __m256 a, __m256 b, double scale) {
  const Pair runs = V::in_order({a, b});
  add_runs(sums, runs.a, scale);
  add_runs(sums + 8, runs.b, scale);
}

QUELL_INLINE void raise(float* maxima, __m256 values) {
  _mm256_store_ps(maxima, _mm256_max_ps(_mm256_load_ps(maxima), values));
}
/// Some of the magnitudes is above the largest, or not a number.
QUELL_INLINE bool any_above_largest(const Pair& p) {
  const __m256 limit = _mm256_set1_ps(family::kLargest);
  return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(p.a, limit, _CMP_NLE_UQ),
                                         _mm256_cmp_ps(p.b, limit, _CMP_NLE_UQ))) != 0;
}
QUELL_INLINE bool all_below_least(const Pair& p) {
  const __m256 least = _mm256_set1_ps(family::kLeast);
  return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(p.a, least, _CMP_GE_OQ),
                                         _mm256_cmp_ps(p.b, least, _CMP_GE_OQ))) == 0;
}
QUELL_INLINE bool all_zero(const Pair& p) {
  const __m256 zero = _mm256_setzero_ps();
  return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(p.a, zero, _CMP_NEQ_UQ),
                                         _mm256_cmp_ps(p.b, zero, _CMP_NEQ_UQ))) == 0;
}

/// The columns of half a strip, whose ten runs stay in registers over all rows.
template <typename V>
QUELL_INLINE void add_columns(const family::TileView<typename V::Element>& tile, std::size_t c,
                              const family::TileScale& scale, family::StripColumns* to) {
  const std::size_t at = c % family::kStrip;
  const __m256 zero = _mm256_setzero_ps();
  Runs a = {zero, zero, zero, zero, zero}, b = a;
  for (std::size_t r = 0; r < tile.rows; ++r) {
    const Pair values = V::load(tile.x + r * tile.stride + c).values();
    add_row(a, values.a);
    add_row(b, values.b);
  }
  add_pair<V>(to->sum + at, a.sum, b.sum, scale.x);
  add_pair<V>(to->sum2 + at, a.sum2, b.sum2, scale.x2);
  add_pair<V>(to->sum3 + at, a.sum3, b.sum3, scale.x3);
  add_pair<V>(to->sum4 + at, a.sum4, b.sum4, scale.x4);
  add_pair<V>(to->sum_abs + at, a.sum_abs, b.sum_abs, scale.x);
}

// Sixteen registers do not hold the runs of columns beside anything else: a first walk over a strip
// finds its maxima and what it gives to the rows, two others add its columns.
template <typename V, bool kScaled>
QUELL_INLINE unsigned add_tile(const family::TileView<typename V::Element>& tile,
                               const family::TileScale& scale, family::StripColumns* columns,
                               family::RowLanes* lanes) {
  using Element = typename V::Element;
  constexpr std::size_t kAhead = 4 * family::kStrip, kLine = 64 / sizeof(Element);
  const __m256 zero = _mm256_setzero_ps();
  alignas(32) float runs[family::kTileRows][16] = {};
  alignas(32) float pairs[family::kTileRows][16];
  alignas(32) float strip_rows[family::kTileRows][8];
  alignas(32) float largest[family::kTileRows][8] = {};
  unsigned left_out = 0;
  for (std::size_t c = 0; c < tile.cols; c += family::kStrip) {
    const std::size_t strip = c / family::kStrip;
    V most[2] = {V::zero(), V::zero()};
    for (std::size_t r = 0; r < tile.rows; ++r) {
      const Element* from = tile.x + r * tile.stride + c;
      QUELL_UNROLL
      for (std::size_t i = 0; i < family::kStrip; i += kLine) {
        _mm_prefetch(from + kAhead + i, _MM_HINT_T0);
      }
      __m256 row_max = zero;
      QUELL_UNROLL
      for (int i = 0; i < 2; ++i) {
        const V magnitude = V::load(from + 16 * i).magnitude();
        const Pair values = magnitude.values();
        most[i].raise(magnitude);
        _mm256_store_ps(pairs[r] + 8 * i, V::neighbours(values));
        row_max = _mm256_max_ps(row_max, _mm256_max_ps(values.a, values.b));
      }
      _mm256_store_ps(strip_rows[r], row_max);
    }
    const Pair first = V::in_order(most[0].values()), second = V::in_order(most[1].values());
    if constexpr (!kScaled) {
      if (any_above_largest(first) || any_above_largest(second) ||
          (all_below_least(first) && all_below_least(second) &&
           !(all_zero(first) && all_zero(second)))) {
        left_out |= 1u << strip;
        continue;
      }
    }
    for (std::size_t r = 0; r < tile.rows; ++r) {
      QUELL_UNROLL
      for (int i = 0; i < 16; i += 8) {
        _mm256_store_ps(runs[r] + i,
                        _mm256_add_ps(_mm256_load_ps(runs[r] + i), _mm256_load_ps(pairs[r] + i)));
      }
      raise(largest[r], _mm256_load_ps(strip_rows[r]));
    }
    family::StripColumns& to = columns[strip];
    add_columns<V>(tile, c, scale, &to);
    add_columns<V>(tile, c + 16, scale, &to);
    if constexpr (!kScaled) {
      raise(to.max_abs, first.a);
      raise(to.max_abs + 8, first.b);
      raise(to.max_abs + 16, second.a);
      raise(to.max_abs + 24, second.b);
    }
  }
  for (std::size_t r = 0; r < tile.rows; ++r) {
    add_runs(lanes[r].sum_abs, _mm256_load_ps(runs[r]), scale.x);
    add_runs(lanes[r].sum_abs + 8, _mm256_load_ps(runs[r] + 8), scale.x);
    if constexpr (!kScaled) raise(lanes[r].max_abs, _mm256_load_ps(largest[r]));
  }
  return left_out;
}

unsigned tile_bf16(const family::TileView<std::uint16_t>& tile, family::StripColumns* columns,
                   family::RowLanes* lanes, std::uint32_t* counts) {
  for (std::size_t r = 0; r < tile.rows && counts != nullptr; ++r) {
    const std::uint16_t* row = tile.x + r * tile.stride;
    for (std::size_t c = 0; c < tile.cols; ++c) ++counts[row[c]];
  }
  return add_tile<Words, false>(tile, {}, columns, lanes);
}

unsigned tile_f32(const family::TileView<float>& tile, const family::TileScale* scale,
                  family::StripColumns* columns, family::RowLanes* lanes) {
  return scale != nullptr ? add_tile<Floats, true>(tile, *scale, columns, lanes)
                          : add_tile<Floats, false>(tile, {}, columns, lanes);
}

}  // namespace

extern const tensor_stats::Entry tensor_stats_entry = {Isa::avx2, chunk,     find,
                                                       columns,   tile_bf16, tile_f32};

}  // namespace quell::kernels::avx2
QUELL_TARGET_END
