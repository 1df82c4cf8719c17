// SPDX-License-Identifier: Apache-2.0

// What must not change a result (threads, instruction sets, batches, the cut into parts), the
// cache, taps, and the errors of wrong input.

#include "quell/engine/engine.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "engine/running.hpp"
#include "quell/kernels/isa.hpp"
#include "support/compare.hpp"
#include "support/golden_model.hpp"

namespace quell {
namespace {

using engine::BlockWeights;
using engine::Cache;
using engine::Engine;
using model::Model;
using model::Site;

/// A golden model on disk, opened.
struct Opened {
  explicit Opened(const test::GoldenModel& golden, Executor& executor,
                  engine::EngineOptions options = {}) {
    golden.write(folder.path());
    auto loaded = Model::load(folder.path());
    EXPECT_TRUE(loaded.has_value()) << (loaded ? "" : loaded.error().message);
    if (!loaded) return;
    model = std::make_unique<Model>(*std::move(loaded));
    auto created = Engine::create(*model, executor, options);
    EXPECT_TRUE(created.has_value()) << (created ? "" : created.error().message);
    if (created) engine = std::make_unique<Engine>(*std::move(created));
  }
  test::TemporaryFolder folder;
  std::unique_ptr<Model> model;
  std::unique_ptr<Engine> engine;
};

Matrix logits_of(Engine& engine, std::span<const std::int32_t> ids,
                 std::span<const std::uint32_t> lengths) {
  auto logits = test::run_logits(engine, ids, lengths);
  EXPECT_TRUE(logits.has_value()) << (logits ? "" : logits.error().message);
  return logits ? *std::move(logits) : Matrix();
}

/// `count` ids of a vocabulary of 131, in no order.
std::vector<std::int32_t> some_ids(std::size_t count) {
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < count; ++i) ids.push_back(static_cast<std::int32_t>(i * i * 7 % 131));
  return ids;
}

class EveryModel : public ::testing::TestWithParam<const char*> {};

TEST_P(EveryModel, ThreadsAndInstructionSetsGiveTheSameBits) {
  const test::GoldenModel golden = test::read_golden(GetParam());
  const std::vector<std::uint32_t> lengths = {5, 17, 1, 8};
  const auto ids = some_ids(31);
  SerialExecutor serial;
  Opened expected(golden, serial);
  const Matrix first = logits_of(*expected.engine, ids, lengths);
  for (const kernels::Isa cap : {kernels::Isa::scalar, kernels::Isa::avx2, kernels::Isa::avx512}) {
    kernels::set_isa_cap(cap);
    for (const unsigned threads : {1u, 2u, 3u}) {
      const auto executor = make_openmp_executor(threads);
      Opened other(golden, *executor);
      const Matrix logits = logits_of(*other.engine, ids, lengths);
      EXPECT_TRUE(test::same_bits(first.values(), logits.values()))
          << kernels::to_string(cap) << ", " << threads << " threads";
    }
    kernels::clear_isa_cap();
  }
}

TEST_P(EveryModel, BatchesEqualSingleSequences) {
  const test::GoldenModel golden = test::read_golden(GetParam());
  SerialExecutor serial;
  Opened opened(golden, serial);
  const std::vector<std::uint32_t> lengths = {17, 3, 1, 9};
  const auto ids = some_ids(30);
  const Matrix together = logits_of(*opened.engine, ids, lengths);
  std::size_t row = 0;
  for (const std::uint32_t length : lengths) {
    const Matrix alone =
        logits_of(*opened.engine, std::span(ids).subspan(row, length), {&length, 1});
    EXPECT_TRUE(test::same_bits(alone.values(),
                                together.values().subspan(row * together.cols(), alone.size())))
        << "the sequence of " << length;
    row += length;
  }
}

// The first tokens of a sequence do not depend on those that follow, except where the rotation is
// scaled by the length.
TEST_P(EveryModel, LaterTokensDoNotReachBack) {
  const test::GoldenModel golden = test::read_golden(GetParam());
  SerialExecutor serial;
  Opened opened(golden, serial);
  if (opened.model->config().rope.scaling == model::Rope::Scaling::dynamic ||
      opened.model->config().rope.scaling == model::Rope::Scaling::longrope) {
    return;
  }
  const std::uint32_t whole = 17, part = 11;
  const Matrix all = logits_of(*opened.engine, golden.ids, {&whole, 1});
  const Matrix some = logits_of(*opened.engine, std::span(golden.ids).first(part), {&part, 1});
  EXPECT_TRUE(test::same_bits(some.values(), all.values().first(some.size())));
}

// The same arithmetic in another grouping of rows: the last bits agree too, but the promise is
// 1e-5.
TEST_P(EveryModel, CacheEqualsTheWholePass) {
  const test::GoldenModel golden = test::read_golden(GetParam());
  SerialExecutor serial;
  Opened opened(golden, serial);
  const std::uint32_t total = 17;
  const auto& config = opened.model->config();
  std::vector<BlockWeights> blocks;
  for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
    auto block = opened.engine->load_block(layer);
    ASSERT_TRUE(block.has_value()) << block.error().message;
    blocks.push_back(*std::move(block));
  }
  // A prompt of several tokens, then pieces of one, two and the rest.
  auto cache = Cache::create(config, total);
  ASSERT_TRUE(cache.has_value());
  std::size_t at = 0;
  for (const std::uint32_t step : {6u, 1u, 1u, 2u, 7u}) {
    auto x = Matrix::uninitialized(step, config.hidden);
    ASSERT_TRUE(
        opened.engine
            ->embed(std::span(golden.ids).subspan(at, step), {&step, 1}, x->view(), cache->length())
            .has_value());
    for (const BlockWeights& block : blocks) {
      ASSERT_TRUE(opened.engine->run_block(block, *cache, x->view()).has_value());
    }
    opened.engine->advance(*cache, step);
    auto logits = Matrix::uninitialized(step, config.vocabulary);
    ASSERT_TRUE(opened.engine->logits(x->view(), logits->view()).has_value());
    at += step;
    const std::uint32_t seen = static_cast<std::uint32_t>(at);
    const Matrix whole = logits_of(*opened.engine, std::span(golden.ids).first(at), {&seen, 1});
    const bool rescaled = config.rope.scaling == model::Rope::Scaling::dynamic ||
                          config.rope.scaling == model::Rope::Scaling::longrope;
    // Where a longer sequence rotates all positions anew, the hidden states of earlier tokens were
    // made at the earlier scale: only the first layer's attention can be repeated, so compare one
    // step.
    if (rescaled && at > step) continue;
    EXPECT_LE(test::largest_difference(logits->values(),
                                       whole.values().subspan((at - step) * whole.cols())),
              1e-5f)
        << "after " << at << " tokens";
  }
}

