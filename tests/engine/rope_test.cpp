// SPDX-License-Identifier: Apache-2.0

#include "engine/rope.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace quell {
namespace {

using engine::rope_frequencies;
using engine::RopeTables;
using model::Rope;

Rope plain(std::uint32_t dims) {
  Rope rope;
  rope.dims = dims;
  return rope;
}

TEST(Rope, FrequenciesFallFromOneByPowersOfTheBase) {
  // base^(-2t/R) with base 10000 and R = 8: 1, 1/10, 1/100, 1/1000.
  const auto f = rope_frequencies(plain(8), 1);
  ASSERT_EQ(f.size(), 4u);
  EXPECT_DOUBLE_EQ(f[0], 1);
  EXPECT_NEAR(f[1], 0.1, 1e-16);
  EXPECT_NEAR(f[2], 0.01, 1e-17);
  EXPECT_NEAR(f[3], 0.001, 1e-18);
}

TEST(Rope, LinearDividesAllByTheFactor) {
  Rope rope = plain(8);
  rope.scaling = Rope::Scaling::linear;
  rope.factor = 4;
  EXPECT_DOUBLE_EQ(rope_frequencies(rope, 1)[0], 0.25);
  EXPECT_NEAR(rope_frequencies(rope, 1)[3], 0.00025, 1e-19);
}

TEST(Rope, DynamicChangesNothingUpToTheTrainedLength) {
  Rope rope = plain(8);
  rope.scaling = Rope::Scaling::dynamic;
  rope.factor = 2;
  rope.original_positions = 16;
  EXPECT_EQ(rope_frequencies(rope, 16), rope_frequencies(plain(8), 1));
  // n = 32: stretch 2 * 32 / 16 - 1 = 3, base 10000 * 3^(8/6); the last frequency is base^(-3/4),
  // which is 1/1000 of 3^(-(4/3)(3/4)) = 1/3.
  EXPECT_NEAR(rope_frequencies(rope, 32)[3], 0.001 / 3, 1e-17);
  EXPECT_DOUBLE_EQ(rope_frequencies(rope, 32)[0], 1);
}

TEST(Rope, Llama3KeepsShortWavesAndDividesLongOnes) {
  Rope rope = plain(8);
  rope.scaling = Rope::Scaling::llama3;
  rope.factor = 8;
  rope.low_frequency_factor = 1;
  rope.high_frequency_factor = 4;
  rope.original_positions = 256;
  // Turns within 256 positions: 40.7, 4.07, 0.407, 0.0407; above 4 kept, below 1 divided.
  const auto f = rope_frequencies(rope, 1);
  EXPECT_DOUBLE_EQ(f[0], 1);
  EXPECT_NEAR(f[1], 0.1, 1e-16);
  EXPECT_NEAR(f[2], 0.01 / 8, 1e-18);
  EXPECT_NEAR(f[3], 0.001 / 8, 1e-19);
  // With 128 positions the second turns 2.04 times: between, blend (2.04 - 1) / 3.
  rope.original_positions = 128;
  const double blend = (12.8 / (2 * std::numbers::pi) - 1) / 3;
  EXPECT_NEAR(rope_frequencies(rope, 1)[1], 0.1 * (blend + (1 - blend) / 8), 1e-15);
}

TEST(Rope, YarnKeepsTheFirstAndDividesTheLast) {
  Rope rope = plain(128);
  rope.scaling = Rope::Scaling::yarn;
  rope.factor = 4;
  rope.original_positions = 4096;
  const auto f = rope_frequencies(rope, 1), unscaled = rope_frequencies(plain(128), 1);
  EXPECT_DOUBLE_EQ(f.front(), 1);
  EXPECT_NEAR(f.back() / unscaled.back(), 0.25, 1e-15);
  // The ratio never rises along the index.
  for (std::size_t t = 1; t < f.size(); ++t) {
    EXPECT_LE(f[t] / unscaled[t], f[t - 1] / unscaled[t - 1] + 1e-15);
  }
}

TEST(Rope, LongropeChoosesItsDivisorsByLength) {
  Rope rope = plain(4);
  rope.scaling = Rope::Scaling::longrope;
  rope.original_positions = 8;
  rope.short_factor = {1, 2};
  rope.long_factor = {4, 8};
  EXPECT_DOUBLE_EQ(rope_frequencies(rope, 8)[1], 0.01 / 2);
  EXPECT_DOUBLE_EQ(rope_frequencies(rope, 9)[1], 0.01 / 8);
}

TEST(RopeTables, HoldCosineAndSineOfPositionTimesFrequency) {
  Rope rope = plain(4);
  rope.attention_factor = 2;
  RopeTables tables(rope);
  ASSERT_TRUE(tables.prepare(5).has_value());
  const auto cosine = tables.cosine(3, 2), sine = tables.sine(3, 2);
  EXPECT_EQ(cosine.rows(), 2u);
  EXPECT_EQ(cosine(0, 0), static_cast<float>(2 * std::cos(3.0)));
  EXPECT_EQ(sine(1, 1), static_cast<float>(2 * std::sin(4 * std::pow(10000.0, -0.5))));
}

TEST(RopeTables, FollowTheLengthBackAndForth) {
  Rope rope = plain(8);
  rope.scaling = Rope::Scaling::dynamic;
  rope.factor = 2;
  rope.original_positions = 4;
  RopeTables tables(rope), fresh(rope);
  ASSERT_TRUE(fresh.prepare(4).has_value());
  for (const std::uint32_t length : {3u, 9u, 17u, 4u}) {
    ASSERT_TRUE(tables.prepare(length).has_value());
  }
  EXPECT_EQ(tables.cosine(3, 1)(0, 1), fresh.cosine(3, 1)(0, 1));
  ASSERT_TRUE(tables.prepare(9).has_value());
  EXPECT_NE(tables.cosine(3, 1)(0, 1), fresh.cosine(3, 1)(0, 1));
}

}  // namespace
}  // namespace quell
