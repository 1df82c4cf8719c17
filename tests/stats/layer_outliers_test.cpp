// SPDX-License-Identifier: Apache-2.0

#include "quell/stats/layer_outliers.hpp"

#include <gtest/gtest.h>

#include <algorithm>
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
using Doubles = std::vector<double>;

ScoredWeight linear(const Floats& weight, const Doubles& scaler) {
  return {{weight.data(), weight.size() / scaler.size(), scaler.size()}, scaler};
}

double percent(const std::vector<ScoredWeight>& block, double m) {
  return layer_outliers(block, m).percent();
}

TEST(LayerOutliers, OfASmallWeightByHand) {
  // Tokens (1, 10) and (0, 20): energies 1 and 500. Scores 1, 44.7214, 3, 11.1803.
  const Floats w = {1, -2, 3, 0.5f};
  const Doubles scaler = {1, 500};
  const ScoreSums sums = score_sums(linear(w, scaler));
  EXPECT_EQ(sums.count, 4u);
  EXPECT_NEAR(sums.mean(), 14.9754, 1e-4);
  EXPECT_NEAR(sums.max / sums.mean(), 2.98632, 1e-5);
  EXPECT_EQ(percent({linear(w, scaler)}, 2), 25);
  EXPECT_EQ(percent({linear(w, scaler)}, 2.98), 25);
  EXPECT_EQ(percent({linear(w, scaler)}, 2.99), 0);
}

TEST(LayerOutliers, AreStrictlyAboveTheThreshold) {
  // Scores 2 and 1, 1, 0: mean 1.
  const Floats w = {2, 1, 1, 0};
  const Doubles scaler = {1};
  EXPECT_EQ(percent({linear(w, scaler)}, 2), 0);
  EXPECT_EQ(percent({linear(w, scaler)}, 1), 25);
  EXPECT_EQ(percent({linear(w, scaler)}, 0), 75);
}

TEST(LayerOutliers, MixTheScoresOfAllLinearsOfABlock) {
  // Alone neither has a score above twice its mean; together the larger one has all of them.
  const Floats small(60, 1.0f), large(20, 9.0f);
  const Doubles scaler(10, 1.0);
  EXPECT_EQ(percent({linear(small, scaler)}, 2), 0);
  EXPECT_EQ(percent({linear(large, scaler)}, 2), 0);
  EXPECT_EQ(percent({linear(small, scaler), linear(large, scaler)}, 2), 25);
}

TEST(LayerOutliers, OfNothingOrZerosAreNone) {
  EXPECT_EQ(layer_outliers({}).percent(), 0);
  const Floats w(6, 0.0f);
  const Doubles scaler(3, 0.0);
  EXPECT_EQ(percent({linear(w, scaler)}, 5), 0);
  EXPECT_EQ(percent({ScoredWeight{}}, 5), 0);
  // Nothing is strictly above a mean of 0.
  EXPECT_EQ(percent({linear(w, scaler)}, 0), 0);
}

TEST(LayerOutliers, LeaveDamagedScoresOutAndCountThem) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const Floats w = {nan, 1, 1, 6, 1, -inf, 1, 1};
  const Doubles scaler = {1, 1, -4, 1};  // the third channel has no energy that is a number >= 0
  const LayerOutliers found = layer_outliers(std::vector{linear(w, scaler)}, 2);
  EXPECT_EQ(found.scores.nonfinite, 4u);
  EXPECT_EQ(found.scores.count, 4u);
  EXPECT_EQ(found.scores.mean(), 9.0 / 4);
  EXPECT_EQ(found.percent(), 25);
}

TEST(LayerOutliers, HoldAtTheEndsOfTheirTypes) {
  const float huge = std::numeric_limits<float>::max();
  const float tiny = std::numeric_limits<float>::denorm_min();
  const Doubles large(4, std::numeric_limits<double>::max());
  const Doubles small(4, std::numeric_limits<double>::denorm_min());
  EXPECT_EQ(percent({linear(Floats(16, huge), large)}, 5), 0);
  EXPECT_TRUE(std::isfinite(score_sums(linear(Floats(16, huge), large)).sum));
  Floats w(64, tiny);
  w[5] = 1e-30f;
  EXPECT_EQ(percent({linear(w, small)}, 13), 100.0 / 64);
}

