// SPDX-License-Identifier: Apache-2.0
#pragma once

// tensor_stats: power sums of float in double. scalar.cpp is the specification; all entries give
// equal bits. The unit of work is a chunk of at most 4,096 elements: inside it element i belongs to
// lane i mod 16, every lane adds in ascending order, and lanes are folded l += l + 8, l + 4, l + 2,
// l + 1. Columns have one lane each and a chunk is 4,096 rows.
//
// Tiles are for sums along both directions at once, of up to 16 rows and 256 columns, with less
// arithmetic: sums are taken in float over RUNS, of one column over the rows of the tile or of 16
// elements of a row, and each run is widened once and added in double. Error of a sum: at most
// 2^-19 of the sum of the absolute values of its terms (18 roundings of 2^-24 where a run has 16
// terms and powers are rounded themselves), 1e-7 for columns of 512 normal values; and what a power
// loses when it becomes subnormal, 2^-70 of the same power of the largest magnitude nearby per
// element. For that, a STRIP, 32 columns of a tile, is left out when its largest magnitude is above
// kLargest or, unless it is zero, below kLeast, or when a value is not finite: the caller cleans
// it, brings it near 1 by a power of two, and runs are scaled back in double.
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
constexpr std::size_t kStrip = 32;  // columns
constexpr std::size_t kTileStrips = kTileCols / kStrip;
constexpr float kLeast = 0x1p-20f, kLargest = 0x1p20f;

/// `cols` is a multiple of kStrip.
template <typename T>
struct TileView {
  const T* x;
  std::size_t stride, rows, cols;
};
/// What runs are multiplied by, of x, x^2, x^3, x^4: powers of two.
struct TileScale {
  double x = 1, x2 = 1, x3 = 1, x4 = 1;
};

/// Accumulators of a row of tiles. Lane l has the columns c with (c mod 32) / 2 = l. Its run over a
/// tile starts at +0 and takes |x[2l]| + |x[2l + 1]| of one strip after the other.
struct alignas(64) RowLanes {
  double sum_abs[kLanes];
  float max_abs[kLanes];  // by lanes of any order; only the largest of all sixteen counts
};
/// Accumulators of the columns of a strip. A run starts at +0 and takes the rows in ascending
/// order: s += x, s2 = fma(x, x, s2), s3 = fma(q, x, s3), s4 = fma(q, q, s4), q = x x, in float.
struct alignas(64) StripColumns {
  double sum[kStrip], sum2[kStrip], sum3[kStrip], sum4[kStrip], sum_abs[kStrip];
  float max_abs[kStrip];
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

  /// Adds a tile to its rows and to the columns of its strips, and raises their maxima. Bit s of
  /// the result: strip s is left out and has changed nothing but `counts`: these, unless null, are
  /// 65,536 counters to which all words are added.
  unsigned (*tile_bf16)(const TileView<std::uint16_t>& tile, StripColumns* columns, RowLanes* lanes,
                        std::uint32_t* counts);
  /// The same of floats. With a scale the values have been brought near 1: nothing is left out, and
  /// maxima stay as they are.
  unsigned (*tile_f32)(const TileView<float>& tile, const TileScale* scale, StripColumns* columns,
                       RowLanes* lanes);
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
