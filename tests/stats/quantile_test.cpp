// SPDX-License-Identifier: Apache-2.0

#include "quell/stats/quantile.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "quell/core/random.hpp"
#include "quell/stats/magnitude.hpp"

namespace quell::stats {
namespace {

using Floats = std::vector<float>;

constexpr float kMax = std::numeric_limits<float>::max();
constexpr float kTiny = std::numeric_limits<float>::denorm_min();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

QuantileSketch sketch_of(const Floats& values) {
  QuantileSketch sketch;
  sketch.add(values);
  return sketch;
}

float rounded_to_bfloat16(float x) {
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(x) + 0x8000u) & 0xFFFF'0000u);
}

/// The exact quantile of the magnitudes, by sorting.
double exact(const Floats& values, double q) {
  Floats magnitudes(values.size());
  std::transform(values.begin(), values.end(), magnitudes.begin(),
                 [](float x) { return std::fabs(x); });
  return quantile_in_place(magnitudes, q);
}

/// The stated bound, and a few roundings in double of the interpolation on both sides.
void expect_within_bound(const Floats& values, const std::string& what) {
  const QuantileSketch sketch = sketch_of(values);
  ASSERT_EQ(sketch.count(), values.size());
  for (int i = 0; i <= 100; ++i) {
    const double q = i / 100.0;
    const double truth = exact(values, q);
    const double bound = std::max(truth / 257, 0x1p-134) * (1 + 1e-12) + 1e-15 * truth;
    EXPECT_NEAR(sketch.quantile(q), truth, bound) << what << " at q = " << q;
  }
  EXPECT_EQ(sketch.quantile(0), exact(values, 0)) << what;
  EXPECT_EQ(sketch.quantile(1), exact(values, 1)) << what;
}

TEST(QuantileSketch, OfCountedValuesIsThatOfTheValues) {
  QuantileSketch counted;
  Floats values;
  const std::pair<float, std::uint64_t> some[] = {{0.0f, 3}, {-2.5f, 4}, {1e-44f, 2},
                                                  {kNan, 2}, {kInf, 1},  {-1e30f, 100},
                                                  {7.0f, 0}, {-0.0f, 1}};
  for (const auto& [value, times] : some) {
    counted.add(value, times);
    values.insert(values.end(), times, value);
  }
  EXPECT_TRUE(counted == sketch_of(values));
}

TEST(QuantileSketch, OfAHandfulByHand) {
  const QuantileSketch sketch = sketch_of({-4, 0, 1, -1, 2, kNan, 0, -kInf});
  EXPECT_EQ(sketch.count(), 6u);
  EXPECT_EQ(sketch.zeros(), 2u);
  EXPECT_EQ(sketch.nonfinite(), 2u);
  EXPECT_EQ(sketch.max_abs(), 4);
  EXPECT_EQ(sketch.quantile(0), 0);
  EXPECT_EQ(sketch.quantile(0.2), 0);
  EXPECT_DOUBLE_EQ(sketch.quantile(0.3), 0.5);  // halfway from rank 1 to rank 2
  EXPECT_EQ(sketch.quantile(0.5), 1);
  EXPECT_DOUBLE_EQ(sketch.quantile(0.9), 3);
  EXPECT_EQ(sketch.quantile(1), 4);
}

TEST(QuantileSketch, OfNothingZerosOrNansIsZero) {
  for (const Floats& values : {Floats{}, Floats(9, -0.0f), Floats{kNan, kInf, -kInf}}) {
    const QuantileSketch sketch = sketch_of(values);
    EXPECT_EQ(sketch.quantile(0.5), 0);
    EXPECT_EQ(sketch.max_abs(), 0);
    EXPECT_TRUE(sketch.counts().empty());
    EXPECT_EQ(sketch.count() + sketch.nonfinite(), values.size());
  }
}

TEST(QuantileSketch, OfOneOrEqualValuesIsThatValue) {
  for (const float x : {0.1f, -123.456f, kMax, kTiny, 3 * kTiny, 1.17549421e-38f}) {
    for (const std::size_t n : {1u, 2u, 5000u}) {
      const QuantileSketch sketch = sketch_of(Floats(n, x));
      for (const double q : {0.0, 0.37, 1.0}) {
        EXPECT_EQ(sketch.quantile(q), std::fabs(static_cast<double>(x))) << x << " " << n;
      }
    }
  }
}

TEST(QuantileSketch, IsWithinItsBoundOnRandomData) {
  constexpr std::size_t kCount = 20000;
  const Random random(11);
  Floats normal(kCount), uniform(kCount), heavy(kCount), every_scale(kCount), sparse(kCount);
  random.fill_normal(normal);
  random.fill_uniform(uniform, 1 << 20);
  for (std::size_t i = 0; i < kCount; ++i) {
    heavy[i] = normal[i] / (uniform[i] + 1e-3f);
    // Bits at random: every exponent equally likely, subnormal numbers among them.
    const auto bits = static_cast<std::uint32_t>(random.bits(i + (1ull << 40)));
    const float x = std::bit_cast<float>(bits);
    every_scale[i] = std::isfinite(x) ? x : 1.0f;
    sparse[i] = i % 3 == 0 ? normal[i] : 0.0f;
  }
  expect_within_bound(normal, "normal");
  expect_within_bound(uniform, "uniform");
  expect_within_bound(heavy, "heavy");
  expect_within_bound(every_scale, "every scale");
  expect_within_bound(sparse, "sparse");
}

TEST(QuantileSketch, IsWithinItsBoundOnTheWorstData) {
  // Values on both sides of every rounding edge of a few octaves, the first and the last included:
  // those are moved farthest.
  Floats edges;
  for (const std::uint32_t octave : {0u, 1u, 2u, 126u, 127u, 128u, 253u, 254u}) {
    for (std::uint32_t step = 0; step < 128; ++step) {
      const std::uint32_t edge = (octave << 23) + (step << 16) + 0x8000u;
      for (const std::uint32_t bits : {edge - 1, edge, edge + 1}) {
        edges.push_back(std::bit_cast<float>(bits));
      }
    }
  }
  edges.push_back(kMax);
  expect_within_bound(edges, "edges");
  for (const float x : edges) {
    // In the middle of three, so that the exact ends do not help.
    const QuantileSketch three = sketch_of({kTiny, x, kMax});
    const double truth = static_cast<double>(x);
    EXPECT_NEAR(three.quantile(0.5), truth, std::max(truth / 257, 0x1p-134) * (1 + 1e-12)) << x;
  }
  // One far away from all others, and two clusters.
  Floats one(5000, 1e-20f);
  one[77] = 1e20f;
  expect_within_bound(one, "one far away");
  for (std::size_t i = 0; i < one.size(); i += 2) one[i] = 3.3e33f;
  expect_within_bound(one, "two clusters");
}

TEST(QuantileSketch, ReachesTheBoundSoThatItIsNotLoose) {
  // Just below the middle of the first step of an octave.
  const float x = std::bit_cast<float>(0x3F80'7FFFu);
  const double error = static_cast<double>(x) - sketch_of({0.5f, x, 2.0f}).quantile(0.5);
  EXPECT_GT(error, static_cast<double>(x) / 257 * 0.999);
}

TEST(QuantileSketch, OfBfloat16NumbersIsExact) {
  Floats values(30001);
  Random(12).fill_normal(values);
  for (float& x : values) x = rounded_to_bfloat16(x);
  const QuantileSketch sketch = sketch_of(values);
  for (int i = 0; i <= 1000; ++i) {
    const double q = i / 1000.0;
    EXPECT_EQ(sketch.quantile(q), exact(values, q)) << q;
  }
}

TEST(QuantileSketch, ForgetsTheOrderAndTheCuts) {
  Floats values(10007);
  const Random random(13);
  random.fill_normal(values);
  for (std::size_t i = 0; i < values.size(); i += 10) {
    values[i] *= std::ldexp(1.0f, static_cast<int>(random.below(i, 200)) - 100);
  }
  values[5] = kNan;
  values[6] = 0;
  const QuantileSketch whole = sketch_of(values);
  QuantileSketch one_by_one;
  for (auto x = values.rbegin(); x != values.rend(); ++x) one_by_one.add(*x);
  EXPECT_EQ(one_by_one, whole);

  const auto part = [&](std::size_t first, std::size_t last) {
    return sketch_of(Floats(values.begin() + static_cast<std::ptrdiff_t>(first),
                            values.begin() + static_cast<std::ptrdiff_t>(last)));
  };
  for (const std::size_t cut : {0u, 1u, 4096u, 9000u, 10007u}) {
    const QuantileSketch a = part(0, cut / 2), b = part(cut / 2, cut), c = part(cut, 10007);
    QuantileSketch left = a;  // (a + b) + c
    left.merge(b);
    left.merge(c);
    QuantileSketch right = c;  // (c + b) + a
    right.merge(b);
    right.merge(a);
    QuantileSketch nested = b;  // a + (b + c)
    nested.merge(c);
    QuantileSketch outer = a;
    outer.merge(nested);
    EXPECT_EQ(left, whole) << cut;
    EXPECT_EQ(right, whole) << cut;
    EXPECT_EQ(outer, whole) << cut;
  }
}

TEST(QuantileSketch, MayBeMergedWithItself) {
  QuantileSketch sketch = sketch_of({1, 2, 0, 4});
  sketch.merge(sketch);
  EXPECT_EQ(sketch, sketch_of({1, 1, 2, 2, 0, 0, 4, 4}));
}

TEST(QuantileSketch, StaysWithinItsMemory) {
  QuantileSketch sketch;
  for (std::uint32_t exponent = 0; exponent < 255; ++exponent) {
    sketch.add(std::bit_cast<float>(exponent << 23 | 0x40'0000u));
  }
  sketch.add(kMax);
  sketch.add(kTiny);
  EXPECT_LE(sketch.counts().size_bytes(), 256u << 10);
  EXPECT_EQ(sketch_of({1.0f, 1.9f}).counts().size_bytes(), 1u << 10);
}

TEST(QuantileSketch, CountsWhatLiesAboveAThreshold) {
  const QuantileSketch sketch = sketch_of({0.0f, 1.0f, -2.0f, 4.0f, kMax, kNan});
  EXPECT_EQ(sketch.above(-1), 4u);  // zeros have no bin and lie above nothing
  EXPECT_EQ(sketch.above(0), 4u);
  EXPECT_EQ(sketch.above(1), 3u);  // strictly
  EXPECT_EQ(sketch.above(3.9), 2u);
  EXPECT_EQ(sketch.above(4), 1u);
  EXPECT_EQ(sketch.above(static_cast<double>(kMax)), 0u);
  EXPECT_EQ(QuantileSketch().above(0), 0u);
}

TEST(QuantileSketch, CountsEveryValueInTheBinItRoundsTo) {
  const QuantileSketch sketch = sketch_of({1.0f, 1.001f, 1.0079f, kMax, kTiny});
  std::vector<std::pair<double, std::uint64_t>> bins;
  for (std::size_t i = 0; i < sketch.counts().size(); ++i) {
    const auto bin = sketch.first_bin() + static_cast<std::uint32_t>(i);
    if (sketch.counts()[i] > 0) {
      bins.emplace_back(QuantileSketch::magnitude(bin), sketch.counts()[i]);
    }
  }
  const std::vector<std::pair<double, std::uint64_t>> expected = {
      {0, 1}, {1, 2}, {1.0078125, 1}, {0x1p128, 1}};
  EXPECT_EQ(bins, expected);
}

}  // namespace
}  // namespace quell::stats
