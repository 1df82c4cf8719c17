// SPDX-License-Identifier: Apache-2.0

// Up to four tokens by sixteen output channels, eight at a time: of four-bit codes the channels c
// and c + 16, of eight-bit ones c and c + 8. A table of sixteen floats is two registers, and the
// fourth bit of a code chooses between two lookups.

#include <immintrin.h>

#include "kernels/cpu/gemm_float/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX2)
namespace quell::kernels::avx2 {
namespace {

namespace family = gemm_float;
using family::Weights;

constexpr unsigned kTileRows = 4;
constexpr std::size_t kAhead = 2048;  // bytes of codes, as in gemm_int8

QUELL_INLINE __m256i load(const std::byte* from) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
}

QUELL_INLINE __m256 scales_of(PanelScales type, const std::byte* tail, std::size_t c) {
  if (type == PanelScales::none) return _mm256_set1_ps(1.0f);
  if (type == PanelScales::f32) return _mm256_load_ps(reinterpret_cast<const float*>(tail) + c);
  const __m128i words = _mm_load_si128(reinterpret_cast<const __m128i*>(tail + 2 * c));
  if (type == PanelScales::f16) return _mm256_cvtph_ps(words);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

QUELL_INLINE __m256 zero_of(const family::TileProduct& p, const std::byte* tail, std::size_t c) {
  if (!p.zeros) return _mm256_set1_ps(p.zero);
  const std::byte* zeros = tail + (p.scales == PanelScales::f32 ? 128 : 64) + c;
  const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros));
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight));
}

template <Weights kWeights>
QUELL_INLINE __m256 float_of(const std::byte* eight) {
  const __m128i words = _mm_load_si128(reinterpret_cast<const __m128i*>(eight));
  if (kWeights == Weights::f16) return _mm256_cvtph_ps(words);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

QUELL_INLINE __m256 looked_up(__m256i index, __m256 first_eight, __m256 last_eight) {
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(first_eight, index),
                          _mm256_permutevar8x32_ps(last_eight, index),
                          _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}

template <unsigned kRows, Weights kWeights, bool kZeros>
QUELL_INLINE void add_chunk(const family::TileProduct& p, std::size_t g, std::size_t unit,
                            std::size_t units, std::size_t c, bool set) {
  constexpr std::size_t kUnitBytes = family::unit_bytes(kWeights);
  constexpr std::size_t kSecond =
      kWeights == Weights::four_bits ? 16 : 8;  // channels from the first eight
  const std::byte* tail = p.tail + g * p.block_bytes;
  constexpr bool kFloats = kWeights == Weights::f16 || kWeights == Weights::bf16;
  const std::byte* codes = p.codes + g * p.block_bytes + unit * kUnitBytes + (kFloats ? 2 : 4) * c;
  const float* a = p.a + (p.first_unit + g * p.units + unit) * kUnit * kRows;
  const __m256 none = _mm256_setzero_ps();
  const __m256 zeros[2] = {zero_of(p, tail, c), zero_of(p, tail, c + kSecond)};
  const __m256 first_eight = kWeights == Weights::four_bits ? _mm256_loadu_ps(p.table) : none;
  const __m256 last_eight = kWeights == Weights::four_bits ? _mm256_loadu_ps(p.table + 8) : none;
  __m256 sums[kRows][2];
  QUELL_UNROLL
  for (unsigned r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = none;
  for (std::size_t u = 0; u < units; ++u) {
    QUELL_UNROLL
    for (std::size_t i = 0; i < (kFloats ? kUnitBytes : 64); i += 64) {
      _mm_prefetch(codes + kAhead + i, _MM_HINT_T0);
    }
    __m256i line = _mm256_setzero_si256(), other = line;
    if constexpr (!kFloats) {
      line = load(codes);
      other = kWeights == Weights::four_bits ? _mm256_srli_epi32(line, 4) : load(codes + 32);
    }
    QUELL_UNROLL
    for (unsigned b = 0; b < kUnit; ++b) {
      const int shift = static_cast<int>(8 * b);
      __m256 w[2];
      if constexpr (kFloats) {
        w[0] = float_of<kWeights>(codes + 64 * b);
        w[1] = float_of<kWeights>(codes + 64 * b + 2 * kSecond);
      } else if constexpr (kWeights == Weights::four_bits) {
        w[0] = looked_up(_mm256_srli_epi32(line, shift), first_eight, last_eight);
        w[1] = looked_up(_mm256_srli_epi32(other, shift), first_eight, last_eight);
      } else {
        const __m256i byte = _mm256_set1_epi32(255);
        w[0] = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(line, shift), byte));
        w[1] = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(other, shift), byte));
      }
      if constexpr (kWeights == Weights::eight_bits || kZeros) {
        w[0] = _mm256_sub_ps(w[0], zeros[0]);
        w[1] = _mm256_sub_ps(w[1], zeros[1]);
      }
      QUELL_UNROLL
      for (unsigned r = 0; r < kRows; ++r) {
        const __m256 x = _mm256_set1_ps(a[b * kRows + r]);
        sums[r][0] = _mm256_fmadd_ps(x, w[0], sums[r][0]);
        sums[r][1] = _mm256_fmadd_ps(x, w[1], sums[r][1]);
      }
    }
    codes += kUnitBytes;
    a += kUnit * kRows;
  }
  QUELL_UNROLL
  for (unsigned i = 0; i < 2; ++i) {
    const std::size_t col = c + i * kSecond;
    const __m256 scale = scales_of(p.scales, tail, col);
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      float* y = p.y + r * kPanelCols + col;
      const __m256 before = set ? none : _mm256_load_ps(y);
      _mm256_store_ps(y, _mm256_fmadd_ps(sums[r][i], scale, before));
    }
  }
}

