// SPDX-License-Identifier: Apache-2.0
#pragma once

// gemm_bf16 over the instruction that multiplies pairs of bfloat16, which is a parameter:
// avx512bf16.cpp has that of the processor, a test plain C++ of the same meaning. All else is
// AVX-512.
//
// Up to twelve tokens by 32 output channels: 24 accumulators, two registers of weights, one of
// activations, the table. A pair of input channels is 24 products beside two lookups, a shuffle, a
// shift and twelve broadcasts.

#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/gemm_bf16/contract.hpp"
#include "kernels/cpu/gemm_bf16/pairs.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512)
namespace quell::kernels::avx512bf16 {
namespace {  // an object for an instruction set exports its entry alone

namespace family = gemm_bf16;
using family::Weights;

constexpr unsigned kTokens = 12;

struct Bf16Vectors {
  /// sum += x_1 w_1, then sum += x_0 w_0, of each lane's pairs; each addition rounds to nearest
  /// even, subnormal numbers count as zero. Written out: assemblers of 2020 know it, and GCC 12
  /// keeps no copies of accumulators.
  static QUELL_INLINE void add_products(__m512& sum, __m512i x, __m512i w) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
  }
};

template <unsigned kRows>
struct Sums {
  __m512 low[kRows], high[kRows];
};

template <typename Vectors, unsigned kRows>
QUELL_INLINE void add_pair(const std::uint16_t* x, const family::Pair& w, Sums<kRows>& sums) {
  QUELL_UNROLL
  for (unsigned r = 0; r < kRows; ++r) {
    std::int32_t both;
    std::memcpy(&both, x + r * family::kBlock, sizeof both);
    const __m512i value = _mm512_set1_epi32(both);
    Vectors::add_products(sums.low[r], value, w.low);
    Vectors::add_products(sums.high[r], value, w.high);
  }
}

/// Units [begin, end) of group g, a chunk.
template <typename Vectors, unsigned kRows, Weights kWeights, bool kZeros>
QUELL_INLINE void multiply_chunk(const family::TileProduct& p, std::size_t g, std::size_t begin,
                                 std::size_t end) {
  constexpr std::size_t kUnitBytes = family::unit_bytes(kWeights);
  const std::byte* tail = p.tail + g * p.block_bytes;
  const std::byte* unit = p.codes + g * p.block_bytes + begin * kUnitBytes;
  const family::Decoder<kWeights, kZeros> decoder(p, tail);
  Sums<kRows> sums;
  QUELL_UNROLL
  for (unsigned r = 0; r < kRows; ++r) sums.low[r] = sums.high[r] = _mm512_setzero_ps();
  std::size_t at = p.first_unit + g * p.units + begin;
  for (std::size_t u = begin; u < end; ++u, ++at, unit += kUnitBytes) {
    QUELL_UNROLL
    for (std::size_t line = 0; line < kUnitBytes; line += 64) {
      _mm_prefetch(unit + family::kAhead + line, _MM_HINT_T0);
    }
    const std::uint16_t* x =
        p.a + at / family::kBlockUnits * kRows * family::kBlock + at % family::kBlockUnits * kUnit;
    add_pair<Vectors, kRows>(x, decoder.template pair<0>(unit), sums);
    add_pair<Vectors, kRows>(x + 2, decoder.template pair<1>(unit), sums);
  }
  const family::FloatPair scale = family::scales_of(p.scales, tail);
  const bool set = p.first && g == 0 && begin == 0;
  QUELL_UNROLL
  for (unsigned r = 0; r < kRows; ++r) {
    family::add_scaled({sums.low[r], sums.high[r]}, scale, set, p.y + r * kPanelCols);
  }
}

template <typename Vectors, unsigned kRows, Weights kWeights, bool kZeros>
void multiply_rows(const family::TileProduct& p) {
  for (std::size_t g = 0; g < p.groups; ++g) {
    for (std::size_t begin = 0; begin < p.units; begin += family::kChunkUnits) {
      const std::size_t left = p.units - begin;
      const std::size_t units = left < family::kChunkUnits ? left : family::kChunkUnits;
      multiply_chunk<Vectors, kRows, kWeights, kZeros>(p, g, begin, begin + units);
    }
  }
}

using Multiply = void (*)(const family::TileProduct&);

template <typename Vectors, Weights kWeights, bool kZeros>
void multiply_as(const family::TileProduct& p) {
  constexpr Multiply kByRows[kTokens] = {
      multiply_rows<Vectors, 1, kWeights, kZeros>,  multiply_rows<Vectors, 2, kWeights, kZeros>,
      multiply_rows<Vectors, 3, kWeights, kZeros>,  multiply_rows<Vectors, 4, kWeights, kZeros>,
      multiply_rows<Vectors, 5, kWeights, kZeros>,  multiply_rows<Vectors, 6, kWeights, kZeros>,
      multiply_rows<Vectors, 7, kWeights, kZeros>,  multiply_rows<Vectors, 8, kWeights, kZeros>,
      multiply_rows<Vectors, 9, kWeights, kZeros>,  multiply_rows<Vectors, 10, kWeights, kZeros>,
      multiply_rows<Vectors, 11, kWeights, kZeros>, multiply_rows<Vectors, 12, kWeights, kZeros>};
  kByRows[p.rows - 1](p);
}

template <typename Vectors, Weights kWeights>
void multiply(const family::TileProduct& p) {
  if constexpr (kWeights != Weights::bf16) {
    if (p.zeros) return multiply_as<Vectors, kWeights, true>(p);
  }
  multiply_as<Vectors, kWeights, false>(p);
}

template <typename Vectors, Weights kWeights>
constexpr family::Entry entry_of() {
  return {Isa::avx512bf16, kWeights, kTokens, multiply<Vectors, kWeights>, 0, nullptr, nullptr};
}

}  // namespace
}  // namespace quell::kernels::avx512bf16
QUELL_TARGET_END
