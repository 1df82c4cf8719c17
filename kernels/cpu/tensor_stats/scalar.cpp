// SPDX-License-Identifier: Apache-2.0

// The specification of tensor_stats.

#include <cmath>
#include <limits>

#include "kernels/cpu/tensor_stats/contract.hpp"

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

}  // namespace

extern const tensor_stats::Entry tensor_stats_entry = {Isa::scalar, chunk, find, columns};

}  // namespace quell::kernels::scalar
