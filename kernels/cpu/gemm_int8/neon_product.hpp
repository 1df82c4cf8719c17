// SPDX-License-Identifier: Apache-2.0
#pragma once

// gemm_int8 for AArch64, with the instruction that adds products of four neighbouring bytes (sdot)
// or with four that every processor has: up to four tokens by sixteen output channels, 16
// accumulators beside 4 registers of codes and 4 of activations.
//
// Both multiply signed bytes. A code of four bits is one. From a code u of eight bits 128 is taken
// off, which turns its highest bit, and since everything is exact modulo 2^32,
//
//     sum u x = sum (u - 128) x + 128 sum x,
//
// where the last sum is made once per token and group, beside the group's start. Of two levels
// (code - 8) * integer is a signed byte, and so is what a table has for a code: sums start at
// nothing.

#include <arm_neon.h>

#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels {
namespace {  // an object for an instruction set exports its entry alone

namespace family = gemm_int8;
using family::Codes;

constexpr unsigned kTileRows = 4;

struct PlainDots {
  /// sums[i] += codes[4 i ..] * four bytes of x, those of lane kLane.
  template <int kLane>
  static QUELL_INLINE int32x4_t add(int32x4_t sums, int8x16_t codes, int8x16_t x) {
    const int8x16_t four = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), kLane));
    const int16x8_t low = vmull_s8(vget_low_s8(codes), vget_low_s8(four));
    // Two products of -128 or more and -127 to 127 are at most 32,512.
    return vpadalq_s16(sums, vpaddq_s16(low, vmull_high_s8(codes, four)));
  }
};

struct DotInstruction {
  // Written out: Clang 14 has the intrinsic only where the whole file is for such processors.
  template <int kLane>
  static QUELL_INLINE int32x4_t add(int32x4_t sums, int8x16_t codes, int8x16_t x) {
    __asm__(".arch armv8.2-a+dotprod\n\tsdot %0.4s, %1.16b, %2.4b[%c3]"
            : "+w"(sums)
            : "w"(codes), "w"(x), "i"(kLane));
    return sums;
  }
};

QUELL_INLINE const std::int8_t* bytes_of(const std::byte* from) {
  return reinterpret_cast<const std::int8_t*>(from);
}

/// Scales of four channels from the c-th on.
QUELL_INLINE float32x4_t scales_of(PanelScales type, const std::byte* tail, std::size_t c) {
  if (type == PanelScales::none) return vdupq_n_f32(1.0f);
  if (type == PanelScales::f32) return vld1q_f32(reinterpret_cast<const float*>(tail) + c);
  const uint16x4_t words = vld1_u16(reinterpret_cast<const std::uint16_t*>(tail) + c);
  if (type == PanelScales::f16) return vcvt_f32_f16(vreinterpret_f16_u16(words));
  return vreinterpretq_f32_u32(vshll_n_u16(words, 16));
}

QUELL_INLINE int32x4_t zeros_of(const family::TileProduct& p, const std::byte* tail,
                                std::size_t c) {
  const std::byte* four = tail + (p.scales == PanelScales::f32 ? 128 : 64) + c;
  std::uint32_t word = 0;
  __builtin_memcpy(&word, four, sizeof word);
  const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word)));
  return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide)));
}

/// The four bytes of activations of unit u, row r.
template <unsigned kRows>
QUELL_INLINE const std::int8_t* activations(const family::TileProduct& p, std::size_t u,
                                            unsigned r) {
  return p.a + (u / family::kBlockUnits * kRows + r) * family::kBlockBytes +
         u % family::kBlockUnits * kUnit;
}

QUELL_INLINE int8x16_t repeated(const std::int8_t* four) {
  std::int32_t word = 0;
  __builtin_memcpy(&word, four, sizeof word);
  return vreinterpretq_s8_s32(vdupq_n_s32(word));
}

/// Integers of a group, of the channels of add_unit, each four times.
struct Integers {
  int8x16_t of[4];

