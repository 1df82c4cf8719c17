// SPDX-License-Identifier: Apache-2.0
#pragma once

// gemm_int8 over the tiles of AMX, the instructions being a parameter: amx.cpp has those of the
// processor, a test plain C++ of the same meaning.
//
// Up to 32 tokens by 32 output channels are four tiles of sums, 0 to 3; two tiles of activations,
// 4 and 5, and two of codes, 6 and 7, make four products of 64 input channels, one load a product.
// More than sixteen tokens are two tiles that may overlap: rows that both have are computed twice
// and alike, so that one configuration serves every number of tokens from sixteen on.
//
// Activations lie as tiles want them. Codes of eight bits do, too, where a group covers whole
// blocks of 64 input channels. All others are laid in a *piece*: what a group and a block have in
// common, two tiles of 16 units, zeros where the block belongs to another group. Codes of two
// levels are written out as codes of eight bits, by the entry of avx512vnni.

#include <immintrin.h>

#include "kernels/cpu/amx_tiles.hpp"
#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/cpu/gemm_int8/expanded.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512VNNI)
namespace quell::kernels::amx {
namespace {  // an object for an instruction set exports its entry alone

namespace family = gemm_int8;
using family::Codes;

constexpr unsigned kTokens = 32, kTileTokens = 16;
// A product takes as long for one token as for sixteen; with fewer than eight, vectors are faster
// on a Sapphire Rapids.
constexpr unsigned kFewest = 8;
constexpr std::size_t kTileBytes = 1024, kPieceBytes = 2 * kTileBytes;
// Pieces that are laid out once for many tiles of tokens: 32 KB of a first cache of 48, where
// activations pass through.
constexpr std::size_t kMostPieces = 16;
// Of one span: its codes as bytes are 16 KB, and so are the activations of 32 tokens. With twice as
// many, codes would leave the first cache between two tiles of tokens.
constexpr std::size_t kSpanUnits = 128;
constexpr std::size_t kAhead = 2048;  // bytes, as in avx512vnni.cpp
constexpr std::size_t kSumBytes = kPanelCols * sizeof(std::int32_t);

/// Units [from, from + units) of block `block` of activations, which belong to one group.
struct Piece {
  std::size_t group, block, from, units;
  const std::byte* codes;
  bool begins, ends;  // the group
};

template <Codes kCodes>
QUELL_INLINE Piece piece_at(const family::TileProduct& p, std::size_t group, std::size_t unit) {
  constexpr std::size_t kUnitBytes = family::unit_bytes(kCodes);
  const std::size_t at = p.first_unit + group * p.units + unit;
  const std::size_t from = at % family::kBlockUnits;
  const std::size_t room = family::kBlockUnits - from, left = p.units - unit;
  return {group,
          at / family::kBlockUnits,
          from,
          left < room ? left : room,
          p.codes + group * p.block_bytes + unit * kUnitBytes,
          unit == 0,
          left <= room};
}

/// The piece behind one, or nothing at the end of all groups.
template <Codes kCodes>
QUELL_INLINE bool advance(const family::TileProduct& p, Piece& piece) {
  if (piece.ends) {
    if (piece.group + 1 == p.groups) return false;
    piece = piece_at<kCodes>(p, piece.group + 1, 0);
    return true;
  }
  const std::size_t at = piece.block * family::kBlockUnits + piece.from + piece.units;
  piece = piece_at<kCodes>(p, piece.group, at - p.first_unit - piece.group * p.units);
  return true;
}

template <Codes kCodes>
QUELL_INLINE void lay_out(const family::TileProduct& p, const Piece& piece, std::byte* to) {
  constexpr std::size_t kUnitBytes = family::unit_bytes(kCodes);
  const __m512i none = _mm512_setzero_si512(), half = _mm512_set1_epi8(15);
  __m512i table = none;
  if constexpr (kCodes == Codes::table) {
    table = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(p.table)));
  }
  for (std::size_t u = 0; u < piece.from; ++u) {
    _mm512_store_si512(to + u * 64, none);
    _mm512_store_si512(to + kTileBytes + u * 64, none);
  }
  const std::byte* codes = piece.codes;
  std::byte* end = to + (piece.from + piece.units) * 64;
  for (std::byte* at = to + piece.from * 64; at < end; at += 64) {
    _mm_prefetch(codes + kAhead, _MM_HINT_T0);
    const __m512i line = _mm512_load_si512(codes);
    __m512i low = line, high;
    if constexpr (kCodes != Codes::eight_bits) {
      low = _mm512_and_si512(line, half);
      high = _mm512_and_si512(_mm512_srli_epi16(line, 4), half);
      if constexpr (kCodes == Codes::table) {
        low = _mm512_shuffle_epi8(table, low);
        high = _mm512_shuffle_epi8(table, high);
      }
    } else {
      high = _mm512_load_si512(codes + 64);
    }
    _mm512_store_si512(at, low);
    _mm512_store_si512(at + kTileBytes, high);
    codes += kUnitBytes;
  }
  for (std::size_t u = piece.from + piece.units; u < family::kBlockUnits; ++u) {
    _mm512_store_si512(to + u * 64, none);
    _mm512_store_si512(to + kTileBytes + u * 64, none);
  }
}