INSTANTIATE_TEST_SUITE_P(Engine, EveryModel, ::testing::ValuesIn(test::kGoldenModels),
                         [](const auto& one) { return std::string(one.param); });

TEST(Engine, GroupsOfManySequencesEqualSingleOnes) {
  // 70 sequences of 17 are 1190 rows: more than one group of kGroupRows.
  SerialExecutor serial;
  Opened opened(test::read_golden("mistral_window"), serial);
  const std::vector<std::uint32_t> lengths(70, 17);
  const auto ids = some_ids(70 * 17);
  const Matrix all = logits_of(*opened.engine, ids, lengths);
  const Matrix last =
      logits_of(*opened.engine, std::span(ids).last(17), std::span(lengths).last(1));
  EXPECT_TRUE(test::same_bits(last.values(), all.values().last(last.size())));
}

TEST(Engine, LongSequencesCrossTheTilesOfAttention) {
  // 300 tokens are three tiles of queries; a window of 5 starts tiles in the middle of the keys.
  // With a window, the last token must not see anything 2 layers x 4 positions back.
  test::GoldenModel golden = test::read_golden("mistral_window");
  golden.config.set("max_position_embeddings", 512);
  SerialExecutor serial;
  Opened opened(golden, serial);
  auto ids = some_ids(300);
  const std::uint32_t length = 300;
  const Matrix before = logits_of(*opened.engine, ids, {&length, 1});
  ids[300 - 1 - 9] ^= 1;
  const Matrix after = logits_of(*opened.engine, ids, {&length, 1});
  EXPECT_TRUE(test::same_bits(before.row(299), after.row(299)));
  EXPECT_FALSE(test::same_bits(before.row(298), after.row(298)));
}

