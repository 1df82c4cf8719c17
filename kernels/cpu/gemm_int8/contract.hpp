// SPDX-License-Identifier: Apache-2.0
#pragma once

// gemm_int8: unsigned codes of 4 or 8 bits in panels (kernels/panels.hpp) times int8 activations.
// It is reported as two families, gemm_w4a8 and gemm_w8a8, whose entries differ only in how a unit
// of codes becomes bytes.
//
// What every entry promises, bit for bit, for a token t and an output channel o:
//
//     I[g] = sum over k in group g of code[o, k] * x[t, k]  +  zero[o, g] * start[t, g]
//     y    = 0;  for g ascending: y = fma(float(I[g]), scale[o, g], y)
//
// I is a whole number and exact: additions are modulo 2^32, so only the result has to fit int32. It
// does while a group has at most kMostInGroup input channels, which packing checks. The conversion
// rounds to nearest even. The token's own scale follows in the driver, one multiplication.
//
// Activations lie in tiles of `rows` tokens, in blocks of 64 input channels: those of row r in
// block i are the 64 bytes at a[(i rows + r) 64], each in [-127, 127]; those past the last input
// channel are zero, so codes there do not matter. starts[g rows + r] is minus the sum of x over
// group g; where there is no line of zeros it is multiplied by the zero already, and zero is 1.

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/panels.hpp"
#include "quell/kernels/isa.hpp"

namespace quell::kernels::gemm_int8 {

constexpr unsigned kMaxRows = 32;
// 2^31 / (255 * 127): the largest distance of a code from its zero times the largest activation.
constexpr std::size_t kMostInGroup = 66'000;

constexpr std::size_t kBlockUnits = 16, kBlockBytes = kBlockUnits * kUnit;

/// `groups` groups of the same number of units, or a part of the units of one; of one panel, or of
/// `panels` of them that lie side by side.
struct TileProduct {
  const std::int8_t* a;        // the whole tile, 64-byte aligned
  std::size_t first_unit;      // in the tile, of this call
  const std::int32_t* starts;  // [groups, rows], from the first group of this call on
  unsigned rows;               // 1..lone_rows of one panel, 1..tile_rows of more

  const std::byte* codes;  // of the first group, 64-byte aligned
  const std::byte* tail;   // its scales, 64-byte aligned
  std::size_t groups, units;
  std::size_t block_bytes;  // from group to group
  unsigned panels;          // 1..tile_panels
  std::size_t panel_bytes;  // from panel to panel
  PanelScales scales;       // none: scale 1
  bool zeros;               // a line of zeros ends the tail

  bool begins, ends;    // the first units of their group, and the last; both unless groups is 1
  std::int32_t* carry;  // as y; the entry's own sums of a group whose end has not come
  bool first;           // y starts at 0
  float* y;             // [rows, 32], 64-byte aligned; used where `ends`
  std::size_t y_panel;  // elements of y, and of carry, from panel to panel

  const std::byte* opened = nullptr;  // what open() returned, between open() and close()
};

struct Entry {
  Isa isa;
  unsigned code_bits;    // of the panels it reads
  unsigned lone_rows;    // tokens of one panel at most; up to so many are one tile
  unsigned tile_rows;    // tokens at most where there are several tiles, at most lone_rows
  unsigned tile_panels;  // panels that a call multiplies at most then
  void (*multiply)(const TileProduct& product);
  // Codes of the longest span that one call should be given where there are several tiles: how much
  // of a panel stays in the first cache from tile to tile, beside 12 KB of twelve tokens.
  std::size_t span_bytes = 16 << 10;

  // For an entry that has something to do once for several tiles with the same codes; else null.
  // open() looks at what is not of a tile of tokens (codes, groups, first_unit), writes to `work`,
  // 64-byte aligned, which then stays as it is, and never returns null. The thread calls multiply
  // with it and close() before anything else of the library. Results are those without.
  std::size_t work_bytes = 0;
  const std::byte* (*open)(const TileProduct& product, std::byte* work) = nullptr;
  void (*close)() = nullptr;
};

/// Best first, scalar last, of panels with so many bits.
std::span<const Entry* const> table(unsigned code_bits) noexcept;

}  // namespace quell::kernels::gemm_int8

namespace quell::kernels {
/// One entry for four bits, one for eight.
namespace scalar {
extern const gemm_int8::Entry gemm_int8_entries[2];
}
namespace avx2 {
extern const gemm_int8::Entry gemm_int8_entries[2];
}
namespace avx512vnni {
extern const gemm_int8::Entry gemm_int8_entries[2];
}
namespace amx {
extern const gemm_int8::Entry gemm_int8_entries[2];
}
namespace neon {
extern const gemm_int8::Entry gemm_int8_entries[2];
}
namespace neondot {
extern const gemm_int8::Entry gemm_int8_entries[2];
}
}  // namespace quell::kernels
