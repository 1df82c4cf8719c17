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

/// 32 columns in two registers.
struct Pair {
  __m512 a, b;
};

/// 32 words of bfloat16: `a` of their values has the even columns, `b` the odd ones.
struct Words {
  using Element = std::uint16_t;
  __m512i words;

  static QUELL_INLINE Words load(const std::uint16_t* x) { return {_mm512_loadu_si512(x)}; }
  QUELL_INLINE void store(std::uint16_t* x) const { _mm512_store_si512(x, words); }
  static QUELL_INLINE Words zero() { return {_mm512_setzero_si512()}; }
  QUELL_INLINE Pair values() const {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(-0x10000)))};
  }
  QUELL_INLINE Words magnitude() const {
    return {_mm512_and_si512(words, _mm512_set1_epi16(0x7fff))};
  }
  /// Of magnitudes.
  QUELL_INLINE void raise(const Words& other) { words = _mm512_max_epu16(words, other.words); }
  QUELL_INLINE bool any_above_largest_or_only_below_least() const {
    const __m512i largest = _mm512_set1_epi16(0x4980), least = _mm512_set1_epi16(0x3580);
    return _mm512_cmpgt_epu16_mask(words, largest) != 0 ||
           (_mm512_cmpge_epu16_mask(words, least) == 0 &&
            _mm512_test_epi16_mask(words, words) != 0);
  }

  static QUELL_INLINE Pair in_order(const Pair& p) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    return {_mm512_permutex2var_ps(p.a, low, p.b), _mm512_permutex2var_ps(p.a, high, p.b)};
  }
  static QUELL_INLINE Pair even_and_odd(const Pair& p) { return p; }
};

/// 32 floats in order.
struct Floats {
  using Element = float;
  Pair x;

  static QUELL_INLINE Floats load(const float* x) {
    return {{_mm512_loadu_ps(x), _mm512_loadu_ps(x + 16)}};
  }
  QUELL_INLINE void store(float* to) const {
    _mm512_store_ps(to, x.a);
    _mm512_store_ps(to + 16, x.b);
  }
  static QUELL_INLINE Floats zero() { return {{_mm512_setzero_ps(), _mm512_setzero_ps()}}; }
  QUELL_INLINE Pair values() const { return x; }
  QUELL_INLINE Floats magnitude() const { return {{_mm512_abs_ps(x.a), _mm512_abs_ps(x.b)}}; }
  /// A NaN of either stays: its bits are larger as integers.
  QUELL_INLINE void raise(const Floats& other) {
    x = {larger_of(x.a, other.x.a), larger_of(x.b, other.x.b)};
  }
  QUELL_INLINE bool any_above_largest_or_only_below_least() const {
    const __m512i a = _mm512_castps_si512(x.a), b = _mm512_castps_si512(x.b);
    const __m512i largest = _mm512_castps_si512(_mm512_set1_ps(family::kLargest));
    const __m512i least = _mm512_castps_si512(_mm512_set1_ps(family::kLeast));
    const __m512i top = _mm512_max_epi32(a, b);
    return _mm512_cmpgt_epi32_mask(top, largest) != 0 ||
           (_mm512_cmpge_epi32_mask(top, least) == 0 && _mm512_test_epi32_mask(top, top) != 0);
  }

  static QUELL_INLINE Pair in_order(const Pair& p) { return p; }
  static QUELL_INLINE Pair even_and_odd(const Pair& p) {
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return {_mm512_permutex2var_ps(p.a, even, p.b), _mm512_permutex2var_ps(p.a, odd, p.b)};
  }

 private:
  static QUELL_INLINE __m512 larger_of(__m512 a, __m512 b) {
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
  }
};

