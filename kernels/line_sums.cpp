// SPDX-License-Identifier: Apache-2.0

// LineSums over the tiles of tensor_stats. What is rare is done here in plain loops, on a copy of
// the tile: ragged tiles are padded, values that are not finite become zeros and are counted, and
// tiles of very large or very small values are brought near 1.

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "kernels/cpu/tensor_stats/contract.hpp"
#include "kernels/dispatch.hpp"
#include "quell/core/half.hpp"
#include "quell/kernels/tensor_stats.hpp"

namespace quell::kernels {
namespace {

using tensor_stats::kChunk;
using tensor_stats::kLanes;
using tensor_stats::kTileCols;
using tensor_stats::kTileGroup;
using tensor_stats::kTileRows;
using tensor_stats::RowLanes;
using tensor_stats::TileColumns;
using tensor_stats::TileView;

float value_of(float x) {
  return x;
}
float value_of(std::uint16_t bf16) {
  return bf16_to_float(bf16);
}

constexpr std::size_t kTogether = 64;  // rows

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

  alignas(64) float copy[kTileRows][kTileCols];
  alignas(64) std::uint16_t words[kTileRows][kTileCols];
  RowLanes lanes[kTogether];
  std::uint64_t row_nonfinite[kTogether];

  unsigned add_rows(const TileView<float>& tile, RowLanes* to, float* most) {
    return kernel.rows_f32(tile, 1, copy[0], to, most);
  }
  unsigned add_rows(const TileView<std::uint16_t>& tile, RowLanes* to, float* most) {
    return kernel.rows_bf16(tile, 1, words[0], to, most);
  }
  void add_columns(const TileView<float>& tile, std::uint32_t first_row, TileColumns& columns,
                   const tensor_stats::NextTile& next, std::uint32_t*) {
    kernel.columns_f32({copy[0], kTileCols, tile.rows, tile.cols}, {}, first_row, &columns, next);
  }
  void add_columns(const TileView<std::uint16_t>& tile, std::uint32_t first_row,
                   TileColumns& columns, const tensor_stats::NextTile& next,
                   std::uint32_t* counts) {
    kernel.columns_bf16({words[0], kTileCols, tile.rows, tile.cols}, first_row, &columns, next,
                        counts);
  }

  template <typename T>
  void add_tile(const TileView<T>& tile, std::size_t lane_row, std::uint32_t first_row,
                std::size_t first_col, const tensor_stats::NextTile& next, std::uint32_t* counts) {
    TileColumns& columns = tiles[first_col / kTileCols];
    unsigned left_out = (1u << tile.rows) - 1;
    float most = 0;
    if (tile.cols % kTileGroup == 0) left_out = add_rows(tile, lanes + lane_row, &most);
    if (left_out == 0 && (most == 0 || most >= tensor_stats::kLeast)) {
      add_columns(tile, first_row, columns, next, counts);
      return;
    }
    add_copy(tile, left_out, lane_row, first_row, first_col);
    if constexpr (std::is_same_v<T, std::uint16_t>) {
      for (std::size_t r = 0; r < tile.rows && counts != nullptr; ++r) {
        for (std::size_t c = 0; c < tile.cols; ++c) ++counts[tile.x[r * tile.stride + c]];
      }
    }
  }

