// SPDX-License-Identifier: Apache-2.0
#pragma once

// gemm_bf16 over the tiles of AMX, the instructions being a parameter: amx.cpp has those of the
// processor, a test plain C++ of the same meaning.
//
// Up to 32 tokens by 32 output channels are four tiles of sums, 0 to 3; two tiles of activations, 4
// and 5, and two of weights, 6 and 7, make four products of 32 input channels, one load a product.
// More than sixteen tokens are two tiles that may overlap: rows that both have are computed twice
// and alike, so that one configuration serves every number of tokens from sixteen on.
//
// Activations lie as tiles want them. Weights are laid in *pieces*: what a group and a block of 32
// input channels have in common, two tiles of 16 pairs, zeros where the block belongs to another
// group. The pieces of a span are laid out once for all tiles of tokens where they fit the first
// cache.
//
// One token goes through the tiles, too: vectors would add in another order, and a token alone is
// to have the bits that it has among others.

#include <immintrin.h>

#include "kernels/cpu/amx_tiles.hpp"
#include "kernels/cpu/gemm_bf16/contract.hpp"
#include "kernels/cpu/gemm_bf16/pairs.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512)
namespace quell::kernels::amx {
namespace {  // an object for an instruction set exports its entry alone

namespace family = gemm_bf16;
using family::Weights;

constexpr unsigned kTokens = 32, kTileTokens = 16;
constexpr std::size_t kTileBytes = 1024, kPieceBytes = 2 * kTileBytes;
// A chunk of 512 input channels: 32 KB of a first cache of 48, where activations pass through.
constexpr std::size_t kMostPieces = 16;
constexpr std::size_t kSumBytes = kPanelCols * sizeof(float);
constexpr std::size_t kTokenBytes = family::kBlock * sizeof(std::uint16_t);

/// Units [from, from + units) of block `block` of activations, which belong to one group.
struct Piece {
  std::size_t block, from, units;
  const std::byte* codes;
};

/// Calls visit(piece) for units [begin, end) of group g.
template <Weights kWeights, typename Visit>
QUELL_INLINE void each_piece(const family::TileProduct& p, std::size_t g, std::size_t begin,
                             std::size_t end, Visit visit) {
  const std::size_t before = p.first_unit + g * p.units;
  const std::byte* codes = p.codes + g * p.block_bytes;
  for (std::size_t unit = begin; unit < end;) {
    const std::size_t from = (before + unit) % family::kBlockUnits;
    const std::size_t room = family::kBlockUnits - from, left = end - unit;
    const std::size_t units = left < room ? left : room;
    visit(Piece{(before + unit) / family::kBlockUnits, from, units,
                codes + unit * family::unit_bytes(kWeights)});
    unit += units;
  }
}

/// Calls visit(g, begin, end) for the chunks of all groups.
template <typename Visit>
QUELL_INLINE void each_chunk(const family::TileProduct& p, Visit visit) {
  for (std::size_t g = 0; g < p.groups; ++g) {
    for (std::size_t begin = 0; begin < p.units; begin += family::kChunkUnits) {
      const std::size_t left = p.units - begin;
      visit(g, begin, begin + (left < family::kChunkUnits ? left : family::kChunkUnits));
    }
  }
}

QUELL_INLINE void clear_units(std::byte* to, std::size_t begin, std::size_t end) {
  const __m512i none = _mm512_setzero_si512();
  for (std::size_t line = 2 * begin; line < 2 * end; ++line) {
    _mm512_store_si512(to + line * 64, none);
    _mm512_store_si512(to + kTileBytes + line * 64, none);
  }
}

template <Weights kWeights, bool kZeros>
QUELL_INLINE void lay_out(const family::Decoder<kWeights, kZeros>& decoder, const Piece& piece,
                          std::byte* to) {
  constexpr std::size_t kUnitBytes = family::unit_bytes(kWeights);
  clear_units(to, 0, piece.from);
  const std::byte* unit = piece.codes;
  std::byte* end = to + (piece.from + piece.units) * 128;
  for (std::byte* at = to + piece.from * 128; at < end; at += 128, unit += kUnitBytes) {
    QUELL_UNROLL
    for (std::size_t line = 0; line < kUnitBytes; line += 64) {
      _mm_prefetch(unit + family::kAhead + line, _MM_HINT_T0);
    }
    const family::Pair first = decoder.template pair<0>(unit);
    const family::Pair second = decoder.template pair<1>(unit);
    _mm512_store_si512(at, first.low);
    _mm512_store_si512(at + 64, second.low);
    _mm512_store_si512(at + kTileBytes, first.high);
    _mm512_store_si512(at + kTileBytes + 64, second.high);
  }
  clear_units(to, piece.from + piece.units, family::kBlockUnits);
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
QUELL_INLINE void zero_sums() {
  Tiles::template zero<0>();
  Tiles::template zero<1>();
  if constexpr (kTwo) {
    Tiles::template zero<2>();
    Tiles::template zero<3>();
  }
}

template <typename Tiles, bool kTwo>
QUELL_INLINE void store_sums(float* sums, std::size_t second) {
  Tiles::template store<0>(sums, kSumBytes);
  Tiles::template store<1>(sums + 16, kSumBytes);
  if constexpr (kTwo) {
    Tiles::template store<2>(sums + second * kPanelCols, kSumBytes);
    Tiles::template store<3>(sums + second * kPanelCols + 16, kSumBytes);
  }
}

template <typename Tiles, bool kTwo>
QUELL_INLINE void add_piece(const std::uint16_t* a, std::size_t second, const std::byte* laid_out) {
  Tiles::template load<4>(a, kTokenBytes);
  Tiles::template load<6>(laid_out, 64);
  Tiles::template add_bf16_product<0, 4, 6>();
  Tiles::template load<7>(laid_out + kTileBytes, 64);
  Tiles::template add_bf16_product<1, 4, 7>();
  if constexpr (kTwo) {
    Tiles::template load<5>(a + second * family::kBlock, kTokenBytes);
    Tiles::template add_bf16_product<2, 5, 6>();
    Tiles::template add_bf16_product<3, 5, 7>();
  }
}

/// `laid_out`: the pieces of this call one after another, or null.
template <typename Tiles, Weights kWeights, bool kZeros, bool kTwo>
void multiply_tiles(const family::TileProduct& p, const std::byte* laid_out) {
  alignas(64) std::byte piece_here[kPieceBytes];
  alignas(64) float sums[kTokens * kPanelCols];
  const std::size_t second = kTwo ? p.rows - kTileTokens : 0;
  each_chunk(p, [&](std::size_t g, std::size_t begin, std::size_t end) {
    const std::byte* tail = p.tail + g * p.block_bytes;
    const family::Decoder<kWeights, kZeros> decoder(p, tail);
    zero_sums<Tiles, kTwo>();
    each_piece<kWeights>(p, g, begin, end, [&](const Piece& piece) {
      const std::uint16_t* a = p.a + piece.block * p.rows * family::kBlock;
      if (laid_out != nullptr) {
        add_piece<Tiles, kTwo>(a, second, laid_out);
        laid_out += kPieceBytes;
      } else {
        lay_out(decoder, piece, piece_here);
        add_piece<Tiles, kTwo>(a, second, piece_here);
      }
    });
    store_sums<Tiles, kTwo>(sums, second);
    const family::FloatPair scale = family::scales_of(p.scales, tail);
    const bool set = p.first && g == 0 && begin == 0;
    for (unsigned r = 0; r < p.rows; ++r) {
      const float* sum = sums + r * kPanelCols;
      family::add_scaled({_mm512_load_ps(sum), _mm512_load_ps(sum + 16)}, scale, set,
                         p.y + r * kPanelCols);
    }
  });
}

// What open() returns where every tile of tokens lays out the pieces itself.
constexpr std::byte kNotLaidOut{};

template <Weights kWeights, bool kZeros>
const std::byte* lay_out_all(const family::TileProduct& p, std::byte* work) {
  std::size_t count = 0;
  each_chunk(p, [&](std::size_t g, std::size_t begin, std::size_t end) {
    each_piece<kWeights>(p, g, begin, end, [&](const Piece&) { ++count; });
  });
  if (count > kMostPieces) return &kNotLaidOut;
  std::byte* to = work;
  each_chunk(p, [&](std::size_t g, std::size_t begin, std::size_t end) {
    const family::Decoder<kWeights, kZeros> decoder(p, p.tail + g * p.block_bytes);
    each_piece<kWeights>(p, g, begin, end, [&](const Piece& piece) {
      lay_out(decoder, piece, to);
      to += kPieceBytes;
    });
  });
  return work;
}

template <typename Tiles, Weights kWeights>
const std::byte* open(const family::TileProduct& p, std::byte* work) {
  configure<Tiles>(kTileTokens);
  if constexpr (kWeights != Weights::bf16) {
    if (p.zeros) return lay_out_all<kWeights, true>(p, work);
  }
  return lay_out_all<kWeights, false>(p, work);
}

template <typename Tiles>
void close() {
  Tiles::release();
}

template <typename Tiles, Weights kWeights, bool kZeros>
void multiply_as(const family::TileProduct& p) {
  const std::byte* laid_out = p.opened == &kNotLaidOut ? nullptr : p.opened;
  if (p.rows > kTileTokens) {
    multiply_tiles<Tiles, kWeights, kZeros, true>(p, laid_out);
  } else {
    multiply_tiles<Tiles, kWeights, kZeros, false>(p, laid_out);
  }
}

template <typename Tiles, Weights kWeights>
void multiply(const family::TileProduct& p) {
  const bool opened = p.opened != nullptr, few = p.rows < kTileTokens;
  if (!opened || few) configure<Tiles>(few ? p.rows : kTileTokens);
  if constexpr (kWeights == Weights::bf16) {
    multiply_as<Tiles, kWeights, false>(p);
  } else if (p.zeros) {
    multiply_as<Tiles, kWeights, true>(p);
  } else {
    multiply_as<Tiles, kWeights, false>(p);
  }
  if (!opened) {
    Tiles::release();
  } else if (few) {
    configure<Tiles>(kTileTokens);
  }
}

template <typename Tiles, Weights kWeights>
constexpr family::Entry entry_of() {
  return {Isa::amx,
          kWeights,
          kTokens,
          multiply<Tiles, kWeights>,
          kMostPieces * kPieceBytes,
          open<Tiles, kWeights>,
          close<Tiles>};
}

}  // namespace
}  // namespace quell::kernels::amx
QUELL_TARGET_END
