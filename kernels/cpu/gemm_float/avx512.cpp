// SPDX-License-Identifier: Apache-2.0

// Up to twelve tokens by 32 output channels: 24 accumulators, two registers of weights, one of
// activations, the table. A table of sixteen floats is one register, and vpermps looks at the four
// lowest bits of a lane alone: a shift and a lookup make sixteen weights of any 4-bit format. With
// twelve tokens that is 4 instructions beside 24 multiplications.
//
// One or two tokens have too few accumulators to hide the latency of four cycles behind: they add
// two chunks at a time.

#include <immintrin.h>

#include "kernels/cpu/gemm_float/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512)
namespace quell::kernels::avx512 {
namespace {

namespace family = gemm_float;
using family::Weights;

// Bytes of codes, as in gemm_int8; twice that where two chunks are on their way: each would fetch
// the other.
constexpr std::size_t kAhead = 2048;

struct Pair {
  __m512 low, high;  // OC 0..15, OC 16..31
};

/// What codes become floats with.
template <Weights kWeights, bool kZeros>
struct Decoder {
  __m512 table;
  Pair zero;

  QUELL_INLINE Decoder(const family::TileProduct& p, const std::byte* tail) {
    table = kWeights == Weights::four_bits ? _mm512_loadu_ps(p.table) : _mm512_setzero_ps();
    zero.low = zero.high = _mm512_set1_ps(p.zero);
    if constexpr (kZeros) {
      const auto* zeros =
          reinterpret_cast<const __m128i*>(tail + (p.scales == PanelScales::f32 ? 128 : 64));
      zero.low = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128(zeros)));
      zero.high = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128(zeros + 1)));
    }
  }
  /// Input channel `b` of a unit.
  QUELL_INLINE Pair operator()(const std::byte* unit, unsigned b) const {
    if constexpr (kWeights == Weights::eight_bits) {
      return {_mm512_sub_ps(widened(_mm512_load_si512(unit), b), zero.low),
              _mm512_sub_ps(widened(_mm512_load_si512(unit + 64), b), zero.high)};
    }
    if constexpr (kWeights == Weights::f16 || kWeights == Weights::bf16) {
      return {float_of(unit + 64 * b), float_of(unit + 64 * b + 32)};
    }
    const __m512i both = _mm512_load_si512(unit);
    Pair w = {_mm512_permutexvar_ps(_mm512_srli_epi32(both, 8 * b), table),
              _mm512_permutexvar_ps(_mm512_srli_epi32(both, 8 * b + 4), table)};
    if constexpr (kZeros) w = {_mm512_sub_ps(w.low, zero.low), _mm512_sub_ps(w.high, zero.high)};
    return w;
  }

 private:
  static QUELL_INLINE __m512 widened(__m512i codes, unsigned b) {
    const __m512i one = _mm512_and_si512(_mm512_srli_epi32(codes, 8 * b), _mm512_set1_epi32(255));
    return _mm512_cvtepi32_ps(one);
  }
  static QUELL_INLINE __m512 float_of(const std::byte* sixteen) {
    const __m256i words = _mm256_load_si256(reinterpret_cast<const __m256i*>(sixteen));
    if (kWeights == Weights::f16) return _mm512_cvtph_ps(words);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
  }
};

QUELL_INLINE Pair scales_of(PanelScales type, const std::byte* tail) {
  if (type == PanelScales::none) return {_mm512_set1_ps(1.0f), _mm512_set1_ps(1.0f)};
  if (type == PanelScales::f32) return {_mm512_load_ps(tail), _mm512_load_ps(tail + 64)};
  const auto* words = reinterpret_cast<const __m256i*>(tail);
  const __m256i low = _mm256_load_si256(words), high = _mm256_load_si256(words + 1);
  if (type == PanelScales::f16) return {_mm512_cvtph_ps(low), _mm512_cvtph_ps(high)};
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(low), 16)),
          _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16))};
}

// Written out: GCC 12 keeps copies of accumulators that start from a common value, and spills.
QUELL_INLINE void add_product(__m512& sum, __m512 x, __m512 w) {
  __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
}

template <unsigned kRows>
struct Sums {
  __m512 low[kRows], high[kRows];
};

