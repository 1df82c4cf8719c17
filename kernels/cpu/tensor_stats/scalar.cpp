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
bool leave_out(const family::TileView<T>& tile, std::size_t first) {
  float largest = 0;
  for (std::size_t r = 0; r < tile.rows; ++r) {
    for (std::size_t c = first; c < first + family::kStrip; ++c) {
      const float magnitude = std::fabs(value_of(tile.x[r * tile.stride + c]));
      if (!(magnitude <= family::kLargest)) return true;
      if (magnitude > largest) largest = magnitude;
    }
  }
  return largest > 0 && largest < family::kLeast;
}

void add_run(double& sum, float run, double factor) {
  sum = std::fma(static_cast<double>(run), factor, sum);
}

template <typename T>
void add_column(const family::TileView<T>& tile, std::size_t c, const family::TileScale* scale,
                family::StripColumns& columns) {
  const std::size_t at = c % family::kStrip;
  float sum = 0, sum2 = 0, sum3 = 0, sum4 = 0, sum_abs = 0, largest = 0;
  for (std::size_t r = 0; r < tile.rows; ++r) {
    const float x = value_of(tile.x[r * tile.stride + c]);
    const float q = x * x, magnitude = std::fabs(x);
    sum += x;
    sum2 = std::fma(x, x, sum2);
    sum3 = std::fma(q, x, sum3);
    sum4 = std::fma(q, q, sum4);
    sum_abs += magnitude;
    if (magnitude > largest) largest = magnitude;
  }
  const family::TileScale factor = scale != nullptr ? *scale : family::TileScale();
  add_run(columns.sum[at], sum, factor.x);
  add_run(columns.sum2[at], sum2, factor.x2);
  add_run(columns.sum3[at], sum3, factor.x3);
  add_run(columns.sum4[at], sum4, factor.x4);
  add_run(columns.sum_abs[at], sum_abs, factor.x);
  if (scale == nullptr && largest > columns.max_abs[at]) columns.max_abs[at] = largest;
}

template <typename T>
unsigned add_tile(const family::TileView<T>& tile, const family::TileScale* scale,
                  family::StripColumns* columns, family::RowLanes* lanes) {
  unsigned left_out = 0;
  float run[family::kTileRows][kLanes] = {};
  for (std::size_t strip = 0; strip < tile.cols / family::kStrip; ++strip) {
    const std::size_t first = strip * family::kStrip;
    if (scale == nullptr && leave_out(tile, first)) {
      left_out |= 1u << strip;
      continue;
    }
    for (std::size_t c = first; c < first + family::kStrip; ++c) {
      add_column(tile, c, scale, columns[strip]);
    }
    for (std::size_t r = 0; r < tile.rows; ++r) {
      for (unsigned l = 0; l < kLanes; ++l) {
        const T* x = tile.x + r * tile.stride + first + 2 * l;
        const float even = std::fabs(value_of(x[0])), odd = std::fabs(value_of(x[1]));
        run[r][l] += even + odd;
        if (scale != nullptr) continue;
        for (const float magnitude : {even, odd}) {
          if (magnitude > lanes[r].max_abs[l]) lanes[r].max_abs[l] = magnitude;
        }
      }
    }
  }
  for (std::size_t r = 0; r < tile.rows; ++r) {
    for (unsigned l = 0; l < kLanes; ++l) {
      add_run(lanes[r].sum_abs[l], run[r][l], scale != nullptr ? scale->x : 1);
    }
  }
  return left_out;
}

unsigned tile_bf16(const family::TileView<std::uint16_t>& tile, family::StripColumns* columns,
                   family::RowLanes* lanes, std::uint32_t* counts) {
  for (std::size_t r = 0; r < tile.rows && counts != nullptr; ++r) {
    for (std::size_t c = 0; c < tile.cols; ++c) ++counts[tile.x[r * tile.stride + c]];
  }
  return add_tile(tile, nullptr, columns, lanes);
}

}  // namespace

extern const tensor_stats::Entry tensor_stats_entry = {Isa::scalar, chunk,     find,
                                                       columns,     tile_bf16, add_tile<float>};

}  // namespace quell::kernels::scalar