TEST(LayerOutliers, DoNotDependOnTheScaleOfTheBlock) {
  Floats w(4096);
  Random(71).fill_normal(w);
  Doubles scaler(64);
  for (std::size_t i = 0; i < 64; ++i) scaler[i] = 1 + Random(72).uniform(i);
  const LayerOutliers before = layer_outliers(std::vector{linear(w, scaler)}, 3);
  for (float& x : w) x *= 8;         // exact
  for (double& x : scaler) x /= 64;  // the square of 1/8
  const LayerOutliers after = layer_outliers(std::vector{linear(w, scaler)}, 3);
  EXPECT_GT(before.outliers, 0u);
  EXPECT_EQ(before.outliers, after.outliers);
  double last = 100;
  for (double m = 0; m < 8; m += 0.25) {
    const double now = percent({linear(w, scaler)}, m);
    EXPECT_LE(now, last) << m;
    last = now;
  }
}

TEST(LayerOutliers, OfANormalAreThoseOfAHalfNormal) {
  // A half-normal exceeds 3 times its mean, 2.3937 deviations, with probability 0.016681.
  Floats w(1 << 18);
  Random(73).fill_normal(w);
  const Doubles scaler(512, 2.5);
  const double p = std::erfc(3 * std::sqrt(2 / 3.14159265358979) / std::sqrt(2.0));
  const double found = percent({linear(w, scaler)}, 3) / 100;
  // Five deviations of a binomial share, doubled for the error of the mean.
  EXPECT_NEAR(found, p, 10 * std::sqrt(p / static_cast<double>(w.size())));
  EXPECT_LT(percent({linear(w, scaler)}, kOwlThreshold), 0.02);  // expected 0.0066
  EXPECT_EQ(percent({linear(w, scaler)}, kOwloreThreshold), 0);
}

TEST(LayerOutliers, OfTheBlockWithAPlantedChannelAreTheMost) {
  std::vector<double> percents;
  for (std::uint64_t block = 0; block < 5; ++block) {
    Floats w(128 * 64);
    Random(80 + block).fill_normal(w);
    Doubles scaler(64, 1.0);
    if (block == 3) scaler[7] = 1e4;  // one input channel 100 times larger
    percents.push_back(percent({linear(w, scaler)}, kOwloreThreshold));
  }
  EXPECT_GT(percents[3], 1);
  EXPECT_EQ(percents[0] + percents[1] + percents[2] + percents[4], 0);
  const SamplingProbabilities sampling = sampling_probabilities(percents);
  EXPECT_EQ(sampling.p[3], 1);
  EXPECT_FALSE(sampling.is_fallback);
}

TEST(LayerOutliers, FromPiecesEqualThoseFromTheWhole) {
  constexpr std::size_t kRows = 200, kCols = 96;
  Floats w(kRows * kCols);
  Random(74).fill_normal(w);
  const Doubles scaler(kCols, 3.0);
  const ScoredWeight whole = linear(w, scaler);
  const LayerOutliers expected = layer_outliers(std::vector{whole}, 2);
  ScoreSums sums;
  for (std::size_t row = 0; row < kRows; row += 30) {
    const std::size_t rows = std::min<std::size_t>(30, kRows - row);
    sums.merge(score_sums({whole.weight.rows_from(row, rows), scaler}));
  }
  EXPECT_EQ(sums.count, expected.scores.count);
  EXPECT_EQ(sums.max, expected.scores.max);
  EXPECT_NEAR(sums.sum, expected.scores.sum, 1e-12 * expected.scores.sum);
  std::uint64_t above = 0;
  for (std::size_t row = 0; row < kRows; ++row) {
    above += scores_above({whole.weight.rows_from(row, 1), scaler}, 2 * sums.mean());
  }
  EXPECT_EQ(above, expected.outliers);
}

