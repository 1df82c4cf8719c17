// SPDX-License-Identifier: Apache-2.0

// Sums and maxima come from the columns, medians of everything from counts by leading bits, and
// what is massive from each sequence by itself, with its exact median.

#include "pipeline/tensor_measure.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "quell/stats/layer_outliers.hpp"
#include "quell/stats/magnitude.hpp"

namespace quell::pipeline {
namespace {

// Medians are compared with reference values to one part in 1,000, for which the 1 in 257 of
// stats::QuantileSketch is too coarse. Sign dropped, the leading 19 of 31 bits: 8 of exponent and
// 11 of mantissa, so a bucket is one part in 2,048 wide and its middle at most one in 4,096 off. 4
// MB a tensor.
constexpr unsigned kDropped = 12;
constexpr std::size_t kBuckets = std::size_t{1} << (31 - kDropped);
// Of one sequence at one place; more large values than this are a tail.
constexpr std::size_t kMostHits = 64;

std::uint32_t magnitude_bits(float value) {
  return std::bit_cast<std::uint32_t>(value) & 0x7FFFFFFFU;
}

float bucket_edge(std::size_t bucket) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bucket << kDropped));
}

/// Magnitudes and massive values of one sequence.
struct SequenceMeasure {
  float first_absmax = 0, rest_absmax = 0;
  std::vector<MassiveHit> hits;
};

SequenceMeasure measure_sequence(MatrixView<const float> x, const stats::MassiveRule& rule,
                                 std::vector<float>& buffer) {
  SequenceMeasure result;
  buffer.clear();
  double sum = 0;
  for (std::size_t t = 0; t < x.rows(); ++t) {
    float largest = 0;
    double row_sum = 0;
    for (const float value : x.row(t)) {
      const float magnitude = std::fabs(value);
      if (!std::isfinite(magnitude)) continue;
      buffer.push_back(magnitude);
      largest = std::max(largest, magnitude);
      row_sum += static_cast<double>(magnitude);
    }
    sum += row_sum;
    float& absmax = t == 0 ? result.first_absmax : result.rest_absmax;
    absmax = std::max(absmax, largest);
  }
  if (buffer.empty()) return result;
  const double mean = sum / static_cast<double>(buffer.size());
  const auto largest = static_cast<double>(std::max(result.first_absmax, result.rest_absmax));
  // Selecting a median costs ten times as much as counting. Where fewer than half of the values lie
  // below the largest over `times`, the median does not either, and nothing is massive.
  const auto below = static_cast<float>(largest / rule.times * (1 + 1e-6));
  const auto fewer = std::count_if(buffer.begin(), buffer.end(),
                                   [&](float magnitude) { return magnitude < below; });
  if (!rule.of_mean && 2 * static_cast<std::size_t>(fewer) < buffer.size()) return result;
  const double median = stats::quantile_in_place(buffer, 0.5);
  if (!rule.holds(largest, mean, median)) return result;
  for (std::size_t t = 0; t < x.rows(); ++t) {
    for (std::size_t c = 0; c < x.cols(); ++c) {
      const auto magnitude = static_cast<double>(std::fabs(x(t, c)));
      if (!std::isfinite(magnitude) || !rule.holds(magnitude, mean, median)) continue;
      result.hits.push_back({0, t, c, x(t, c), median > 0 ? magnitude / median : 0});
    }
  }
  std::stable_sort(result.hits.begin(), result.hits.end(),
                   [](const MassiveHit& a, const MassiveHit& b) {
                     return std::fabs(a.value) > std::fabs(b.value);
                   });
  if (result.hits.size() > kMostHits) result.hits.resize(kMostHits);
  return result;
}

}  // namespace

