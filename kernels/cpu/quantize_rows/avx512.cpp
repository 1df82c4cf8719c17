// SPDX-License-Identifier: Apache-2.0

// Two passes over a row, which the first leaves in the first cache. Magnitudes are compared as
// integers: there a NaN is the largest of all, and nothing has to look for it.

#include <immintrin.h>

#include "kernels/cpu/quantize_rows/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512)
namespace quell::kernels::avx512 {
namespace {

QUELL_INLINE __mmask16 lanes_from(std::size_t i, std::size_t n) {
  return n - i >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << (n - i)) - 1);
}

template <bool kFactors>
QUELL_INLINE __m512 values(const float* x, const float* factors, std::size_t i, __mmask16 lanes) {
  const __m512 value = _mm512_maskz_loadu_ps(lanes, x + i);
  if constexpr (!kFactors) return value;
  return _mm512_maskz_mul_ps(lanes, value, _mm512_maskz_loadu_ps(lanes, factors + i));
}

template <bool kFactors>
float absmax_of(const float* x, const float* factors, std::size_t n) {
  __m512i most = _mm512_setzero_si512(), other = most;
  std::size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m512 a = values<kFactors>(x, factors, i, 0xffff);
    const __m512 b = values<kFactors>(x, factors, i + 16, 0xffff);
    most = _mm512_max_epi32(most, _mm512_castps_si512(_mm512_abs_ps(a)));
    other = _mm512_max_epi32(other, _mm512_castps_si512(_mm512_abs_ps(b)));
  }
  most = _mm512_max_epi32(most, other);
  for (; i < n; i += 16) {
    const __m512 value = values<kFactors>(x, factors, i, lanes_from(i, n));
    most = _mm512_max_epi32(most, _mm512_castps_si512(_mm512_abs_ps(value)));
  }
  const int bits = _mm512_reduce_max_epi32(most);
  float result = 0;
  __builtin_memcpy(&result, &bits, sizeof result);
  return result;
}

float absmax(const float* x, const float* factors, std::size_t n) {
  return factors != nullptr ? absmax_of<true>(x, factors, n) : absmax_of<false>(x, nullptr, n);
}

template <bool kFactors>
void round_of(const float* x, const float* factors, std::size_t n, float lift, float inverse,
              std::int8_t* codes) {
  const __m512 up = _mm512_set1_ps(lift), by = _mm512_set1_ps(inverse);
  std::size_t i = 0;
  for (; lift == 1 && i + 64 <= n; i += 64) {
    QUELL_UNROLL
    for (std::size_t j = i; j < i + 64; j += 16) {
      const __m512 scaled = _mm512_mul_ps(values<kFactors>(x, factors, j, 0xffff), by);
      const __m128i some = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(scaled));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + j), some);
    }
  }
  for (; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    const __m512 scaled =
        _mm512_mul_ps(_mm512_mul_ps(values<kFactors>(x, factors, i, lanes), up), by);
    _mm512_mask_cvtepi32_storeu_epi8(codes + i, lanes, _mm512_cvtps_epi32(scaled));
  }
}

void round(const float* x, const float* factors, std::size_t n, float lift, float inverse,
           std::int8_t* codes) {
  if (factors != nullptr) return round_of<true>(x, factors, n, lift, inverse, codes);
  round_of<false>(x, nullptr, n, lift, inverse, codes);
}

// Bytes with the sign bit flipped are codes plus 128, which an instruction for the sum of absolute
// differences adds up by eights.
std::int32_t sum(const std::int8_t* codes, std::size_t n) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(-128)), zero = _mm512_setzero_si512();
  __m512i eights = zero;
  for (std::size_t i = 0; i < n; i += 64) {
    const __mmask64 lanes = n - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (n - i)) - 1;
    const __m512i some = _mm512_maskz_loadu_epi8(lanes, codes + i);
    const __m512i flipped = _mm512_maskz_mov_epi8(lanes, _mm512_xor_si512(some, flip));
    eights = _mm512_add_epi64(eights, _mm512_sad_epu8(flipped, zero));
  }
  return static_cast<std::int32_t>(_mm512_reduce_add_epi64(eights)) -
         static_cast<std::int32_t>(128 * n);
}

}  // namespace

extern const quantize_rows_family::Entry quantize_rows_entry = {Isa::avx512, absmax, round, sum};

}  // namespace quell::kernels::avx512
QUELL_TARGET_END
