// SPDX-License-Identifier: Apache-2.0

#include "quell/stats/magnitude.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "quell/core/random.hpp"

namespace quell::stats {
namespace {

using Floats = std::vector<float>;

TEST(Magnitudes, OfAHandfulByHand) {
  const Magnitudes m = magnitudes(Floats{-4, 1, -1, 2, 4});
  EXPECT_EQ(m.count, 5u);
  EXPECT_EQ(m.max_abs, 4);
  EXPECT_EQ(m.argmax_abs, 0u);  // the first of two
  EXPECT_DOUBLE_EQ(m.mean_abs, 12.0 / 5);
  EXPECT_EQ(m.median_abs, 2);
  EXPECT_DOUBLE_EQ(m.max_to_mean_abs(), 20.0 / 12);
  EXPECT_DOUBLE_EQ(m.max_to_median_abs(), 2);
  EXPECT_DOUBLE_EQ(magnitudes(Floats{-4, 1, -1, 2}).median_abs, 1.5);
}

TEST(Magnitudes, OfConstantsHaveRatiosOfOne) {
  const Magnitudes m = magnitudes(Floats(1000, -0.3f));
  EXPECT_DOUBLE_EQ(m.max_to_mean_abs(), 1);
  EXPECT_DOUBLE_EQ(m.max_to_median_abs(), 1);
}

TEST(Magnitudes, OfNothingAndZerosAreZero) {
  for (const Floats& values : {Floats{}, Floats(10, 0.0f), Floats(3, -0.0f)}) {
    const Magnitudes m = magnitudes(values);
    EXPECT_EQ(m.max_abs, 0);
    EXPECT_EQ(m.mean_abs, 0);
    EXPECT_EQ(m.max_to_mean_abs(), 0);
    EXPECT_EQ(m.max_to_median_abs(), 0);
  }
}

TEST(Magnitudes, OfMostlyZerosHaveAnInfiniteRatioToTheMedian) {
  const Magnitudes m = magnitudes(Floats{0, 0, 0, 1});
  EXPECT_EQ(m.max_to_median_abs(), std::numeric_limits<double>::infinity());
  EXPECT_DOUBLE_EQ(m.max_to_mean_abs(), 4);
}

TEST(Magnitudes, OfANormalAreThoseOfAHalfNormal) {
  Floats values(1 << 18);
  Random(4).fill_normal(values);
  const Magnitudes m = magnitudes(values);
  const double n = static_cast<double>(values.size());
  // Mean sqrt(2 / pi), deviation 0.603; median 0.67449, deviation 1 / (2 * density 0.6357).
  EXPECT_NEAR(m.mean_abs, 0.7978845608, 5 * 0.603 / std::sqrt(n));
  EXPECT_NEAR(m.median_abs, 0.6744897502, 5 * 0.787 / std::sqrt(n));
  EXPECT_GT(m.max_abs, 4);
  EXPECT_LT(m.max_abs, 6.5);
}

TEST(Magnitudes, FindAPlantedOutlier) {
  Floats values(100000);
  Random(5).fill_normal(values);
  values[77777] = -123.0f;
  const Magnitudes m = magnitudes(values);
  EXPECT_EQ(m.argmax_abs, 77777u);
  EXPECT_EQ(m.max_abs, 123);
  EXPECT_NEAR(m.max_to_median_abs(), 123 / 0.6745, 2);
}

TEST(Magnitudes, DoNotOverflowAtTheEndsOfFloat) {
  const Magnitudes m = magnitudes(Floats(5000, std::numeric_limits<float>::max()));
  EXPECT_EQ(m.mean_abs, static_cast<double>(std::numeric_limits<float>::max()));
  EXPECT_DOUBLE_EQ(m.max_to_median_abs(), 1);
  const Magnitudes tiny = magnitudes(Floats(3, -std::numeric_limits<float>::denorm_min()));
  EXPECT_DOUBLE_EQ(tiny.max_to_mean_abs(), 1);
}

TEST(Quantile, InterpolatesBetweenOrderStatistics) {
  Floats values = {5, 1, 3, 2, 4};
  const Floats original = values;
  EXPECT_EQ(quantile_in_place(values, 0), 1);
  EXPECT_EQ(quantile_in_place(values, 1), 5);
  EXPECT_EQ(quantile_in_place(values, 0.5), 3);
  EXPECT_DOUBLE_EQ(quantile_in_place(values, 0.625), 3.5);
  EXPECT_TRUE(std::is_permutation(values.begin(), values.end(), original.begin()));
  Floats one = {7};
  EXPECT_EQ(quantile_in_place(one, 0.3), 7);
}

TEST(Quantile, AgreesWithSorting) {
  Floats values(1001), sorted(1001);
  Random(6).fill_normal(values);
  sorted = values;
  std::sort(sorted.begin(), sorted.end());
  for (const double q : {0.0, 0.01, 0.5, 0.999, 1.0}) {
    Floats copy = values;
    const auto rank = static_cast<std::size_t>(std::lround(q * 1000));
    EXPECT_NEAR(quantile_in_place(copy, q), static_cast<double>(sorted[rank]), 1e-9) << q;
  }
}

}  // namespace
}  // namespace quell::stats