/// Codes of eight bits that are tiles as they lie.
template <Codes kCodes>
QUELL_INLINE bool lies_right(const Piece& piece) {
  return kCodes == Codes::eight_bits && piece.units == family::kBlockUnits;
}

struct Pair {
  __m512 low, high;  // OC 0..15, OC 16..31
};

QUELL_INLINE Pair scales_of(PanelScales type, const std::byte* tail) {
  const auto* words = reinterpret_cast<const __m256i*>(tail);
  switch (type) {
    case PanelScales::f32:
      return {_mm512_load_ps(tail), _mm512_load_ps(tail + 64)};
    case PanelScales::f16:
      return {_mm512_cvtph_ps(_mm256_load_si256(words)),
              _mm512_cvtph_ps(_mm256_load_si256(words + 1))};
    case PanelScales::bf16:
      return {_mm512_castsi512_ps(
                  _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_load_si256(words)), 16)),
              _mm512_castsi512_ps(
                  _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_load_si256(words + 1)), 16))};
    case PanelScales::none:
      break;
  }
  return {_mm512_set1_ps(1.0f), _mm512_set1_ps(1.0f)};
}

/// What the sums of a group begin with: the zeros of its channels times the starts of its tokens.
struct Starts {
  __m512i low, high;
  const std::int32_t* of_rows;
  bool zeros;

  QUELL_INLINE Starts(const family::TileProduct& p, std::size_t g)
      : low(_mm512_setzero_si512()),
        high(_mm512_setzero_si512()),
        of_rows(p.starts + g * p.rows),
        zeros(p.zeros) {
    if (!zeros) return;
    const std::byte* line = p.tail + g * p.block_bytes + (p.scales == PanelScales::f32 ? 128 : 64);
    low = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(line)));
    high = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(line + 16)));
  }
  QUELL_INLINE void of(unsigned r, __m512i& to_low, __m512i& to_high) const {
    const __m512i start = _mm512_set1_epi32(of_rows[r]);
    to_low = zeros ? _mm512_mullo_epi32(low, start) : start;
    to_high = zeros ? _mm512_mullo_epi32(high, start) : start;
  }
};

/// y of a group from its sums; those of a lone group that was cut have their starts.
QUELL_INLINE void finish(const family::TileProduct& p, std::size_t g, const std::int32_t* sums) {
  const Pair scale = scales_of(p.scales, p.tail + g * p.block_bytes);
  const Starts starts(p, g);
  const bool set = p.first && g == 0;
  for (unsigned r = 0; r < p.rows; ++r) {
    __m512i low = _mm512_load_si512(sums + r * kPanelCols);
    __m512i high = _mm512_load_si512(sums + r * kPanelCols + 16);
    if (p.begins) {
      __m512i start_low, start_high;
      starts.of(r, start_low, start_high);
      low = _mm512_add_epi32(low, start_low);
      high = _mm512_add_epi32(high, start_high);
    }
    float* y = p.y + r * kPanelCols;
    const __m512 y_low = set ? _mm512_setzero_ps() : _mm512_load_ps(y);
    const __m512 y_high = set ? _mm512_setzero_ps() : _mm512_load_ps(y + 16);
    _mm512_store_ps(y, _mm512_fmadd_ps(_mm512_cvtepi32_ps(low), scale.low, y_low));
    _mm512_store_ps(y + 16, _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), scale.high, y_high));
  }
}

