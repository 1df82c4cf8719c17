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

float value_of(float x) {
  return x;
}
float value_of(std::uint16_t bf16) {
  return bf16_to_float(bf16);
}

template <typename T>
unsigned rows_of(const family::TileView<T>& tile, double scale, T* copy, family::RowLanes* lanes,
                 float* most) {
  unsigned left_out = 0;
  *most = 0;
  for (std::size_t r = 0; r < tile.rows; ++r) {
    float run[family::kTileGroup] = {}, largest = 0;
    bool good = true;
    for (std::size_t c = 0; c < tile.cols; ++c) {
      const T x = tile.x[r * tile.stride + c];
      copy[r * family::kTileCols + c] = x;
      const float magnitude = std::fabs(value_of(x));
      good = good && magnitude <= family::kLargest;
      run[c % family::kTileGroup] += magnitude;
      if (magnitude > largest) largest = magnitude;
    }
    if (!good) {
      left_out |= 1u << r;
      continue;
    }
    for (unsigned l = 0; l < kLanes; ++l) {
      const float both = run[2 * l] + run[2 * l + 1];
      lanes[r].sum_abs[l] = std::fma(static_cast<double>(both), scale, lanes[r].sum_abs[l]);
    }
    if (largest > lanes[r].max_abs[0]) lanes[r].max_abs[0] = largest;
    if (largest > *most) *most = largest;
  }
  return left_out;
}

template <typename T>
void columns_of(const family::TileView<T>& tile, const family::TileScale& scale,
                std::uint32_t first_row, family::TileColumns* columns) {
  const auto add = [](double& sum, float run, double factor) {
    sum = std::fma(static_cast<double>(run), factor, sum);
  };
  for (std::size_t c = 0; c < tile.cols; ++c) {
    float sum = 0, sum2 = 0, sum3 = 0, sum4 = 0, sum_abs = 0;
    for (std::size_t r = 0; r < tile.rows; ++r) {
      const float x = value_of(tile.x[r * tile.stride + c]);
      const float q = x * x, magnitude = std::fabs(x);
      sum += x;
      sum2 = std::fma(x, x, sum2);
      sum3 = std::fma(q, x, sum3);
      sum4 = std::fma(q, q, sum4);
      sum_abs += magnitude;
      if (magnitude > columns->max_abs[c]) {
        columns->max_abs[c] = magnitude;
        columns->argmax[c] = first_row + static_cast<std::uint32_t>(r);
      }
    }
    add(columns->sum[c], sum, scale.x);
    add(columns->sum2[c], sum2, scale.x2);
    add(columns->sum3[c], sum3, scale.x3);
    add(columns->sum4[c], sum4, scale.x4);
    add(columns->sum_abs[c], sum_abs, scale.x);
  }
}

void columns_bf16(const family::TileView<std::uint16_t>& tile, std::uint32_t first_row,
                  family::TileColumns* columns, const family::NextTile&, std::uint32_t* counts) {
  for (std::size_t r = 0; r < tile.rows && counts != nullptr; ++r) {
    for (std::size_t c = 0; c < tile.cols; ++c) ++counts[tile.x[r * tile.stride + c]];
  }
  columns_of(tile, {}, first_row, columns);
}

void columns_f32(const family::TileView<float>& tile, const family::TileScale& scale,
                 std::uint32_t first_row, family::TileColumns* columns, const family::NextTile&) {
  columns_of(tile, scale, first_row, columns);
}

}  // namespace

extern const tensor_stats::Entry tensor_stats_entry = {
    Isa::scalar,    chunk,        find,       columns, rows_of<std::uint16_t>,
    rows_of<float>, columns_bf16, columns_f32};

}  // namespace quell::kernels::scalar
