// SPDX-License-Identifier: Apache-2.0

// As avx512.cpp, eight at a time.

#include <immintrin.h>

#include "kernels/cpu/quantize_rows/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX2)
namespace quell::kernels::avx2 {
namespace {

QUELL_INLINE __m256i lanes_from(std::size_t i, std::size_t n) {
  const int left = n - i >= 8 ? 8 : static_cast<int>(n - i);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(left), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

QUELL_INLINE __m256 values(const float* x, const float* factors, std::size_t i, std::size_t n) {
  const __m256i lanes = lanes_from(i, n);
  const __m256 value = _mm256_maskload_ps(x + i, lanes);
  return factors == nullptr ? value : _mm256_mul_ps(value, _mm256_maskload_ps(factors + i, lanes));
}

float absmax(const float* x, const float* factors, std::size_t n) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i most = _mm256_setzero_si256();
  for (std::size_t i = 0; i < n; i += 8) {
    const __m256i bits = _mm256_castps_si256(values(x, factors, i, n));
    most = _mm256_max_epi32(most, _mm256_and_si256(bits, magnitude));
  }
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return _mm_cvtss_f32(_mm_castsi128_ps(four));
}

void round(const float* x, const float* factors, std::size_t n, float lift, float inverse,
           std::int8_t* codes) {
  const __m256 up = _mm256_set1_ps(lift), by = _mm256_set1_ps(inverse);
  for (std::size_t i = 0; i < n; i += 8) {
    const __m256 scaled = _mm256_mul_ps(_mm256_mul_ps(values(x, factors, i, n), up), by);
    const __m256i whole = _mm256_cvtps_epi32(scaled);
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    const long long eight = _mm_cvtsi128_si64(_mm_packs_epi16(words, words));
    __builtin_memcpy(codes + i, &eight, n - i >= 8 ? 8 : n - i);
  }
}

// Bytes with the sign bit flipped are codes plus 128, which an instruction for the sum of absolute
// differences adds up by eights.
std::int32_t sum(const std::int8_t* codes, std::size_t n) {
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(-128)), zero = _mm256_setzero_si256();
  __m256i eights = zero;
  std::size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m256i some = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i));
    eights = _mm256_add_epi64(eights, _mm256_sad_epu8(_mm256_xor_si256(some, flip), zero));
  }
  const __m128i two =
      _mm_add_epi64(_mm256_castsi256_si128(eights), _mm256_extracti128_si256(eights, 1));
  auto sum = static_cast<std::int32_t>(_mm_cvtsi128_si64(two) + _mm_extract_epi64(two, 1)) -
             static_cast<std::int32_t>(128 * i);
  for (; i < n; ++i) sum += codes[i];
  return sum;
}

}  // namespace

extern const quantize_rows_family::Entry quantize_rows_entry = {Isa::avx2, absmax, round, sum};

}  // namespace quell::kernels::avx2
QUELL_TARGET_END
