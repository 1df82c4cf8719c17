// SPDX-License-Identifier: Apache-2.0

// LineSums over the tiles of tensor_stats. What is rare is done here in plain loops: values that
// are not finite become zeros in the tile, and are counted.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "kernels/cpu/tensor_stats/contract.hpp"
#include "kernels/dispatch.hpp"
#include "quell/kernels/tensor_stats.hpp"

namespace quell::kernels {
namespace {

using tensor_stats::kChunk;
using tensor_stats::kLanes;
using tensor_stats::kTileCols;
using tensor_stats::kTileRows;
using tensor_stats::RowLanes;
using tensor_stats::Tile;
using tensor_stats::TileColumns;

/// The first element with this magnitude. Blocks are compared whole, without an exit, so that the
/// comparison becomes vector instructions; one is somewhere.
std::size_t find_magnitude(const std::uint16_t* x, std::size_t n, float magnitude) {
  constexpr std::size_t kBlock = 64;
  const auto wanted = static_cast<std::int16_t>(std::bit_cast<std::uint32_t>(magnitude) >> 16);
  std::size_t first = 0;
  for (; first + kBlock <= n; first += kBlock) {
    std::int16_t least = 0x7FFF;  // of differing bits: a minimum of sixteen bits is one instruction
    for (std::size_t i = 0; i < kBlock; ++i) {
      const auto differ = static_cast<std::int16_t>((x[first + i] & 0x7FFF) ^ wanted);
      least = std::min(least, differ);
    }
    if (least == 0) break;
  }
  while (first < n && (x[first] & 0x7FFF) != wanted) ++first;
  return first;
}
std::size_t find_magnitude(const float* x, std::size_t n, float magnitude) {
  return choose(tensor_stats::table()).find(x, n, magnitude);
}

double folded(double* lane) {
  for (unsigned width = kLanes / 2; width > 0; width /= 2) {
    for (unsigned l = 0; l < width; ++l) lane[l] = lane[l] + lane[l + width];
  }
  return lane[0];
}

}  // namespace

struct LineSums::State {
  explicit State(std::size_t cols) : tiles((cols + kTileCols - 1) / kTileCols), nonfinite(cols) {}

  const tensor_stats::Entry& kernel = choose(tensor_stats::table());
  std::vector<TileColumns> tiles;
  std::vector<std::uint32_t> nonfinite;

  Tile tile;
  RowLanes lanes[kTileRows];
  std::uint64_t row_nonfinite[kTileRows];

  /// Puts zeros for values that are not finite, and finds the maxima of the others.
  void clean(std::size_t rows, std::size_t cols, std::size_t first_col) {
    std::fill(tile.column_max, tile.column_max + kTileCols, -1.0f);
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < cols; ++c) {
        float& value = tile.x[r][c];
        if (!std::isfinite(value)) {
          value = 0;
          ++row_nonfinite[r];
          ++nonfinite[first_col + c];
          continue;
        }
        const float magnitude = std::fabs(value);
        if (magnitude > tile.column_max[c]) {
          tile.column_max[c] = magnitude;
          tile.column_argmax[c] = static_cast<std::uint32_t>(r);
        }
        lanes[r].max_abs[0] = std::max(lanes[r].max_abs[0], magnitude);
      }
    }
  }

  /// Row r of the lanes, over n columns.
  PowerSums row(std::size_t r, std::size_t n, Rows detail) {
    RowLanes& from = lanes[r];
    PowerSums sums;
    sums.nonfinite = row_nonfinite[r];
    sums.count = n - sums.nonfinite;
    sums.sum_abs = folded(from.sum_abs);
    if (detail == Rows::powers) {
      sums.sum = folded(from.sum);
      sums.sum2 = folded(from.sum2);
      sums.sum3 = folded(from.sum3);
      sums.sum4 = folded(from.sum4);
    }
    sums.max_abs = std::max(0.0f, *std::max_element(from.max_abs, from.max_abs + kLanes));
    return sums;
  }
};

LineSums::LineSums(std::size_t cols, Rows detail)
    : cols_(cols), detail_(detail), state_(std::make_unique<State>(cols)) {
  clear();
}
LineSums::LineSums(LineSums&&) noexcept = default;
LineSums& LineSums::operator=(LineSums&&) noexcept = default;
LineSums::~LineSums() = default;

std::size_t LineSums::bytes(std::size_t cols) noexcept {
  const std::size_t tiles = (cols + kTileCols - 1) / kTileCols;
  return sizeof(State) + tiles * sizeof(TileColumns) + cols * sizeof(std::uint32_t);
}