/// Every tile of activations and of sums has `rows` rows.
template <typename Tiles>
QUELL_INLINE void configure(unsigned rows) {
  TileShapes shapes = {};
  shapes.palette = 1;
  for (unsigned tile = 0; tile < kTileRegisters; ++tile) {
    shapes.row_bytes[tile] = 64;
    shapes.rows[tile] = static_cast<std::uint8_t>(tile < 6 ? rows : kTileTokens);
  }
  Tiles::configure(shapes);
}

template <typename Tiles, bool kTwo>
QUELL_INLINE void load_sums(const std::int32_t* sums, std::size_t second) {
  Tiles::template load<0>(sums, kSumBytes);
  Tiles::template load<1>(sums + 16, kSumBytes);
  if constexpr (kTwo) {
    Tiles::template load<2>(sums + second * kPanelCols, kSumBytes);
    Tiles::template load<3>(sums + second * kPanelCols + 16, kSumBytes);
  }
}

template <typename Tiles, bool kTwo>
QUELL_INLINE void store_sums(std::int32_t* sums, std::size_t second) {
  Tiles::template store<0>(sums, kSumBytes);
  Tiles::template store<1>(sums + 16, kSumBytes);
  if constexpr (kTwo) {
    Tiles::template store<2>(sums + second * kPanelCols, kSumBytes);
    Tiles::template store<3>(sums + second * kPanelCols + 16, kSumBytes);
  }
}

template <typename Tiles, bool kTwo>
QUELL_INLINE void zero_sums() {
  Tiles::template zero<0>();
  Tiles::template zero<1>();
  if constexpr (kTwo) {
    Tiles::template zero<2>();
    Tiles::template zero<3>();
  }
}

/// `low` and `high`: tiles of codes, `stride` bytes from unit to unit.
template <typename Tiles, bool kTwo>
QUELL_INLINE void add_piece(const std::int8_t* a, std::size_t second, const std::byte* low,
                            const std::byte* high, std::size_t stride) {
  Tiles::template load<4>(a, family::kBlockBytes);
  Tiles::template load<6>(low, stride);
  Tiles::template add_product<0, 4, 6>();
  Tiles::template load<7>(high, stride);
  Tiles::template add_product<1, 4, 7>();
  if constexpr (kTwo) {
    Tiles::template load<5>(a + second * family::kBlockBytes, family::kBlockBytes);
    Tiles::template add_product<2, 5, 6>();
    Tiles::template add_product<3, 5, 7>();
  }
}

/// `laid_out`: the pieces of this call one after another, or null.
template <typename Tiles, Codes kCodes, bool kTwo>
void multiply_tiles(const family::TileProduct& p, const std::byte* laid_out) {
  alignas(64) std::byte pieces[2][kPieceBytes];
  // Sums of a group wait here until the products of the next are on their way.
  alignas(64) std::int32_t sums[2][kTokens * kPanelCols];
  const std::size_t second = kTwo ? p.rows - kTileTokens : 0;
  const bool whole = p.begins && p.ends;  // else the one group was cut, and sums are in p.carry

  if (p.begins && !p.ends) {
    const Starts starts(p, 0);
    for (unsigned r = 0; r < p.rows; ++r) {
      __m512i low, high;
      starts.of(r, low, high);
      _mm512_store_si512(p.carry + r * kPanelCols, low);
      _mm512_store_si512(p.carry + r * kPanelCols + 16, high);
    }
  }
  if (!whole) load_sums<Tiles, kTwo>(p.carry, second);

  Piece piece = piece_at<kCodes>(p, 0, 0);
  // A piece is laid out while the one before it is multiplied.
  if (laid_out == nullptr && !lies_right<kCodes>(piece)) lay_out<kCodes>(p, piece, pieces[0]);
  unsigned side = 0;
  for (bool more = true; more;) {
    const Piece now = piece;
    more = advance<kCodes>(p, piece);
    if (more && laid_out == nullptr && !lies_right<kCodes>(piece)) {
      lay_out<kCodes>(p, piece, pieces[1 - side]);
    }
    if (now.begins && whole) zero_sums<Tiles, kTwo>();
    const std::int8_t* a = p.a + now.block * p.rows * family::kBlockBytes;
    if (laid_out != nullptr) {
      add_piece<Tiles, kTwo>(a, second, laid_out, laid_out + kTileBytes, 64);
      laid_out += kPieceBytes;
    } else if (lies_right<kCodes>(now)) {
      add_piece<Tiles, kTwo>(a, second, now.codes, now.codes + 64, 128);
    } else {
      add_piece<Tiles, kTwo>(a, second, pieces[side], pieces[side] + kTileBytes, 64);
    }
    side = 1 - side;
    if (!now.ends) continue;
    if (!p.ends) return store_sums<Tiles, kTwo>(p.carry, second);
    if (now.group > 0) finish(p, now.group - 1, sums[(now.group - 1) % 2]);
    store_sums<Tiles, kTwo>(sums[now.group % 2], second);
  }
  finish(p, p.groups - 1, sums[(p.groups - 1) % 2]);
}

