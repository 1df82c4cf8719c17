// SPDX-License-Identifier: Apache-2.0
#pragma once

// gemm_float: weights in panels (kernels/panels.hpp) times float32 activations: codes of 4 or 8
// bits or floats of 16, reported as gemm_w4a16, gemm_w8a16 and gemm_w16a16. Weights become float32
// in registers and nowhere else.
//
// What every entry promises, bit for bit, for a token t and an output channel o: groups are cut in
// chunks of 32 units (128 input channels) from their start, and
//
//     s = +0;  for k ascending in the chunk: s = fma(x[t, k], w[o, k], s)
//     y = fma(s, scale[o, g], y)                        chunk after chunk, y from +0
//
// with w = table[code] (4 bits) or float(code) (8 bits), less the zero, a whole number and exact;
// or the float of 16 bits. So rounding grows with 128 and the number of chunks, not with the number
// of input channels, and a token gives the same bits alone as among others.
//
// Activations lie in tiles of `rows` tokens: x of row r and input channel k at a[k rows + r], +0
// past the last input channel up to a whole unit.

#include <cstddef>
#include <span>
#include <string_view>

#include "kernels/panels.hpp"
#include "quell/kernels/isa.hpp"

namespace quell::kernels::gemm_float {

constexpr unsigned kMaxRows = 12;
constexpr std::size_t kChunkUnits = 32;

/// What a panel holds.
enum class Weights : unsigned { four_bits, eight_bits, f16, bf16 };
constexpr unsigned kKinds = 4;
constexpr std::size_t unit_bytes(Weights weights) {
  return kPanelCols * kUnit *
         (weights == Weights::four_bits    ? 4
          : weights == Weights::eight_bits ? 8
                                           : 16) /
         8;
}

/// What a product of panels with such codes is reported as: with activations as they are, or
/// rounded to bfloat16 (gemm_bf16).
constexpr std::string_view family(unsigned code_bits, bool bf16_activations) {
  if (code_bits == 4) return bf16_activations ? "gemm_w4bf16" : "gemm_w4a16";
  if (code_bits == 8) return bf16_activations ? "gemm_w8bf16" : "gemm_w8a16";
  return bf16_activations ? "gemm_w16bf16" : "gemm_w16a16";
}

/// `groups` groups of the same number of units, or some chunks of one.
struct TileProduct {
  const float* a;          // the whole tile, 64-byte aligned
  std::size_t first_unit;  // in the tile, of this call
  unsigned rows;           // 1..tile_rows

  const std::byte* codes;  // of the first group, 64-byte aligned
  const std::byte* tail;   // its scales, 64-byte aligned
  std::size_t groups, units;
  std::size_t block_bytes;  // from group to group
  PanelScales scales;       // none: scale 1
  bool zeros;               // a line of zeros ends the tail
  const float* table;       // of 4-bit codes, 16 elements
  float zero;               // of 8-bit codes where there is no line of zeros

  bool first;  // y starts at 0
  float* y;    // [rows, 32], 64-byte aligned
};

struct Entry {
  Isa isa;
  Weights weights;     // of the panels it reads
  unsigned tile_rows;  // at most kMaxRows
  void (*multiply)(const TileProduct& product);
};

/// Best first, scalar last, of panels with such weights.
std::span<const Entry* const> table(Weights weights) noexcept;

}  // namespace quell::kernels::gemm_float

namespace quell::kernels {
/// One entry for each of Weights, in their order.
namespace scalar {
extern const gemm_float::Entry gemm_float_entries[gemm_float::kKinds];
}
namespace avx2 {
extern const gemm_float::Entry gemm_float_entries[gemm_float::kKinds];
}
namespace avx512 {
extern const gemm_float::Entry gemm_float_entries[gemm_float::kKinds];
}
namespace neon {
extern const gemm_float::Entry gemm_float_entries[gemm_float::kKinds];
}
}  // namespace quell::kernels
