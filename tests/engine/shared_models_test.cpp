// SPDX-License-Identifier: Apache-2.0

// Real trained models against a float64 forward pass: logits, likelihoods of token streams and of
// whole stories.

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <string>

#include "engine/running.hpp"
#include "quell/io/json.hpp"
#include "quell/io/npy.hpp"
#include "support/shared.hpp"

namespace quell {
namespace {

// What is promised: logits within 1e-4 of the largest one, mean likelihoods within 1e-4.
constexpr double kTolerance = 1e-4;

class SharedModel : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    folder_ = test::shared_path(std::string("models/") + GetParam());
    if (!folder_) GTEST_SKIP() << "the shared model " << GetParam() << " is not here";
  }
  std::vector<std::int32_t> ids(const char* name) const {
    auto array = io::read_npy_int32(*folder_ / "reference" / name);
    EXPECT_TRUE(array.has_value()) << (array ? "" : array.error().message);
    return array ? array->values : std::vector<std::int32_t>();
  }
  double reference(const char* name) const {
    auto json = io::read_json(*folder_ / "reference/reference.json");
    EXPECT_TRUE(json.has_value());
    return json->find(name)->as_number();
  }
  /// Mean NLL of sequences, through a fresh engine.
  double mean_nll(std::span<const std::int32_t> text,
                  std::span<const std::uint32_t> lengths) const {
    SerialExecutor serial;
    auto model = model::Model::load(*folder_);
    EXPECT_TRUE(model.has_value()) << model.error().message;
    auto engine = engine::Engine::create(*model, serial);
    EXPECT_TRUE(engine.has_value()) << engine.error().message;
    auto scores = engine::score(*engine, text, lengths);
    EXPECT_TRUE(scores.has_value()) << scores.error().message;
    return engine::summarize(scores->nll).mean;
  }
  std::optional<std::filesystem::path> folder_;
};

TEST_P(SharedModel, PromptLogitsEqualTheReference) {
  const auto expected = test::read_npy_floats(*folder_ / "reference/prompt_logits.npy");
  SerialExecutor serial;
  auto logits = test::run_logits(*folder_, ids("prompt_ids.npy"), serial);
  ASSERT_TRUE(logits.has_value()) << logits.error().message;
  EXPECT_LE(test::largest_difference(logits->values(), expected),
            kTolerance * static_cast<double>(test::largest(expected)));
}

TEST_P(SharedModel, LikelihoodOfTheStreamEqualsTheReference) {
  const auto text = ids("ids.npy");
  const std::vector<std::uint32_t> lengths(text.size() / 256, 256);
  EXPECT_NEAR(mean_nll(text, lengths), reference("nll_mean"), kTolerance);
}

TEST_P(SharedModel, LikelihoodOfStoriesEqualsTheReference) {
  const auto text = ids("story_ids.npy");
  std::vector<std::uint32_t> lengths;
  for (const std::int32_t length : ids("story_lengths.npy")) {
    lengths.push_back(static_cast<std::uint32_t>(length));
  }
  EXPECT_NEAR(mean_nll(text, lengths), reference("story_mean"), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Engine, SharedModel,
                         ::testing::Values("tiny1m", "stories260K", "babyllama105", "books7m"),
                         [](const auto& one) { return std::string(one.param); });

}  // namespace
}  // namespace quell
