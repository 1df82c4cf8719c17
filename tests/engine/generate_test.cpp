// SPDX-License-Identifier: Apache-2.0

#include "quell/engine/generate.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/running.hpp"
#include "support/golden_model.hpp"

namespace quell {
namespace {

using engine::choose_token;
using engine::Engine;
using engine::GenerateOptions;

TEST(ChooseToken, AtTemperatureZeroTakesTheFirstLargest) {
  EXPECT_EQ(choose_token(std::vector<float>{1, 3, 3}, 0, 0.99), 1);
}

TEST(ChooseToken, GivesEveryTokenItsShare) {
  // Shares 1/2, 1/4, 1/4 at temperature 1; the uniform number walks through them in order.
  const std::vector<float> logits = {std::log(2.0f), 0, 0};
  EXPECT_EQ(choose_token(logits, 1, 0.0), 0);
  EXPECT_EQ(choose_token(logits, 1, 0.49), 0);
  EXPECT_EQ(choose_token(logits, 1, 0.51), 1);
  EXPECT_EQ(choose_token(logits, 1, 0.74), 1);
  EXPECT_EQ(choose_token(logits, 1, 0.76), 2);
  EXPECT_EQ(choose_token(logits, 1, 0.9999999), 2);
  // At temperature 1/2 the shares are 4 : 1 : 1.
  EXPECT_EQ(choose_token(logits, 0.5, 0.66), 0);
  EXPECT_EQ(choose_token(logits, 0.5, 0.67), 1);
}

struct Opened {
  explicit Opened(const char* name, Executor& executor) {
    golden = test::read_golden(name);
    golden.write(folder.path());
    model = std::make_unique<model::Model>(*model::Model::load(folder.path()));
    engine = std::make_unique<Engine>(*Engine::create(*model, executor));
  }
  std::vector<std::int32_t> generate(const GenerateOptions& options) {
    auto ids = engine::generate(*engine, std::span(golden.ids).first(4), options);
    EXPECT_TRUE(ids.has_value()) << (ids ? "" : ids.error().message);
    return ids ? *ids : std::vector<std::int32_t>();
  }
  test::GoldenModel golden;
  test::TemporaryFolder folder;
  std::unique_ptr<model::Model> model;
  std::unique_ptr<Engine> engine;
};

/// The slow way: the whole text through the whole model for every token.
std::vector<std::int32_t> greedy_without_cache(Opened& opened, std::size_t count) {
  std::vector<std::int32_t> text(opened.golden.ids.begin(), opened.golden.ids.begin() + 4);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t length = static_cast<std::uint32_t>(text.size());
    const auto logits = test::run_logits(*opened.engine, text, {&length, 1});
    text.push_back(static_cast<std::int32_t>(engine::top_token(logits->row(length - 1))));
  }
  return {text.begin() + 4, text.end()};
}

TEST(Generate, GreedyEqualsTheWholePassForEveryToken) {
  SerialExecutor serial;
  for (const char* name : {"llama", "mistral_window", "qwen3", "gpt2", "opt_350m"}) {
    Opened opened(name, serial);
    GenerateOptions options;
    options.tokens = 20;
    EXPECT_EQ(opened.generate(options), greedy_without_cache(opened, 20)) << name;
  }
}

TEST(Generate, MemoryAndThreadsDoNotChangeTheText) {
  SerialExecutor serial;
  const auto two = make_openmp_executor(2);
  Opened one("qwen2", serial), other("qwen2", *two);
  GenerateOptions options;
  options.tokens = 25;
  options.temperature = 0.8;
  options.seed = 5;
  const auto text = one.generate(options);
  EXPECT_EQ(text.size(), 25u);
  EXPECT_EQ(other.generate(options), text);
  options.memory_bytes = 0;  // every block is read again for every token
  EXPECT_EQ(other.generate(options), text);
  options.seed = 6;
  EXPECT_NE(one.generate(options), text);
}

TEST(Generate, StopsAtStopTokensPositionsAndOnRequest) {
  SerialExecutor serial;
  Opened opened("gpt2", serial);  // 32 positions
  GenerateOptions options;
  options.tokens = 100;
  const auto all = opened.generate(options);
  // 4 of the prompt fill 4 positions; the token predicted at the last position needs none itself.
  EXPECT_EQ(all.size(), 29u);
  options.stop = {all[3]};
  const auto first = std::find(all.begin(), all.end(), all[3]);
  EXPECT_EQ(opened.generate(options), std::vector<std::int32_t>(all.begin(), first));
  options.stop.clear();
  std::vector<std::int32_t> seen;
  options.on_token = [&](std::int32_t id) { return seen.push_back(id), seen.size() < 3; };
  EXPECT_EQ(opened.generate(options), std::vector<std::int32_t>(all.begin(), all.begin() + 3));
  EXPECT_EQ(seen.size(), 3u);
  options.tokens = 0;
  EXPECT_TRUE(opened.generate(options).empty());
}

TEST(Generate, WrongRequestsAreRefused) {
  SerialExecutor serial;
  Opened opened("llama", serial);
  GenerateOptions options;
  options.temperature = -1;
  const std::vector<std::int32_t> prompt = {1}, wrong = {1, 500}, long_prompt(65, 1);
  EXPECT_EQ(engine::generate(*opened.engine, prompt, options).error().code, ErrorCode::usage);
  options.temperature = 0;
  EXPECT_EQ(engine::generate(*opened.engine, {}, options).error().code, ErrorCode::usage);
  EXPECT_EQ(engine::generate(*opened.engine, wrong, options).error().code, ErrorCode::parse);
  EXPECT_EQ(engine::generate(*opened.engine, long_prompt, options).error().code, ErrorCode::shape);
}

}  // namespace
}  // namespace quell