/// Sixteen runs times `scale` to sixteen sums.
QUELL_INLINE void add_runs(double* sums, __m512 runs, double scale) {
  const __m512d by = _mm512_set1_pd(scale);
  _mm512_store_pd(sums, _mm512_fmadd_pd(low_half(runs), by, _mm512_load_pd(sums)));
  _mm512_store_pd(sums + 8, _mm512_fmadd_pd(high_half(runs), by, _mm512_load_pd(sums + 8)));
}
QUELL_INLINE void raise(float* maxima, __m512 values) {
  _mm512_store_ps(maxima, _mm512_max_ps(_mm512_load_ps(maxima), values));
}

/// The five runs of sixteen columns.
struct Runs {
  __m512 sum, sum2, sum3, sum4, sum_abs;
};
QUELL_INLINE void add_row(Runs& s, __m512 x, __m512 magnitude) {
  const __m512 q = _mm512_mul_ps(x, x);
  s.sum = _mm512_add_ps(s.sum, x);
  s.sum2 = _mm512_fmadd_ps(x, x, s.sum2);
  s.sum3 = _mm512_fmadd_ps(q, x, s.sum3);
  s.sum4 = _mm512_fmadd_ps(q, q, s.sum4);
  s.sum_abs = _mm512_add_ps(s.sum_abs, magnitude);
}
template <typename V>
QUELL_INLINE void add_pair(double* sums, __m512 a, __m512 b, double scale) {
  const Pair runs = V::in_order({a, b});
  add_runs(sums, runs.a, scale);
  add_runs(sums + 16, runs.b, scale);
}

QUELL_INLINE void count_four(const std::uint16_t* words, std::uint32_t* counts) {
  std::uint64_t four = 0;
  __builtin_memcpy(&four, words, sizeof four);
  ++counts[four & 0xffff];
  ++counts[(four >> 16) & 0xffff];
  ++counts[(four >> 32) & 0xffff];
  ++counts[four >> 48];
}

/// What a tile gives to its rows, in the first cache.
template <typename V>
struct alignas(64) Rows {
  float runs[family::kTileRows][16];
  typename V::Element largest[family::kTileRows][family::kStrip];

  QUELL_INLINE void start(std::size_t rows) {
    for (std::size_t r = 0; r < rows; ++r) {
      _mm512_store_ps(runs[r], _mm512_setzero_ps());
      V::zero().store(largest[r]);
    }
  }
  QUELL_INLINE void add(std::size_t r, const V& magnitude, const Pair& magnitudes) {
    const Pair parts = V::even_and_odd(magnitudes);
    _mm512_store_ps(runs[r],
                    _mm512_add_ps(_mm512_load_ps(runs[r]), _mm512_add_ps(parts.a, parts.b)));
    V most = V::load(largest[r]);
    most.raise(magnitude);
    most.store(largest[r]);
  }
  /// From the start, without the strips that are left out: it costs less to do this when such a
  /// strip has been met, which is rare, than to hold every strip back until it is known.
  void start_again(const family::TileView<typename V::Element>& tile, unsigned left_out) {
    start(tile.rows);
    for (std::size_t c = 0; c < tile.cols; c += family::kStrip) {
      if ((left_out >> (c / family::kStrip) & 1) != 0) continue;
      for (std::size_t r = 0; r < tile.rows; ++r) {
        const V magnitude = V::load(tile.x + r * tile.stride + c).magnitude();
        add(r, magnitude, magnitude.values());
      }
    }
  }
};

