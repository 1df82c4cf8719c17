// SPDX-License-Identifier: Apache-2.0
#pragma once

// Moments of a set of numbers: count, mean, variance, skewness and kurtosis, gathered one by one or
// from power sums, and merged. What is kept are the central sums M_k = sum (x - mean)^k, k = 2, 3,
// 4, which do not cancel when the mean is far from zero, as raw power sums do. The update and the
// merge are those of Pebay, "Formulas for robust, one-pass parallel computation of covariances and
// arbitrary order statistical moments" (Sandia report SAND2008-6212, 2008), equations 2.1 and 3.1.
//
// With n values, m_k = M_k / n:
//
//     sample (of the set itself)               bias-corrected (estimate for its population)
//     variance         m_2                     variance_unbiased     M_2 / (n - 1)
//     skewness  g1 =   m_3 / m_2^1.5           skewness_unbiased G1  g1 sqrt(n (n-1)) / (n - 2)
//     kurtosis  b2 =   m_4 / m_2^2             excess_kurtosis_unbiased G2
//     excess_kurtosis  g2 = b2 - 3               ((n + 1) g2 + 6) (n - 1) / ((n - 2) (n - 3))
//
// (Joanes and Gill, "Comparing measures of sample skewness and kurtosis", The Statistician 47,
// 1998.) Excess kurtosis: normal 0, uniform -1.2, Laplace 3, two equal points -2, one value among n
// - 1 others equal to each other about n. What is not defined (too few values, no spread) is 0.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace quell::stats {

class Moments {
 public:
  constexpr Moments() noexcept = default;

  /// From n and the sums of x, x^2, x^3, x^4. Exact sums lose up to (mean / deviation)^4 of their
  /// precision here: meant for sums over weights and activations, whose mean is of the order of
  /// their deviation at most; use `add` for anything else.
  static Moments from_power_sums(std::uint64_t count, double sum, double sum2, double sum3,
                                 double sum4) noexcept;

  /// One more value, finite.
  void add(double x) noexcept;
  /// Many values, finite, in chunks of 4,096 that are merged in order: more precise and faster than
  /// one by one, and the same bits for the same span.
  void add(std::span<const float> values) noexcept;
  /// The union of two sets that have no element in common.
  void merge(const Moments& other) noexcept;

  std::uint64_t count() const noexcept { return count_; }
  double mean() const noexcept { return mean_; }
  double variance() const noexcept { return count_ > 0 ? m2_ / n() : 0; }
  double variance_unbiased() const noexcept { return count_ > 1 ? m2_ / (n() - 1) : 0; }
  double standard_deviation() const noexcept { return std::sqrt(variance()); }
  double skewness() const noexcept;
  double skewness_unbiased() const noexcept;
  double kurtosis() const noexcept;
  double excess_kurtosis() const noexcept { return has_spread() ? kurtosis() - 3 : 0; }
  double excess_kurtosis_unbiased() const noexcept;
  /// sqrt(mean of x^2).
  double root_mean_square() const noexcept { return std::sqrt(mean_ * mean_ + variance()); }

 private:
  double n() const noexcept { return static_cast<double>(count_); }
  bool has_spread() const noexcept { return count_ > 1 && m2_ > 0; }

  std::uint64_t count_ = 0;
  double mean_ = 0;
  double m2_ = 0;  // sum (x - mean)^2
  double m3_ = 0;
  double m4_ = 0;
};

/// Values per chunk of `add`: 16 KiB of floats stay in the first-level cache for its two passes.
inline constexpr std::size_t kMomentsChunk = 4096;

// ------------------------------------------------------------------ definitions

inline Moments Moments::from_power_sums(std::uint64_t count, double sum, double sum2, double sum3,
                                        double sum4) noexcept {
  Moments moments;
  if (count == 0) return moments;
  const double n = static_cast<double>(count);
  const double mean = sum / n;
  moments.count_ = count;
  moments.mean_ = mean;
  // Even central sums cannot be negative; rounding can make them so when there is no spread.
  moments.m2_ = std::max(0.0, sum2 - mean * sum);
  moments.m3_ = sum3 - 3 * mean * sum2 + 2 * mean * mean * sum;
  moments.m4_ =
      std::max(0.0, sum4 - 4 * mean * sum3 + 6 * mean * mean * sum2 - 3 * mean * mean * mean * sum);
  // What is left of equal values is rounding: up to 1e-14 of the terms for sums of 4,096 elements.
  // The spread of floats that differ at all, a few in 1e7, is above this bound.
  if (moments.m2_ <= 1e-13 * sum2) moments.m2_ = moments.m3_ = moments.m4_ = 0;
  return moments;
}

