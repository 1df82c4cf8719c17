// SPDX-License-Identifier: Apache-2.0
#pragma once

// Panels: quantized weights as the products read them. One layout serves decoding and prefill,
// whole-number and floating-point activations, and every instruction set.
//
// A panel has 32 output channels (OC). In it, group after group along the input channels (IC), lie
// blocks that are read from end to end:
//
//     unit 0     64 bytes (4-bit codes), 128 bytes (8-bit codes), 256 bytes (floats of 16 bits):
//                4 IC of 32 OC
//     unit 1     ...                              the last unit of a group may have fewer IC
//     scales     32 of float16 or bfloat16 (64 bytes) or of float32 (128 bytes)
//     zeros      32 bytes and as many unused ones, on asymmetric grids only
//
// After the last group, and what follows it, comes, for each input channel that is kept in float16
// beside the codes, a line of 64 bytes: its weights of the 32 OC.
//
//     4 bits: byte 4 c + b has the code of OC c, IC 4 u + b in its low half and that of OC c + 16
//             in its high half, c < 16
//     8 bits: byte 4 c + b has the code of OC c, IC 4 u + b, c < 32
//     16 bits: a weight that is no code: float16 or bfloat16 of OC c, IC 4 u + b at byte 64 b + 2 c
//
// So one register of 64 bytes is what an instruction that adds products of four neighbouring bytes
// wants. Codes stay as they are stored, unsigned; the zero is taken off elsewhere. Scales travel in
// the same stream: decoding follows one pointer.
//
// Scales of two levels may be kept apart: then a panel is one group, whose scales are those of the
// rows, codes are moved so that 8 means zero, and integers follow at its end, filled up to 64
// bytes:
//
//     group 0    16 bytes: the integer of OC c in the low half of byte c, that of OC c + 16 in the
//                high half
//     group 1    ...
//
// Groups down an input channel have no place in a stream along IC: their scales go to the
// activations (panel_form.hpp), and a panel lies inside one run of them. Its codes are one
// block without scales.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quell/core/executor.hpp"
#include "quell/core/half.hpp"
#include "quell/core/view.hpp"
#include "quell/grid/quantized.hpp"

namespace quell::kernels {

constexpr std::size_t kPanelCols = 32;
constexpr std::size_t kUnit = 4;  // input channels

/// What follows the codes of a group.
enum class PanelScales : std::uint8_t { none, f16, bf16, f32 };

struct PanelLayout {
  std::size_t rows = 0, cols = 0;  // OC, IC
  unsigned code_bits = 4;          // of a code in a panel: 4 or 8; 16: a float
  bool bf16 = false;               // the floats of 16 bits are bfloat16
  PanelScales scales = PanelScales::none;
  bool zeros = false;      // a line of zeros after the scales
  std::size_t groups = 1;  // blocks of a panel
  std::size_t group = 0;   // IC of all blocks but the last, which may have fewer
  std::size_t kept = 0;    // lines of kept input channels after the last block
  // IC that share an integer of two-level scales, in a panel of one block; 0: none do.
  std::size_t level_group = 0;

  std::size_t panels() const noexcept { return (rows + kPanelCols - 1) / kPanelCols; }
  std::size_t unit_bytes() const noexcept { return kPanelCols * kUnit * code_bits / 8; }
  /// Units of block `g`.
  std::size_t units(std::size_t g) const noexcept {
    const std::size_t wide = g + 1 < groups ? group : cols - (groups - 1) * group;
    return (wide + kUnit - 1) / kUnit;
  }
  std::size_t all_units() const noexcept {
    return (groups - 1) * (group / kUnit) + units(groups - 1);
  }
  std::size_t tail_bytes() const noexcept {
    const std::size_t lines =
        scales == PanelScales::f32 ? 2 : (scales == PanelScales::none ? 0 : 1);
    return 64 * (lines + (zeros ? 1 : 0));
  }
  std::size_t block_bytes(std::size_t g) const noexcept {
    return units(g) * unit_bytes() + tail_bytes();
  }
  std::size_t level_groups() const noexcept {
    return level_group == 0 ? 0 : (cols + level_group - 1) / level_group;
  }
  /// Where the kept input channels of a panel begin.
  std::size_t kept_at() const noexcept {
    const std::size_t integers = (level_groups() * kPanelCols / 2 + 63) / 64 * 64;
    return (groups - 1) * block_bytes(0) + block_bytes(groups - 1) + integers;
  }
  std::size_t panel_bytes() const noexcept { return kept_at() + 64 * kept; }
};

/// Code of OC c (of the panel) and IC b (of the unit).
inline unsigned panel_code(unsigned code_bits, const std::byte* unit, std::size_t c,
                           std::size_t b) noexcept {
  if (code_bits == 8) return std::to_integer<unsigned>(unit[4 * c + b]);
  const auto both = std::to_integer<unsigned>(unit[4 * (c % 16) + b]);
  return c < 16 ? both & 15 : both >> 4;
}
/// The float of 16 bits of OC c (of the panel) and IC b (of the unit).
inline float panel_float(bool bf16, const std::byte* unit, std::size_t c, std::size_t b) noexcept {
  std::uint16_t word = 0;
  std::memcpy(&word, unit + 64 * b + 2 * c, sizeof word);
  return bf16 ? bf16_to_float(word) : f16_to_float(word);
}
/// Scale and zero of OC c from what follows the codes of a group.
inline float panel_scale(PanelScales type, const std::byte* tail, std::size_t c) noexcept {
  if (type == PanelScales::none) return 1;
  if (type == PanelScales::f32) {
    float scale = 0;
    std::memcpy(&scale, tail + 4 * c, sizeof scale);
    return scale;
  }
  std::uint16_t word = 0;
  std::memcpy(&word, tail + 2 * c, sizeof word);
  return type == PanelScales::f16 ? f16_to_float(word) : bf16_to_float(word);
}
/// The integer of OC c of a group, where scales have two levels.
inline unsigned panel_integer(const std::byte* integers, std::size_t group,
                              std::size_t c) noexcept {
  const auto both = std::to_integer<unsigned>(integers[group * (kPanelCols / 2) + c % 16]);
  return c < 16 ? both & 15 : both >> 4;
}
inline unsigned panel_zero(PanelScales type, const std::byte* tail, std::size_t c) noexcept {
  return std::to_integer<unsigned>(tail[(type == PanelScales::f32 ? 128 : 64) + c]);
}

/// The layout of a tensor of `rows` x `cols`, both above 0, or the reason why panels cannot hold
/// it: groups along a row that are not whole units, runs of OC that are not whole panels. `levels`:
/// two-level scales along a row are kept apart; else they are multiplied out.
struct PanelPlan {
  PanelLayout layout;
  const char* refused = nullptr;
};
PanelPlan plan_panels(const GridSpec& grid, std::size_t rows, std::size_t cols,
                      bool levels) noexcept;

/// Writes all panels, layout.panels() * layout.panel_bytes() bytes. layout.kept is the number of
/// kept columns of the tensor.
void pack_panels(const QuantizedTensor& tensor, const PanelLayout& layout, std::byte* to,
                 Executor& executor);

/// A weight [OC, IC] in floats of 16 bits, rounded to nearest even: one group, no scales.
PanelLayout float_panels(std::size_t rows, std::size_t cols, bool bf16) noexcept;
void pack_panels(MatrixView<const float> weight, const PanelLayout& layout, std::byte* to,
                 Executor& executor);

}  // namespace quell::kernels