// What open() returns where every tile of tokens reads the codes itself.
constexpr std::byte kNotLaidOut{};

template <typename Tiles, Codes kCodes>
const std::byte* open(const family::TileProduct& p, std::byte* work) {
  configure<Tiles>(kTileTokens);
  std::size_t count = 0, right = 0;
  Piece piece = piece_at<kCodes>(p, 0, 0);
  do {
    right += lies_right<kCodes>(piece) ? 1 : 0;
    if (++count > kMostPieces) return &kNotLaidOut;
  } while (advance<kCodes>(p, piece));
  if (right == count) return &kNotLaidOut;
  std::byte* to = work;
  piece = piece_at<kCodes>(p, 0, 0);
  do {
    lay_out<kCodes>(p, piece, to);
    to += kPieceBytes;
  } while (advance<kCodes>(p, piece));
  return work;
}

template <typename Tiles>
void close() {
  Tiles::release();
}

template <typename Tiles, Codes kCodes>
void multiply(const family::TileProduct& p) {
  if (p.rows < kFewest) {
    family::TileProduct few = p;
    few.opened = nullptr;  // what open() wrote is for tiles
    return avx512vnni::gemm_int8_entries[family::index_of(kCodes)].multiply(few);
  }
  const bool opened = p.opened != nullptr;
  const std::byte* laid_out = p.opened == &kNotLaidOut ? nullptr : p.opened;
  const bool few = p.rows < kTileTokens;
  if (!opened || few) configure<Tiles>(few ? p.rows : kTileTokens);
  if (p.rows > kTileTokens) {
    multiply_tiles<Tiles, kCodes, true>(p, laid_out);
  } else {
    multiply_tiles<Tiles, kCodes, false>(p, laid_out);
  }
  if (!opened) {
    Tiles::release();
  } else if (few) {
    configure<Tiles>(kTileTokens);
  }
}

QUELL_INLINE const family::Entry& vectors_of_two_level() {
  return avx512vnni::gemm_int8_entries[family::index_of(Codes::two_level)];
}

template <typename Tiles>
const std::byte* open_two_level(const family::TileProduct& p, std::byte* work) {
  configure<Tiles>(kTileTokens);
  return vectors_of_two_level().open(p, work);
}

template <typename Tiles>
void multiply_two_level(const family::TileProduct& p) {
  if (p.rows < kFewest) return vectors_of_two_level().multiply(p);
  if (p.opened == nullptr) {
    return multiply_in_parts(p, vectors_of_two_level().open, multiply<Tiles, Codes::eight_bits>);
  }
  family::TileProduct bytes = of_expanded(p, p.opened);
  bytes.opened = &kNotLaidOut;
  multiply<Tiles, Codes::eight_bits>(bytes);
}

template <typename Tiles>
constexpr family::Entry entry_of_two_level() {
  return {Isa::amx,
          Codes::two_level,
          kTokens,
          kTokens,
          1,
          multiply_two_level<Tiles>,
          kSpanUnits * family::unit_bytes(Codes::two_level),
          expanded_bytes(kSpanUnits),
          open_two_level<Tiles>,
          close<Tiles>};
}

template <typename Tiles, Codes kCodes>
constexpr family::Entry entry_of() {
  return {Isa::amx,
          kCodes,
          kTokens,
          kTokens,
          1,
          multiply<Tiles, kCodes>,
          kSpanUnits * family::unit_bytes(kCodes),
          kMostPieces * kPieceBytes,
          open<Tiles, kCodes>,
          close<Tiles>};
}

}  // namespace
}  // namespace quell::kernels::amx
QUELL_TARGET_END