// A strip's ten column runs stay in registers over its rows. Lines are fetched four strips ahead:
// two leave memory waiting, eight push each other out of the first cache where rows are a power of
// two apart. kRows: all rows of a whole tile, or 0.
template <typename V, bool kCount, bool kScaled, std::size_t kRows>
QUELL_INLINE unsigned add_tile(const family::TileView<typename V::Element>& tile,
                               const family::TileScale& scale, family::StripColumns* columns,
                               family::RowLanes* lanes, std::uint32_t* counts) {
  using Element = typename V::Element;
  constexpr std::size_t kAhead = 4 * family::kStrip, kLine = 64 / sizeof(Element);
  const std::size_t row_count = kRows != 0 ? kRows : tile.rows;
  const __m512 zero = _mm512_setzero_ps();
  Rows<V> rows;
  rows.start(row_count);
  unsigned left_out = 0;
  for (std::size_t c = 0; c < tile.cols; c += family::kStrip) {
    Runs a = {zero, zero, zero, zero, zero}, b = a;
    V most = V::zero();
    for (std::size_t r = 0; r < row_count; ++r) {
      const Element* from = tile.x + r * tile.stride + c;
      QUELL_UNROLL
      for (std::size_t i = 0; i < family::kStrip; i += kLine) {
        _mm_prefetch(from + kAhead + i, _MM_HINT_T0);
      }
      const V x = V::load(from), magnitude = x.magnitude();
      const Pair values = x.values(), magnitudes = magnitude.values();
      add_row(a, values.a, magnitudes.a);
      add_row(b, values.b, magnitudes.b);
      most.raise(magnitude);
      rows.add(r, magnitude, magnitudes);
      if constexpr (kCount) {
        QUELL_UNROLL
        for (int i = 0; i < 32; i += 4) count_four(from + i, counts);
      }
    }
    const std::size_t strip = c / family::kStrip;
    if (!kScaled && most.any_above_largest_or_only_below_least()) {
      left_out |= 1u << strip;
      continue;
    }
    family::StripColumns& to = columns[strip];
    add_pair<V>(to.sum, a.sum, b.sum, scale.x);
    add_pair<V>(to.sum2, a.sum2, b.sum2, scale.x2);
    add_pair<V>(to.sum3, a.sum3, b.sum3, scale.x3);
    add_pair<V>(to.sum4, a.sum4, b.sum4, scale.x4);
    add_pair<V>(to.sum_abs, a.sum_abs, b.sum_abs, scale.x);
    if constexpr (!kScaled) {
      const Pair maxima = V::in_order(most.values());
      raise(to.max_abs, maxima.a);
      raise(to.max_abs + 16, maxima.b);
    }
  }
  if (left_out != 0) rows.start_again(tile, left_out);
  for (std::size_t r = 0; r < row_count; ++r) {
    add_runs(lanes[r].sum_abs, _mm512_load_ps(rows.runs[r]), scale.x);
    if constexpr (kScaled) continue;
    const Pair maxima = V::load(rows.largest[r]).values();
    raise(lanes[r].max_abs, _mm512_max_ps(maxima.a, maxima.b));
  }
  return left_out;
}

template <typename V, bool kCount>
unsigned add_unscaled(const family::TileView<typename V::Element>& tile,
                      family::StripColumns* columns, family::RowLanes* lanes,
                      std::uint32_t* counts) {
  return tile.rows == family::kTileRows
             ? add_tile<V, kCount, false, family::kTileRows>(tile, {}, columns, lanes, counts)
             : add_tile<V, kCount, false, 0>(tile, {}, columns, lanes, counts);
}

unsigned tile_bf16(const family::TileView<std::uint16_t>& tile, family::StripColumns* columns,
                   family::RowLanes* lanes, std::uint32_t* counts) {
  return counts != nullptr ? add_unscaled<Words, true>(tile, columns, lanes, counts)
                           : add_unscaled<Words, false>(tile, columns, lanes, nullptr);
}

unsigned tile_f32(const family::TileView<float>& tile, const family::TileScale* scale,
                  family::StripColumns* columns, family::RowLanes* lanes) {
  return scale != nullptr ? add_tile<Floats, false, true, 0>(tile, *scale, columns, lanes, nullptr)
                          : add_unscaled<Floats, false>(tile, columns, lanes, nullptr);
}

}  // namespace

extern const tensor_stats::Entry tensor_stats_entry = {Isa::avx512, chunk,     find,
                                                       columns,     tile_bf16, tile_f32};

}  // namespace quell::kernels::avx512
QUELL_TARGET_END
