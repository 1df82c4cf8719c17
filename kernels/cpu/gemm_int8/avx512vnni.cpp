// SPDX-License-Identifier: Apache-2.0

// Up to twelve tokens by 32 output channels: 24 integer accumulators, two registers of codes, one
// of activations. A token's four bytes are broadcast by the load port alone, so the two multipliers
// see 24 products and, for four-bit codes, three instructions that unpack.

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

struct Pair {
  __m512i low, high;  // OC 0..15, OC 16..31
};

template <unsigned kBits>
QUELL_INLINE Pair codes_of(const std::byte* unit) {
  if constexpr (kBits == 8) return {_mm512_load_si512(unit), _mm512_load_si512(unit + 64)};
  const __m512i both = _mm512_load_si512(unit), half = _mm512_set1_epi8(15);
  return {_mm512_and_si512(both, half), _mm512_and_si512(_mm512_srli_epi16(both, 4), half)};
}

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

template <unsigned kRows, unsigned kBits>
void multiply_rows(const family::TileProduct& p) {
  constexpr std::size_t kUnitBytes = kPanelCols * kUnit * kBits / 8;
  for (std::size_t g = 0; g < p.groups; ++g) {
    const std::byte* codes = p.codes + g * p.block_bytes;
    const std::byte* tail = p.tail + g * p.block_bytes;
    const std::int32_t* starts = p.starts + g * kRows;
    __m512i low[kRows], high[kRows];
    if (!p.begins) {
      QUELL_UNROLL
      for (unsigned r = 0; r < kRows; ++r) {
        low[r] = _mm512_load_si512(p.carry + r * kPanelCols);
        high[r] = _mm512_load_si512(p.carry + r * kPanelCols + 16);
      }
    } else if (p.zeros) {
      const std::byte* zeros = tail + (p.scales == PanelScales::f32 ? 128 : 64);
      const __m512i zero_low = widened(zeros), zero_high = widened(zeros + 16);
      QUELL_UNROLL
      for (unsigned r = 0; r < kRows; ++r) {
        const __m512i start = _mm512_set1_epi32(starts[r]);
        low[r] = _mm512_mullo_epi32(zero_low, start);
        high[r] = _mm512_mullo_epi32(zero_high, start);
      }
    } else {
      QUELL_UNROLL
      for (unsigned r = 0; r < kRows; ++r) low[r] = high[r] = _mm512_set1_epi32(starts[r]);
    }

    // The units of this group, block by block of activations.
    for (std::size_t u = p.first_unit + g * p.units, end = u + p.units; u < end;) {
      const std::size_t next_block = (u / family::kBlockUnits + 1) * family::kBlockUnits;
      const std::size_t stop = next_block < end ? next_block : end;
      const std::int8_t* a = p.a + u / family::kBlockUnits * kRows * family::kBlockBytes +
                             u % family::kBlockUnits * kUnit;
      for (; u < stop; ++u) {
        QUELL_UNROLL
        for (std::size_t i = 0; i < kUnitBytes; i += 64) {
          _mm_prefetch(codes + kAhead + i, _MM_HINT_T0);
        }
        const Pair unit = codes_of<kBits>(codes);
        QUELL_UNROLL
        for (unsigned r = 0; r < kRows; ++r) {
          std::int32_t four = 0;
          __builtin_memcpy(&four, a + r * family::kBlockBytes, sizeof four);
          const __m512i x = _mm512_set1_epi32(four);
          add_products(low[r], unit.low, x);
          add_products(high[r], unit.high, x);
        }
        codes += kUnitBytes;
        a += kUnit;
      }
    }

    if (!p.ends) {
      QUELL_UNROLL
      for (unsigned r = 0; r < kRows; ++r) {
        _mm512_store_si512(p.carry + r * kPanelCols, low[r]);
        _mm512_store_si512(p.carry + r * kPanelCols + 16, high[r]);
      }
      return;
    }
    __m512 scale_low, scale_high;
    scales_of(p.scales, tail, scale_low, scale_high);
    const bool set = p.first && g == 0;
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      float* y = p.y + r * kPanelCols;
      const __m512 y_low = set ? _mm512_setzero_ps() : _mm512_load_ps(y);
      const __m512 y_high = set ? _mm512_setzero_ps() : _mm512_load_ps(y + 16);
      _mm512_store_ps(y, _mm512_fmadd_ps(_mm512_cvtepi32_ps(low[r]), scale_low, y_low));
      _mm512_store_ps(y + 16, _mm512_fmadd_ps(_mm512_cvtepi32_ps(high[r]), scale_high, y_high));
    }
  }
}

using Multiply = void (*)(const family::TileProduct&);

template <unsigned kBits>
void multiply(const family::TileProduct& p) {
  constexpr Multiply kByRows[family::kMaxRows] = {
      multiply_rows<1, kBits>,  multiply_rows<2, kBits>,  multiply_rows<3, kBits>,
      multiply_rows<4, kBits>,  multiply_rows<5, kBits>,  multiply_rows<6, kBits>,
      multiply_rows<7, kBits>,  multiply_rows<8, kBits>,  multiply_rows<9, kBits>,
      multiply_rows<10, kBits>, multiply_rows<11, kBits>, multiply_rows<12, kBits>};
  kByRows[p.rows - 1](p);
}

}  // namespace

extern const gemm_int8::Entry gemm_int8_entries[2] = {
    {Isa::avx512vnni, 4, family::kMaxRows, multiply<4>},
    {Isa::avx512vnni, 8, family::kMaxRows, multiply<8>}};

}  // namespace quell::kernels::avx512vnni
QUELL_TARGET_END
