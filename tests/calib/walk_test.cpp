// SPDX-License-Identifier: Apache-2.0

// Two walks of one text, the model as it is and one that lost something: the drift between them,
// against sums over inputs that taps saw.

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

#include "quell/calib/collect.hpp"
#include "quell/core/executor.hpp"
#include "support/files.hpp"

namespace quell::calib {
namespace {

/// Rows of one input, chunk after chunk.
class Inputs final : public engine::Tap {
 public:
  Status input(std::uint32_t, model::Site site, MatrixView<const float> x) override {
    std::vector<std::vector<float>>& rows = sites[site];
    for (std::size_t t = 0; t < x.rows(); ++t) {
      rows.emplace_back(x.row(t).begin(), x.row(t).end());
    }
    return ok();
  }
  std::map<model::Site, std::vector<std::vector<float>>> sites;
};

/// Nine tenths of every weight.
class Weaker final : public engine::WeightSource {
 public:
  Weaker(const model::Model& model, Executor& executor) : model_(model), executor_(executor) {}
  Result<Matrix> weight(const model::Linear& linear) override {
    QUELL_TRY(matrix, model_.weight(linear, executor_));
    for (float& value : matrix.values()) value *= 0.9F;
    return matrix;
  }

 private:
  const model::Model& model_;
  Executor& executor_;
};

TEST(Walk, SumsTheDriftBetweenTwoModels) {
  SerialExecutor executor;
  auto model = model::Model::load(std::string(QUELL_SOURCE_DIR) + "/examples/models/books7m");
  ASSERT_TRUE(model) << model.error().message;
  auto engine = engine::Engine::create(*model, executor);
  ASSERT_TRUE(engine) << engine.error().message;
  Corpus corpus;
  // Eleven sequences of up to 256 tokens: two chunks.
  for (std::uint32_t s = 0; s < 11; ++s) {
    corpus.lengths.push_back(s % 3 == 0 ? 256 : 231);
    for (std::uint32_t i = 0; i < corpus.lengths.back(); ++i) {
      corpus.ids.push_back(static_cast<std::int32_t>((i * 37 + 101 * s) % 500));
    }
  }
  ASSERT_EQ(chunks(corpus).size(), 2U);
  const test::TemporaryFolder folder;
  const auto begin = [&](std::uint64_t limit) {
    auto walk = Walk::begin(*engine, corpus, limit, folder.path());
    if (!walk) panic(walk.error().message.c_str());
    return *std::move(walk);
  };
  // One of each pair on disk, which changes nothing.
  Walk original = begin(~std::uint64_t{0}), changed = begin(0);
  Walk original_again = begin(0), changed_again = begin(~std::uint64_t{0});
  auto first = engine->load_block(0);
  Weaker weaker(*model, executor);
  auto first_changed = engine->load_block(0, &weaker);
  auto second = engine->load_block(1);
  ASSERT_TRUE(first && first_changed && second);

  const WishFunction all = [](std::uint32_t, model::Site) { return SiteWish{true, true, true}; };
  // As long as nothing is lost there is no drift.
  auto same = changed.collect(*first, all, &original);
  ASSERT_TRUE(same) << same.error().message;
  for (const auto& [site, statistics] : *same) {
    for (std::size_t i = 0; i < statistics.drift.size(); ++i) {
      ASSERT_EQ(statistics.drift.data()[i], 0);
    }
  }
  ASSERT_TRUE(changed.advance(*first_changed));
  auto drifted = changed.collect(*second, all, &original);
  ASSERT_TRUE(drifted) << drifted.error().message;

  Inputs of_original, of_changed;
  ASSERT_TRUE(original_again.advance(*first));
  ASSERT_TRUE(original_again.advance(*second, &of_original));
  ASSERT_TRUE(changed_again.advance(*first_changed));
  ASSERT_TRUE(changed_again.advance(*second, &of_changed));
  ASSERT_EQ(drifted->size(), of_original.sites.size());
  for (const auto& [site, statistics] : *drifted) {
    const auto& x_original = of_original.sites[site];
    const auto& x = of_changed.sites[site];
    ASSERT_EQ(x.size(), corpus.ids.size());
    const Matrix mean = *statistics.mean_drift();
    const std::size_t n = x[0].size();
    ASSERT_EQ(mean.rows(), n);
    double size = 0;
    for (std::size_t k = 0; k < 60; ++k) {
      const std::size_t i = k * 7919 % n, j = k * 104729 % n;
      double sum = 0, magnitudes = 0;
      for (std::size_t t = 0; t < x.size(); ++t) {
        const float difference = x_original[t][i] - x[t][i];
        const double term = static_cast<double>(difference) * static_cast<double>(x[t][j]);
        sum += term;
        magnitudes += std::fabs(term);
      }
      const auto tokens = static_cast<double>(x.size());
      // Chunks of at most 2,048 products in float32.
      EXPECT_NEAR(static_cast<double>(mean(i, j)), sum / tokens,
                  2048 * 0x1p-24 * magnitudes / tokens)
          << to_string(site) << " " << i << ", " << j;
      size += magnitudes / tokens;
    }
    EXPECT_GT(size, 0) << to_string(site);
  }
}

}  // namespace
}  // namespace quell::calib
