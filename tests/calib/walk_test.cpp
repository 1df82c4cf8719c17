// SPDX-License-Identifier: Apache-2.0

// A walk in stages of a model that lost something: its statistics against sums over inputs that
// taps of whole passes saw, of that model and of the original.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "quell/calib/collect.hpp"
#include "quell/calib/staged_walk.hpp"
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
  Status residual(std::int32_t, MatrixView<const float> x) override {
    for (std::size_t t = 0; t < x.rows(); ++t) after.emplace_back(x.row(t).begin(), x.row(t).end());
    return ok();
  }
  std::map<model::Site, std::vector<std::vector<float>>> sites;
  std::vector<std::vector<float>> after;  // the block
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

struct Passes {
  Inputs original, now;
  std::vector<std::vector<float>> original_before, now_before;  // states before the block
};

double dot(const Matrix& weight, std::size_t row, const std::vector<float>& x) {
  double sum = 0;
  for (std::size_t k = 0; k < x.size(); ++k) {
    sum += static_cast<double>(weight(row, k)) * static_cast<double>(x[k]);
  }
  return sum;
}

class StagedWalkTest : public ::testing::Test {
 protected:
  StagedWalkTest() {
    auto loaded = model::Model::load(std::string(QUELL_SOURCE_DIR) + "/examples/models/books7m");
    if (!loaded) panic(loaded.error().message.c_str());
    model_.emplace(*std::move(loaded));
    auto made = engine::Engine::create(*model_, executor_);
    if (!made) panic(made.error().message.c_str());
    engine_.emplace(*std::move(made));
    // Eleven sequences of up to 256 tokens: two chunks.
    for (std::uint32_t s = 0; s < 11; ++s) {
      corpus_.lengths.push_back(s % 3 == 0 ? 256 : 231);
      for (std::uint32_t i = 0; i < corpus_.lengths.back(); ++i) {
        corpus_.ids.push_back(static_cast<std::int32_t>((i * 37 + 101 * s) % 500));
      }
    }
  }

  engine::BlockWeights load(std::uint32_t layer, engine::WeightSource* source = nullptr,
                            std::span<const model::Site> sites = model::kSites) {
    auto weights = engine_->load_block(layer, source, sites);
    if (!weights) panic(weights.error().message.c_str());
    return *std::move(weights);
  }
  StagedWalk begin(std::uint64_t limit, std::size_t drift_tokens = kDriftTokens) {
    auto walk = StagedWalk::begin(*engine_, corpus_, limit, folder_.path(), drift_tokens);
    if (!walk) panic(walk.error().message.c_str());
    return *std::move(walk);
  }
  /// Statistics of block `layer`, whose linears become `source`'s one input after the other.
  std::map<model::Site, SiteStatistics> collect(StagedWalk& walk, std::uint32_t layer,
                                                engine::WeightSource& source, SiteWish wish) {
    std::map<model::Site, SiteStatistics> sites;
    for (const model::Site site : model::kSites) {
      auto collected = walk.collect(site, load(layer, &source, StagedWalk::now_reads(site)),
                                    load(layer, nullptr, StagedWalk::original_reads(site)), wish);
      if (!collected) panic(collected.error().message.c_str());
      sites.emplace(site, *std::move(collected));
    }
    return sites;
  }
  /// What whole passes through blocks 0 and 1 see in block 1.
  Passes pass(engine::WeightSource& source) {
    Passes passes;
    const auto run = [&](engine::WeightSource* weights, Inputs& inputs,
                         std::vector<std::vector<float>>& before) {
      auto walk = Walk::begin(*engine_, corpus_, ~std::uint64_t{0}, folder_.path());
      if (!walk) panic(walk.error().message.c_str());
      Inputs first;
      if (!walk->advance(load(0, weights), &first)) panic("advance");
      before = std::move(first.after);
      if (!walk->advance(load(1, weights), &inputs)) panic("advance");
    };
    run(nullptr, passes.original, passes.original_before);
    run(&source, passes.now, passes.now_before);
    return passes;
  }

  SerialExecutor executor_;
  std::optional<model::Model> model_;
  std::optional<engine::Engine> engine_;
  Corpus corpus_;
  test::TemporaryFolder folder_;
};

