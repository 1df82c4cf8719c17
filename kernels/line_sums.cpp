// SPDX-License-Identifier: Apache-2.0

// LineSums over the tiles of tensor_stats. What is rare is done here in plain loops, on a copy of a
// strip: ragged ones are padded, values that are not finite become zeros and are counted, and
// strips of very large or very small values are brought near 1.

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
using tensor_stats::kStrip;
using tensor_stats::kTileCols;
using tensor_stats::kTileRows;
using tensor_stats::RowLanes;
using tensor_stats::StripColumns;
using tensor_stats::TileView;

float value_of(float x) {
  return x;
}
float value_of(std::uint16_t bf16) {
  return bf16_to_float(bf16);
}

double folded(double* lane) {
  for (unsigned width = kLanes / 2; width > 0; width /= 2) {
    for (unsigned l = 0; l < width; ++l) lane[l] = lane[l] + lane[l + width];
  }
  return lane[0];
}

}  // namespace

struct LineSums::State {
  explicit State(std::size_t cols) : strips((cols + kStrip - 1) / kStrip), nonfinite(cols) {}

  const tensor_stats::Entry& kernel = choose(tensor_stats::table());
  std::vector<StripColumns> strips;
  std::vector<std::uint32_t> nonfinite;

  RowLanes lanes[kTileRows];
  std::uint64_t row_nonfinite[kTileRows];

  unsigned add(const TileView<float>& tile, StripColumns* columns, std::uint32_t*) {
    return kernel.tile_f32(tile, nullptr, columns, lanes);
  }
  unsigned add(const TileView<std::uint16_t>& tile, StripColumns* columns, std::uint32_t* counts) {
    return kernel.tile_bf16(tile, columns, lanes, counts);
  }

  template <typename T>
  void add_tile(const TileView<T>& tile, std::size_t first_col, std::uint32_t* counts) {
    const std::size_t whole = tile.cols / kStrip * kStrip;
    unsigned left_out = 0;
    if (whole > 0) {
      left_out = add({tile.x, tile.stride, tile.rows, whole}, &strips[first_col / kStrip], counts);
    }
    for (std::size_t c = 0; c < tile.cols; c += kStrip) {
      const TileView<T> strip = {tile.x + c, tile.stride, tile.rows,
                                 std::min(kStrip, tile.cols - c)};
      if (c >= whole) {
        if constexpr (std::is_same_v<T, std::uint16_t>) count(strip, counts);
      } else if ((left_out >> (c / kStrip) & 1) == 0) {
        continue;
      }
      add_strip(strip, first_col + c);
    }
  }

  static void count(const TileView<std::uint16_t>& strip, std::uint32_t* counts) {
    for (std::size_t r = 0; r < strip.rows && counts != nullptr; ++r) {
      for (std::size_t c = 0; c < strip.cols; ++c) ++counts[strip.x[r * strip.stride + c]];
    }
  }

  /// Adds a strip of any values, of up to kStrip columns.
  template <typename T>
  void add_strip(const TileView<T>& strip, std::size_t first_col) {
    StripColumns& columns = strips[first_col / kStrip];
    float most = 0;
    for (std::size_t r = 0; r < strip.rows; ++r) {
      for (std::size_t c = 0; c < strip.cols; ++c) {
        const float magnitude = std::fabs(value_of(strip.x[r * strip.stride + c]));
        if (!std::isfinite(magnitude)) {
          ++row_nonfinite[r];
          ++nonfinite[first_col + c];
          continue;
        }
        most = std::max(most, magnitude);
        lanes[r].max_abs[0] = std::max(lanes[r].max_abs[0], magnitude);
        columns.max_abs[c] = std::max(columns.max_abs[c], magnitude);
      }
    }
    const bool far = most != 0 && (most < tensor_stats::kLeast || most > tensor_stats::kLargest);
    const double scale = far ? std::ldexp(1.0, std::ilogb(most)) : 1;
    float copy[kTileRows][kStrip] = {};
    for (std::size_t r = 0; r < strip.rows; ++r) {
      for (std::size_t c = 0; c < strip.cols; ++c) {
        const float value = value_of(strip.x[r * strip.stride + c]);
        if (!std::isfinite(value)) continue;
        copy[r][c] = static_cast<float>(static_cast<double>(value) / scale);
      }
    }
    const tensor_stats::TileScale scales = {scale, scale * scale, scale * scale * scale,
                                            scale * scale * scale * scale};
    kernel.tile_f32({copy[0], kStrip, strip.rows, kStrip}, &scales, &columns, lanes);
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
  const std::size_t strips = (cols + kStrip - 1) / kStrip;
  return sizeof(State) + strips * sizeof(StripColumns) + cols * sizeof(std::uint32_t);
}

void LineSums::clear() noexcept {
  rows_ = 0;
  std::fill(state_->strips.begin(), state_->strips.end(), StripColumns{});
  std::fill(state_->nonfinite.begin(), state_->nonfinite.end(), 0u);
}

template <typename T>
void LineSums::add_rows(MatrixView<const T> x, std::span<PowerSums> sums,
                        std::span<std::uint32_t> counts) {
  QUELL_ASSERT(counts.empty() || counts.size() == 0x10000);
  QUELL_ASSERT(x.cols() == cols_ && sums.size() == x.rows() && rows_ + x.rows() <= kRows);
  State& state = *state_;
  std::fill(sums.begin(), sums.end(), PowerSums{});
  // Sixteen rows side by side, which the machine fetches ahead as sixteen streams, over as many
  // columns as leave their sums in the second cache (720 KB); sums of rows are by chunks.
  constexpr std::size_t kTogether = 4 * kChunk;
  for (std::size_t start = 0; start < cols_; start += kTogether) {
    const std::size_t end = std::min(start + kTogether, cols_);
    for (std::size_t first = 0; first < x.rows(); first += kTileRows) {
      const std::size_t rows = std::min(kTileRows, x.rows() - first);
      for (std::size_t chunk = start; chunk < end; chunk += kChunk) {
        const std::size_t chunk_end = std::min(chunk + kChunk, end);
        std::fill(state.lanes, state.lanes + rows, RowLanes{});
        std::fill(state.row_nonfinite, state.row_nonfinite + rows, 0u);
        for (std::size_t c = chunk; c < chunk_end; c += kTileCols) {
          const std::size_t cols = std::min(kTileCols, chunk_end - c);
          state.add_tile(TileView<T>{x.data() + first * x.stride() + c, x.stride(), rows, cols}, c,
                         counts.data());
        }
        for (std::size_t r = 0; r < rows; ++r) {
          sums[first + r].merge(state.row(r, chunk_end - chunk), chunk);
        }
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

void LineSums::merge_into(std::span<PowerSums> columns, std::size_t first_col) const noexcept {
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const std::size_t c = first_col + i;
    const StripColumns& strip = state_->strips[c / kStrip];
    const std::size_t at = c % kStrip;
    PowerSums sums;
    sums.nonfinite = state_->nonfinite[c];
    sums.count = rows_ - sums.nonfinite;
    sums.sum = strip.sum[at];
    sums.sum2 = strip.sum2[at];
    sums.sum3 = strip.sum3[at];
    sums.sum4 = strip.sum4[at];
    sums.sum_abs = strip.sum_abs[at];
    sums.max_abs = strip.max_abs[at];
    columns[i].merge(sums, 0);
  }
}

}  // namespace quell::kernels
