// SPDX-License-Identifier: Apache-2.0

// 24 integer accumulators, and around them as few loads as can be: an Ice Lake server was measured
// to load 64 bytes, or to spread four over a register, once a cycle, while it begins two products.
//
// Codes of 8 bits: 6 tokens by 64 output channels, two panels at once. 10 loads for 24 products
// reach 95 % of the limit of products where 12 tokens by 32 channels, 14 loads, reach 84 %.
//
// Codes of 4 bits: 12 tokens by 32 output channels. A byte holds low + 16 high, and it is
// multiplied as it is; a second product is that of 16 high, the byte with its lower half cleared.
// So a register of codes costs one instruction, not three, and at the end of a group
//     sum of low = first - second,     sum of high = second / 16     (whole numbers, exact)
// 91 % of the limit without groups; 84 % with both halves taken apart, 86 % at 6 by 64.
//
// Embedded broadcasts ({1to16} operands) are a load for each product: 0.6 times.

#include <immintrin.h>

#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512VNNI)
namespace quell::kernels::avx512vnni {
namespace {

namespace family = gemm_int8;

// How far ahead codes are asked for: decoding is a read of memory, and the machine's own
// prefetching alone left a tenth of it.
constexpr std::size_t kAhead = 2048;
// Rows up to which it is memory that decides. Beyond them a request is one load more among 13.
constexpr unsigned kDecoding = 8;
constexpr unsigned kTileRows = 12;

constexpr std::int32_t kNone[kTileRows] = {};

// Written out: GCC 12 keeps copies of accumulators that start from a common value, and spills.
QUELL_INLINE void add_products(__m512i& sum, __m512i codes, __m512i x) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(x));
}

QUELL_INLINE void scales_of(PanelScales type, const std::byte* tail, __m512& low, __m512& high) {
  switch (type) {
    case PanelScales::none:
      low = high = _mm512_set1_ps(1.0f);
      return;
    case PanelScales::f32:
      low = _mm512_load_ps(tail);
      high = _mm512_load_ps(tail + 64);
      return;
    case PanelScales::f16:
      low = _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(tail)));
      high = _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(tail + 32)));
      return;
    case PanelScales::bf16: {
      const __m256i* words = reinterpret_cast<const __m256i*>(tail);
      low = _mm512_castsi512_ps(
          _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_load_si256(words)), 16));
      high = _mm512_castsi512_ps(
          _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_load_si256(words + 1)), 16));
      return;
    }
  }
}

QUELL_INLINE __m512i widened(const std::byte* sixteen) {
  return _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(sixteen)));
}

