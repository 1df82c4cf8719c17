// SPDX-License-Identifier: Apache-2.0

#include "quell/stats/histogram.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "quell/core/random.hpp"

namespace quell::stats {
namespace {

using Floats = std::vector<float>;
using Counts = std::vector<std::uint64_t>;

LogHistogram histogram_of(const Floats& values) {
  QuantileSketch sketch;
  sketch.add(values);
  return LogHistogram(sketch);
}

Counts counts_of(const LogHistogram& histogram) {
  return {histogram.counts().begin(), histogram.counts().end()};
}

TEST(LogHistogram, OfAHandfulByHand) {
  // Edges 1, 1.189, 1.414, 1.682, 2, 2.378.
  const LogHistogram h = histogram_of({1, -1.1875f, 1.5f, 2, -2.25f, 0, 0});
  EXPECT_EQ(counts_of(h), (Counts{2, 0, 1, 0, 2}));
  EXPECT_EQ(h.zeros(), 2u);
  EXPECT_EQ(h.count(), 7u);
  EXPECT_EQ(h.range().low, 1);
  EXPECT_DOUBLE_EQ(h.range().high, 2 * std::pow(2.0, 0.25));
  for (std::size_t i = 0; i <= 5; ++i) {
    EXPECT_DOUBLE_EQ(h.edge(i), std::pow(2.0, static_cast<double>(i) / 4)) << i;
  }
}

TEST(LogHistogram, OfNothingHasNoBins) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const Floats& values : {Floats{}, Floats(3, 0.0f), Floats{inf, -inf}}) {
    const LogHistogram h = histogram_of(values);
    EXPECT_TRUE(h.counts().empty());
    EXPECT_EQ(h.range().low, 0);
    EXPECT_EQ(h.range().high, 0);
    EXPECT_EQ(h.count() + h.nonfinite(), values.size());
  }
}

TEST(LogHistogram, CountsEveryBfloat16NumberBetweenTheEdgesOfItsBin) {
  for (std::uint32_t top = 1; top < 0x7F80; ++top) {
    const float x = std::bit_cast<float>(top << 16);
    const LogHistogram h = histogram_of({x});
    ASSERT_EQ(counts_of(h), Counts{1}) << x;
    EXPECT_LE(h.range().low, static_cast<double>(x));
    EXPECT_GT(h.range().high, static_cast<double>(x));
    EXPECT_NEAR(h.range().high / h.range().low, std::pow(2.0, 0.25), 1e-15);
  }
}

TEST(LogHistogram, HoldsTheEndsOfFloat) {
  const LogHistogram h = histogram_of(
      {std::numeric_limits<float>::max(), std::numeric_limits<float>::denorm_min(), 1.0f});
  EXPECT_EQ(h.range().low, 0x1p-134);
  EXPECT_EQ(std::accumulate(h.counts().begin(), h.counts().end(), std::uint64_t{0}), 3u);
  // 2^-134 to 2^128 and the bin in which the largest float is counted.
  EXPECT_EQ(h.counts().size(), 4u * (134 + 128) + 1);
  EXPECT_TRUE(std::isfinite(h.range().high));
}

TEST(LogHistogram, OfValuesSpreadEvenlyOnItsAxisIsFlat) {
  constexpr std::size_t kCount = 1 << 18;
  Floats values(kCount);
  const Random random(21);
  for (std::size_t i = 0; i < kCount; ++i) {
    values[i] = static_cast<float>(std::exp2(4 * random.uniform(i)));
  }
  const LogHistogram h = histogram_of(values);
  ASSERT_GE(h.counts().size(), 16u);
  const double expected = kCount / 16.0;
  for (std::size_t i = 0; i < 16; ++i) {
    // Five deviations of a binomial count, and the values within 1/257 of either edge: a share of
    // 1 / (257 ln 2) / (1/4) of a bin for one edge, 2.3 %.
    EXPECT_NEAR(static_cast<double>(h.counts()[i]), expected,
                5 * std::sqrt(expected) + 0.046 * expected)
        << i;
  }
}

TEST(LogHistogram, MergesBitForBitInAnyOrder) {
  Floats values(3000);
  Random(22).fill_normal(values);
  values[1] = 0;
  values[2000] = 1e30f;
  values[2] = std::numeric_limits<float>::quiet_NaN();
  const Floats first(values.begin(), values.begin() + 1000);
  const Floats second(values.begin() + 1000, values.end());
  LogHistogram a = histogram_of(first), b = histogram_of(second);
  LogHistogram ab = a, ba = b;
  ab.merge(b);
  ba.merge(a);
  EXPECT_EQ(ab, histogram_of(values));
  EXPECT_EQ(ba, histogram_of(values));
  ab.merge(LogHistogram{});
  EXPECT_EQ(ab, ba);
  LogHistogram none;
  none.merge(ab);
  EXPECT_EQ(none.count(), 2999u);
  EXPECT_EQ(none.nonfinite(), 1u);
  EXPECT_EQ(counts_of(none), counts_of(ab));
  a.merge(a);
  Floats twice = first;
  twice.insert(twice.end(), first.begin(), first.end());
  EXPECT_EQ(a, histogram_of(twice));
}

}  // namespace
}  // namespace quell::stats