/// `kChunks` chunks of the same number of units side by side.
template <unsigned kRows, Weights kWeights, bool kZeros, unsigned kChunks>
QUELL_INLINE void add_chunks(const family::TileProduct& p, const float* const* a,
                             const std::byte* const* codes, const std::byte* const* tails,
                             std::size_t units, bool set) {
  constexpr std::size_t kUnitBytes = family::unit_bytes(kWeights);
  Sums<kRows> sums[kChunks];
  QUELL_UNROLL
  for (unsigned i = 0; i < kChunks; ++i) {
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) sums[i].low[r] = sums[i].high[r] = _mm512_setzero_ps();
  }
  const Decoder<kWeights, kZeros> first(p, tails[0]), second(p, tails[kChunks - 1]);
  for (std::size_t u = 0; u < units; ++u) {
    QUELL_UNROLL
    for (unsigned i = 0; i < kChunks; ++i) {
      const std::byte* unit = codes[i] + u * kUnitBytes;
      const float* x = a[i] + u * kUnit * kRows;
      QUELL_UNROLL
      for (std::size_t line = 0; line < kUnitBytes; line += 64) {
        _mm_prefetch(unit + kChunks * kAhead + line, _MM_HINT_T0);
      }
      QUELL_UNROLL
      for (unsigned b = 0; b < kUnit; ++b) {
        const Pair w = i == 0 ? first(unit, b) : second(unit, b);
        QUELL_UNROLL
        for (unsigned r = 0; r < kRows; ++r) {
          const __m512 value = _mm512_set1_ps(x[b * kRows + r]);
          add_product(sums[i].low[r], value, w.low);
          add_product(sums[i].high[r], value, w.high);
        }
      }
    }
  }
  QUELL_UNROLL
  for (unsigned i = 0; i < kChunks; ++i) {
    const Pair scale = scales_of(p.scales, tails[i]);
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      float* y = p.y + r * kPanelCols;
      const bool zero = set && i == 0;
      const __m512 low = zero ? _mm512_setzero_ps() : _mm512_load_ps(y);
      const __m512 high = zero ? _mm512_setzero_ps() : _mm512_load_ps(y + 16);
      _mm512_store_ps(y, _mm512_fmadd_ps(sums[i].low[r], scale.low, low));
      _mm512_store_ps(y + 16, _mm512_fmadd_ps(sums[i].high[r], scale.high, high));
    }
  }
}

template <unsigned kRows, Weights kWeights, bool kZeros>
void multiply_rows(const family::TileProduct& p) {
  constexpr std::size_t kUnitBytes = family::unit_bytes(kWeights);
  const std::size_t in_group = (p.units + family::kChunkUnits - 1) / family::kChunkUnits;
  const std::size_t chunks = p.groups * in_group;
  const float* a[2];
  const std::byte *codes[2], *tails[2];
  // Where chunk c lies; returns its units.
  const auto locate = [&](std::size_t c, unsigned i) {
    const std::size_t g = c / in_group, unit = c % in_group * family::kChunkUnits;
    a[i] = p.a + (p.first_unit + g * p.units + unit) * kUnit * kRows;
    codes[i] = p.codes + g * p.block_bytes + unit * kUnitBytes;
    tails[i] = p.tail + g * p.block_bytes;
    const std::size_t left = p.units - unit;
    return left < family::kChunkUnits ? left : family::kChunkUnits;
  };
  for (std::size_t c = 0; c < chunks; ++c) {
    const std::size_t units = locate(c, 0);
    const bool set = p.first && c == 0;
    if constexpr (kRows <= 2) {
      if (c + 1 < chunks && locate(c + 1, 1) == units) {
        add_chunks<kRows, kWeights, kZeros, 2>(p, a, codes, tails, units, set);
        ++c;
        continue;
      }
    }
    add_chunks<kRows, kWeights, kZeros, 1>(p, a, codes, tails, units, set);
  }
}

using Multiply = void (*)(const family::TileProduct&);

template <Weights kWeights, bool kZeros>
void multiply_as(const family::TileProduct& p) {
  constexpr Multiply kByRows[family::kMaxRows] = {
      multiply_rows<1, kWeights, kZeros>,  multiply_rows<2, kWeights, kZeros>,
      multiply_rows<3, kWeights, kZeros>,  multiply_rows<4, kWeights, kZeros>,
      multiply_rows<5, kWeights, kZeros>,  multiply_rows<6, kWeights, kZeros>,
      multiply_rows<7, kWeights, kZeros>,  multiply_rows<8, kWeights, kZeros>,
      multiply_rows<9, kWeights, kZeros>,  multiply_rows<10, kWeights, kZeros>,
      multiply_rows<11, kWeights, kZeros>, multiply_rows<12, kWeights, kZeros>};
  kByRows[p.rows - 1](p);
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
    {Isa::avx512, Weights::four_bits, family::kMaxRows, multiply<Weights::four_bits>},
    {Isa::avx512, Weights::eight_bits, family::kMaxRows, multiply<Weights::eight_bits>},
    {Isa::avx512, Weights::f16, family::kMaxRows, multiply<Weights::f16>},
    {Isa::avx512, Weights::bf16, family::kMaxRows, multiply<Weights::bf16>}};

}  // namespace quell::kernels::avx512
QUELL_TARGET_END