  Integers() = default;
  QUELL_INLINE Integers(const std::byte* sixteen, std::size_t c) {
    const uint8x8_t both = vld1_u8(reinterpret_cast<const std::uint8_t*>(sixteen) + c);
    const uint8x16_t halves[2] = {vcombine_u8(vand_u8(both, vdup_n_u8(15)), vdup_n_u8(0)),
                                  vcombine_u8(vshr_n_u8(both, 4), vdup_n_u8(0))};
    const std::uint8_t four_times[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const uint8x16_t first = vld1q_u8(four_times), second = vaddq_u8(first, vdupq_n_u8(4));
    QUELL_UNROLL
    for (unsigned i = 0; i < 4; ++i) {
      of[i] = vreinterpretq_s8_u8(vqtbl1q_u8(halves[i / 2], i % 2 == 0 ? first : second));
    }
  }
};

/// One unit of 16 channels: of four-bit codes the channels c .. c + 7 and those 16 further on, of
/// eight-bit ones c .. c + 15.
template <typename Dots, unsigned kRows, Codes kCodes, int kLane>
QUELL_INLINE void add_unit(const std::byte* codes, const Integers& integers, int8x16_t table,
                           const int8x16_t (&x)[kRows], int32x4_t (&sums)[kRows][4]) {
  int8x16_t w[4];
  if constexpr (kCodes != Codes::eight_bits) {
    const uint8x16_t first = vreinterpretq_u8_s8(vld1q_s8(bytes_of(codes)));
    const uint8x16_t second = vreinterpretq_u8_s8(vld1q_s8(bytes_of(codes + 16)));
    w[0] = vreinterpretq_s8_u8(vandq_u8(first, vdupq_n_u8(15)));
    w[1] = vreinterpretq_s8_u8(vandq_u8(second, vdupq_n_u8(15)));
    w[2] = vreinterpretq_s8_u8(vshrq_n_u8(first, 4));
    w[3] = vreinterpretq_s8_u8(vshrq_n_u8(second, 4));
    if constexpr (kCodes == Codes::two_level) {
      QUELL_UNROLL
      for (unsigned i = 0; i < 4; ++i) {
        w[i] = vmulq_s8(vsubq_s8(w[i], vdupq_n_s8(8)), integers.of[i]);
      }
    }
    if constexpr (kCodes == Codes::table) {
      QUELL_UNROLL
      for (unsigned i = 0; i < 4; ++i) w[i] = vqtbl1q_s8(table, vreinterpretq_u8_s8(w[i]));
    }
  } else {
    QUELL_UNROLL
    for (unsigned i = 0; i < 4; ++i) {
      w[i] = veorq_s8(vld1q_s8(bytes_of(codes + 16 * i)), vdupq_n_s8(-128));
    }
  }
  QUELL_UNROLL
  for (unsigned i = 0; i < 4; ++i) {
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      sums[r][i] = Dots::template add<kLane>(sums[r][i], w[i], x[r]);
    }
  }
}

/// 128 times the sum of the activations of units [u, end) of a row.
template <typename Dots, unsigned kRows>
QUELL_INLINE std::int32_t offset_of(const family::TileProduct& p, std::size_t u, std::size_t end,
                                    unsigned r) {
  int32x4_t sums = vdupq_n_s32(0);
  std::int32_t rest = 0;
  while (u < end) {
    const std::int8_t* x = activations<kRows>(p, u, r);
    if (u % 4 == 0 && u + 4 <= end) {
      sums = Dots::template add<0>(sums, vld1q_s8(x), vdupq_n_s8(1));
      u += 4;
      continue;
    }
    rest += x[0] + x[1] + x[2] + x[3];
    ++u;
  }
  return (vaddvq_s32(sums) + rest) * 128;
}

