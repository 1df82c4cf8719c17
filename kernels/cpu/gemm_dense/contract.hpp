// SPDX-License-Identifier: Apache-2.0
#pragma once

// gemm_dense, f32: C = A * B^T, C + A * B^T or C - A * B^T, with A [M, K], B [N, K], C [M, N].
//
// What every entry promises, bit for bit: each output is one accumulator; it starts at +0 (set) or
// at the C that was there; for k = 0, 1, ... K-1 it becomes fma(a[k], b[k], accumulator).
// Subtraction negates a, which is exact. Cutting K in blocks stores and reloads the accumulator and
// changes nothing. A NaN result is a NaN everywhere; its payload is not part of the promise.
//
// An entry offers two single-threaded functions over raw pointers; gemm.cpp cuts the matrices for
// them. Packed form of `rows` rows by `depth` columns, `width` >= rows: element (r, k) at
// k * width + r, zero for r >= rows.
//
//        B panel, width = panel_cols                       A tile, width = its rows
//        k=0  b0 b1 b2 ... b47                             k=0  a0 a1 ... a8
//        k=1  b0 b1 b2 ... b47                             k=1  a0 a1 ... a8

#include <cstddef>
#include <span>

#include "quell/kernels/isa.hpp"

// The namespace has a longer name than the folder because quell::kernels::gemm_dense is the
// function.
namespace quell::kernels::gemm_dense_family {

// Bounds over all entries: the driver keeps one tile of this size on its stack for ragged edges.
constexpr unsigned kMaxTileRows = 16;
constexpr unsigned kMaxPanelCols = 48;

/// Where the rows of an operand lie. Element (r, k) is at data[r * stride + k], or, transposed, at
/// data[k * stride + r].
struct Source {
  const float* data;
  std::size_t stride;  // elements
  bool transposed;
};

/// A tile of C, `rows` x panel_cols, takes `depth` products. Accumulators start at `from` (zero if
/// null) and end in `to`, which may be `from`; all panel_cols columns are read and written.
struct TileProduct {
  const float* a;  // packed tile, width = rows
  const float* b;  // packed panel, 64-byte aligned
  std::size_t depth;
  unsigned rows;  // 1..tile_rows
  const float* from;
  std::size_t from_stride;  // elements from row to row
  float* to;
  std::size_t to_stride;
  // Memory that will be read soon: during step k the line at ahead + k * ahead_step bytes is asked
  // for (an entry may leave out every other step). Only a hint; need not be valid memory.
  const void* ahead;
  std::size_t ahead_step;
};

struct Entry {
  Isa isa;
  unsigned tile_rows;    // rows of C that one call of multiply covers at most
  unsigned panel_cols;   // columns of C that it covers, and width of a packed panel of B
  unsigned depth_block;  // K of a block: a panel of that depth and a tile stay in the first cache

  /// Packs rows [0, rows) and columns [0, depth) of `source`; reads nothing outside of them. `dst`
  /// has depth * width elements at any alignment; with `negate`, every element changes its sign.
  void (*pack)(const Source& source, std::size_t rows, std::size_t width, std::size_t depth,
               bool negate, float* dst);
  void (*multiply)(const TileProduct& product);
};

/// Best first, scalar last.
std::span<const Entry* const> table() noexcept;

}  // namespace quell::kernels::gemm_dense_family

namespace quell::kernels {
namespace scalar {
extern const gemm_dense_family::Entry gemm_dense_entry;
}
namespace avx2 {
extern const gemm_dense_family::Entry gemm_dense_entry;
}
namespace avx512 {
extern const gemm_dense_family::Entry gemm_dense_entry;
}
namespace neon {
extern const gemm_dense_family::Entry gemm_dense_entry;
}
}  // namespace quell::kernels
