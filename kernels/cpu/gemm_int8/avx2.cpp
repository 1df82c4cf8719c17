// SPDX-License-Identifier: Apache-2.0

// Up to four tokens by eight or sixteen output channels. vpmaddubsw adds two products of a byte in
// 16 bits: with a code below 16 at most 2 * 15 * 127 = 3,810, so eight of them fit (30,480) and one
// vpmaddwd widens the eight. A code of eight bits is two of four, and the vpmaddwd that widens the
// upper one multiplies it by 16 as well: exact for every code and activation, where the usual trick
// with signs is not for -128.

#include <immintrin.h>

#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX2)
namespace quell::kernels::avx2 {
namespace {

namespace family = gemm_int8;

constexpr unsigned kTileRows = 4;
constexpr std::size_t kTogether = 8;  // units
constexpr std::size_t kAhead = 2048;  // bytes, as in avx512vnni.cpp

QUELL_INLINE __m256i load(const void* from) {
  return _mm256_load_si256(static_cast<const __m256i*>(from));
}

/// Eight scales from the c-th on.
QUELL_INLINE __m256 scales_of(PanelScales type, const std::byte* tail, std::size_t c) {
  if (type == PanelScales::none) return _mm256_set1_ps(1.0f);
  if (type == PanelScales::f32) return _mm256_load_ps(reinterpret_cast<const float*>(tail) + c);
  const __m128i words = _mm_load_si128(reinterpret_cast<const __m128i*>(tail + 2 * c));
  if (type == PanelScales::f16) return _mm256_cvtph_ps(words);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

/// I of `kRows` tokens and eight channels from the c-th on, as it is before the units of this call.
template <unsigned kRows>
QUELL_INLINE void start(const family::TileProduct& p, std::size_t g, std::size_t c,
                        __m256i (&sums)[kRows]) {
  __m256i zero = _mm256_set1_epi32(1);
  if (p.zeros) {
    const std::byte* zeros = p.tail + g * p.block_bytes + (p.scales == PanelScales::f32 ? 128 : 64);
    zero = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros + c)));
  }
  QUELL_UNROLL
  for (unsigned r = 0; r < kRows; ++r) {
    if (!p.begins) {
      sums[r] = load(p.carry + r * kPanelCols + c);
      continue;
    }
    sums[r] = _mm256_mullo_epi32(zero, _mm256_set1_epi32(p.starts[g * kRows + r]));
  }
}

template <unsigned kRows>
QUELL_INLINE void finish(const family::TileProduct& p, std::size_t g, std::size_t c,
                         const __m256i (&sums)[kRows]) {
  if (!p.ends) {
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(p.carry + r * kPanelCols + c), sums[r]);
    }
    return;
  }
  const __m256 scale = scales_of(p.scales, p.tail + g * p.block_bytes, c);
  const bool set = p.first && g == 0;
  QUELL_UNROLL
  for (unsigned r = 0; r < kRows; ++r) {
    float* y = p.y + r * kPanelCols + c;
    const __m256 before = set ? _mm256_setzero_ps() : _mm256_load_ps(y);
    _mm256_store_ps(y, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r]), scale, before));
  }
}

/// Two sets of eight: of four-bit codes, channels c and c + 16; of eight-bit codes, the lower and
/// the upper halves of the codes of channels c.
template <unsigned kRows, unsigned kBits>
QUELL_INLINE void multiply_eights(const family::TileProduct& p, std::size_t g, std::size_t c) {
  constexpr std::size_t kUnitBytes = kPanelCols * kUnit * kBits / 8;
  const std::byte* codes = p.codes + g * p.block_bytes + 4 * c;
  const __m256i half = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  const __m256i weight_of_second = kBits == 4 ? ones : _mm256_set1_epi16(16);
  __m256i first[kRows], second[kRows];
  start<kRows>(p, g, c, first);
  if constexpr (kBits == 4) start<kRows>(p, g, c + 16, second);
  for (std::size_t u = p.first_unit + g * p.units, end = u + p.units; u < end;) {
    // Eight units are half a block of activations.
    const std::size_t next = (u / kTogether + 1) * kTogether, stop = next < end ? next : end;
    const std::int8_t* a = p.a + u / family::kBlockUnits * kRows * family::kBlockBytes +
                           u % family::kBlockUnits * kUnit;
    __m256i narrow[kRows][2];
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) narrow[r][0] = narrow[r][1] = _mm256_setzero_si256();
    for (; u < stop; ++u) {
      _mm_prefetch(codes + kAhead, _MM_HINT_T0);
      const __m256i both = load(codes);
      const __m256i low = _mm256_and_si256(both, half);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), half);
      QUELL_UNROLL
      for (unsigned r = 0; r < kRows; ++r) {
        std::int32_t four = 0;
        __builtin_memcpy(&four, a + r * family::kBlockBytes, sizeof four);
        const __m256i x = _mm256_set1_epi32(four);
        narrow[r][0] = _mm256_add_epi16(narrow[r][0], _mm256_maddubs_epi16(low, x));
        narrow[r][1] = _mm256_add_epi16(narrow[r][1], _mm256_maddubs_epi16(high, x));
      }
      codes += kUnitBytes;
      a += kUnit;
    }
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      __m256i& of_second = kBits == 4 ? second[r] : first[r];
      first[r] = _mm256_add_epi32(first[r], _mm256_madd_epi16(narrow[r][0], ones));
      of_second = _mm256_add_epi32(of_second, _mm256_madd_epi16(narrow[r][1], weight_of_second));
    }
  }
  finish<kRows>(p, g, c, first);
  if constexpr (kBits == 4) finish<kRows>(p, g, c + 16, second);
}

template <unsigned kRows, unsigned kBits>
void multiply_rows(const family::TileProduct& p) {
  for (std::size_t g = 0; g < p.groups; ++g) {
    for (std::size_t c = 0; c < kPanelCols * kBits / 8; c += 8) {
      multiply_eights<kRows, kBits>(p, g, c);
    }
  }
}

template <unsigned kBits>
void multiply(const family::TileProduct& p) {
  switch (p.rows) {
    case 1:
      return multiply_rows<1, kBits>(p);
    case 2:
      return multiply_rows<2, kBits>(p);
    case 3:
      return multiply_rows<3, kBits>(p);
    default:
      return multiply_rows<4, kBits>(p);
  }
}

}  // namespace

extern const gemm_int8::Entry gemm_int8_entries[2] = {
    {Isa::avx2, 4, kTileRows, kTileRows, 1, multiply<4>},
    {Isa::avx2, 8, kTileRows, kTileRows, 1, multiply<8>}};

}  // namespace quell::kernels::avx2
QUELL_TARGET_END