template <typename Dots, unsigned kRows, Codes kCodes>
QUELL_INLINE void multiply_sixteen(const family::TileProduct& p, std::size_t g, std::size_t c,
                                   const std::int32_t (&offsets)[kRows]) {
  constexpr std::size_t kUnitBytes = family::unit_bytes(kCodes);
  constexpr bool kEight = kCodes == Codes::eight_bits, kLevels = kCodes == Codes::two_level;
  constexpr bool kSigned = kLevels || kCodes == Codes::table;
  const std::byte* codes = p.codes + g * p.block_bytes + 4 * c;
  const std::byte* tail = p.tail + g * p.block_bytes;
  const auto channel = [c](unsigned i) {
    return kEight ? c + 4 * i : c + 4 * (i % 2) + 16 * (i / 2);
  };
  int32x4_t sums[kRows][4];
  QUELL_UNROLL
  for (unsigned i = 0; i < 4; ++i) {
    const std::size_t at = channel(i);
    const int32x4_t zero = p.begins && p.zeros ? zeros_of(p, tail, at) : vdupq_n_s32(1);
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      if (!p.begins) {
        sums[r][i] = vld1q_s32(p.carry + r * kPanelCols + at);
      } else {
        sums[r][i] = kSigned ? vdupq_n_s32(0) : vmulq_n_s32(zero, p.starts[g * kRows + r]);
      }
      if constexpr (kEight) sums[r][i] = vaddq_s32(sums[r][i], vdupq_n_s32(offsets[r]));
    }
  }
  std::size_t u = p.first_unit + g * p.units;
  const std::size_t end = u + p.units;
  // The next group of two levels, and where it begins.
  std::size_t level = kLevels ? u / p.level_units : 0, next = kLevels ? u : end;
  Integers integers;
  int8x16_t table = vdupq_n_s8(0);
  if constexpr (kCodes == Codes::table) {
    table = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p.table), vdupq_n_u8(128)));
  }
  int8x16_t x[kRows];
  while (u < end) {
    if constexpr (kLevels) {
      if (u == next) {
        integers = Integers(p.integers + level * (kPanelCols / 2), c);
        next = ++level * p.level_units;
        next = next < end ? next : end;
      }
    }
    // Four units of activations are a register, and blocks of sixteen are whole registers.
    if (u % 4 == 0 && u + 4 <= next) {
      QUELL_UNROLL
      for (unsigned r = 0; r < kRows; ++r) x[r] = vld1q_s8(activations<kRows>(p, u, r));
      add_unit<Dots, kRows, kCodes, 0>(codes, integers, table, x, sums);
      add_unit<Dots, kRows, kCodes, 1>(codes + kUnitBytes, integers, table, x, sums);
      add_unit<Dots, kRows, kCodes, 2>(codes + 2 * kUnitBytes, integers, table, x, sums);
      add_unit<Dots, kRows, kCodes, 3>(codes + 3 * kUnitBytes, integers, table, x, sums);
      u += 4;
      codes += 4 * kUnitBytes;
      continue;
    }
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) x[r] = repeated(activations<kRows>(p, u, r));
    add_unit<Dots, kRows, kCodes, 0>(codes, integers, table, x, sums);
    ++u;
    codes += kUnitBytes;
  }
  const bool set = p.first && g == 0;
  QUELL_UNROLL
  for (unsigned i = 0; i < 4; ++i) {
    const std::size_t at = channel(i);
    const float32x4_t scale = scales_of(p.scales, tail, at);
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      if (!p.ends) {
        vst1q_s32(p.carry + r * kPanelCols + at, sums[r][i]);
        continue;
      }
      float* y = p.y + r * kPanelCols + at;
      const float32x4_t before = set ? vdupq_n_f32(0) : vld1q_f32(y);
      vst1q_f32(y, vfmaq_f32(before, vcvtq_f32_s32(sums[r][i]), scale));
    }
  }
}

template <typename Dots, unsigned kRows, Codes kCodes>
void multiply_rows(const family::TileProduct& p) {
  for (std::size_t g = 0; g < p.groups; ++g) {
    std::int32_t offsets[kRows] = {};
    if constexpr (kCodes == Codes::eight_bits) {
      const std::size_t u = p.first_unit + g * p.units;
      for (unsigned r = 0; r < kRows; ++r)
        offsets[r] = offset_of<Dots, kRows>(p, u, u + p.units, r);
    }
    multiply_sixteen<Dots, kRows, kCodes>(p, g, 0, offsets);
    multiply_sixteen<Dots, kRows, kCodes>(p, g, kCodes == Codes::eight_bits ? 16 : 8, offsets);
  }
}

template <typename Dots, Codes kCodes>
void multiply(const family::TileProduct& p) {
  switch (p.rows) {
    case 1:
      return multiply_rows<Dots, 1, kCodes>(p);
    case 2:
      return multiply_rows<Dots, 2, kCodes>(p);
    case 3:
      return multiply_rows<Dots, 3, kCodes>(p);
    default:
      return multiply_rows<Dots, 4, kCodes>(p);
  }
}

}  // namespace
}  // namespace quell::kernels
