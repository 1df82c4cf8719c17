// SPDX-License-Identifier: Apache-2.0

#include "quell/engine/perplexity.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "engine/running.hpp"
#include "support/golden_model.hpp"

namespace quell {
namespace {

using namespace engine;  // NOLINT: the functions under test
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(NegativeLogLikelihood, OfEqualLogitsIsTheLogOfTheirNumber) {
  const std::vector<float> logits(8, 3.5f);
  EXPECT_DOUBLE_EQ(negative_log_likelihood(logits, 5), std::log(8.0));
}

TEST(NegativeLogLikelihood, OfACertainTokenIsZero) {
  EXPECT_EQ(negative_log_likelihood(std::vector<float>{1000, 0, -1000}, 0), 0);
  EXPECT_DOUBLE_EQ(negative_log_likelihood(std::vector<float>{1000, 0, -1000}, 2), 2000);
}

TEST(NegativeLogLikelihood, OfLogitsThatAreNotFiniteIsNan) {
  EXPECT_TRUE(std::isnan(negative_log_likelihood(std::vector<float>{0, kNan}, 0)));
  EXPECT_TRUE(std::isnan(negative_log_likelihood(std::vector<float>{0, kInfinity}, 0)));
  EXPECT_TRUE(std::isnan(negative_log_likelihood(std::vector<float>{0, -kInfinity}, 1)));
}

TEST(KlDivergence, OfAKnownPair) {
  // P = (1/2, 1/2), Q = (1/4, 3/4): KL = ln 2 - ln(3) / 2. Logits in float32: within 1e-7.
  const std::vector<float> p = {0, 0}, q = {0, std::log(3.0f)};
  EXPECT_NEAR(kl_divergence(p, q), std::log(2.0) - std::log(3.0) / 2, 1e-7);
  EXPECT_NEAR(kl_divergence(q, p), 0.75 * std::log(3.0) - std::log(2.0), 1e-7);
}

TEST(KlDivergence, IgnoresAConstantAddedToAllLogits) {
  const std::vector<float> p = {1, 2, 4}, q = {9, 10, 12};
  EXPECT_EQ(kl_divergence(p, q), 0);
}

TEST(KlDivergence, OfARowWithItselfIsExactlyZeroAndNeverNegative) {
  std::vector<float> p, q;
  for (int i = 0; i < 4096; ++i) {
    p.push_back(static_cast<float>(10 * test::golden_unit("p", static_cast<std::uint64_t>(i))));
    // The last bit flipped here and there: divergences of the order of rounding.
    q.push_back(i % 3 == 0 ? std::nextafter(p.back(), 100.0f) : p.back());
  }
  EXPECT_EQ(kl_divergence(p, p), 0);
  EXPECT_GE(kl_divergence(p, q), 0);
  EXPECT_LT(kl_divergence(p, q), 1e-9);
}

TEST(KlDivergence, OfVanishingProbabilitiesIsFinite) {
  const std::vector<float> p = {0, -3e38f}, q = {-3e38f, 0};
  EXPECT_NEAR(kl_divergence(p, q) / 3e38, 1, 1e-6);
  EXPECT_TRUE(std::isnan(kl_divergence(std::vector<float>{0, kNan}, p)));
  EXPECT_TRUE(std::isnan(kl_divergence(p, std::vector<float>{0, kInfinity})));
}

TEST(TopToken, IsTheFirstOfEquals) {
  EXPECT_EQ(top_token(std::vector<float>{1, 5, 5, 2}), 1u);
}

TEST(Summary, OfOneToHundred) {
  std::vector<double> values(100);
  std::iota(values.rbegin(), values.rend(), 1.0);
  const Summary summary = summarize(values);
  EXPECT_EQ(summary.count, 100u);
  EXPECT_DOUBLE_EQ(summary.mean, 50.5);
  EXPECT_DOUBLE_EQ(summary.median, 50.5);
  EXPECT_DOUBLE_EQ(summary.p99, 99);
  EXPECT_DOUBLE_EQ(summary.max, 100);
  // The variance of 1..n is (n^2 - 1) / 12 over the population, n (n + 1) / 12 for the sample.
  EXPECT_NEAR(summary.standard_error, std::sqrt(100 * 101 / 12.0 / 100), 1e-12);
}

TEST(Summary, OfFewValues) {
  EXPECT_EQ(summarize({}).count, 0u);
  const double one[] = {7};
  const Summary summary = summarize(one);
  EXPECT_EQ(summary.median, 7);
  EXPECT_EQ(summary.p99, 7);
  EXPECT_EQ(summary.standard_error, 0);
}

TEST(ClusteredStandardError, OfSingleValuesIsThePlainOne) {
  const std::vector<double> values = {1, 4, 2, 8, 5};
  const std::vector<std::uint32_t> counts(5, 1);
  EXPECT_NEAR(clustered_standard_error(values, counts), summarize(values).standard_error, 1e-12);
}

TEST(ClusteredStandardError, GrowsWhenAllOfASequenceMoveTogether) {
  const std::vector<double> values = {1, 1, 1, 1, 5, 5, 5, 5};
  const std::vector<std::uint32_t> counts = {4, 4};
  // Two draws, 1 and 5: s / sqrt(2) = 2.
  EXPECT_NEAR(clustered_standard_error(values, counts), 2, 1e-12);
  EXPECT_EQ(clustered_standard_error(values, std::vector<std::uint32_t>{8}), 0);
}

struct Pair {
  explicit Pair(test::GoldenModel golden, Executor& executor) {
    golden.write(folder.path());
    model = std::make_unique<model::Model>(*model::Model::load(folder.path()));
    engine = std::make_unique<Engine>(*Engine::create(*model, executor));
  }
  test::TemporaryFolder folder;
  std::unique_ptr<model::Model> model;
  std::unique_ptr<Engine> engine;
};

const std::vector<std::uint32_t> kLengths = {9, 1, 7};

TEST(Score, ScoresEveryTokenButTheFirstOfEachSequence) {
  const test::GoldenModel golden = test::read_golden("llama");
  SerialExecutor serial;
  Pair one(golden, serial);
  const auto scores = score(*one.engine, golden.ids, kLengths);
  ASSERT_TRUE(scores.has_value()) << scores.error().message;
  EXPECT_EQ(scores->counts, (std::vector<std::uint32_t>{8, 0, 6}));
  ASSERT_EQ(scores->nll.size(), 14u);
  const auto logits = test::run_logits(*one.engine, golden.ids, kLengths);
  EXPECT_EQ(scores->nll[0],
            negative_log_likelihood(logits->row(0), static_cast<std::size_t>(golden.ids[1])));
  EXPECT_EQ(scores->nll[8],
            negative_log_likelihood(logits->row(10), static_cast<std::size_t>(golden.ids[11])));
}

TEST(Score, DoesNotDependOnThePartsOrTheThreads) {
  const test::GoldenModel golden = test::read_golden("llama");
  SerialExecutor serial;
  const auto two = make_openmp_executor(2);
  Pair one(golden, serial), other(golden, *two);
  ScoreOptions small;
  small.hidden_bytes = 1;  // every sequence is its own part
  std::uint64_t done = 0, total = 0;
  small.progress = [&](std::uint64_t d, std::uint64_t t) { done = d, total = t; };
  EXPECT_EQ(score(*one.engine, golden.ids, kLengths)->nll,
            score(*other.engine, golden.ids, kLengths, small)->nll);
  EXPECT_EQ(done, total);
  EXPECT_EQ(total, 17u * 3);
}

TEST(Compare, AModelWithItselfDivergesByExactlyNothing) {
  const test::GoldenModel golden = test::read_golden("qwen3");
  SerialExecutor serial;
  const auto two = make_openmp_executor(2);
  Pair one(golden, serial), other(golden, *two);
  const auto result = compare(*one.engine, *other.engine, golden.ids, kLengths);
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_EQ(result->kl, std::vector<double>(14, 0.0));
  EXPECT_EQ(result->nll, result->reference_nll);
  EXPECT_EQ(result->same_top, 14u);
}

TEST(Compare, AChangedWeightIsSeen) {
  test::GoldenModel golden = test::read_golden("llama");
  SerialExecutor serial;
  Pair one(golden, serial);
  for (float& value : golden.tensor("model.layers.0.mlp.down_proj.weight").values) value *= 1.3f;
  Pair other(golden, serial);
  const auto result = compare(*one.engine, *other.engine, golden.ids, kLengths);
  ASSERT_TRUE(result.has_value());
  for (const double kl : result->kl) EXPECT_GT(kl, 0);
  EXPECT_EQ(result->reference_nll, score(*one.engine, golden.ids, kLengths)->nll);
  EXPECT_EQ(result->nll, score(*other.engine, golden.ids, kLengths)->nll);
}

TEST(Score, WrongLengthsAreRefused) {
  const test::GoldenModel golden = test::read_golden("llama");
  SerialExecutor serial;
  Pair one(golden, serial);
  const std::vector<std::uint32_t> wrong = {9, 9}, empty = {17, 0};
  EXPECT_EQ(score(*one.engine, golden.ids, wrong).error().code, ErrorCode::shape);
  EXPECT_EQ(score(*one.engine, golden.ids, empty).error().code, ErrorCode::shape);
}

TEST(Score, OverflowingWeightsAreANumericError) {
  test::GoldenModel golden = test::read_golden("llama");
  for (float& value : golden.tensor("model.norm.weight").values) value = 3e38f;
  SerialExecutor serial;
  Pair one(golden, serial);
  const auto scores = score(*one.engine, golden.ids, kLengths);
  ASSERT_FALSE(scores.has_value());
  EXPECT_EQ(scores.error().code, ErrorCode::numeric);
}

}  // namespace
}  // namespace quell
