// SPDX-License-Identifier: Apache-2.0
#pragma once

// What is measured of an activation tensor while its rows come by, sequence after sequence.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quell/kernels/context.hpp"
#include "quell/kernels/tensor_stats.hpp"
#include "quell/pipeline/outliers.hpp"
#include "quell/stats/quantile.hpp"

namespace quell::pipeline {

/// Central fourth moment over squared variance, minus 3.
double excess_kurtosis(const kernels::PowerSums& sums);
/// The largest over the median; 0 where that is 0.
double channel_ratio(std::span<const double> maxima);

/// Percent of the values whose magnitude is more than stats::kOwloreThreshold times their mean.
double outlier_percent(const stats::QuantileSketch& values, double mean_abs);

/// One massive value.
struct MassiveHit {
  std::size_t sequence = 0;  // of those given to add, from 0
  std::size_t position = 0, channel = 0;
  float value = 0;
  double ratio_to_median = 0;
};

class TensorMeasure {
 public:
  explicit TensorMeasure(std::string name) : name_(std::move(name)) {}
  const std::string& name() const noexcept { return name_; }

  /// Rows of whole sequences, those of `lengths`. Returns what is massive in them, by sequence, the
  /// largest values first.
  std::vector<MassiveHit> add(MatrixView<const float> x, std::span<const std::uint32_t> lengths,
                              const stats::MassiveRule& rule, kernels::Context& context);
  TensorOutliers finish() const;
  /// Elements so far that are not finite.
  std::uint64_t nonfinite() const noexcept;
  /// Sum of x^2 over all rows, for each column.
  std::vector<double> energies() const;

 private:
  void count(MatrixView<const float> x, Executor& executor);

  std::string name_;
  std::uint64_t rows_ = 0;
  std::vector<kernels::PowerSums> columns_;
  float first_absmax_ = 0, rest_absmax_ = 0;
  std::vector<std::uint64_t> counts_;  // of magnitudes by their leading bits
};

}  // namespace quell::pipeline
