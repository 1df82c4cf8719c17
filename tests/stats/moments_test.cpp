// SPDX-License-Identifier: Apache-2.0

#include "quell/stats/moments.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "quell/core/random.hpp"

namespace quell::stats {
namespace {

using Floats = std::vector<float>;

Moments moments_of(const Floats& values) {
  Moments m;
  m.add(std::span<const float>(values));
  return m;
}

TEST(Moments, OfOneToFiveAreTheTextbookOnes) {
  const Moments m = moments_of({1, 2, 3, 4, 5});
  EXPECT_EQ(m.count(), 5u);
  EXPECT_DOUBLE_EQ(m.mean(), 3);
  EXPECT_DOUBLE_EQ(m.variance(), 2);
  EXPECT_DOUBLE_EQ(m.variance_unbiased(), 2.5);
  EXPECT_DOUBLE_EQ(m.skewness(), 0);
  // m4 = (16 + 1 + 0 + 1 + 16) / 5 = 6.8; 6.8 / 4 = 1.7.
  EXPECT_DOUBLE_EQ(m.kurtosis(), 1.7);
  EXPECT_DOUBLE_EQ(m.excess_kurtosis(), -1.3);
  // (6 * -1.3 + 6) * 4 / (3 * 2) = -1.2.
  EXPECT_NEAR(m.excess_kurtosis_unbiased(), -1.2, 1e-14);
  EXPECT_DOUBLE_EQ(m.root_mean_square(), std::sqrt(11.0));
}

TEST(Moments, OfASkewedSetByHand) {
  // Mean 2; deviations -1 -1 -1 3: m2 = 3, m3 = 6, m4 = 21.
  const Moments m = moments_of({1, 1, 1, 5});
  EXPECT_DOUBLE_EQ(m.variance(), 3);
  EXPECT_DOUBLE_EQ(m.skewness(), 6 / std::pow(3.0, 1.5));
  EXPECT_DOUBLE_EQ(m.skewness_unbiased(), 2);  // 1.1547 * sqrt(12) / 2
  EXPECT_DOUBLE_EQ(m.kurtosis(), 21.0 / 9);
  EXPECT_DOUBLE_EQ(m.excess_kurtosis_unbiased(), (5 * (21.0 / 9 - 3) + 6) * 3 / 2);
}

TEST(Moments, WithoutSpreadOrValuesAreZeroNotNan) {
  const Moments none;
  EXPECT_EQ(none.mean(), 0);
  EXPECT_EQ(none.variance(), 0);
  EXPECT_EQ(none.excess_kurtosis(), 0);
  EXPECT_EQ(none.root_mean_square(), 0);
  for (const std::size_t count : {1u, 2u, 3u, 10000u}) {
    const Moments m = moments_of(Floats(count, 0.1f));
    EXPECT_EQ(m.mean(), static_cast<double>(0.1f)) << count;
    EXPECT_EQ(m.variance(), 0) << count;
    EXPECT_EQ(m.variance_unbiased(), 0) << count;
    EXPECT_EQ(m.skewness(), 0) << count;
    EXPECT_EQ(m.kurtosis(), 0) << count;
    EXPECT_EQ(m.excess_kurtosis(), 0) << count;
    EXPECT_EQ(m.excess_kurtosis_unbiased(), 0) << count;
  }
}

TEST(Kurtosis, OfTwoPointsIsOneAndOfUniformIsNineFifths) {
  Floats two(1000), uniform(100001);
  for (std::size_t i = 0; i < two.size(); ++i) two[i] = i % 2 == 0 ? 1.0f : -1.0f;
  EXPECT_DOUBLE_EQ(moments_of(two).kurtosis(), 1);
  EXPECT_DOUBLE_EQ(moments_of(two).excess_kurtosis(), -2);
  // Evenly spaced: exactly (3 n^2 - 7) / (n^2 - 1) * 3 / 5.
  for (std::size_t i = 0; i < uniform.size(); ++i) uniform[i] = static_cast<float>(i) - 50000.0f;
  EXPECT_NEAR(moments_of(uniform).kurtosis(), 1.8, 1e-9);
  EXPECT_NEAR(moments_of(uniform).skewness(), 0, 1e-12);
}

TEST(Kurtosis, OfNormalIsThreeAndOfLaplaceIsSix) {
  constexpr std::size_t kCount = 1 << 19;
  Floats normal(kCount), laplace(kCount);
  const Random random(2);
  random.fill_normal(normal);
  for (std::size_t i = 0; i < kCount; ++i) {
    // Difference of two exponentials.
    const double u = 1 - random.uniform(2 * i + (1ull << 40));
    const double v = 1 - random.uniform(2 * i + 1 + (1ull << 40));
    laplace[i] = static_cast<float>(std::log(u) - std::log(v));
  }
  // Five standard errors of the sample excess: sqrt(24 / n) for a normal; for a Laplace
  // distribution about sqrt(1100 / n), from its moments up to the eighth.
  EXPECT_NEAR(moments_of(normal).excess_kurtosis(), 0, 5 * std::sqrt(24.0 / kCount));
  EXPECT_NEAR(moments_of(normal).skewness(), 0, 5 * std::sqrt(6.0 / kCount));
  EXPECT_NEAR(moments_of(laplace).excess_kurtosis(), 3, 5 * std::sqrt(1100.0 / kCount));
  EXPECT_NEAR(moments_of(laplace).variance(), 2, 5 * std::sqrt(20.0 / kCount));
}

TEST(Kurtosis, OfOneOutlierAmongEqualsIsAboutTheirNumber) {
  Floats values(1000, 0.0f);
  values[321] = 50;
  const Moments m = moments_of(values);
  // n - 2 + 1 / (n - 1) exactly, whatever the size of the outlier.
  EXPECT_NEAR(m.kurtosis(), 998 + 1.0 / 999, 1e-9);
}

// The definitions, in long double, two passes.
struct Direct {
  double mean, variance, skewness, kurtosis;
};
Direct direct(const Floats& values) {
  long double sum = 0;
  for (const float x : values) sum += static_cast<long double>(x);
  const long double n = static_cast<long double>(values.size());
  const long double mean = sum / n;
  long double m2 = 0, m3 = 0, m4 = 0;
  for (const float x : values) {
    const long double d = static_cast<long double>(x) - mean;
    m2 += d * d;
    m3 += d * d * d;
    m4 += d * d * d * d;
  }
  m2 /= n;
  m3 /= n;
  m4 /= n;
  return {static_cast<double>(mean), static_cast<double>(m2),
          static_cast<double>(m3 / (m2 * std::sqrt(m2))), static_cast<double>(m4 / (m2 * m2))};
}

void expect_close(const Moments& m, const Direct& d, double bound) {
  EXPECT_NEAR(m.mean(), d.mean, bound * std::sqrt(d.mean * d.mean + d.variance));
  EXPECT_NEAR(m.variance(), d.variance, bound * d.variance);
  EXPECT_NEAR(m.skewness(), d.skewness, bound * std::fmax(1, d.kurtosis));
  EXPECT_NEAR(m.kurtosis(), d.kurtosis, bound * d.kurtosis);
}

Floats sample(std::size_t n, double offset, double scale) {
  Floats values(n);
  const Random random(8);
  for (std::size_t i = 0; i < n; ++i) {
    const double z = random.normal(i);
    values[i] = static_cast<float>(offset + scale * z * (1 + 0.3 * z));  // skewed
  }
  return values;
}

TEST(Moments, AgreeWithTheDefinitionsAtAnyOffsetAndScale) {
  for (const double offset : {0.0, 3.0, 1e4}) {
    for (const double scale : {1.0, 1e-18, 1e15}) {
      if (offset != 0 && scale < 1) continue;
      const Floats values = sample(30001, offset, scale);
      expect_close(moments_of(values), direct(values), 1e-11);
    }
  }
}

TEST(Moments, MergeEqualsOnePass) {
  const Floats values = sample(20000, 1.0, 2.0);
  const Direct expected = direct(values);
  for (const std::size_t cut : {0u, 1u, 7u, 4096u, 10000u, 19999u, 20000u}) {
    Moments a = moments_of(Floats(values.begin(), values.begin() + static_cast<long>(cut)));
    const Moments b = moments_of(Floats(values.begin() + static_cast<long>(cut), values.end()));
    a.merge(b);
    EXPECT_EQ(a.count(), values.size());
    expect_close(a, expected, 1e-12);
  }
}

TEST(Moments, OneByOneEqualsManyAtOnce) {
  const Floats values = sample(3000, -2.0, 0.5);
  Moments one;
  for (const float x : values) one.add(static_cast<double>(x));
  expect_close(one, direct(values), 1e-11);
}

TEST(Moments, MergingIsAssociativeUpToRounding) {
  const Moments a = moments_of(sample(100, 0, 1));
  const Moments b = moments_of(sample(999, 5, 3));
  const Moments c = moments_of(sample(4321, -1, 0.1));
  Moments left = a;
  left.merge(b);
  left.merge(c);
  Moments right = b;
  right.merge(c);
  Moments other = a;
  other.merge(right);
  EXPECT_NEAR(left.variance(), other.variance(), 1e-13 * left.variance());
  EXPECT_NEAR(left.skewness(), other.skewness(), 1e-12);
  EXPECT_NEAR(left.kurtosis(), other.kurtosis(), 1e-12 * left.kurtosis());
}

TEST(Moments, FromPowerSumsEqualOnePass) {
  for (const double offset : {0.0, 1.0}) {
    const Floats values = sample(4096, offset, 1.0);
    double s1 = 0, s2 = 0, s3 = 0, s4 = 0;
    for (const float v : values) {
      const double x = static_cast<double>(v);
      s1 += x;
      s2 += x * x;
      s3 += x * x * x;
      s4 += x * x * x * x;
    }
    expect_close(Moments::from_power_sums(values.size(), s1, s2, s3, s4), direct(values), 1e-11);
  }
  EXPECT_EQ(Moments::from_power_sums(0, 0, 0, 0, 0).kurtosis(), 0);
  const double x = static_cast<double>(0.1f), n = 4096;
  const Moments constant =
      Moments::from_power_sums(4096, n * x, n * x * x, n * x * x * x, n * x * x * x * x);
  EXPECT_EQ(constant.variance(), 0);
  EXPECT_EQ(constant.kurtosis(), 0);
}

}  // namespace
}  // namespace quell::stats