template <unsigned kRows, Weights kWeights, bool kZeros>
void multiply_rows(const family::TileProduct& p) {
  // Of four-bit codes the eights 0 and 8 with their partners; of eight-bit ones 0 and 16.
  constexpr std::size_t kStep = kWeights == Weights::four_bits ? 8 : 16;
  for (std::size_t g = 0; g < p.groups; ++g) {
    for (std::size_t unit = 0; unit < p.units; unit += family::kChunkUnits) {
      const std::size_t left = p.units - unit;
      const std::size_t units = left < family::kChunkUnits ? left : family::kChunkUnits;
      const bool set = p.first && g == 0 && unit == 0;
      add_chunk<kRows, kWeights, kZeros>(p, g, unit, units, 0, set);
      add_chunk<kRows, kWeights, kZeros>(p, g, unit, units, kStep, set);
    }
  }
}

template <Weights kWeights, bool kZeros>
void multiply_as(const family::TileProduct& p) {
  switch (p.rows) {
    case 1:
      return multiply_rows<1, kWeights, kZeros>(p);
    case 2:
      return multiply_rows<2, kWeights, kZeros>(p);
    case 3:
      return multiply_rows<3, kWeights, kZeros>(p);
    default:
      return multiply_rows<4, kWeights, kZeros>(p);
  }
}

template <Weights kWeights>
void multiply(const family::TileProduct& p) {
  if constexpr (kWeights == Weights::four_bits || kWeights == Weights::eight_bits) {
    if (p.zeros) return multiply_as<kWeights, true>(p);
  }
  multiply_as<kWeights, false>(p);
}

}  // namespace

extern const gemm_float::Entry gemm_float_entries[gemm_float::kKinds] = {
    {Isa::avx2, Weights::four_bits, kTileRows, multiply<Weights::four_bits>},
    {Isa::avx2, Weights::eight_bits, kTileRows, multiply<Weights::eight_bits>},
    {Isa::avx2, Weights::f16, kTileRows, multiply<Weights::f16>},
    {Isa::avx2, Weights::bf16, kTileRows, multiply<Weights::bf16>}};

}  // namespace quell::kernels::avx2
QUELL_TARGET_END
