// SPDX-License-Identifier: Apache-2.0
#pragma once

// gemm_bf16: weights in panels (kernels/panels.hpp) times activations rounded to bfloat16, for
// instructions that add products of pairs of bfloat16 to float32. Reported as gemm_w4bf16,
// gemm_w8bf16 and gemm_w16bf16. Machines without such instructions give the same activations to
// gemm_float, which is the specification up to the order of the sums.
//
// Both factors are exact in bfloat16: x' = x rounded to nearest even, and w = code less its zero, a
// whole number up to 255, or a bfloat16 as stored. Codebooks have values that are whole numbers, or
// are refused. Groups are cut in chunks of 128 units (512 input channels) from their start, and for
// token t and output channel o
//
//     s = the sum of x'[t, k] w[o, k] over the chunk, in float32, in an order of the entry's own
//     y = fma(s, scale[o, g], y)                          chunk after chunk, y from +0
//
// The bound. A product of two bfloat16 is exact in float32, so a chunk of n terms, added in any
// order, makes n - 1 roundings at most on the way of a term; then C chunks are added. With
// u = 2^-24 and S = sum |x' w scale| over the row,
//
//     |y - sum x' w scale|  <=  ((n + C) u) / (1 - (n + C) u) S  +  C 2^-150  +  F
//
// where the second part is for y that round to a subnormal number, and F is what instructions lose
// that take subnormal numbers for zero and flush such results: terms with a subnormal x' or
// bfloat16 weight count whole, and each addition may lose 2^-126 before the scale, of which a chunk
// has fewer than 2 n + 32. Against x itself x' adds 2^-8 |x w scale| for each term (x not
// subnormal).
//
// A token that is finite, and bfloat16 after rounding, does not depend on others; one with an
// infinity or a NaN has nothing finite in the outputs whose groups meet it in a block of 32 input
// channels. Every entry gives a token the same bits alone as among others.
//
// Activations lie in blocks of 32 input channels: x' of row r and input channel k is
// a[(k / 32 rows + r) 32 + k mod 32], zeros past the last input channel.

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cpu/gemm_float/contract.hpp"
#include "kernels/panels.hpp"
#include "quell/kernels/isa.hpp"

namespace quell::kernels::gemm_bf16 {

using gemm_float::unit_bytes;
using gemm_float::Weights;

constexpr std::size_t kBlock = 32;  // input channels
constexpr std::size_t kBlockUnits = kBlock / kUnit;
constexpr std::size_t kChunkUnits = 128;
constexpr unsigned kMaxRows = 32;

/// Of panels of 4 bits, 8 bits and bfloat16, in this order; there are none of float16.
constexpr unsigned kKinds = 3;
constexpr Weights kWeights[kKinds] = {Weights::four_bits, Weights::eight_bits, Weights::bf16};

/// `groups` groups of the same number of units, or some whole chunks of one, or its end.
struct TileProduct {
  const std::uint16_t* a;  // the whole tile, 64-byte aligned
  std::size_t first_unit;  // in the tile, of this call
  unsigned rows;           // 1..tile_rows

  const std::byte* codes;  // of the first group, 64-byte aligned
  const std::byte* tail;   // its scales, 64-byte aligned
  std::size_t groups, units;
  std::size_t block_bytes;  // from group to group
  PanelScales scales;       // none: scale 1
  bool zeros;               // a line of zeros ends the tail
  const float* table;       // of 4-bit codes, 16 elements, exact in bfloat16
  float zero;               // of 8-bit codes where there is no line of zeros

  bool first;               // y starts at 0
  float* y;                 // [rows, 32], 64-byte aligned
  const std::byte* opened;  // what open() returned for these codes, or null
};

struct Entry {
  Isa isa;
  Weights weights;     // of the panels it reads
  unsigned tile_rows;  // at most kMaxRows
  void (*multiply)(const TileProduct& product);

  // For entries that prepare the codes once for many tiles; else zero and null.
  std::size_t work_bytes;  // 64-byte aligned, for what open() lays there
  /// `product` lacks what belongs to a tile. Not null.
  const std::byte* (*open)(const TileProduct& product, std::byte* work);
  void (*close)();
};

/// Best first. None of them is scalar: a machine may have no entry.
std::span<const Entry* const> table(Weights weights) noexcept;

/// The entry that this machine takes, or null: gemm_float it is.
const Entry* choose(Weights weights) noexcept;
/// Why `entry`, which the machine has, is not worth taking, or null.
const char* refuse(const Entry& entry) noexcept;

}  // namespace quell::kernels::gemm_bf16

namespace quell::kernels {
namespace avx512bf16 {
extern const gemm_bf16::Entry gemm_bf16_entries[gemm_bf16::kKinds];
}
namespace amx {
extern const gemm_bf16::Entry gemm_bf16_entries[gemm_bf16::kKinds];
}
}  // namespace quell::kernels