std::vector<MassiveHit> TensorMeasure::add(MatrixView<const float> x,
                                           std::span<const std::uint32_t> lengths,
                                           const stats::MassiveRule& rule,
                                           kernels::Context& context) {
  std::vector<kernels::PowerSums> columns(x.cols());
  kernels::column_sums(x, columns, context);
  if (columns_.empty()) columns_.resize(x.cols());
  for (std::size_t c = 0; c < x.cols(); ++c) columns_[c].merge(columns[c], rows_);
  rows_ += x.rows();
  count(x, context.executor());

  std::vector<std::size_t> starts;
  std::size_t row = 0;
  for (const std::uint32_t length : lengths) {
    starts.push_back(row);
    row += length;
  }
  std::vector<SequenceMeasure> measures(lengths.size());
  context.executor().run(lengths.size(), 1, [&](std::size_t begin, std::size_t end, unsigned) {
    std::vector<float> buffer;
    for (std::size_t s = begin; s < end; ++s) {
      measures[s] = measure_sequence(x.rows_from(starts[s], lengths[s]), rule, buffer);
    }
  });
  std::vector<MassiveHit> hits;
  for (std::size_t s = 0; s < measures.size(); ++s) {
    first_absmax_ = std::max(first_absmax_, measures[s].first_absmax);
    rest_absmax_ = std::max(rest_absmax_, measures[s].rest_absmax);
    for (MassiveHit& hit : measures[s].hits) {
      hit.sequence = s;
      hits.push_back(hit);
    }
  }
  return hits;
}

double outlier_percent(const stats::QuantileSketch& values, double mean_abs) {
  if (values.count() == 0) return 0;
  return 100 * static_cast<double>(values.above(stats::kOwloreThreshold * mean_abs)) /
         static_cast<double>(values.count());
}

std::uint64_t TensorMeasure::nonfinite() const noexcept {
  std::uint64_t count = 0;
  for (const kernels::PowerSums& column : columns_) count += column.nonfinite;
  return count;
}

std::vector<double> TensorMeasure::energies() const {
  std::vector<double> sums;
  for (const kernels::PowerSums& column : columns_) sums.push_back(column.sum2);
  return sums;
}

void TensorMeasure::count(MatrixView<const float> x, Executor& executor) {
  counts_.resize(kBuckets);
  std::vector<std::vector<std::uint32_t>> parts(executor.width());
  constexpr std::size_t kRows = 64;
  executor.run(x.rows(), kRows, [&](std::size_t begin, std::size_t end, unsigned slot) {
    std::vector<std::uint32_t>& part = parts[slot];
    part.resize(kBuckets);
    for (std::size_t r = begin; r < end; ++r) {
      for (const float value : x.row(r)) ++part[magnitude_bits(value) >> kDropped];
    }
  });
  for (const auto& part : parts) {
    for (std::size_t i = 0; i < part.size(); ++i) counts_[i] += part[i];
  }
}

TensorOutliers TensorMeasure::finish() const {
  TensorOutliers result;
  result.name = name_;
  result.kind = TensorOutliers::Kind::activation;
  result.rows = static_cast<std::size_t>(rows_);
  result.cols = columns_.size();
  result.first_token_absmax = first_absmax_;
  result.rest_absmax = rest_absmax_;
  kernels::PowerSums all;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    const kernels::PowerSums& column = columns_[c];
    all.merge(column, 0);
    if (column.max_abs > result.absmax) {
      result.absmax = column.max_abs;
      result.argmax_col = c;
      result.argmax_row = static_cast<std::size_t>(column.argmax_abs);
    }
    result.channel_max.push_back(static_cast<double>(column.max_abs));
    result.channel_argmax.push_back(column.argmax_abs);
  }
  result.nonfinite = all.nonfinite;
  result.excess_kurtosis = excess_kurtosis(all);
  result.channel_ratio = channel_ratio(result.channel_max);
  if (all.count == 0) return result;
  result.mean_abs = all.sum_abs / static_cast<double>(all.count);
  // The first of a bucket stands for all: the bins of the sketch end where buckets do.
  stats::QuantileSketch sketch;
  for (std::size_t i = 0; i < kBuckets; ++i) sketch.add(bucket_edge(i), counts_[i]);
  result.histogram = stats::LogHistogram(sketch);
  result.outlier_ratio = outlier_percent(sketch, result.mean_abs);
  // Element floor(n / 2), placed in its bucket by its rank there.
  std::uint64_t before = 0;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    const std::uint64_t wanted = all.count / 2;
    if (before + counts_[i] <= wanted) {
      before += counts_[i];
      continue;
    }
    const auto edge = [](std::size_t bucket) { return static_cast<double>(bucket_edge(bucket)); };
    const double share =
        (static_cast<double>(wanted - before) + 0.5) / static_cast<double>(counts_[i]);
    result.median_abs = edge(i) + (edge(i + 1) - edge(i)) * share;
    // A bucket of zeros is zero, and all denormals below 2^-137 share it.
    if (i == 0) result.median_abs = 0;
    break;
  }
  return result;
}

}  // namespace quell::pipeline
