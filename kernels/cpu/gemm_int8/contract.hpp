// SPDX-License-Identifier: Apache-2.0
#pragma once

// gemm_int8: unsigned codes of 4 or 8 bits in panels (kernels/panels.hpp) times int8 activations.
// It is reported as four families, gemm_w4a8, gemm_w4u4a8, gemm_t4a8 and gemm_w8a8, whose entries
// differ only in how a unit of codes becomes bytes.
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
// Where scales have two levels (gemm_w4u4a8), four bits a code whose zero is 8, sums stay whole
// numbers to the end of the row; integer is 0 to 15:
//
//     I    = sum over k in all groups g of (code[o, k] - 8) * integer[o, g] * x[t, k]
//     y    = fma(float(I), scale[o], 0)
//
// So they are codes of eight bits in a lone group, 128 + (code - 8) * integer, from 8 to 233, whose
// zero is 128: an entry may write them out as such. At most kMostInLevels input channels.
//
// Where four bits choose among sixteen whole numbers of [-127, 127] (gemm_t4a8), code[o, k] is 128
// more than the number and its zero 128: bytes again.
//
// Activations lie in tiles of `rows` tokens, in blocks of 64 input channels: those of row r in
// block i are the 64 bytes at a[(i rows + r) 64], each in [-127, 127]; those past the last input
// channel are zero, so codes there do not matter. starts[g rows + r] is minus the sum of x over
// group g; where there is no line of zeros it is multiplied by the zero already, and zero is 1.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/panels.hpp"
#include "quell/kernels/isa.hpp"

namespace quell::kernels::gemm_int8 {

constexpr unsigned kMaxRows = 32;
// 2^31 / (255 * 127): the largest distance of a code from its zero times the largest activation.
constexpr std::size_t kMostInGroup = 66'000;

// 2^31 / (120 * 127): the largest product of (code - 8) and integer times the largest activation.
constexpr std::size_t kMostInLevels = 140'000;

/// What panels hold, and a table of entries reads.
enum class Codes : std::uint8_t { four_bits, eight_bits, two_level, table };

constexpr unsigned bits_of(Codes codes) {
  return codes == Codes::eight_bits ? 8 : 4;
}
constexpr std::size_t unit_bytes(Codes codes) {
  return kPanelCols * kUnit * bits_of(codes) / 8;
}
constexpr std::size_t index_of(Codes codes) {
  return static_cast<std::size_t>(codes);
}
/// What a product of panels with such codes is reported as.
constexpr std::string_view family(Codes codes) {
  constexpr std::string_view kFamilies[] = {"gemm_w4a8", "gemm_w8a8", "gemm_w4u4a8", "gemm_t4a8"};
  return kFamilies[index_of(codes)];
}

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

  // Of two levels only, where `groups` is 1, `first` is set, carry is there even where a call both
  // begins and ends, and first_unit counts from the panel's first. 16 bytes for each group of the
  // panel, aligned as much: that of OC c in the low half of byte c, that of OC c + 16 in the high
  // half.
  const std::byte* integers = nullptr;
  std::size_t level_units = 0;                 // of a group, the panel's last may have fewer
  const std::int32_t* level_starts = nullptr;  // [groups of the panel, rows], -8 times the sum of x

  // Of gemm_t4a8 only: [16], the bytes that codes stand for, 16-byte aligned.
  const std::uint8_t* table = nullptr;

  const std::byte* opened = nullptr;  // what open() returned, between open() and close()
};

struct Entry {
  Isa isa;
  Codes codes;           // it reads
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
  // with it and close() before another product; finishing rows in between is allowed. Results are
  // those without. A lone group has at most as many units as span_bytes hold then; close() may be
  // null.
  std::size_t work_bytes = 0;
  const std::byte* (*open)(const TileProduct& product, std::byte* work) = nullptr;
  void (*close)() = nullptr;

  bool wants_level_starts = false;  // else the driver leaves them out
};

/// Best first, scalar last.
std::span<const Entry* const> table(Codes codes) noexcept;

}  // namespace quell::kernels::gemm_int8

namespace quell::kernels {
/// One for each of Codes, in their order.
namespace scalar {
extern const gemm_int8::Entry gemm_int8_entries[4];
}
namespace avx2 {
extern const gemm_int8::Entry gemm_int8_entries[4];
}
namespace avx512vnni {
extern const gemm_int8::Entry gemm_int8_entries[4];
}
namespace amx {
extern const gemm_int8::Entry gemm_int8_entries[4];
}
namespace neon {
extern const gemm_int8::Entry gemm_int8_entries[4];
}
namespace neondot {
extern const gemm_int8::Entry gemm_int8_entries[4];
}
}  // namespace quell::kernels
