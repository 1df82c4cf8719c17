// SPDX-License-Identifier: Apache-2.0

// Every architecture and every scaling of rotary positions against the logits of the reference
// implementation on a random model of two layers.

#include <gtest/gtest.h>

#include <string>

#include "engine/running.hpp"
#include "support/golden_model.hpp"

namespace quell {
namespace {

class Parity : public ::testing::TestWithParam<const char*> {};

// Logits are at most 4.1. Both sides round in float32: two layers of sums of up to 160 products of
// size one, each half an ulp of about 2e-7, add up to a few 1e-6; 2e-5 leaves a factor of five to
// ten.
constexpr float kTolerance = 2e-5f;

TEST_P(Parity, LogitsEqualTheReference) {
  const test::GoldenModel golden = test::read_golden(GetParam());
  const test::TemporaryFolder folder;
  golden.write(folder.path());
  SerialExecutor serial;
  auto logits = test::run_logits(folder.path(), golden.ids, serial);
  ASSERT_TRUE(logits.has_value()) << logits.error().message;
  ASSERT_EQ(golden.rows.size(), 8u);
  for (std::size_t i = 0; i < golden.rows.size(); ++i) {
    EXPECT_LE(test::largest_difference(logits->row(golden.rows[i]), golden.logits[i]), kTolerance)
        << "token " << golden.rows[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Engine, Parity, ::testing::ValuesIn(test::kGoldenModels),
                         [](const auto& one) { return std::string(one.param); });

class EncoderParity : public ::testing::TestWithParam<const char*> {};

TEST_P(EncoderParity, LastHiddenStatesEqualTheReference) {
  const test::GoldenModel golden = test::read_golden(GetParam());
  const test::TemporaryFolder folder;
  golden.write(folder.path());
  SerialExecutor serial;
  auto model = model::Model::load(folder.path());
  ASSERT_TRUE(model.has_value()) << model.error().message;
  auto engine = engine::Engine::create(*model, serial);
  ASSERT_TRUE(engine.has_value()) << engine.error().message;
  const auto length = static_cast<std::uint32_t>(golden.ids.size());
  auto states = engine::hidden_states(*engine, golden.ids, {&length, 1});
  ASSERT_TRUE(states.has_value()) << states.error().message;
  ASSERT_EQ(golden.rows.size(), 8u);
  ASSERT_EQ(golden.hidden.size(), 8u);
  for (std::size_t i = 0; i < golden.rows.size(); ++i) {
    EXPECT_LE(test::largest_difference(states->row(golden.rows[i]), golden.hidden[i]), kTolerance)
        << "token " << golden.rows[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Engine, EncoderParity, ::testing::ValuesIn(test::kGoldenEncoders),
                         [](const auto& one) { return std::string(one.param); });

}  // namespace
}  // namespace quell
