// SPDX-License-Identifier: Apache-2.0
#pragma once

// Kinds of comparison: exact, in units in the last place, relative L2. Each names the first place
// that differs and both values.

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "quell/core/view.hpp"

namespace quell::test {

/// Distance in representable floats; +0 and -0 are 0 apart, two NaN are equal, NaN and a number are
/// the largest distance apart.
inline std::uint64_t ulp_distance(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) {
    return std::isnan(a) && std::isnan(b) ? 0 : std::numeric_limits<std::uint64_t>::max();
  }
  // Floats in order as integers: the magnitude bits, negated for negative values.
  const auto ordered = [](float x) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
    const auto magnitude = static_cast<std::int64_t>(bits & 0x7FFF'FFFFu);
    return (bits >> 31) != 0 ? -magnitude : magnitude;
  };
  const std::int64_t distance = ordered(a) - ordered(b);
  return static_cast<std::uint64_t>(distance < 0 ? -distance : distance);
}

/// Same bits in every place (so +0 and -0 differ).
inline ::testing::AssertionResult same_bits(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) {
    return ::testing::AssertionFailure() << a.size() << " and " << b.size() << " elements";
  }
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<std::uint32_t>(a[i]) == std::bit_cast<std::uint32_t>(b[i])) continue;
    return ::testing::AssertionFailure()
           << "first difference at " << i << ": " << a[i] << " and " << b[i];
  }
  return ::testing::AssertionSuccess();
}

inline ::testing::AssertionResult within_ulps(std::span<const float> a, std::span<const float> b,
                                              std::uint64_t bound) {
  if (a.size() != b.size()) {
    return ::testing::AssertionFailure() << a.size() << " and " << b.size() << " elements";
  }
  for (std::size_t i = 0; i < a.size(); ++i) {
    const std::uint64_t distance = ulp_distance(a[i], b[i]);
    if (distance <= bound) continue;
    return ::testing::AssertionFailure() << "at " << i << ": " << a[i] << " and " << b[i] << ", "
                                         << distance << " ulp apart, bound " << bound;
  }
  return ::testing::AssertionSuccess();
}

inline double squared_difference(MatrixView<const float> a, MatrixView<const float> b) {
  double sum = 0;
  for (std::size_t r = 0; r < a.rows(); ++r) {
    for (std::size_t c = 0; c < a.cols(); ++c) {
      const double d = static_cast<double>(a(r, c)) - static_cast<double>(b(r, c));
      sum += d * d;
    }
  }
  return sum;
}

inline double squared_norm(MatrixView<const float> a) {
  double sum = 0;
  for (std::size_t r = 0; r < a.rows(); ++r) {
    for (std::size_t c = 0; c < a.cols(); ++c) {
      sum += static_cast<double>(a(r, c)) * static_cast<double>(a(r, c));
    }
  }
  return sum;
}

/// |a - b| / |b|; 0 if both are zero.
inline double relative_l2(MatrixView<const float> a, MatrixView<const float> b) {
  const double difference = squared_difference(a, b);
  return difference == 0 ? 0 : std::sqrt(difference / squared_norm(b));
}

}  // namespace quell::test