class Recorder final : public engine::Tap {
 public:
  Status input(std::uint32_t layer, Site site, MatrixView<const float> x) override {
    calls += std::to_string(layer) + std::string(model::to_string(site)) + " " +
             std::to_string(x.rows()) + "x" + std::to_string(x.cols()) + "; ";
    return ok();
  }
  Status residual(std::int32_t layer, MatrixView<const float> x) override {
    calls += "after " + std::to_string(layer) + " " + std::to_string(x.rows()) + "; ";
    return ok();
  }
  std::string calls;
};

TEST(Engine, TapSeesTheFourInputsOfEveryBlock) {
  SerialExecutor serial;
  Opened opened(test::read_golden("llama_bias"), serial);
  Recorder tap;
  const std::vector<std::uint32_t> lengths = {2, 3};
  const auto ids = some_ids(5);
  ASSERT_TRUE(engine::hidden_states(*opened.engine, ids, lengths, nullptr, &tap).has_value());
  EXPECT_EQ(tap.calls,
            "after -1 5; 0qkv_in 5x96; 0o_in 5x144; 0mlp_in 5x96; 0down_in 5x160; after 0 5; "
            "1qkv_in 5x96; 1o_in 5x144; 1mlp_in 5x96; 1down_in 5x160; after 1 5; ");
}

TEST(Engine, WeightSourceReplacesTheFiles) {
  class Zero final : public engine::WeightSource {
   public:
    Result<Matrix> weight(const model::Linear& linear) override {
      return Matrix::zeros(linear.rows, linear.cols);
    }
  };
  SerialExecutor serial;
  Opened opened(test::read_golden("llama"), serial);
  const std::vector<std::uint32_t> lengths = {4};
  const auto ids = some_ids(4);
  auto embedded = Matrix::uninitialized(4, 96);
  ASSERT_TRUE(opened.engine->embed(ids, lengths, embedded->view()).has_value());
  Zero zero;  // blocks that add nothing leave the embedding as it is
  auto x = engine::hidden_states(*opened.engine, ids, lengths, &zero);
  ASSERT_TRUE(x.has_value());
  EXPECT_TRUE(test::same_bits(embedded->values(), x->values()));
}

TEST(Engine, WeightSourceOfTheWrongShapeIsRefused) {
  class Wrong final : public engine::WeightSource {
   public:
    Result<Matrix> weight(const model::Linear& linear) override {
      return Matrix::zeros(linear.rows, linear.cols + 1);
    }
  };
  SerialExecutor serial;
  Opened opened(test::read_golden("llama"), serial);
  Wrong wrong;
  auto block = opened.engine->load_block(0, &wrong);
  ASSERT_FALSE(block.has_value());
  EXPECT_EQ(block.error().code, ErrorCode::shape);
  EXPECT_EQ(block.error().message,
            "model.layers.0.self_attn.q_proj: the weight given is 96 x 97, expected 96 x 96");
}

std::string embed_error(std::vector<std::int32_t> ids, std::vector<std::uint32_t> lengths,
                        const char* name = "llama") {
  SerialExecutor serial;
  Opened opened(test::read_golden(name), serial);
  auto x = Matrix::uninitialized(ids.size(), 96);
  const auto done = opened.engine->embed(ids, lengths, x->view());
  return done ? "no error" : done.error().message;
}

