// SPDX-License-Identifier: Apache-2.0

#include "quell/stats/channels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "support/matrices.hpp"

namespace quell::stats {
namespace {

// Every grain on its own, last first.
class BackwardsExecutor final : public Executor {
 public:
  unsigned width() const noexcept override { return 1; }
  void run(std::size_t n, std::size_t grain, RangeFunction fn) override {
    for (std::size_t piece = (n + grain - 1) / grain; piece-- > 0;) {
      fn(piece * grain, std::min(n, (piece + 1) * grain), 0);
    }
  }
};

TEST(ChannelProfiles, OfASmallMatrixByHand) {
  Matrix x = *Matrix::zeros(2, 3);
  x(0, 0) = 1;
  x(0, 1) = -2;
  x(0, 2) = 4;
  x(1, 0) = 3;
  x(1, 1) = 2;
  SerialExecutor executor;
  const ChannelProfiles columns = profile_channels(x.view(), Lines::columns, executor);
  ASSERT_EQ(columns.size(), 3u);
  EXPECT_DOUBLE_EQ(columns[0].moments.mean(), 2);
  EXPECT_DOUBLE_EQ(columns[0].moments.variance(), 1);
  EXPECT_EQ(columns[0].max_abs, 3);
  EXPECT_EQ(columns[0].argmax_abs, 1u);
  EXPECT_EQ(columns[1].argmax_abs, 0u);  // the first of two equal magnitudes
  EXPECT_DOUBLE_EQ(columns[1].moments.mean(), 0);
  EXPECT_DOUBLE_EQ(columns[1].mean_abs(), 2);
  EXPECT_EQ(columns.median_max_abs(), 3);
  EXPECT_EQ(columns.max_abs(), 4);
  EXPECT_EQ(columns.overall().count(), 6u);
  EXPECT_DOUBLE_EQ(columns.overall().mean(), 8.0 / 6);

  const ChannelProfiles rows = profile_channels(x.view(), Lines::rows, executor);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_DOUBLE_EQ(rows[0].moments.mean(), 1);
  EXPECT_EQ(rows[0].argmax_abs, 2u);
  EXPECT_DOUBLE_EQ(rows.median_max_abs(), 3.5);
}

TEST(ChannelProfiles, PlantedOutlierChannelsStandOutAndNoOthers) {
  Matrix x = test::gaussian_matrix(500, 96, 3);
  for (std::size_t r = 0; r < 500; ++r) {
    x(r, 17) *= 30;
    x(r, 80) *= 30;
  }
  SerialExecutor executor;
  const ChannelProfiles profiles = profile_channels(x.view(), Lines::columns, executor);
  const std::vector<double> ratios = profiles.max_abs_ratios();
  for (std::size_t c = 0; c < 96; ++c) {
    if (c == 17 || c == 80) {
      EXPECT_GT(ratios[c], 20) << c;
    } else {
      EXPECT_LT(ratios[c], 2) << c;  // largest of 500 normals: 3 +- 0.4
    }
  }
  EXPECT_NEAR(profiles.median_root_mean_square(), 1, 0.05);
}

TEST(ChannelProfiles, OfRowsAreThoseOfColumnsOfTheTranspose) {
  // More rows than one chunk of 4,096, and columns that do not fill a group of sixteen.
  const Matrix x = test::student_matrix(4100, 19, 4, 5);
  Matrix transposed = *Matrix::zeros(19, 4100);
  for (std::size_t r = 0; r < 4100; ++r) {
    for (std::size_t c = 0; c < 19; ++c) transposed(c, r) = x(r, c);
  }
  SerialExecutor executor;
  BackwardsExecutor backwards;
  const ChannelProfiles a = profile_channels(x.view(), Lines::columns, executor);
  const ChannelProfiles b = profile_channels(transposed.view(), Lines::rows, backwards);
  for (std::size_t c = 0; c < 19; ++c) {
    EXPECT_EQ(a[c].moments.mean(), b[c].moments.mean());
    EXPECT_EQ(a[c].moments.kurtosis(), b[c].moments.kurtosis());
    EXPECT_EQ(a[c].max_abs, b[c].max_abs);
    EXPECT_EQ(a[c].argmax_abs, b[c].argmax_abs);
    EXPECT_EQ(a[c].sum_abs, b[c].sum_abs);
  }
}

TEST(ChannelProfiles, MergeEqualsOnePass) {
  const Matrix x = test::student_matrix(900, 5, 4, 6);
  SerialExecutor executor;
  const ChannelProfiles all = profile_channels(x.view(), Lines::columns, executor);
  const ChannelProfiles top =
      profile_channels(x.view().rows_from(0, 400), Lines::columns, executor);
  const ChannelProfiles rest =
      profile_channels(x.view().rows_from(400, 500), Lines::columns, executor);
  for (std::size_t c = 0; c < 5; ++c) {
    ChannelProfile merged = top[c];
    merged.merge(rest[c], 400);
    EXPECT_EQ(merged.moments.count(), 900u);
    EXPECT_NEAR(merged.moments.mean(), all[c].moments.mean(), 1e-14);
    EXPECT_NEAR(merged.moments.kurtosis(), all[c].moments.kurtosis(),
                1e-12 * all[c].moments.kurtosis());
    EXPECT_EQ(merged.max_abs, all[c].max_abs);
    EXPECT_EQ(merged.argmax_abs, all[c].argmax_abs);
    EXPECT_NEAR(merged.sum_abs, all[c].sum_abs, 1e-12 * all[c].sum_abs);
  }
}

TEST(ChannelProfiles, CountNonFiniteElementsAndLeaveThemOut) {
  Matrix x = test::constant_matrix(4, 2, 2.0f);
  x(1, 0) = std::numeric_limits<float>::quiet_NaN();
  x(2, 0) = -std::numeric_limits<float>::infinity();
  SerialExecutor executor;
  const ChannelProfiles profiles = profile_channels(x.view(), Lines::columns, executor);
  EXPECT_EQ(profiles[0].nonfinite, 2u);
  EXPECT_EQ(profiles[0].moments.count(), 2u);
  EXPECT_EQ(profiles[0].moments.mean(), 2);
  EXPECT_EQ(profiles[0].max_abs, 2);
  EXPECT_EQ(profiles[1].nonfinite, 0u);
  EXPECT_EQ(profiles.nonfinite(), 2u);
}

TEST(ChannelProfiles, OfNothingAreEmpty) {
  SerialExecutor executor;
  const ChannelProfiles none = profile_channels({}, Lines::columns, executor);
  EXPECT_EQ(none.size(), 0u);
  EXPECT_EQ(none.overall().count(), 0u);
  EXPECT_EQ(none.median_max_abs(), 0);
  EXPECT_TRUE(none.max_abs_ratios().empty());
}

TEST(ChannelProfiles, RatiosOfZeroMedianAreInfiniteOrZero) {
  Matrix x = *Matrix::zeros(2, 3);
  x(1, 2) = 5;
  SerialExecutor executor;
  const auto ratios = profile_channels(x.view(), Lines::columns, executor).max_abs_ratios();
  EXPECT_EQ(ratios[0], 0);
  EXPECT_EQ(ratios[2], std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace quell::stats
