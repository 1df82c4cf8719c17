// SPDX-License-Identifier: Apache-2.0
#pragma once

// A unit of a panel (four input channels of 32 output channels) as pairs of bfloat16, two registers
// for each pair: lane c of 32 bits has input channel 2 p in its low half and 2 p + 1 in its high
// half. That is what vdpbf16ps multiplies and what a row of a tile of AMX holds.
//
// Four-bit codes without a line of zeros go through a table of 32 words, the sixteen values twice:
// vpermw looks at the five lowest bits of a word, so that the fifth, which belongs to the other
// code, makes no difference. Others become floats, less their zero, and give their upper halves:
// whole numbers up to 255 have nothing in the lower ones.

#include <immintrin.h>

#include "kernels/cpu/gemm_bf16/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512)
namespace quell::kernels::gemm_bf16 {
namespace {  // an object for an instruction set exports its entry alone

// Bytes of codes, as in gemm_float.
constexpr std::size_t kAhead = 2048;

struct Pair {
  __m512i low, high;  // OC 0..15, OC 16..31
};
struct FloatPair {
  __m512 low, high;
};

template <Weights kWeights, bool kZeros>
struct Decoder {
  __m512i words;  // the table, twice, or which words of two lines
  __m512 table;   // of four-bit codes that have a zero of their own
  FloatPair zero;

  QUELL_INLINE Decoder(const TileProduct& p, const std::byte* tail) {
    words = _mm512_setzero_si512();
    table = _mm512_setzero_ps();
    zero.low = zero.high = _mm512_set1_ps(p.zero);
    if constexpr (kWeights == Weights::bf16) {
      // 0, 32, 1, 33, ...: word 2 c is c of the first line, 2 c + 1 is c of the second.
      words = _mm512_cvtepu16_epi32(
          _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
      words = _mm512_or_si512(words, _mm512_slli_epi32(words, 16));
      words = _mm512_or_si512(words, _mm512_set1_epi32(32 << 16));
    } else if constexpr (kWeights == Weights::four_bits) {
      table = _mm512_loadu_ps(p.table);
      const __m256i halves =
          _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(table), 16));
      words = _mm512_broadcast_i64x4(halves);
    }
    if constexpr (kZeros) {
      const auto* zeros =
          reinterpret_cast<const __m128i*>(tail + (p.scales == PanelScales::f32 ? 128 : 64));
      zero.low = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128(zeros)));
      zero.high = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128(zeros + 1)));
    }
  }

  /// Input channels 2 kPair and 2 kPair + 1 of a unit.
  template <unsigned kPair>
  QUELL_INLINE Pair pair(const std::byte* unit) const {
    if constexpr (kWeights == Weights::bf16) {
      const __m512i first = _mm512_load_si512(unit + 128 * kPair);
      const __m512i second = _mm512_load_si512(unit + 128 * kPair + 64);
      const __m512i further = _mm512_add_epi16(words, _mm512_set1_epi16(16));
      return {_mm512_permutex2var_epi16(first, words, second),
              _mm512_permutex2var_epi16(first, further, second)};
    } else if constexpr (kWeights == Weights::four_bits && !kZeros) {
      // Bytes 4 c + 2 p and 4 c + 2 p + 1 to words, 0x80 making a zero.
      constexpr int kFrom = 2 * kPair, kFirst = static_cast<int>(0x80008000u);
      const __m512i pick = _mm512_broadcast_i32x4(_mm_setr_epi32(
          kFirst | kFrom | (kFrom + 1) << 16, kFirst | (kFrom + 4) | (kFrom + 5) << 16,
          kFirst | (kFrom + 8) | (kFrom + 9) << 16, kFirst | (kFrom + 12) | (kFrom + 13) << 16));
      const __m512i codes = _mm512_shuffle_epi8(_mm512_load_si512(unit), pick);
      return {_mm512_permutexvar_epi16(codes, words),
              _mm512_permutexvar_epi16(_mm512_srli_epi16(codes, 4), words)};
    } else {
      const FloatPair even = floats<2 * kPair>(unit), odd = floats<2 * kPair + 1>(unit);
      return {joined(even.low, odd.low), joined(even.high, odd.high)};
    }
  }

 private:
  template <unsigned kChannel>
  QUELL_INLINE FloatPair floats(const std::byte* unit) const {
    const __m512i line = _mm512_load_si512(unit);
    FloatPair w;
    if constexpr (kWeights == Weights::four_bits) {
      w.low = _mm512_permutexvar_ps(_mm512_srli_epi32(line, 8 * kChannel), table);
      w.high = _mm512_permutexvar_ps(_mm512_srli_epi32(line, 8 * kChannel + 4), table);
    } else {
      w.low = widened<kChannel>(line);
      w.high = widened<kChannel>(_mm512_load_si512(unit + 64));
    }
    return {_mm512_sub_ps(w.low, zero.low), _mm512_sub_ps(w.high, zero.high)};
  }
  template <unsigned kChannel>
  static QUELL_INLINE __m512 widened(__m512i codes) {
    const __m512i one =
        _mm512_and_si512(_mm512_srli_epi32(codes, 8 * kChannel), _mm512_set1_epi32(255));
    return _mm512_cvtepi32_ps(one);
  }
  static QUELL_INLINE __m512i joined(__m512 even, __m512 odd) {
    return _mm512_mask_blend_epi16(0xAAAA'AAAAu, _mm512_srli_epi32(_mm512_castps_si512(even), 16),
                                   _mm512_castps_si512(odd));
  }
};

QUELL_INLINE FloatPair scales_of(PanelScales type, const std::byte* tail) {
  if (type == PanelScales::none) return {_mm512_set1_ps(1.0f), _mm512_set1_ps(1.0f)};
  if (type == PanelScales::f32) return {_mm512_load_ps(tail), _mm512_load_ps(tail + 64)};
  const auto* words = reinterpret_cast<const __m256i*>(tail);
  const __m256i low = _mm256_load_si256(words), high = _mm256_load_si256(words + 1);
  if (type == PanelScales::f16) return {_mm512_cvtph_ps(low), _mm512_cvtph_ps(high)};
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(low), 16)),
          _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16))};
}

/// y = fma(sum, scale, y) for one token; y from +0 with `set`.
QUELL_INLINE void add_scaled(const FloatPair& sum, const FloatPair& scale, bool set, float* y) {
  const __m512 low = set ? _mm512_setzero_ps() : _mm512_load_ps(y);
  const __m512 high = set ? _mm512_setzero_ps() : _mm512_load_ps(y + 16);
  _mm512_store_ps(y, _mm512_fmadd_ps(sum.low, scale.low, low));
  _mm512_store_ps(y + 16, _mm512_fmadd_ps(sum.high, scale.high, high));
}

}  // namespace
}  // namespace quell::kernels::gemm_bf16
QUELL_TARGET_END