TEST_F(StagedWalkTest, SumsInputsBehindWhatIsQuantizedAndTheDriftFromTheOriginal) {
  Weaker weaker(*model_, executor_);
  StagedWalk walk = begin(~std::uint64_t{0});
  ASSERT_EQ(walk.original_tokens(), corpus_.ids.size());
  constexpr SiteWish kAll = {true, true, true};
  collect(walk, 0, weaker, kAll);
  ASSERT_TRUE(walk.finish(load(0, &weaker)));
  const auto sites = collect(walk, 1, weaker, kAll);

  const Passes passes = pass(weaker);
  const model::Block& block = model_->blocks()[1];
  const Matrix o = *model_->weight(block.o, executor_),
               down = *model_->weight(block.down, executor_);
  const Matrix weak_o = *weaker.weight(block.o);
  for (const model::Site site : model::kSites) {
    const SiteStatistics& statistics = sites.at(site);
    const auto& x_original = passes.original.sites.at(site);
    const auto& x = passes.now.sites.at(site);
    ASSERT_EQ(statistics.tokens, x.size());
    ASSERT_EQ(statistics.drift_tokens, x.size());
    // The very inputs of whole passes: each depends on the linears before it alone.
    for (std::size_t c = 0; c < x[0].size(); c += 11) {
      float largest = 0;
      for (const auto& row : x) largest = std::max(largest, std::fabs(row[c]));
      ASSERT_EQ(statistics.max_abs[c], largest) << to_string(site) << " " << c;
    }
    // What the drift is of: an input, or the stream with the float layer's output.
    const auto& o_original = passes.original.sites.at(model::Site::o_in);
    const auto& o_now = passes.now.sites.at(model::Site::o_in);
    const auto side = [&](bool now, std::size_t t, std::size_t i) {
      if (site == model::Site::qkv_in || site == model::Site::mlp_in) {
        return static_cast<double>((now ? x : x_original)[t][i]);
      }
      const double before =
          static_cast<double>((now ? passes.now_before : passes.original_before)[t][i]);
      if (site == model::Site::o_in) return before + dot(o, i, (now ? o_now : o_original)[t]);
      return before + dot(now ? weak_o : o, i, (now ? o_now : o_original)[t]) +
             dot(down, i, (now ? x : x_original)[t]);
    };
    const Matrix mean = *statistics.mean_drift();
    ASSERT_EQ(mean.cols(), x[0].size());
    ASSERT_EQ(mean.rows(), StagedWalk::drifts_at_output(site) ? o.rows() : x[0].size());
    double size = 0;
    for (std::size_t k = 0; k < 20; ++k) {
      const std::size_t i = k * 7919 % mean.rows(), j = k * 104729 % mean.cols();
      double sum = 0, magnitudes = 0, rounding = 0;
      for (std::size_t t = 0; t < x.size(); ++t) {
        const double original = side(false, t, i), now = side(true, t, i);
        const double term = (original - now) * static_cast<double>(x[t][j]);
        sum += term;
        magnitudes += std::fabs(term);
        rounding +=
            (std::fabs(original) + std::fabs(now)) * std::fabs(static_cast<double>(x[t][j]));
      }
      const auto tokens = static_cast<double>(x.size());
      // Chunks of at most 2,048 products in float32; each side is a sum of up to 768 products
      // whose absolute values are a few times it.
      EXPECT_NEAR(static_cast<double>(mean(i, j)), sum / tokens,
                  (2048 * 0x1p-24 * magnitudes + 256 * 0x1p-24 * rounding) / tokens)
          << to_string(site) << " " << i << ", " << j;
      size += magnitudes / tokens;
    }
    EXPECT_GT(size, 0) << to_string(site);
  }
}

TEST_F(StagedWalkTest, SeesNoDriftWhereNothingIsLost) {
  class Same final : public engine::WeightSource {
   public:
    Same(const model::Model& model, Executor& executor) : model_(model), executor_(executor) {}
    Result<Matrix> weight(const model::Linear& linear) override {
      return model_.weight(linear, executor_);
    }

   private:
    const model::Model& model_;
    Executor& executor_;
  } same(*model_, executor_);
  StagedWalk walk = begin(~std::uint64_t{0});
  for (const auto& [site, statistics] : collect(walk, 0, same, {true, true, true})) {
    ASSERT_GT(statistics.drift.size(), 0u) << to_string(site);
    for (const double value : statistics.drift.values()) ASSERT_EQ(value, 0) << to_string(site);
  }
}

// On disk, or past a block at once: the same sums.
TEST_F(StagedWalkTest, GivesTheSameSumsHoweverTheStatesAreKeptAndBlocksArePassed) {
  Weaker weaker(*model_, executor_);
  StagedWalk in_stages = begin(~std::uint64_t{0}), at_once = begin(0);
  collect(in_stages, 0, weaker, {});
  ASSERT_TRUE(in_stages.finish(load(0, &weaker)));
  ASSERT_TRUE(at_once.advance_now(load(0, &weaker)));
  ASSERT_TRUE(at_once.advance_original(load(0)));
  const auto one = collect(in_stages, 1, weaker, {true, true, true});
  const auto other = collect(at_once, 1, weaker, {true, true, true});
  for (const model::Site site : model::kSites) {
    const SiteStatistics &a = one.at(site), &b = other.at(site);
    ASSERT_EQ(a.sum_squares, b.sum_squares) << to_string(site);
    ASSERT_EQ(a.drift.size(), b.drift.size());
    for (std::size_t i = 0; i < a.drift.size(); ++i) {
      ASSERT_EQ(a.drift.data()[i], b.drift.data()[i]) << to_string(site) << " " << i;
    }
  }
}

TEST_F(StagedWalkTest, WalksTheOriginalOnAShareOfTheChunks) {
  Weaker weaker(*model_, executor_);
  // Two chunks, one of which is the first.
  StagedWalk walk = begin(~std::uint64_t{0}, corpus_.ids.size() - 1);
  const std::size_t first = chunks(corpus_)[0].tokens;
  EXPECT_EQ(walk.original_tokens(), first);
  const auto sites = collect(walk, 0, weaker, {true, true, true});
  for (const auto& [site, statistics] : sites) {
    EXPECT_EQ(statistics.tokens, corpus_.ids.size());
    EXPECT_EQ(statistics.drift_tokens, first);
  }
}

}  // namespace
}  // namespace quell::calib
