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

TEST(Magnitudes, HaveTwoMediansWhenTheirNumberIsEven) {
  const Magnitudes m = magnitudes(Floats{0.5f, -1, 2, -8});
  EXPECT_DOUBLE_EQ(m.median_abs, 1.5);
  EXPECT_EQ(m.lower_median_abs, 1);
  EXPECT_NEAR(m.max_to_median_abs(), 5.3333, 1e-4);
  EXPECT_EQ(m.max_to_lower_median_abs(), 8);
  EXPECT_NEAR(m.max_to_mean_abs(), 2.78261, 1e-5);
  EXPECT_EQ(magnitudes(Floats{3, -1, 2}).lower_median_abs, 2);
  EXPECT_EQ(magnitudes(Floats{0, 1}).lower_median_abs, 0);
  EXPECT_EQ(magnitudes(Floats{}).max_to_lower_median_abs(), 0);
}

MatrixView<const float> view(const Floats& x, std::size_t rows) {
  return {x.data(), rows, x.size() / rows};
}

TEST(RowRatios, AreReducedOverRows) {
  // Ratios to the median 16/3, 1 and 2; to the lower median 8, 1 and 4; to the mean 64/23, 1, 16/9.
  const Floats x = {0.5f, -1, 2, -8, 3, 3, -3, 3, 1, 1, 3, 4};
  RowRatios ratios;
  ratios.add(view(x, 3));
  EXPECT_EQ(ratios.max_to_median.rows(), 3u);
  EXPECT_NEAR(ratios.max_to_median.mean(), (16.0 / 3 + 1 + 2) / 3, 1e-14);
  EXPECT_NEAR(ratios.max_to_median.max(), 16.0 / 3, 1e-14);
  EXPECT_EQ(ratios.max_to_median.median(), 2);
  EXPECT_NEAR(ratios.max_to_lower_median.mean(), 13.0 / 3, 1e-14);
  EXPECT_EQ(ratios.max_to_lower_median.median(), 4);
  EXPECT_NEAR(ratios.max_to_mean.mean(), (64.0 / 23 + 1 + 16.0 / 9) / 3, 1e-14);
  EXPECT_NEAR(ratios.max_to_mean.median(), 16.0 / 9, 16.0 / 9 / 257);
  EXPECT_EQ(ratios.max_to_median.undefined_fraction(), 0);
}

TEST(RowRatios, CountRowsWithoutARatioApart) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  // Median 0; lower median 0 only; all zero; damaged.
  const Floats x = {0, 0, 0, 4, 0, 0, 2, 4, 0, 0, 0, 0, 1, nan, 1, 1};
  RowRatios ratios;
  ratios.add(view(x, 4));
  ratios.add({});
  EXPECT_EQ(ratios.skipped, 1u);
  EXPECT_EQ(ratios.max_to_median.rows(), 3u);
  EXPECT_DOUBLE_EQ(ratios.max_to_median.undefined_fraction(), 2.0 / 3);
  EXPECT_EQ(ratios.max_to_median.mean(), 4);
  EXPECT_EQ(ratios.max_to_lower_median.undefined_fraction(), 1);
  EXPECT_EQ(ratios.max_to_lower_median.mean(), 0);
  EXPECT_EQ(ratios.max_to_lower_median.median(), 0);
  EXPECT_DOUBLE_EQ(ratios.max_to_mean.undefined_fraction(), 1.0 / 3);
  EXPECT_DOUBLE_EQ(ratios.max_to_mean.mean(), (4 + 8.0 / 3) / 2);
  EXPECT_EQ(RowRatios{}.max_to_mean.undefined_fraction(), 0);
}

TEST(RowRatios, HoldAtTheEndsOfFloat) {
  const float huge = std::numeric_limits<float>::max();
  const float tiny = std::numeric_limits<float>::denorm_min();
  RowRatios ratios;
  ratios.add(view({tiny, tiny, huge}, 1));
  const double ratio = static_cast<double>(huge) / static_cast<double>(tiny);
  EXPECT_EQ(ratios.max_to_median.max(), ratio);
  EXPECT_EQ(ratios.max_to_median.mean(), ratio);
  EXPECT_EQ(ratios.max_to_median.undefined_fraction(), 0);
}

TEST(RowRatios, MergeEqualsOnePass) {
  constexpr std::size_t kRows = 101;
  Floats x(kRows * 64);
  Random(7).fill_normal(x);
  for (std::size_t i = 0; i < 40; ++i) x[64 * 9 + i] = 0;
  RowRatios whole;
  whole.add(view(x, kRows));
  for (const std::size_t cut : {0u, 1u, 50u, 101u}) {
    RowRatios first, second;
    first.add(view(x, kRows).rows_from(0, cut));
    second.add(view(x, kRows).rows_from(cut, kRows - cut));
    second.merge(first);
    EXPECT_EQ(second.max_to_median.rows(), kRows);
    EXPECT_EQ(second.max_to_median.undefined_fraction(), 1.0 / kRows);
    EXPECT_NEAR(second.max_to_median.mean(), whole.max_to_median.mean(), 1e-12);
    EXPECT_EQ(second.max_to_median.median(), whole.max_to_median.median());
    EXPECT_EQ(second.max_to_mean.max(), whole.max_to_mean.max());
    EXPECT_NEAR(second.max_to_mean.mean(), whole.max_to_mean.mean(), 1e-12);
  }
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