/// One group of kRows tokens and 32 kPanels output channels.
template <unsigned kRows, unsigned kBits, unsigned kPanels>
QUELL_INLINE void multiply_group(const family::TileProduct& p, std::size_t g) {
  constexpr std::size_t kUnitBytes = kPanelCols * kUnit * kBits / 8;
  constexpr unsigned kVectors = 2 * kPanels;
  // The second vector of a panel of four-bit codes holds sixteen times its sum.
  constexpr bool kBoth = kBits == 4;
  const std::byte* tail = p.tail + g * p.block_bytes;
  const std::byte* zeros = tail + (p.scales == PanelScales::f32 ? 128 : 64);
  const std::int32_t* starts = p.starts + g * kRows;
  const std::size_t y_second = p.y_panel;

  __m512i sum[kRows][kVectors];
  if (!p.begins) {
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      QUELL_UNROLL
      for (unsigned v = 0; v < kVectors; ++v) {
        sum[r][v] = _mm512_load_si512(p.carry + v / 2 * y_second + r * kPanelCols + v % 2 * 16);
      }
    }
  } else if (p.zeros) {
    QUELL_UNROLL
    for (unsigned v = 0; v < kVectors; v += 2) {
      const std::byte* of_panel = zeros + v / 2 * p.panel_bytes;
      const __m512i low = widened(of_panel), high = widened(of_panel + 16);
      QUELL_UNROLL
      for (unsigned r = 0; r < kRows; ++r) {
        const __m512i start = _mm512_set1_epi32(starts[r]);
        sum[r][v] = _mm512_mullo_epi32(low, start);
        sum[r][v + 1] = _mm512_mullo_epi32(high, start);
        if constexpr (kBoth) {
          sum[r][v + 1] = _mm512_slli_epi32(sum[r][v + 1], 4);
          sum[r][v] = _mm512_add_epi32(sum[r][v], sum[r][v + 1]);
        }
      }
    }
  } else {
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      const __m512i start = _mm512_set1_epi32(starts[r]);
      QUELL_UNROLL
      for (unsigned v = 0; v < kVectors; ++v) {
        sum[r][v] = kBoth && v % 2 == 1 ? _mm512_setzero_si512() : start;
      }
    }
  }

  const std::byte* codes = p.codes + g * p.block_bytes;
  const __m512i upper = _mm512_set1_epi8(static_cast<char>(0xf0));
  // The units of this group, block by block of activations.
  for (std::size_t u = p.first_unit + g * p.units, end = u + p.units; u < end;) {
    const std::size_t next_block = (u / family::kBlockUnits + 1) * family::kBlockUnits;
    const std::size_t stop = next_block < end ? next_block : end;
    const std::int8_t* a = p.a + u / family::kBlockUnits * kRows * family::kBlockBytes +
                           u % family::kBlockUnits * kUnit;
    for (; u < stop; ++u) {
      __m512i unit[kVectors];
      QUELL_UNROLL
      for (unsigned v = 0; v < kVectors; v += 2) {
        const std::byte* at = codes + v / 2 * p.panel_bytes;
        if constexpr (kPanels == 1 && kRows <= kDecoding) {
          QUELL_UNROLL
          for (std::size_t i = 0; i < kUnitBytes; i += 64) {
            _mm_prefetch(at + kAhead + i, _MM_HINT_T0);
          }
        }
        unit[v] = _mm512_load_si512(at);
        unit[v + 1] = kBits == 4 ? _mm512_and_si512(unit[v], upper) : _mm512_load_si512(at + 64);
      }
      QUELL_UNROLL
      for (unsigned r = 0; r < kRows; ++r) {
        std::int32_t four = 0;
        __builtin_memcpy(&four, a + r * family::kBlockBytes, sizeof four);
        const __m512i x = _mm512_set1_epi32(four);
        QUELL_UNROLL
        for (unsigned v = 0; v < kVectors; ++v) add_products(sum[r][v], unit[v], x);
      }
      codes += kUnitBytes;
      a += kUnit;
    }
  }

  if (!p.ends) {
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      QUELL_UNROLL
      for (unsigned v = 0; v < kVectors; ++v) {
        _mm512_store_si512(p.carry + v / 2 * y_second + r * kPanelCols + v % 2 * 16, sum[r][v]);
      }
    }
    return;
  }
  __m512 scale[kVectors];
  QUELL_UNROLL
  for (unsigned v = 0; v < kVectors; v += 2) {
    scales_of(p.scales, tail + v / 2 * p.panel_bytes, scale[v], scale[v + 1]);
  }
  // Without zeros the upper half starts here: one addition, where a start of 16 took three.
  const std::int32_t* late = p.zeros ? kNone : starts;
  const bool set = p.first && g == 0;
  QUELL_UNROLL
  for (unsigned r = 0; r < kRows; ++r) {
    if constexpr (kBoth) {
      const __m512i start = _mm512_set1_epi32(late[r]);
      QUELL_UNROLL
      for (unsigned v = 0; v < kVectors; v += 2) {
        sum[r][v] = _mm512_sub_epi32(sum[r][v], sum[r][v + 1]);
        sum[r][v + 1] = _mm512_add_epi32(_mm512_srai_epi32(sum[r][v + 1], 4), start);
      }
    }
    QUELL_UNROLL
    for (unsigned v = 0; v < kVectors; ++v) {
      float* y = p.y + v / 2 * y_second + r * kPanelCols + v % 2 * 16;
      const __m512 before = set ? _mm512_setzero_ps() : _mm512_load_ps(y);
      _mm512_store_ps(y, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][v]), scale[v], before));
    }
  }
}

using Multiply = void (*)(const family::TileProduct&);

template <unsigned kRows, unsigned kBits, unsigned kPanels>
void multiply_rows(const family::TileProduct& p) {
  for (std::size_t g = 0; g < p.groups; ++g) multiply_group<kRows, kBits, kPanels>(p, g);
}

template <unsigned kBits>
void multiply_one(const family::TileProduct& p) {
  constexpr Multiply kByRows[kTileRows] = {
      multiply_rows<1, kBits, 1>,  multiply_rows<2, kBits, 1>,  multiply_rows<3, kBits, 1>,
      multiply_rows<4, kBits, 1>,  multiply_rows<5, kBits, 1>,  multiply_rows<6, kBits, 1>,
      multiply_rows<7, kBits, 1>,  multiply_rows<8, kBits, 1>,  multiply_rows<9, kBits, 1>,
      multiply_rows<10, kBits, 1>, multiply_rows<11, kBits, 1>, multiply_rows<12, kBits, 1>};
  kByRows[p.rows - 1](p);
}

constexpr unsigned kPairRows = 6;

void multiply_pairs_of_8_bits(const family::TileProduct& p) {
  constexpr Multiply kByRows[kPairRows] = {multiply_rows<1, 8, 2>, multiply_rows<2, 8, 2>,
                                           multiply_rows<3, 8, 2>, multiply_rows<4, 8, 2>,
                                           multiply_rows<5, 8, 2>, multiply_rows<6, 8, 2>};
  if (p.panels == 1) return multiply_one<8>(p);
  kByRows[p.rows - 1](p);
}

}  // namespace

extern const gemm_int8::Entry gemm_int8_entries[2] = {
    {Isa::avx512vnni, 4, kTileRows, kTileRows, 1, multiply_one<4>},
    {Isa::avx512vnni, 8, kTileRows, kPairRows, 2, multiply_pairs_of_8_bits}};

}  // namespace quell::kernels::avx512vnni
QUELL_TARGET_END
