// SPDX-License-Identifier: Apache-2.0

// Keys that collect attention: uniform attention has none, planted ones are found.

#include "quell/attention/sinks.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "quell/core/tensor.hpp"

namespace quell::attention {
namespace {

/// Column sums of causal attention over `keys` keys that is uniform but for `share` on key `sink`
/// of every query that sees it.
std::vector<double> column_sums(std::size_t keys, std::size_t sink, double share) {
  std::vector<double> sums(keys);
  for (std::size_t query = 0; query < keys; ++query) {
    const double seen = static_cast<double>(query + 1);
    for (std::size_t key = 0; key <= query; ++key) {
      const bool planted = share > 0 && query >= sink;
      sums[key] += planted && key == sink ? share
                   : planted              ? (1 - share) / (seen > 1 ? seen - 1 : 1)
                                          : 1 / seen;
    }
  }
  return sums;
}

std::vector<std::uint32_t> causal_queries(std::size_t keys) {
  std::vector<std::uint32_t> queries;
  for (std::size_t key = 0; key < keys; ++key) {
    queries.push_back(static_cast<std::uint32_t>(keys - key));
  }
  return queries;
}

TEST(Sinks, ShareIsOverTheQueriesThatSeeTheKey) {
  // Uniform causal attention over four keys: sums 25/12, 13/12, 7/12 and 1/4.
  const std::vector<double> sums = column_sums(4, 0, 0);
  EXPECT_DOUBLE_EQ(sums[0], 25.0 / 12);
  EXPECT_DOUBLE_EQ(sums[3], 0.25);
  const MatrixView<const double> mass(sums.data(), 1, 4);
  const auto sinks = find_sinks(mass, causal_queries(4), {0.25, 1});
  ASSERT_EQ(sinks.size(), 4u);
  EXPECT_DOUBLE_EQ(sinks[0].mass, 25.0 / 48);
  EXPECT_DOUBLE_EQ(sinks[1].mass, 13.0 / 36);
  EXPECT_DOUBLE_EQ(sinks[2].mass, 7.0 / 24);
  EXPECT_DOUBLE_EQ(sinks[3].mass, 0.25) << "the threshold itself counts";
  EXPECT_EQ(find_sinks(mass, causal_queries(4), {0.26, 1}).size(), 3u);
}

TEST(Sinks, UniformAttentionHasNone) {
  // The first key gets H_512 / 512, which is 0.013.
  const std::vector<double> sums = column_sums(512, 0, 0);
  const MatrixView<const double> mass(sums.data(), 1, 512);
  EXPECT_TRUE(find_sinks(mass, causal_queries(512)).empty());
}

TEST(Sinks, PlantedOnesAreFoundWithTheirMass) {
  for (const std::size_t sink : {std::size_t{0}, std::size_t{7}, std::size_t{190}}) {
    // Two heads, one of which has the sink: the mean is half.
    const std::vector<double> with = column_sums(256, sink, 0.4), without = column_sums(256, 0, 0);
    Matrix64 mass = *Matrix64::zeros(2, 256);
    std::copy(with.begin(), with.end(), mass.row(0).begin());
    std::copy(without.begin(), without.end(), mass.row(1).begin());
    const auto queries = causal_queries(256);
    const auto sinks = find_sinks(mass.view(), queries);
    ASSERT_EQ(sinks.size(), 1u) << sink;
    EXPECT_EQ(sinks[0].position, sink);
    EXPECT_NEAR(sinks[0].mass, (0.4 + without[sink] / queries[sink]) / 2, 1e-12);
  }
}

TEST(Sinks, KeysThatFewQueriesSeeAreNone) {
  const std::vector<double> sums = {0, 63, 64, 0};
  const std::vector<std::uint32_t> queries = {64, 63, 64, 0};
  const auto sinks = find_sinks({sums.data(), 1, 4}, queries);
  ASSERT_EQ(sinks.size(), 1u);
  EXPECT_EQ(sinks[0].position, 2u);
  EXPECT_TRUE(find_sinks({sums.data() + 3, 1, 1}, std::span(queries).last(1), {0, 0}).empty())
      << "no query, no share";
  EXPECT_TRUE(find_sinks({}, {}).empty());
}

}  // namespace
}  // namespace quell::attention
