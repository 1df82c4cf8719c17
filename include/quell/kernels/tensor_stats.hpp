// SPDX-License-Identifier: Apache-2.0
#pragma once

// Sums over tensors: the raw material of the statistics. Double accumulation over fixed chunks of
// 4,096 elements, 16 lanes each, merged in index order: the same bits for any number of threads and
// on any instruction set.

#include <cstdint>
#include <span>

#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/kernels/context.hpp"

namespace quell::kernels {

/// Plain power sums of a set of values. Non-finite values are counted and left out of everything else.
struct PowerSums {
  std::uint64_t count = 0;      // finite values
  std::uint64_t nonfinite = 0;
  double sum = 0, sum2 = 0, sum3 = 0, sum4 = 0;  // of x, x^2, x^3, x^4
  double sum_abs = 0;
  float max_abs = 0;
  std::uint64_t argmax_abs = 0;  // row-major index of the first largest |x|

  /// More values, which follow these; `first` is the index of their start.
  void merge(const PowerSums& later, std::uint64_t first) noexcept {
    count += later.count;
    nonfinite += later.nonfinite;
    sum += later.sum;
    sum2 += later.sum2;
    sum3 += later.sum3;
    sum4 += later.sum4;
    sum_abs += later.sum_abs;
    if (later.max_abs > max_abs) {  // strictly: the first of equals stays
      max_abs = later.max_abs;
      argmax_abs = first + later.argmax_abs;
    }
  }
};

/// Over all elements of a matrix.
PowerSums power_sums(MatrixView<const float> x, Context& context);
/// Over each row; `out` has one element per row.
void row_sums(MatrixView<const float> x, std::span<PowerSums> out, Context& context);
/// Over each column; `out` has one element per column; argmax_abs is the row.
void column_sums(MatrixView<const float> x, std::span<PowerSums> out, Context& context);

}  // namespace quell::kernels
