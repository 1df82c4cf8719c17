// SPDX-License-Identifier: Apache-2.0

#include "quell/stats/concentration.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/core/random.hpp"

namespace quell::stats {
namespace {

using Energies = std::vector<double>;

TEST(ParticipationRatio, IsTheNumberOfEqualChannels) {
  EXPECT_DOUBLE_EQ(participation_ratio(Energies{1, 1, 1, 1}), 4);
  EXPECT_DOUBLE_EQ(participation_ratio(Energies{0, 7, 7, 7, 0, 0}), 3);
  EXPECT_DOUBLE_EQ(participation_ratio(Energies{0, 0, 5}), 1);
  EXPECT_DOUBLE_EQ(participation_ratio(Energies{0.3}), 1);
  // (1 + 2 + 3)^2 / (1 + 4 + 9).
  EXPECT_DOUBLE_EQ(participation_ratio(Energies{1, 2, 3}), 36.0 / 14);
}

TEST(ParticipationRatio, OfAChannelWithHalfOfAllEnergyIsAtMostFour) {
  Energies energies(1001, 1.0);
  energies[500] = 1000;
  const double ratio = participation_ratio(energies);
  EXPECT_LT(ratio, 4);
  EXPECT_GT(ratio, 3.9);
}

TEST(ParticipationRatio, DoesNotDependOnTheUnit) {
  const double expected = 36.0 / 14;
  for (const double unit : {1e-320, 1e-200, 1e-3, 1e200, 5e307}) {
    // Multiples of the smallest number keep few digits.
    EXPECT_NEAR(participation_ratio(Energies{unit, 2 * unit, 3 * unit}), expected,
                unit < 1e-300 ? 1e-2 : 1e-14)
        << unit;
  }
}

TEST(ParticipationRatio, OfNothingIsZero) {
  EXPECT_EQ(participation_ratio({}), 0);
  EXPECT_EQ(participation_ratio(Energies(5, 0.0)), 0);
  EXPECT_EQ(top_share({}, 3), 0);
  EXPECT_EQ(top_share(Energies(5, 0.0), 3), 0);
}

TEST(ParticipationRatio, TakesWhatIsNoEnergyAsZero) {
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_DOUBLE_EQ(participation_ratio(Energies{nan, 2, -1, 2, inf}), 2);
  EXPECT_DOUBLE_EQ(top_share(Energies{nan, 2, -1, 2, inf}, 1), 0.5);
}

TEST(TopShare, AddsTheLargest) {
  const Energies energies = {1, 5, 2, 2};
  EXPECT_EQ(top_share(energies, 0), 0);
  EXPECT_DOUBLE_EQ(top_share(energies, 1), 0.5);
  EXPECT_DOUBLE_EQ(top_share(energies, 2), 0.7);
  EXPECT_EQ(top_share(energies, 4), 1);
  EXPECT_EQ(top_share(energies, 100), 1);
}

TEST(ChannelEnergies, AreSumsOfSquares) {
  const std::vector<float> x = {1, 2, -3, 4, 0, -2};  // [2, 3]
  SerialExecutor executor;
  const ChannelProfiles columns =
      profile_channels(MatrixView<const float>(x.data(), 2, 3), Lines::columns, executor);
  const Energies energies = channel_energies(columns);
  ASSERT_EQ(energies.size(), 3u);
  EXPECT_NEAR(energies[0], 17, 1e-13);
  EXPECT_NEAR(energies[1], 4, 1e-13);
  EXPECT_NEAR(energies[2], 13, 1e-13);
}

TEST(ChannelEnergies, ShowAPlantedOutlierChannel) {
  constexpr std::size_t kRows = 512, kCols = 64;
  std::vector<float> x(kRows * kCols);
  Random(31).fill_normal(x);
  SerialExecutor executor;
  const MatrixView<const float> view(x.data(), kRows, kCols);
  const double before =
      participation_ratio(channel_energies(profile_channels(view, Lines::columns, executor)));
  // Energies are 512 chi-squared: relative variance 2 / 512, so 64 / (1 + 1 / 256) on average.
  EXPECT_NEAR(before, 64 / (1 + 2.0 / kRows), 0.5);
  for (std::size_t t = 0; t < kRows; ++t) x[t * kCols + 9] *= 100;
  const Energies after = channel_energies(profile_channels(view, Lines::columns, executor));
  EXPECT_LT(participation_ratio(after), 1.1);
  EXPECT_GT(top_share(after, 1), 0.98);
}

}  // namespace
}  // namespace quell::stats