inline void Moments::add(double x) noexcept {
  Moments one;
  one.count_ = 1;
  one.mean_ = x;
  merge(one);
}

inline void Moments::add(std::span<const float> values) noexcept {
  for (std::size_t first = 0; first < values.size(); first += kMomentsChunk) {
    const std::span<const float> chunk =
        values.subspan(first, std::min(kMomentsChunk, values.size() - first));
    // Two passes with four partial sums each, so that additions overlap and vectorize.
    const double n = static_cast<double>(chunk.size());
    std::array<double, 4> sums{};
    for (std::size_t i = 0; i < chunk.size(); ++i) sums[i % 4] += static_cast<double>(chunk[i]);
    Moments part;
    part.count_ = chunk.size();
    part.mean_ = ((sums[0] + sums[1]) + (sums[2] + sums[3])) / n;
    std::array<double, 4> d1{}, d2{}, d3{}, d4{};
    for (std::size_t i = 0; i < chunk.size(); ++i) {
      const double d = static_cast<double>(chunk[i]) - part.mean_;
      const double square = d * d;
      d1[i % 4] += d;
      d2[i % 4] += square;
      d3[i % 4] += square * d;
      d4[i % 4] += square * square;
    }
    // The mean is rounded, so the deviations do not sum to zero exactly; shift the sums by the
    // rest.
    const double rest = ((d1[0] + d1[1]) + (d1[2] + d1[3])) / n;
    const double s2 = (d2[0] + d2[1]) + (d2[2] + d2[3]);
    part.m2_ = std::max(0.0, s2 - n * rest * rest);
    part.m3_ = (d3[0] + d3[1]) + (d3[2] + d3[3]) - 3 * rest * s2;
    part.m4_ = (d4[0] + d4[1]) + (d4[2] + d4[3]) - 4 * rest * ((d3[0] + d3[1]) + (d3[2] + d3[3]));
    merge(part);
  }
}

inline void Moments::merge(const Moments& other) noexcept {
  if (other.count_ == 0) return;
  if (count_ == 0) {
    *this = other;
    return;
  }
  const double a = n();
  const double b = other.n();
  const double total = a + b;
  const double delta = other.mean_ - mean_;
  const double step = delta / total;
  const double delta2 = delta * delta;
  // M4 before M3 before M2: each uses the lower ones of both sides as they were.
  m4_ += other.m4_ + delta * step * step * step * a * b * (a * a - a * b + b * b) +
         6 * step * step * (a * a * other.m2_ + b * b * m2_) + 4 * step * (a * other.m3_ - b * m3_);
  m3_ += other.m3_ + delta * step * step * a * b * (a - b) + 3 * step * (a * other.m2_ - b * m2_);
  m2_ += other.m2_ + delta2 * (a * b / total);
  mean_ += step * b;
  count_ += other.count_;
}

inline double Moments::skewness() const noexcept {
  if (!has_spread()) return 0;
  const double deviation = standard_deviation();
  return m3_ / n() / variance() / deviation;
}

inline double Moments::skewness_unbiased() const noexcept {
  if (count_ < 3 || !has_spread()) return 0;
  return skewness() * std::sqrt(n() * (n() - 1)) / (n() - 2);
}

inline double Moments::kurtosis() const noexcept {
  if (!has_spread()) return 0;
  return m4_ / n() / variance() / variance();
}

inline double Moments::excess_kurtosis_unbiased() const noexcept {
  if (count_ < 4 || !has_spread()) return 0;
  return ((n() + 1) * excess_kurtosis() + 6) * (n() - 1) / ((n() - 2) * (n() - 3));
}

}  // namespace quell::stats