void LineSums::clear() noexcept {
  rows_ = 0;
  TileColumns start = {};
  std::fill(start.max_abs, start.max_abs + kTileCols, -1.0f);
  std::fill(state_->tiles.begin(), state_->tiles.end(), start);
  std::fill(state_->nonfinite.begin(), state_->nonfinite.end(), 0u);
}

template <typename T>
void LineSums::add_rows(MatrixView<const T> x, std::span<PowerSums> sums,
                        std::span<std::uint32_t> counts) {
  QUELL_ASSERT(counts.empty() || (counts.size() == 0x10000 && detail_ == Rows::magnitudes));
  QUELL_ASSERT(x.cols() == cols_ && sums.size() == x.rows() && rows_ + x.rows() <= kRows);
  State& state = *state_;
  const auto add_tile = detail_ == Rows::powers ? state.kernel.add_powers : state.kernel.add;
  std::fill(sums.begin(), sums.end(), PowerSums{});
  // A chunk of columns at a time over all rows: its sums (160 KB) stay in the second cache.
  for (std::size_t chunk = 0; chunk < cols_; chunk += kChunk) {
    const std::size_t chunk_end = std::min(chunk + kChunk, cols_);
    for (std::size_t first = 0; first < x.rows(); first += kTileRows) {
      const std::size_t rows = std::min(kTileRows, x.rows() - first);
      for (std::size_t r = 0; r < rows; ++r) {
        state.lanes[r] = {};
        std::fill(state.lanes[r].max_abs, state.lanes[r].max_abs + kLanes, -1.0f);
        state.row_nonfinite[r] = 0;
      }
      for (std::size_t c = chunk; c < chunk_end; c += kTileCols) {
        const std::size_t cols = std::min(kTileCols, chunk_end - c);
        const T* from = x.data() + first * x.stride() + c;
        bool finite = false;
        if constexpr (std::is_same_v<T, float>) {
          finite = state.kernel.load_f32(from, x.stride(), rows, cols, &state.tile, state.lanes);
        } else {
          finite = state.kernel.load_bf16(from, x.stride(), rows, cols, &state.tile, state.lanes);
        }
        if (!finite) state.clean(rows, cols, c);
        TileColumns& columns = state.tiles[c / kTileCols];
        state.kernel.raise(&state.tile, cols, static_cast<std::uint32_t>(rows_ + first), &columns);
        // The tile to the right, else the first of the rows below.
        tensor_stats::NextTile next;
        if (c + kTileCols < chunk_end) {
          next.first = reinterpret_cast<const std::byte*>(from + kTileCols);
        } else if (first + kTileRows < x.rows()) {
          next.first = reinterpret_cast<const std::byte*>(x.data() +
                                                          (first + kTileRows) * x.stride() + chunk);
        }
        next.stride = x.stride() * sizeof(T);
        next.width = sizeof(T);
        if constexpr (std::is_same_v<T, std::uint16_t>) {
          if (!counts.empty()) {
            state.kernel.add_counting(&state.tile, rows, cols, state.lanes, &columns, next,
                                      {from, x.stride(), counts.data()});
            continue;
          }
        }
        add_tile(&state.tile, rows, cols, state.lanes, &columns, next);
      }
      for (std::size_t r = 0; r < rows; ++r) {
        PowerSums part = state.row(r, chunk_end - chunk, detail_);
        PowerSums& row = sums[first + r];
        if (detail_ == Rows::powers && part.count > 0 &&
            (row.count == 0 || part.max_abs > row.max_abs)) {
          part.argmax_abs = find_magnitude(x.data() + (first + r) * x.stride() + chunk,
                                           chunk_end - chunk, part.max_abs);
        }
        row.merge(part, chunk);
      }
    }
  }
  rows_ += x.rows();
}

void LineSums::add(MatrixView<const float> x, std::span<PowerSums> sums) {
  add_rows(x, sums, {});
}
void LineSums::add(MatrixView<const std::uint16_t> bf16, std::span<PowerSums> sums,
                   std::span<std::uint32_t> counts) {
  add_rows(bf16, sums, counts);
}

void LineSums::merge_into(std::span<PowerSums> columns, std::size_t first_col,
                          std::uint64_t first_row) const noexcept {
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const std::size_t c = first_col + i;
    const TileColumns& tile = state_->tiles[c / kTileCols];
    const std::size_t at = c % kTileCols;
    const std::uint64_t nonfinite = state_->nonfinite[c];
    const PowerSums sums = {
        rows_ - nonfinite, nonfinite,     tile.sum[at],     tile.sum2[at],
        tile.sum3[at],     tile.sum4[at], tile.sum_abs[at], std::max(0.0f, tile.max_abs[at]),
        tile.argmax[at]};
    columns[i].merge(sums, first_row);
  }
}

}  // namespace quell::kernels