TEST(SamplingProbabilities, AreSharesOfTheRatios) {
  const SamplingProbabilities s = sampling_probabilities(Doubles{0.5, 0, 0.3, 0.2});
  EXPECT_FALSE(s.is_fallback);
  ASSERT_EQ(s.p.size(), 4u);
  EXPECT_DOUBLE_EQ(s.p[0], 0.5);
  EXPECT_EQ(s.p[1], 0);
  EXPECT_DOUBLE_EQ(s.p[2], 0.3);
  EXPECT_DOUBLE_EQ(s.p[3], 0.2);
}

TEST(SamplingProbabilities, WithoutOutliersAreEqualAndSaySo) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const Doubles& d : {Doubles(4, 0.0), Doubles{nan, 0, -1, nan}}) {
    const SamplingProbabilities s = sampling_probabilities(d);
    EXPECT_TRUE(s.is_fallback);
    EXPECT_EQ(s.p, Doubles(4, 0.25));
  }
  EXPECT_TRUE(sampling_probabilities({}).p.empty());
  EXPECT_FALSE(sampling_probabilities({}).is_fallback);
}

TEST(SamplingProbabilities, OfHugeRatiosDoNotOverflow) {
  const SamplingProbabilities s = sampling_probabilities(Doubles(4, 1.7e308));
  EXPECT_EQ(s.p, Doubles(4, 0.25));
}

/// The definition: P(set drawn so far), over all sets in order of their bits.
Doubles by_subsets(const Doubles& p, std::size_t draws) {
  const std::size_t count = p.size();
  Doubles drawn(std::size_t{1} << count, 0.0), result(count, 0.0);
  drawn[0] = 1;
  for (std::size_t set = 0; set < drawn.size(); ++set) {
    if (static_cast<std::size_t>(std::popcount(set)) == draws) {
      for (std::size_t l = 0; l < count; ++l) {
        if ((set >> l & 1) != 0) result[l] += drawn[set];
      }
      continue;
    }
    double left = 0;
    for (std::size_t l = 0; l < count; ++l) left += (set >> l & 1) == 0 ? p[l] : 0;
    for (std::size_t l = 0; l < count; ++l) {
      if ((set >> l & 1) == 0) drawn[set | std::size_t{1} << l] += drawn[set] * p[l] / left;
    }
  }
  return result;
}

TEST(InclusionProbabilities, OfThreeBlocksByHand) {
  // P(first among two) = .5 + .3 * .5/.7 + .2 * .5/.8, and so on.
  const Doubles p = inclusion_probabilities(Doubles{0.5, 0.3, 0.2}, 2);
  ASSERT_EQ(p.size(), 3u);
  EXPECT_NEAR(p[0], 0.5 + 0.3 * 0.5 / 0.7 + 0.2 * 0.5 / 0.8, 1e-12);
  EXPECT_NEAR(p[0], 0.839286, 1e-6);
  EXPECT_NEAR(p[1], 0.675000, 1e-6);
  EXPECT_NEAR(p[2], 0.485714, 1e-6);
}

TEST(InclusionProbabilities, EqualTheSumOverAllOrders) {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    const Random random(seed);
    Doubles p(2 + seed);
    for (std::size_t l = 0; l < p.size(); ++l) {
      // From even to over six orders of magnitude apart.
      p[l] = std::exp(-static_cast<double>(seed) * 1.3 * random.uniform(l)) + 1e-9;
    }
    for (std::size_t draws = 1; draws < p.size(); ++draws) {
      const Doubles expected = by_subsets(p, draws);
      const Doubles found = inclusion_probabilities(p, draws);
      for (std::size_t l = 0; l < p.size(); ++l) {
        EXPECT_NEAR(found[l], expected[l], 1e-12) << p.size() << " " << draws << " " << l;
      }
    }
  }
}

