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

}  // namespace

extern const tensor_stats::Entry tensor_stats_entry = {Isa::avx512, chunk, find, columns};

}  // namespace quell::kernels::avx512
QUELL_TARGET_END
