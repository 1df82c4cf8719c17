// SPDX-License-Identifier: Apache-2.0

// The specification of tensor_stats.

#include <cmath>
#include <limits>

#include "kernels/cpu/tensor_stats/contract.hpp"
#include "quell/core/half.hpp"

namespace quell::kernels::scalar {
namespace {

namespace family = tensor_stats;
using family::kLanes;

bool is_finite(float x) {
  return std::fabs(x) < std::numeric_limits<float>::infinity();
}

double fold(double* lane) {
  for (unsigned width = kLanes / 2; width > 0; width /= 2) {
    for (unsigned l = 0; l < width; ++l) lane[l] = lane[l] + lane[l + width];
  }
  return lane[0];
}

void chunk(const float* x, std::size_t n, family::ChunkSums* out) {
  double sum[kLanes] = {}, sum2[kLanes] = {}, sum3[kLanes] = {}, sum4[kLanes] = {},
         sum_abs[kLanes] = {};
  *out = {};
  for (std::size_t i = 0; i < n; ++i) {
    if (!is_finite(x[i])) continue;
    const std::size_t l = i % kLanes;
    const double d = static_cast<double>(x[i]);
    const double q = d * d;
    sum[l] = sum[l] + d;
    sum2[l] = sum2[l] + q;
    sum3[l] = sum3[l] + q * d;
    sum4[l] = sum4[l] + q * q;
    sum_abs[l] = sum_abs[l] + std::fabs(d);
    if (std::fabs(x[i]) > out->max_abs) out->max_abs = std::fabs(x[i]);
    ++out->count;
  }
  out->sum = fold(sum);
  out->sum2 = fold(sum2);
  out->sum3 = fold(sum3);
  out->sum4 = fold(sum4);
  out->sum_abs = fold(sum_abs);
}

std::size_t find(const float* x, std::size_t n, float magnitude) {
  for (std::size_t i = 0; i < n; ++i) {
    if (std::fabs(x[i]) == magnitude) return i;
  }
  return n;
}

void columns(const float* x, std::size_t stride, std::size_t rows, std::size_t cols,
             std::uint32_t first_row, family::ColumnSums* sums) {
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < cols; ++c) {
      const float value = x[r * stride + c];
      if (!is_finite(value)) continue;
      const double d = static_cast<double>(value);
      const double q = d * d;
      sums->sum[c] = sums->sum[c] + d;
      sums->sum2[c] = sums->sum2[c] + q;
      sums->sum3[c] = sums->sum3[c] + q * d;
      sums->sum4[c] = sums->sum4[c] + q * q;
      sums->sum_abs[c] = sums->sum_abs[c] + std::fabs(d);
      ++sums->count[c];
      if (std::fabs(value) > sums->max_abs[c]) {
        sums->max_abs[c] = std::fabs(value);
        sums->argmax[c] = first_row + static_cast<std::uint32_t>(r);
      }
    }
  }
}

std::size_t padded(std::size_t cols) {
  return (cols + family::kTileGroup - 1) / family::kTileGroup * family::kTileGroup;
}

/// Maxima of what is in the tile; false if a value is not finite.
bool measure(std::size_t rows, std::size_t cols, family::Tile* tile, family::RowLanes* lanes) {
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < cols; ++c) {
      if (!is_finite(tile->x[r][c])) return false;
    }
  }
  for (std::size_t c = 0; c < padded(cols); ++c) {
    tile->column_max[c] = 0;
    tile->column_argmax[c] = 0;
  }
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < cols; ++c) {
      const float magnitude = std::fabs(tile->x[r][c]);
      if (magnitude > tile->column_max[c]) {
        tile->column_max[c] = magnitude;
        tile->column_argmax[c] = static_cast<std::uint32_t>(r);
      }
      float& most = lanes[r].max_abs[c % kLanes];
      if (magnitude > most) most = magnitude;
    }
  }
  return true;
}

bool load_bf16(const std::uint16_t* x, std::size_t stride, std::size_t rows, std::size_t cols,
               family::Tile* tile, family::RowLanes* lanes) {
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < padded(cols); ++c) {
      tile->x[r][c] = c < cols ? bf16_to_float(x[r * stride + c]) : 0;
    }
  }
  return measure(rows, cols, tile, lanes);
}

bool load_f32(const float* x, std::size_t stride, std::size_t rows, std::size_t cols,
              family::Tile* tile, family::RowLanes* lanes) {
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < padded(cols); ++c) {
      tile->x[r][c] = c < cols ? x[r * stride + c] : 0;
    }
  }
  return measure(rows, cols, tile, lanes);
}

void raise(const family::Tile* tile, std::size_t cols, std::uint32_t first_row,
           family::TileColumns* columns) {
  for (std::size_t c = 0; c < cols; ++c) {
    if (!(tile->column_max[c] > columns->max_abs[c])) continue;
    columns->max_abs[c] = tile->column_max[c];
    columns->argmax[c] = first_row + tile->column_argmax[c];
  }
}

template <bool kPowers>
void add(const family::Tile* tile, std::size_t rows, std::size_t cols, family::RowLanes* lanes,
         family::TileColumns* columns, const family::NextTile&) {
  for (std::size_t r = 0; r < rows; ++r) {
    family::RowLanes& row = lanes[r];
    for (std::size_t c = 0; c < cols; ++c) {
      const std::size_t l = c % kLanes;
      const double d = static_cast<double>(tile->x[r][c]);
      const double q = d * d;
      columns->sum[c] = columns->sum[c] + d;
      columns->sum2[c] = columns->sum2[c] + q;
      columns->sum3[c] = std::fma(q, d, columns->sum3[c]);
      columns->sum4[c] = std::fma(q, q, columns->sum4[c]);
      columns->sum_abs[c] = columns->sum_abs[c] + std::fabs(d);
      row.sum_abs[l] = row.sum_abs[l] + std::fabs(d);
      if constexpr (kPowers) {
        row.sum[l] = row.sum[l] + d;
        row.sum2[l] = row.sum2[l] + q;
        row.sum3[l] = std::fma(q, d, row.sum3[l]);
        row.sum4[l] = std::fma(q, q, row.sum4[l]);
      }
    }
  }
}

void add_counting(const family::Tile* tile, std::size_t rows, std::size_t cols,
                  family::RowLanes* lanes, family::TileColumns* columns,
                  const family::NextTile& next, const family::CountedWords& words) {
  for (std::size_t r = 0; r < rows; ++r) {
    const std::uint16_t* row = words.first + r * words.stride;
    for (std::size_t c = 0; c < cols; ++c) ++words.counts[row[c]];
  }
  add<false>(tile, rows, cols, lanes, columns, next);
}

}  // namespace

extern const tensor_stats::Entry tensor_stats_entry = {Isa::scalar,  chunk,    find,  columns,
                                                       load_bf16,    load_f32, raise, add<false>,
                                                       add_counting, add<true>};

}  // namespace quell::kernels::scalar
