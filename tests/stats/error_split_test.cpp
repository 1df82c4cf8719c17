// SPDX-License-Identifier: Apache-2.0

#include "quell/stats/error_split.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <vector>

#include "quell/core/random.hpp"

namespace quell::stats {
namespace {

using Pair = std::array<float, 2>;

// Four outputs of a layer as its two causes.
struct Causes {
  std::vector<float> carried, fresh;
};
template <typename V>
Causes causes(const V& f_h, const V& f_k, const V& g_h, const V& g_k) {
  Causes both;
  for (std::size_t i = 0; i < f_h.size(); ++i) {
    both.carried.push_back(0.5F * ((g_k[i] - g_h[i]) + (f_k[i] - f_h[i])));
    both.fresh.push_back(0.5F * ((g_k[i] - f_k[i]) + (g_h[i] - f_h[i])));
  }
  return both;
}

TEST(ErrorSplit, OfATwoByTwoLayerIsTheOneOfTheSpecification) {
  // W = [[.9, -.35], [.2, .6]], its rows rounded to four bits W' = [[.9, -.385714], [.171429, .6]],
  // inputs (1, .37) and (1.05, .30), rounded to (1, .428571) and themselves.
  const Pair h{1.0F, 0.37F}, k{1.05F, 0.30F};
  const Pair f_h{0.7705F, 0.422F}, f_k{0.84F, 0.39F};
  const Pair g_h{0.9F - 0.385714F * 0.428571F, 0.171429F + 0.6F * 0.428571F};
  const Pair g_k{0.829286F, 0.36F};
  const Causes parts = causes(f_h, f_k, g_h, g_k);
  const Pair difference{k[0] - h[0], k[1] - h[1]};
  ErrorSplitSums sums;
  sums.add(parts.carried, parts.fresh, f_h, difference, h);
  const ErrorSplit split = sums.over_all();
  // Six digits are given for W', and differences of outputs lose one.
  EXPECT_NEAR(split.carried, 0.01199888, 2e-7);
  EXPECT_NEAR(split.fresh, 0.00087886, 2e-7);
  EXPECT_NEAR(split.cross, -0.00341908, 2e-7);
  EXPECT_NEAR(split.total(), 0.00945866, 2e-7);
  EXPECT_NEAR(split.previous, 0.00650893, 1e-7);
  EXPECT_NEAR(split.gain(), 1.843449, 1e-4);
  EXPECT_EQ(sums.per_token().carried, split.carried);  // one token: both means are the same
}

TEST(ErrorSplit, AddsUpToTheErrorOfAnyLayer) {
  const Random random(3);
  for (std::uint64_t round = 0; round < 20; ++round) {
    std::vector<float> f_h(17), f_k(17), g_h(17), g_k(17);
    random.fill_normal(f_h, 100 * round);
    random.fill_normal(f_k, 100 * round + 17);
    random.fill_normal(g_h, 100 * round + 34);
    random.fill_normal(g_k, 100 * round + 51);
    const Causes parts = causes(f_h, f_k, g_h, g_k);
    const std::vector<float> input(3, 1.0F), difference(3, 0.5F);
    ErrorSplitSums sums;
    sums.add(parts.carried, parts.fresh, f_h, difference, input);
    double error = 0, output = 0;
    for (std::size_t i = 0; i < 17; ++i) {
      const double e = static_cast<double>(g_k[i]) - static_cast<double>(f_h[i]);
      error += e * e;
      output += static_cast<double>(f_h[i]) * static_cast<double>(f_h[i]);
    }
    // Each part is rounded to float once or twice: 2^-23 of numbers up to some 6.
    EXPECT_NEAR(sums.over_all().total(), error / output, 1e-5 * error / output);
    EXPECT_DOUBLE_EQ(sums.over_all().previous, 0.25);
  }
}

TEST(ErrorSplit, WeighsTokensByTheirEnergyOrAlike) {
  // A loud token without error, a quiet one that is all error.
  const Pair zero{0, 0}, loud{10, 0}, quiet{0, 1};
  ErrorSplitSums sums;
  sums.add(zero, zero, loud, zero, loud);
  sums.add(quiet, zero, quiet, quiet, quiet);
  EXPECT_DOUBLE_EQ(sums.over_all().carried, 1.0 / 101);
  EXPECT_DOUBLE_EQ(sums.per_token().carried, 0.5);
  EXPECT_DOUBLE_EQ(sums.per_token().gain(), 1);
}

TEST(ErrorSplit, OfSilenceIsZero) {
  const Pair zero{0, 0}, one{1, 1};
  ErrorSplitSums sums;
  EXPECT_EQ(sums.over_all().total(), 0);
  EXPECT_EQ(sums.per_token().total(), 0);
  sums.add(one, one, zero, one, zero);  // no output to be relative to
  EXPECT_EQ(sums.over_all().total(), 0);
  EXPECT_EQ(sums.over_all().gain(), 0);
  EXPECT_EQ(sums.per_token().total(), 0);
}

}  // namespace
}  // namespace quell::stats