TEST(Engine, WrongIdsAreNamedWithTheirPosition) {
  EXPECT_EQ(embed_error({1, 2, 131}, {3}), "token id 131 at position 2 is outside [0, 131)");
  EXPECT_EQ(embed_error({1, -1}, {2}), "token id -1 at position 1 is outside [0, 131)");
  EXPECT_EQ(embed_error({1, 130}, {2}), "no error");
}

TEST(Engine, WrongLengthsAreRefused) {
  EXPECT_EQ(embed_error({1, 2}, {1, 0, 1}), "sequence 1 is empty, expected at least one token");
  EXPECT_EQ(embed_error({1, 2}, {1}), "2 ids, but the sequences add up to 1");
  EXPECT_EQ(embed_error({1, 2}, {3}), "sequence 0 has 3 tokens, but only 2 of the 2 ids are left");
}

TEST(Engine, SequencesBeyondThePositionsAreRefused) {
  EXPECT_EQ(embed_error(std::vector<std::int32_t>(65, 1), {65}),
            "sequence 0 reaches 65 tokens, but the model has positions for 64; split it");
  EXPECT_EQ(embed_error(std::vector<std::int32_t>(33, 1), {33}, "gpt2"),
            "sequence 0 reaches 33 tokens, but the model has positions for 32; split it");
  EXPECT_EQ(embed_error(std::vector<std::int32_t>(32, 1), {32}, "opt"), "no error");
  // NTK by length stretches 8 trained positions by its factor 4.
  EXPECT_EQ(embed_error(std::vector<std::int32_t>(33, 1), {33}, "llama_dynamic"),
            "sequence 0 reaches 33 tokens, but the model has positions for 32; split it");
}

TEST(Engine, NonFiniteWeightsAreErrorsOrZeros) {
  test::GoldenModel golden = test::read_golden("llama");
  golden.tensor("model.layers.1.mlp.up_proj.weight").values[3 * 96 + 7] =
      std::numeric_limits<float>::quiet_NaN();
  SerialExecutor serial;
  {
    Opened opened(golden, serial);
    const auto block = opened.engine->load_block(1);
    ASSERT_FALSE(block.has_value());
    EXPECT_EQ(block.error().code, ErrorCode::parse);
    EXPECT_NE(
        block.error().message.find("model.layers.1.mlp.up_proj.weight: element [3, 7] is nan"),
        std::string::npos)
        << block.error().message;
  }
  engine::EngineOptions options;
  options.zero_nonfinite = true;
  Opened zeroed(golden, serial, options);
  golden.tensor("model.layers.1.mlp.up_proj.weight").values[3 * 96 + 7] = 0;
  Opened zero(golden, serial);
  const std::uint32_t length = 17;
  EXPECT_TRUE(test::same_bits(logits_of(*zeroed.engine, golden.ids, {&length, 1}).values(),
                              logits_of(*zero.engine, golden.ids, {&length, 1}).values()));
}

TEST(Engine, CacheThatIsFullIsRefused) {
  SerialExecutor serial;
  Opened opened(test::read_golden("llama"), serial);
  auto cache = Cache::create(opened.model->config(), 2);
  ASSERT_TRUE(cache.has_value());
  auto block = opened.engine->load_block(0);
  auto x = Matrix::zeros(3, 96);
  const auto done = opened.engine->run_block(*block, *cache, x->view());
  ASSERT_FALSE(done.has_value());
  EXPECT_EQ(done.error().message, "run_block: 3 tokens after 0 do not fit a cache of 2");
}

TEST(Engine, ModelOpenedForItsWeightsAloneDoesNotRun) {
  const test::GoldenModel golden = test::read_golden("llama");
  const test::TemporaryFolder folder;
  golden.write(folder.path());
  auto weights = Model::load_weights_only(folder.path());
  ASSERT_TRUE(weights.has_value());
  SerialExecutor serial;
  const auto engine = Engine::create(*weights, serial);
  ASSERT_FALSE(engine.has_value());
  EXPECT_EQ(engine.error().code, ErrorCode::unsupported);
}

}  // namespace
}  // namespace quell
