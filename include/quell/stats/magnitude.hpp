// SPDX-License-Identifier: Apache-2.0
#pragma once

// Magnitudes |x| of a set of numbers: the largest, the mean, the median, and the ratios by which
// outliers are told. A mean of magnitudes is not a mean of values, and never shares its name.
//
//     max_to_mean_abs     normal, n = 4096: about 4.6      max_to_median_abs   about 5.5
//     A constant has both ratios 1. Where the denominator is 0 (more than half of the values are
//     zero, or all are) the ratio is 0 if everything is zero, else infinity.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "quell/core/panic.hpp"

namespace quell::stats {

/// An order statistic by selection. `values` is reordered; q in [0, 1] gives the value at
/// rank q (n - 1), interpolated linearly between neighbours (q = 0.5 is the median). Finite values,
/// at least one. Expected time O(n).
inline double quantile_in_place(std::span<float> values, double q);

struct Magnitudes {
  std::uint64_t count = 0;
  double max_abs = 0;
  double mean_abs = 0;
  double median_abs = 0;
  std::uint64_t argmax_abs = 0;  // index of the first largest |x|

  double max_to_mean_abs() const noexcept { return ratio(max_abs, mean_abs); }
  double max_to_median_abs() const noexcept { return ratio(max_abs, median_abs); }

 private:
  static double ratio(double a, double b) noexcept {
    if (b > 0) return a / b;
    return a > 0 ? std::numeric_limits<double>::infinity() : 0;
  }
};

/// Of finite values; all zero for none. Copies the magnitudes (n floats) to select the median.
inline Magnitudes magnitudes(std::span<const float> values);

// ------------------------------------------------------------------ definitions

inline double quantile_in_place(std::span<float> values, double q) {
  QUELL_ASSERT(!values.empty() && q >= 0 && q <= 1);
  const double rank = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(rank);
  const double weight = rank - static_cast<double>(below);
  const auto nth = values.begin() + static_cast<std::ptrdiff_t>(below);
  std::nth_element(values.begin(), nth, values.end());
  const double low = static_cast<double>(*nth);
  if (weight == 0) return low;
  // After the selection all later elements are at least as large; the next one is their minimum.
  const double high = static_cast<double>(*std::min_element(nth + 1, values.end()));
  return low + weight * (high - low);
}

inline Magnitudes magnitudes(std::span<const float> values) {
  Magnitudes result;
  result.count = values.size();
  if (values.empty()) return result;
  std::vector<float> absolute(values.size());
  // Partial sums of 4,096 elements, added in order: the rounding of statistics everywhere here.
  constexpr std::size_t kChunk = 4096;
  double total = 0;
  for (std::size_t first = 0; first < values.size(); first += kChunk) {
    const std::size_t last = std::min(values.size(), first + kChunk);
    double sums[4] = {};
    for (std::size_t i = first; i < last; ++i) {
      absolute[i] = std::fabs(values[i]);
      sums[i % 4] += static_cast<double>(absolute[i]);
    }
    total += (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }
  const auto largest = std::max_element(absolute.begin(), absolute.end());
  result.max_abs = static_cast<double>(*largest);
  result.argmax_abs = static_cast<std::uint64_t>(largest - absolute.begin());
  result.mean_abs = total / static_cast<double>(values.size());
  result.median_abs = quantile_in_place(absolute, 0.5);
  return result;
}

}  // namespace quell::stats
