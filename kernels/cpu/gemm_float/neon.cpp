// SPDX-License-Identifier: Apache-2.0

// Up to four tokens by sixteen output channels: of four-bit codes the channels c .. c + 7 and those
// 16 further on, of eight-bit ones c .. c + 15. Lookups work on bytes: a table of sixteen floats is
// four registers, one for each byte of a float, and sixteen codes become sixteen floats in four
// lookups and eight interleavings. A fifth lookup brings codes of one input channel together first.

#include <arm_neon.h>

#include "kernels/cpu/gemm_float/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::neon {
namespace {

namespace family = gemm_float;
using family::Weights;

constexpr unsigned kTileRows = 4;

/// Scales of four channels from the c-th on.
QUELL_INLINE float32x4_t scales_of(PanelScales type, const std::byte* tail, std::size_t c) {
  if (type == PanelScales::none) return vdupq_n_f32(1.0f);
  if (type == PanelScales::f32) return vld1q_f32(reinterpret_cast<const float*>(tail) + c);
  const uint16x4_t words = vld1_u16(reinterpret_cast<const std::uint16_t*>(tail) + c);
  if (type == PanelScales::f16) return vcvt_f32_f16(vreinterpret_f16_u16(words));
  return vreinterpretq_f32_u32(vshll_n_u16(words, 16));
}

QUELL_INLINE float32x4_t zeros_of(const family::TileProduct& p, const std::byte* tail,
                                  std::size_t c) {
  if (!p.zeros) return vdupq_n_f32(p.zero);
  std::uint32_t word = 0;
  __builtin_memcpy(&word, tail + (p.scales == PanelScales::f32 ? 128 : 64) + c, sizeof word);
  const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word)));
  return vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)));
}

/// What codes of four channels by four input channels become floats with, one register for each
/// input channel.
template <Weights kWeights>
struct Decoder {
  QUELL_INLINE explicit Decoder(const family::TileProduct&) {}
};

template <>
struct Decoder<Weights::four_bits> {
  uint8x16_t bytes[4], by_input_channel;

  QUELL_INLINE explicit Decoder(const family::TileProduct& p) {
    const uint8x16x4_t planes = vld4q_u8(reinterpret_cast<const std::uint8_t*>(p.table));
    QUELL_UNROLL
    for (unsigned i = 0; i < 4; ++i) bytes[i] = planes.val[i];
    constexpr std::uint8_t kOrder[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    by_input_channel = vld1q_u8(kOrder);
  }
  QUELL_INLINE void operator()(uint8x16_t codes, float32x4_t (&w)[4]) const {
    codes = vqtbl1q_u8(codes, by_input_channel);
    const uint8x16_t b0 = vqtbl1q_u8(bytes[0], codes), b1 = vqtbl1q_u8(bytes[1], codes);
    const uint8x16_t b2 = vqtbl1q_u8(bytes[2], codes), b3 = vqtbl1q_u8(bytes[3], codes);
    const uint16x8_t low0 = vreinterpretq_u16_u8(vzip1q_u8(b0, b1));
    const uint16x8_t low1 = vreinterpretq_u16_u8(vzip2q_u8(b0, b1));
    const uint16x8_t high0 = vreinterpretq_u16_u8(vzip1q_u8(b2, b3));
    const uint16x8_t high1 = vreinterpretq_u16_u8(vzip2q_u8(b2, b3));
    w[0] = vreinterpretq_f32_u16(vzip1q_u16(low0, high0));
    w[1] = vreinterpretq_f32_u16(vzip2q_u16(low0, high0));
    w[2] = vreinterpretq_f32_u16(vzip1q_u16(low1, high1));
    w[3] = vreinterpretq_f32_u16(vzip2q_u16(low1, high1));
  }
};

template <>
struct Decoder<Weights::eight_bits> {
  QUELL_INLINE explicit Decoder(const family::TileProduct&) {}
  QUELL_INLINE void operator()(uint8x16_t codes, float32x4_t (&w)[4]) const {
    const uint32x4_t wide = vreinterpretq_u32_u8(codes), byte = vdupq_n_u32(255);
    w[0] = vcvtq_f32_u32(vandq_u32(wide, byte));
    w[1] = vcvtq_f32_u32(vandq_u32(vshrq_n_u32(wide, 8), byte));
    w[2] = vcvtq_f32_u32(vandq_u32(vshrq_n_u32(wide, 16), byte));
    w[3] = vcvtq_f32_u32(vshrq_n_u32(wide, 24));
  }
};

/// Four weights that are floats already.
template <Weights kWeights>
QUELL_INLINE float32x4_t float_of(const std::byte* four) {
  const uint16x4_t words = vld1_u16(reinterpret_cast<const std::uint16_t*>(four));
  if (kWeights == Weights::f16) return vcvt_f32_f16(vreinterpret_f16_u16(words));
  return vreinterpretq_f32_u32(vshll_n_u16(words, 16));
}

template <unsigned kRows>
QUELL_INLINE void add_products(const float* x, float32x4_t w, float32x4_t (&sums)[kRows]) {
  if constexpr (kRows == 4) {
    const float32x4_t rows = vld1q_f32(x);
    sums[0] = vfmaq_laneq_f32(sums[0], w, rows, 0);
    sums[1] = vfmaq_laneq_f32(sums[1], w, rows, 1);
    sums[2] = vfmaq_laneq_f32(sums[2], w, rows, 2);
    sums[3] = vfmaq_laneq_f32(sums[3], w, rows, 3);
  } else {
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) sums[r] = vfmaq_n_f32(sums[r], w, x[r]);
  }
}