  /// Adds a tile of any values to its columns, and to those rows that have been left out.
  template <typename T>
  void add_copy(const TileView<T>& tile, unsigned left_out, std::size_t lane_row,
                std::uint32_t first_row, std::size_t first_col) {
    TileColumns& columns = tiles[first_col / kTileCols];
    float most = 0;
    for (std::size_t r = 0; r < tile.rows; ++r) {
      for (std::size_t c = 0; c < tile.cols; ++c) {
        const float magnitude = std::fabs(value_of(tile.x[r * tile.stride + c]));
        if (!std::isfinite(magnitude)) {
          ++row_nonfinite[lane_row + r];
          ++nonfinite[first_col + c];
          continue;
        }
        most = std::max(most, magnitude);
        float& row_max = lanes[lane_row + r].max_abs[0];
        row_max = std::max(row_max, magnitude);
        if (magnitude > columns.max_abs[c]) {
          columns.max_abs[c] = magnitude;
          columns.argmax[c] = first_row + static_cast<std::uint32_t>(r);
        }
      }
    }
    const bool scaled = most != 0 && (most < tensor_stats::kLeast || most > tensor_stats::kLargest);
    const double scale = scaled ? std::ldexp(1.0, std::ilogb(most)) : 1;
    const std::size_t padded = (tile.cols + kTileGroup - 1) / kTileGroup * kTileGroup;
    for (std::size_t r = 0; r < tile.rows; ++r) {
      std::fill(copy[r], copy[r] + padded, 0.0f);
      for (std::size_t c = 0; c < tile.cols; ++c) {
        const float value = value_of(tile.x[r * tile.stride + c]);
        if (std::isfinite(value)) {
          copy[r][c] = static_cast<float>(static_cast<double>(value) / scale);
        }
      }
      if ((left_out >> r & 1) == 0) continue;
      RowLanes row = {};
      float ignored = 0;
      kernel.rows_f32({copy[r], kTileCols, 1, padded}, scale, copy[r], &row, &ignored);
      for (unsigned l = 0; l < kLanes; ++l) lanes[lane_row + r].sum_abs[l] += row.sum_abs[l];
    }
    // The maxima are known, those of the copy are scaled and take zeros for finite values.
    float maxima[kTileCols];
    std::uint32_t places[kTileCols];
    std::copy(columns.max_abs, columns.max_abs + kTileCols, maxima);
    std::copy(columns.argmax, columns.argmax + kTileCols, places);
    kernel.columns_f32({copy[0], kTileCols, tile.rows, padded},
                       {scale, scale * scale, scale * scale * scale, scale * scale * scale * scale},
                       first_row, &columns, {});
    std::copy(maxima, maxima + kTileCols, columns.max_abs);
    std::copy(places, places + kTileCols, columns.argmax);
  }

  /// Row r of the lanes, over n columns.
  PowerSums row(std::size_t r, std::size_t n) {
    RowLanes& from = lanes[r];
    PowerSums sums;
    sums.nonfinite = row_nonfinite[r];
    sums.count = n - sums.nonfinite;
    sums.sum_abs = folded(from.sum_abs);
    sums.max_abs = *std::max_element(from.max_abs, from.max_abs + kLanes);
    return sums;
  }
};

LineSums::LineSums(std::size_t cols) : cols_(cols), state_(std::make_unique<State>(cols)) {
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
  QUELL_ASSERT(counts.empty() || counts.size() == 0x10000);
  QUELL_ASSERT(x.cols() == cols_ && sums.size() == x.rows() && rows_ + x.rows() <= kRows);
  State& state = *state_;
  std::fill(sums.begin(), sums.end(), PowerSums{});
  // Some rows of tiles together: the sums of a tile's columns (12 KB, more than its words) are
  // fetched once for all of them, and those of the rows (12 KB) stay in the first cache as well. A
  // chunk of columns at a time, so that sums of rows are chunks.
  for (std::size_t chunk = 0; chunk < cols_; chunk += kChunk) {
    const std::size_t chunk_end = std::min(chunk + kChunk, cols_);
    for (std::size_t start = 0; start < x.rows(); start += kTogether) {
      const std::size_t end = std::min(start + kTogether, x.rows());
      std::fill(state.lanes, state.lanes + (end - start), RowLanes{});
      std::fill(state.row_nonfinite, state.row_nonfinite + (end - start), 0u);
      for (std::size_t c = chunk; c < chunk_end; c += kTileCols) {
        const std::size_t cols = std::min(kTileCols, chunk_end - c);
        for (std::size_t first = start; first < end; first += kTileRows) {
          const std::size_t rows = std::min(kTileRows, end - first);
          // The tile below, else the first to the right; rows that are not there are only fetched.
          const bool below = first + kTileRows < end;
          const T* after = x.data() + (below ? first + kTileRows : start) * x.stride() + c +
                           (below ? 0 : kTileCols);
          tensor_stats::NextTile next = {nullptr, x.stride() * sizeof(T)};
          if (below || c + kTileCols < chunk_end) {
            next.first = reinterpret_cast<const std::byte*>(after);
          }
          state.add_tile(TileView<T>{x.data() + first * x.stride() + c, x.stride(), rows, cols},
                         first - start, static_cast<std::uint32_t>(rows_ + first), c, next,
                         counts.data());
        }
      }
      for (std::size_t r = start; r < end; ++r) {
        sums[r].merge(state.row(r - start, chunk_end - chunk), chunk);
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
