// SPDX-License-Identifier: Apache-2.0
#pragma once

// tensor_stats: power sums of float in double. scalar.cpp is the specification; all entries give
// equal bits. The unit of work is a chunk of at most 4,096 elements: inside it element i belongs to
// lane i mod 16, every lane adds in ascending order, and lanes are folded l += l + 8, l + 4, l + 2,
// l + 1. Columns have one lane each and a chunk is 4,096 rows.
//
// Tiles are for sums along both directions at once. `load` decodes 16 rows of 256 columns to float,
// where they stay in the first cache, and `add` sums them: columns have one lane each, rows the
// sixteen lanes of a chunk. In tiles the third and fourth power are added fused (fma(q, d, sum3),
// fma(q, q, sum4)): products that two sums share would otherwise be as many instructions again.
//
// Per finite element, in double: d = x, q = d d (exact, 48 bits), then sum += d, sum2 += q,
// sum3 += q d, sum4 += q q, sum_abs += |d|. The fourth power of the largest float is 1.4e154, so
// nothing overflows. A value that is not finite adds +0, which changes no lane.

#include <cstddef>
#include <cstdint>
#include <span>

#include "quell/kernels/isa.hpp"

namespace quell::kernels::tensor_stats {

constexpr std::size_t kChunk = 4096;
constexpr unsigned kLanes = 16;
// Columns of one block: their accumulators (5 doubles and 3 words each) take 6.5 KB of the first
// cache.
constexpr std::size_t kColumnBlock = 128;

struct ChunkSums {
  std::uint64_t count = 0;  // finite values
  double sum = 0, sum2 = 0, sum3 = 0, sum4 = 0, sum_abs = 0;
  float max_abs = -1.0f;  // of finite values; -1: none
};

/// Accumulators of one block of columns, one lane a column.
struct ColumnSums {
  double sum[kColumnBlock], sum2[kColumnBlock], sum3[kColumnBlock], sum4[kColumnBlock],
      sum_abs[kColumnBlock];
  std::uint32_t count[kColumnBlock];
  float max_abs[kColumnBlock];         // -1: no finite value yet
  std::uint32_t argmax[kColumnBlock];  // row within the chunk
};

constexpr std::size_t kTileRows = 16, kTileCols = 256;
// Columns of a tile are padded with zeros to a multiple of this.
constexpr std::size_t kTileGroup = 32;

/// Rows and columns that are not there are not touched, but for the padding.
struct alignas(64) Tile {
  float x[kTileRows][kTileCols];
  float column_max[kTileCols];             // max |x|
  std::uint32_t column_argmax[kTileCols];  // and the first row of the tile that has it
};
/// Accumulators of a row of tiles: lane l has the columns c with c mod 16 = l.
struct alignas(64) RowLanes {
  double sum_abs[kLanes], sum[kLanes], sum2[kLanes], sum3[kLanes], sum4[kLanes];
  float max_abs[kLanes];  // by lanes of any order; only the largest of all sixteen counts
};
/// Accumulators of the columns of a tile.
struct alignas(64) TileColumns {
  double sum[kTileCols], sum2[kTileCols], sum3[kTileCols], sum4[kTileCols], sum_abs[kTileCols];
  float max_abs[kTileCols];         // -1: no finite value yet
  std::uint32_t argmax[kTileCols];  // row
};

/// Where the values of the tile after this one lie: `stride` bytes from row to row, `width` bytes
/// an element. Fetching them while a tile is added hides the memory behind the arithmetic; all at
/// once, when they are loaded, they would wait for each other. Null: nowhere.
struct NextTile {
  const std::byte* first = nullptr;
  std::size_t stride = 0, width = 0;
};

/// Words to count beside: `stride` words from row to row, and 65,536 counters.
struct CountedWords {
  const std::uint16_t* first = nullptr;
  std::size_t stride = 0;
  std::uint32_t* counts = nullptr;
};

struct Entry {
  Isa isa;
  /// Sums of n <= kChunk elements.
  void (*chunk)(const float* x, std::size_t n, ChunkSums* out);
  /// Index of the first element with |x| == magnitude (finite), n if there is none.
  std::size_t (*find)(const float* x, std::size_t n, float magnitude);
  /// Adds `rows` rows of `cols` <= kColumnBlock columns, rows `stride` elements apart, to `sums`;
  /// the first of them is row `first_row` of the chunk.
  void (*columns)(const float* x, std::size_t stride, std::size_t rows, std::size_t cols,
                  std::uint32_t first_row, ColumnSums* sums);

  /// Decodes rows of bfloat16, or copies rows of float, that are `stride` elements apart: rows <=
  /// kTileRows, cols <= kTileCols. False if a value is not finite; the tile then holds the values,
  /// but no maxima, and max_abs of the rows is as it was.
  bool (*load_bf16)(const std::uint16_t* x, std::size_t stride, std::size_t rows, std::size_t cols,
                    Tile* tile, RowLanes* lanes);
  bool (*load_f32)(const float* x, std::size_t stride, std::size_t rows, std::size_t cols,
                   Tile* tile, RowLanes* lanes);
  /// Raises maxima of columns where those of the tile, whose first row is `first_row`, are larger.
  void (*raise)(const Tile* tile, std::size_t cols, std::uint32_t first_row, TileColumns* columns);
  /// Adds a tile of finite values to the columns and to sum_abs of the rows or, in `add_powers`, to
  /// all sums of the rows. Meanwhile `next` may be fetched from memory.
  void (*add)(const Tile* tile, std::size_t rows, std::size_t cols, RowLanes* lanes,
              TileColumns* columns, const NextTile& next);
  /// `add` that also counts the words of the tile: counting waits for the first cache, adding for
  /// the arithmetic, and mixed they take two thirds of the time that they take apart.
  void (*add_counting)(const Tile* tile, std::size_t rows, std::size_t cols, RowLanes* lanes,
                       TileColumns* columns, const NextTile& next, const CountedWords& words);
  void (*add_powers)(const Tile* tile, std::size_t rows, std::size_t cols, RowLanes* lanes,
                     TileColumns* columns, const NextTile& next);
};

/// Best first, scalar last.
std::span<const Entry* const> table() noexcept;

}  // namespace quell::kernels::tensor_stats

namespace quell::kernels {
namespace scalar {
extern const tensor_stats::Entry tensor_stats_entry;
}
namespace avx2 {
extern const tensor_stats::Entry tensor_stats_entry;
}
namespace avx512 {
extern const tensor_stats::Entry tensor_stats_entry;
}
}  // namespace quell::kernels