template <unsigned kRows, Weights kWeights, bool kZeros>
QUELL_INLINE void add_chunk(const family::TileProduct& p, std::size_t g, std::size_t unit,
                            std::size_t units, std::size_t c, bool set) {
  constexpr std::size_t kUnitBytes = family::unit_bytes(kWeights);
  constexpr bool kFour = kWeights == Weights::four_bits;
  constexpr bool kFloats = kWeights == Weights::f16 || kWeights == Weights::bf16;
  const std::byte* tail = p.tail + g * p.block_bytes;
  const std::byte* codes = p.codes + g * p.block_bytes + unit * kUnitBytes + (kFloats ? 2 : 4) * c;
  const float* a = p.a + (p.first_unit + g * p.units + unit) * kUnit * kRows;
  const auto channel = [c](unsigned i) {
    return kFour ? c + 4 * (i % 2) + 16 * (i / 2) : c + 4 * i;
  };
  const Decoder<kWeights> decoded(p);
  float32x4_t sums[4][kRows], zeros[4];
  QUELL_UNROLL
  for (unsigned i = 0; i < 4; ++i) {
    zeros[i] = zeros_of(p, tail, channel(i));
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) sums[i][r] = vdupq_n_f32(0);
  }
  for (std::size_t u = 0; u < units; ++u) {
    QUELL_UNROLL
    for (unsigned i = 0; i < 4; ++i) {
      float32x4_t w[4];
      if constexpr (kFloats) {
        QUELL_UNROLL
        for (unsigned b = 0; b < kUnit; ++b) w[b] = float_of<kWeights>(codes + 64 * b + 8 * i);
      } else {
        const std::byte* from = codes + (kFour ? 16 * (i % 2) : 16 * i);
        uint8x16_t line = vld1q_u8(reinterpret_cast<const std::uint8_t*>(from));
        if constexpr (kFour) line = i < 2 ? vandq_u8(line, vdupq_n_u8(15)) : vshrq_n_u8(line, 4);
        decoded(line, w);
      }
      QUELL_UNROLL
      for (unsigned b = 0; b < kUnit; ++b) {
        if constexpr (kWeights == Weights::eight_bits || kZeros) w[b] = vsubq_f32(w[b], zeros[i]);
        add_products<kRows>(a + b * kRows, w[b], sums[i]);
      }
    }
    codes += kUnitBytes;
    a += kUnit * kRows;
  }
  QUELL_UNROLL
  for (unsigned i = 0; i < 4; ++i) {
    const float32x4_t scale = scales_of(p.scales, tail, channel(i));
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      float* y = p.y + r * kPanelCols + channel(i);
      const float32x4_t before = set ? vdupq_n_f32(0) : vld1q_f32(y);
      vst1q_f32(y, vfmaq_f32(before, sums[i][r], scale));
    }
  }
}

template <unsigned kRows, Weights kWeights, bool kZeros>
void multiply_rows(const family::TileProduct& p) {
  for (std::size_t g = 0; g < p.groups; ++g) {
    for (std::size_t unit = 0; unit < p.units; unit += family::kChunkUnits) {
      const std::size_t left = p.units - unit;
      const std::size_t units = left < family::kChunkUnits ? left : family::kChunkUnits;
      const bool set = p.first && g == 0 && unit == 0;
      add_chunk<kRows, kWeights, kZeros>(p, g, unit, units, 0, set);
      add_chunk<kRows, kWeights, kZeros>(p, g, unit, units, kWeights == Weights::four_bits ? 8 : 16,
                                         set);
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
    {Isa::neon, Weights::four_bits, kTileRows, multiply<Weights::four_bits>},
    {Isa::neon, Weights::eight_bits, kTileRows, multiply<Weights::eight_bits>},
    {Isa::neon, Weights::f16, kTileRows, multiply<Weights::f16>},
    {Isa::neon, Weights::bf16, kTileRows, multiply<Weights::bf16>}};

}  // namespace quell::kernels::neon
