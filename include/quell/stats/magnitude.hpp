// SPDX-License-Identifier: Apache-2.0
#pragma once

// Magnitudes |x| of a set of numbers: the largest, the mean, the median, and the ratios by which
// outliers are told. A mean of magnitudes is not a mean of values, and never shares its name.
//
//     max_to_mean_abs     normal, n = 4096: about 4.6      max_to_median_abs   about 5.5
//     A constant has both ratios 1. Where the denominator is 0 (more than half of the values are
//     zero, or all are) the ratio is 0 if everything is zero, else infinity.
//
// The median of an even number of values is the mean of the two in the middle; some frameworks take
// the lower one, `lower_median_abs`. Over many rows each ratio is reduced in RowRatios.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "quell/core/panic.hpp"
#include "quell/core/view.hpp"
#include "quell/stats/quantile.hpp"

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
  double lower_median_abs = 0;   // the value at rank (count - 1) / 2, rounded down

  double max_to_mean_abs() const noexcept { return ratio(max_abs, mean_abs); }
  double max_to_median_abs() const noexcept { return ratio(max_abs, median_abs); }
  double max_to_lower_median_abs() const noexcept { return ratio(max_abs, lower_median_abs); }

 private:
  static double ratio(double a, double b) noexcept {
    if (b > 0) return a / b;
    return a > 0 ? std::numeric_limits<double>::infinity() : 0;
  }
};

/// Of finite values; all zero for none. Copies the magnitudes (n floats) to select the median.
inline Magnitudes magnitudes(std::span<const float> values);

/// One ratio a row, reduced over rows. A row whose denominator is 0 has no ratio: it is counted and
/// left out, as a single infinity would hide all other rows.
class RatioOverRows {
 public:
  /// Both finite and not negative.
  void add(double numerator, double denominator);
  /// Other rows; sums are added, so merging in another order differs by rounding.
  void merge(const RatioOverRows& other);

  std::uint64_t rows() const noexcept { return rows_; }  // with a ratio and without
  /// The share of rows whose denominator is 0.
  double undefined_fraction() const noexcept;
  /// Over rows with a ratio; 0 of none. The median is that of a QuantileSketch, within 1/257.
  double mean() const noexcept;
  double median() const { return sketch_.quantile(0.5); }
  double max() const noexcept { return max_; }

 private:
  std::uint64_t rows_ = 0;
  double sum_ = 0;
  double max_ = 0;
  QuantileSketch sketch_;
};

/// The ratios of magnitudes within each row of X [T, IC], over rows: how far the largest value of a
/// token stands out. max_to_median is the MMR of papers that compare optimizers; where half of a
/// row is zero (inputs of a down projection after ReLU) it is undefined, and max_to_mean serves.
struct RowRatios {
  RatioOverRows max_to_median;        // undefined: the median is 0
  RatioOverRows max_to_lower_median;  // undefined: the lower median is 0
  RatioOverRows max_to_mean;          // undefined: all zero
  std::uint64_t skipped = 0;          // rows with a value that is not finite; in none of the above

  /// Rows without elements do not count.
  void add(MatrixView<const float> x);
  void merge(const RowRatios& other);
};

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
  // The selection leaves the lower of the two values in the middle at its rank.
  result.lower_median_abs = static_cast<double>(absolute[(values.size() - 1) / 2]);
  return result;
}

inline void RatioOverRows::add(double numerator, double denominator) {
  ++rows_;
  if (!(denominator > 0)) return;
  const double ratio = numerator / denominator;
  sum_ += ratio;
  max_ = std::max(max_, ratio);
  // The sketch is of floats, and the ratio of two floats may be none.
  constexpr auto kLargest = static_cast<double>(std::numeric_limits<float>::max());
  sketch_.add(static_cast<float>(std::min(ratio, kLargest)));
}

inline void RatioOverRows::merge(const RatioOverRows& other) {
  rows_ += other.rows_;
  sum_ += other.sum_;
  max_ = std::max(max_, other.max_);
  sketch_.merge(other.sketch_);
}

inline double RatioOverRows::undefined_fraction() const noexcept {
  if (rows_ == 0) return 0;
  return static_cast<double>(rows_ - sketch_.count()) / static_cast<double>(rows_);
}

inline double RatioOverRows::mean() const noexcept {
  return sketch_.count() > 0 ? sum_ / static_cast<double>(sketch_.count()) : 0;
}

inline void RowRatios::add(MatrixView<const float> x) {
  if (x.empty()) return;
  for (std::size_t t = 0; t < x.rows(); ++t) {
    const std::span<const float> row = x.row(t);
    if (!std::all_of(row.begin(), row.end(), [](float value) { return std::isfinite(value); })) {
      ++skipped;
      continue;
    }
    const Magnitudes m = magnitudes(row);
    max_to_median.add(m.max_abs, m.median_abs);
    max_to_lower_median.add(m.max_abs, m.lower_median_abs);
    max_to_mean.add(m.max_abs, m.mean_abs);
  }
}

inline void RowRatios::merge(const RowRatios& other) {
  max_to_median.merge(other.max_to_median);
  max_to_lower_median.merge(other.max_to_lower_median);
  max_to_mean.merge(other.max_to_mean);
  skipped += other.skipped;
}

}  // namespace quell::stats