TEST(InclusionProbabilities, OfOneDrawAreTheProbabilitiesAndOfAllAreOne) {
  const Doubles p = {0.1, 0.0, 0.6, 0.3};
  const Doubles one = inclusion_probabilities(p, 1);
  for (std::size_t l = 0; l < p.size(); ++l) EXPECT_NEAR(one[l], p[l], 1e-12) << l;
  EXPECT_EQ(inclusion_probabilities(p, 0), Doubles(4, 0.0));
  EXPECT_EQ(inclusion_probabilities(p, 3), (Doubles{1, 0, 1, 1}));
  EXPECT_EQ(inclusion_probabilities(p, 99), (Doubles{1, 0, 1, 1}));
  EXPECT_EQ(inclusion_probabilities(Doubles(3, 0.0), 2), Doubles(3, 0.0));
  EXPECT_TRUE(inclusion_probabilities({}, 2).empty());
}

TEST(InclusionProbabilities, OfEqualBlocksAreEqualAndSumToTheDraws) {
  for (const std::size_t count : {2u, 32u, 126u}) {
    for (const std::size_t draws : {std::size_t{1}, count / 2, count - 1}) {
      for (const double p : inclusion_probabilities(Doubles(count, 0.7), draws)) {
        EXPECT_NEAR(p, static_cast<double>(draws) / static_cast<double>(count), 1e-12);
      }
    }
  }
  Doubles spread(80);
  for (std::size_t l = 0; l < spread.size(); ++l)
    spread[l] = std::exp(-0.3 * static_cast<double>(l));
  for (const std::size_t draws : {2u, 5u, 40u, 79u}) {
    const Doubles found = inclusion_probabilities(spread, draws);
    EXPECT_NEAR(std::accumulate(found.begin(), found.end(), 0.0), static_cast<double>(draws),
                1e-11);
    for (std::size_t l = 1; l < found.size(); ++l) EXPECT_LE(found[l], found[l - 1] + 1e-12);
  }
}

TEST(InclusionProbabilities, HoldForProbabilitiesFarApart) {
  // The second draw is never the first block again, so the others share it by their ratio.
  const Doubles found = inclusion_probabilities(Doubles{1, 1e-300, 3e-300}, 2);
  EXPECT_NEAR(found[0], 1, 1e-12);
  EXPECT_NEAR(found[1], 0.25, 1e-12);
  EXPECT_NEAR(found[2], 0.75, 1e-12);
  const double tiny = std::numeric_limits<double>::denorm_min();
  const Doubles extreme = inclusion_probabilities(Doubles{1, tiny, tiny}, 2);
  EXPECT_NEAR(extreme[1], 0.5, 1e-12);
  for (const double p : inclusion_probabilities(Doubles(4, 1.7e308), 2)) EXPECT_NEAR(p, 0.5, 1e-12);
}

TEST(InclusionProbabilities, AgreeWithDrawing) {
  // Thirty-two blocks, as uneven as published ones; 40,000 times five draws.
  Doubles p(32);
  for (std::size_t l = 0; l < p.size(); ++l)
    p[l] = 0.01 + 0.25 * std::exp(-static_cast<double>(l) / 4);
  const Doubles expected = inclusion_probabilities(p, 5);
  constexpr int kRounds = 40000;
  std::vector<int> hits(p.size(), 0);
  const Random random(75);
  for (int round = 0; round < kRounds; ++round) {
    std::vector<bool> taken(p.size(), false);
    double left = std::accumulate(p.begin(), p.end(), 0.0);
    for (int draw = 0; draw < 5; ++draw) {
      double u =
          random.uniform(static_cast<std::uint64_t>(round) * 8 + static_cast<std::uint64_t>(draw)) *
          left;
      std::size_t pick = p.size();
      for (std::size_t l = 0; l < p.size(); ++l) {
        if (taken[l]) continue;
        pick = l;
        if (u < p[l]) break;
        u -= p[l];
      }
      taken[pick] = true;
      left -= p[pick];
      ++hits[pick];
    }
  }
  for (std::size_t l = 0; l < p.size(); ++l) {
    const double deviation = std::sqrt(expected[l] * (1 - expected[l]) / kRounds);
    EXPECT_NEAR(hits[l] / static_cast<double>(kRounds), expected[l], 5 * deviation) << l;
  }
}

}  // namespace
}  // namespace quell::stats
