// SPDX-License-Identifier: Apache-2.0

#include "quell/stats/systematic.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace quell::stats {
namespace {

std::vector<std::vector<double>> layers_of_ones(std::size_t layers, std::size_t channels) {
  return std::vector<std::vector<double>>(layers, std::vector<double>(channels, 1.0));
}

TEST(MassiveRule, IsStrictAtItsBound) {
  // n values, all 1 but one: the mean of 8,192 is a thousandth of v for v = 8192000 / 7192 - ...,
  // solved for v n / (v + n - 1) = 1000.
  const double n = 8192, v = 1000 * (n - 1) / (n - 1000);
  const double mean = (v + n - 1) / n;
  const MassiveRule& paper = kMassiveRules[1];
  EXPECT_FALSE(paper.holds(1000 * mean, mean, 1));
  EXPECT_NEAR(v / mean, 1000, 1e-9);
  EXPECT_TRUE(paper.holds(1000.001 * mean, mean, 1));
  const MassiveRule standard;
  EXPECT_FALSE(standard.holds(1000, 5, 1));
  EXPECT_TRUE(standard.holds(1000.5, 5, 1));
  const MassiveRule& sun = kMassiveRules[2];
  EXPECT_FALSE(sun.holds(99, 1, 0.001));
  EXPECT_TRUE(sun.holds(101, 1, 0.001));
}

TEST(SystematicChannels, StayInThreeQuartersOfTheLayers) {
  auto maxima = layers_of_ones(8, 50);
  for (std::size_t l = 0; l < 8; ++l) maxima[l][7] = 10;
  for (std::size_t l = 0; l < 6; ++l) maxima[l][20] = 5;   // six of eight
  for (std::size_t l = 0; l < 5; ++l) maxima[l][30] = 50;  // five of eight
  const auto found = find_systematic_channels(maxima);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].channel, 7U);
  EXPECT_EQ(found[0].layers, 8U);
  EXPECT_EQ(found[0].leads, 3U);
  EXPECT_EQ(found[1].channel, 20U);
  EXPECT_EQ(found[1].layers, 6U);
  EXPECT_EQ(found[1].leads, 0U);
  EXPECT_EQ(found[1].ratios[0], 5);
  EXPECT_EQ(found[1].ratios[7], 1);
}

TEST(SystematicChannels, MustBeAmongTheLargestAndFarFromTheMedian) {
  auto maxima = layers_of_ones(4, 50);
  for (auto& layer : maxima) {
    for (std::size_t c = 0; c < 5; ++c) layer[c] = 10.0 - static_cast<double>(c);
    layer[40] = 2.9;
  }
  const auto found = find_systematic_channels(maxima);
  ASSERT_EQ(found.size(), 4U);  // the fifth is not among four
  for (std::size_t c = 0; c < 4; ++c) EXPECT_EQ(found[c].channel, c);
}

TEST(SystematicChannels, AreNotClaimedWithoutLayersOrScale) {
  EXPECT_TRUE(find_systematic_channels({}).empty());
  auto one = layers_of_ones(1, 20);
  one[0][3] = 100;
  EXPECT_TRUE(find_systematic_channels(one).empty());
  auto zeros = layers_of_ones(4, 20);
  for (auto& layer : zeros) layer.assign(20, 0.0);
  EXPECT_TRUE(find_systematic_channels(zeros).empty());
}

}  // namespace
}  // namespace quell::stats
