// SPDX-License-Identifier: Apache-2.0
#pragma once

// A histogram of magnitudes |x| to draw on a logarithmic axis: four bins an octave, equally wide on
// that axis, at the same places for every tensor, so that two of them can be laid over each other
// and added. Bin b covers [2^(b/4), 2^((b+1)/4)). Zeros and values that are not finite are counted
// apart, as they have no place on the axis.
//
// It is made from a QuantileSketch and inherits its rounding to eight significant bits: a value
// less than 1/257 away from an edge may be counted on the other side of it. bfloat16 values never
// are.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

#include "quell/stats/quantile.hpp"

namespace quell::stats {

class LogHistogram {
 public:
  /// From the lower edge of the first bin to the upper edge of the last; 0 to 0 without bins.
  struct Range {
    double low = 0;
    double high = 0;
  };

  LogHistogram() = default;
  explicit LogHistogram(const QuantileSketch& sketch);

  /// The union of two sets that have no element in common.
  void merge(const LogHistogram& other);

  /// Finite values, zeros among them: zeros() and the sum of counts().
  std::uint64_t count() const noexcept { return count_; }
  std::uint64_t zeros() const noexcept { return zeros_; }
  std::uint64_t nonfinite() const noexcept { return nonfinite_; }
  /// From the first bin that is not empty to the last.
  std::span<const std::uint64_t> counts() const noexcept { return counts_; }
  Range range() const noexcept;
  /// The lower edge of counts()[i], which is the upper edge of counts()[i - 1].
  double edge(std::size_t i) const noexcept;

  bool operator==(const LogHistogram&) const = default;

 private:
  void add(int bin, std::uint64_t count);

  std::uint64_t count_ = 0;
  std::uint64_t zeros_ = 0;
  std::uint64_t nonfinite_ = 0;
  int first_bin_ = 0;
  std::vector<std::uint64_t> counts_;
};

// ------------------------------------------------------------------ definitions

namespace detail {

inline constexpr int kBinsPerOctave = 4;

/// Edges of the bins of [1, 2): powers of 2^(1/4).
inline constexpr double kOctaveEdges[kBinsPerOctave] = {
    1, 1.1892071150027210667, 1.4142135623730950488, 1.6817928305074290861};

inline int log_bin(double magnitude) noexcept {
  int exponent = 0;
  const double m = 2 * std::frexp(magnitude, &exponent);  // in [1, 2)
  const auto above = std::upper_bound(std::begin(kOctaveEdges), std::end(kOctaveEdges), m);
  return kBinsPerOctave * (exponent - 1) + static_cast<int>(above - kOctaveEdges) - 1;
}

}  // namespace detail

inline LogHistogram::LogHistogram(const QuantileSketch& sketch)
    : count_(sketch.count()), zeros_(sketch.zeros()), nonfinite_(sketch.nonfinite()) {
  std::uint32_t bin = sketch.first_bin();
  for (const std::uint64_t count : sketch.counts()) {
    // What the sketch rounds to zero lies below 2^-134 and is counted in the bin that starts there.
    const double magnitude = std::max(QuantileSketch::magnitude(bin++), 0x1p-134);
    if (count > 0) add(detail::log_bin(magnitude), count);
  }
}

inline void LogHistogram::merge(const LogHistogram& other) {
  count_ += other.count_;
  zeros_ += other.zeros_;
  nonfinite_ += other.nonfinite_;
  const int first = other.first_bin_;
  // By index up to a size taken before: merging with itself is allowed.
  const std::size_t size = other.counts_.size();
  for (std::size_t i = 0; i < size; ++i) {
    if (other.counts_[i] > 0) add(first + static_cast<int>(i), other.counts_[i]);
  }
}

inline void LogHistogram::add(int bin, std::uint64_t count) {
  if (counts_.empty()) first_bin_ = bin;
  if (bin < first_bin_) {
    counts_.insert(counts_.begin(), static_cast<std::size_t>(first_bin_ - bin), 0);
    first_bin_ = bin;
  }
  const auto i = static_cast<std::size_t>(bin - first_bin_);
  if (i >= counts_.size()) counts_.resize(i + 1);
  counts_[i] += count;
}

inline double LogHistogram::edge(std::size_t i) const noexcept {
  const int bin = first_bin_ + static_cast<int>(i);
  const int within =
      (bin % detail::kBinsPerOctave + detail::kBinsPerOctave) % detail::kBinsPerOctave;
  return std::ldexp(detail::kOctaveEdges[within], (bin - within) / detail::kBinsPerOctave);
}

inline LogHistogram::Range LogHistogram::range() const noexcept {
  if (counts_.empty()) return {};
  return {edge(0), edge(counts_.size())};
}

}  // namespace quell::stats
