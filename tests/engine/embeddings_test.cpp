// SPDX-License-Identifier: Apache-2.0

// Embeddings of texts: pooling and distances by hand, neighbours, and that an encoder gives the
// same ones whatever it is fed beside them. minilm-l6 against a float64 forward pass.

#include "quell/engine/embeddings.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "engine/running.hpp"
#include "quell/engine/generate.hpp"
#include "quell/io/npy.hpp"
#include "support/golden_model.hpp"
#include "support/shared.hpp"

namespace quell {
namespace {

using engine::cosine_error;
using Lengths = std::vector<std::uint32_t>;

Matrix matrix(std::size_t rows, std::size_t cols, const std::vector<float>& values) {
  auto made = Matrix::uninitialized(rows, cols);
  EXPECT_TRUE(made.has_value());
  std::copy(values.begin(), values.end(), made->values().begin());
  return *std::move(made);
}

Result<Matrix> pooled(const Matrix& states, const Lengths& lengths, model::Pooling pooling) {
  SerialExecutor serial;
  QUELL_TRY(out, Matrix::uninitialized(lengths.size(), states.cols()));
  QUELL_TRY(engine::pool(states.view(), lengths, pooling, out.view(), serial));
  return out;
}

TEST(Pool, IsTheMeanOrTheFirstStateAtUnitLength) {
  const Matrix states = matrix(3, 2, {1, 0, 5, 8, -3, 4});
  const auto mean = pooled(states, {2, 1}, model::Pooling::mean);
  ASSERT_TRUE(mean.has_value());
  // (6, 8) / 10 and (-3, 4) / 5; both quotients are rounded once from double.
  EXPECT_EQ((*mean)(0, 0), 0.6f);
  EXPECT_EQ((*mean)(0, 1), 0.8f);
  EXPECT_EQ((*mean)(1, 0), -0.6f);
  EXPECT_EQ((*mean)(1, 1), 0.8f);
  const auto first = pooled(states, {2, 1}, model::Pooling::first);
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ((*first)(0, 0), 1.0f);
  EXPECT_EQ((*first)(0, 1), 0.0f);
  EXPECT_EQ((*first)(1, 0), -0.6f);
}

TEST(Pool, ZerosStayZeroAndExtremesKeepTheirDirection) {
  const Matrix states = matrix(4, 2, {2, -1, -2, 1, 3e38f, 3e38f, 1e-40f, 0});
  const auto mean = pooled(states, {2, 1, 1}, model::Pooling::mean);
  ASSERT_TRUE(mean.has_value());
  EXPECT_EQ((*mean)(0, 0), 0.0f);
  EXPECT_EQ((*mean)(0, 1), 0.0f);
  EXPECT_FLOAT_EQ((*mean)(1, 0), std::sqrt(0.5f));
  EXPECT_EQ((*mean)(2, 0), 1.0f);
}

TEST(Pool, AStateThatIsNotFiniteNamesItsText) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto bad = pooled(matrix(3, 1, {1, 2, nan}), {1, 2}, model::Pooling::mean);
  ASSERT_FALSE(bad.has_value());
  EXPECT_EQ(bad.error().code, ErrorCode::numeric);
  EXPECT_NE(bad.error().message.find("text 1"), std::string::npos) << bad.error().message;
}

TEST(CosineError, IsZeroOneAndTwoAtNoneARightAngleAndOpposite) {
  const std::vector<float> x = {1, 0}, y = {0, 1}, minus_x = {-1, 0}, zero = {0, 0};
  EXPECT_EQ(cosine_error(x, x), 0.0);
  EXPECT_EQ(cosine_error(x, y), 1.0);
  EXPECT_EQ(cosine_error(x, minus_x), 2.0);
  EXPECT_EQ(cosine_error(x, zero), 1.0);
  EXPECT_EQ(cosine_error(zero, zero), 0.0);
  // An angle of 1e-4: 1 - cos = 5e-9, which a difference from 1 in float32 would lose.
  const std::vector<float> near = {std::cos(1e-4f), std::sin(1e-4f)};
  EXPECT_NEAR(cosine_error(x, near), 5e-9, 1e-11);
}

TEST(NearestNeighbours, AreTheLargestProductWithAnotherRowAndTheFirstOfEquals) {
  SerialExecutor serial;
  kernels::Context context(serial);
  const Matrix rows = matrix(5, 2, {1, 0, 0.8f, 0.6f, 0, 1, 1, 0, 1, 0});
  const auto nearest = engine::nearest_neighbours(rows.view(), context);
  ASSERT_TRUE(nearest.has_value()) << nearest.error().message;
  EXPECT_EQ(*nearest, (std::vector<std::size_t>{3, 0, 1, 0, 0}));
  const auto pair = engine::nearest_neighbours(rows.view().rows_from(0, 2), context);
  ASSERT_TRUE(pair.has_value());
  EXPECT_EQ(*pair, (std::vector<std::size_t>{1, 0}));
}

/// A model of tests/golden/engine, loaded and ready.
struct Opened {
  explicit Opened(const test::GoldenModel& golden) {
    golden.write(folder.path());
    auto loaded = model::Model::load(folder.path());
    EXPECT_TRUE(loaded.has_value()) << loaded.error().message;
    model = std::make_unique<model::Model>(*std::move(loaded));
    auto made = engine::Engine::create(*model, serial);
    EXPECT_TRUE(made.has_value()) << made.error().message;
    engine = std::make_unique<engine::Engine>(*std::move(made));
  }
  test::TemporaryFolder folder;
  SerialExecutor serial;
  std::unique_ptr<model::Model> model;
  std::unique_ptr<engine::Engine> engine;
};

TEST(Encoder, ATextGivesTheSameEmbeddingWhateverStandsBesideIt) {
  const test::GoldenModel golden = test::read_golden("bert");
  const Opened one(golden);
  const Lengths lengths = {5, 1, 7, 4};
  const auto together = engine::embed_texts(*one.engine, golden.ids, lengths);
  ASSERT_TRUE(together.has_value()) << together.error().message;
  engine::ScoreOptions narrow;
  narrow.hidden_bytes = 1;  // every text is a part of its own
  const auto apart = engine::embed_texts(*one.engine, golden.ids, lengths, narrow);
  ASSERT_TRUE(apart.has_value());
  std::size_t first = 0;
  for (std::size_t s = 0; s < lengths.size(); ++s) {
    const auto alone = engine::embed_texts(
        *one.engine, std::span(golden.ids).subspan(first, lengths[s]), {&lengths[s], 1});
    ASSERT_TRUE(alone.has_value());
    EXPECT_EQ(test::largest_difference(alone->row(0), together->row(s)), 0) << s;
    EXPECT_EQ(test::largest_difference(apart->row(s), together->row(s)), 0) << s;
    double square = 0;
    for (const float value : alone->row(0)) {
      square += static_cast<double>(value) * static_cast<double>(value);
    }
    EXPECT_NEAR(square, 1, 1e-6) << s;  // 96 values, each rounded by at most 6e-8
    first += lengths[s];
  }
}

TEST(Encoder, LaterTokensReachEarlierOnes) {
  const test::GoldenModel golden = test::read_golden("bert");
  const Opened one(golden);
  const std::uint32_t length = 6;
  std::vector<std::int32_t> ids(golden.ids.begin(), golden.ids.begin() + length);
  const auto before = engine::hidden_states(*one.engine, ids, {&length, 1});
  ids.back() = 7;
  const auto after = engine::hidden_states(*one.engine, ids, {&length, 1});
  ASSERT_TRUE(before.has_value() && after.has_value());
  EXPECT_GT(test::largest_difference(before->row(0), after->row(0)), 1e-3f);
}

TEST(Encoder, TheTokenTypeIsAddedAndRowZeroOfItIsTaken) {
  test::GoldenModel golden = test::read_golden("bert");
  const std::vector<std::int32_t> ids = {3, 4};
  const std::uint32_t length = 2;
  const auto states = [&](const test::GoldenModel& given) {
    const Opened opened(given);
    auto x = Matrix::uninitialized(2, 96);
    EXPECT_TRUE(opened.engine->embed(ids, {&length, 1}, x->view()));
    return *std::move(x);
  };
  const Matrix original = states(golden);
  auto& types = golden.tensor("embeddings.token_type_embeddings.weight").values;
  for (std::size_t i = 96; i < 192; ++i) types[i] = 9;
  EXPECT_EQ(test::largest_difference(states(golden).values(), original.values()), 0);
  types[5] += 1;
  EXPECT_GT(test::largest_difference(states(golden).values(), original.values()), 0.01f);
}

TEST(Encoder, HasNoLogitsNoScoresAndWritesNoText) {
  const test::GoldenModel golden = test::read_golden("bert");
  const Opened one(golden);
  const auto length = static_cast<std::uint32_t>(golden.ids.size());
  const auto expect_refused = [](const auto& result) {
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, ErrorCode::unsupported);
    EXPECT_NE(result.error().message.find("encoder"), std::string::npos) << result.error().message;
  };
  expect_refused(engine::score(*one.engine, golden.ids, {&length, 1}));
  expect_refused(engine::compare(*one.engine, *one.engine, golden.ids, {&length, 1}));
  expect_refused(engine::generate(*one.engine, golden.ids, {}));
  auto states = engine::hidden_states(*one.engine, golden.ids, {&length, 1});
  auto out = Matrix::uninitialized(length, 131);
  ASSERT_TRUE(states.has_value() && out.has_value());
  expect_refused(one.engine->logits(states->view(), out->view()));
}

TEST(CompareEmbeddings, OfAModelWithItselfIsNothing) {
  const test::GoldenModel golden = test::read_golden("bert");
  const Opened one(golden), two(golden);
  const Lengths lengths = {5, 1, 7, 4};
  const auto compared = engine::compare_embeddings(*one.engine, *two.engine, golden.ids, lengths);
  ASSERT_TRUE(compared.has_value()) << compared.error().message;
  EXPECT_EQ(compared->cosine_error, (std::vector<double>{0, 0, 0, 0}));
  EXPECT_EQ(compared->hidden_relative_error, 0);
  EXPECT_EQ(compared->same_neighbour, 4u);
}

TEST(CompareEmbeddings, DoesNotDependOnTheCutOrTheThreads) {
  test::GoldenModel golden = test::read_golden("bert");
  const Opened one(golden);
  for (float& value : golden.tensor("encoder.layer.0.output.dense.weight").values) value *= 1.5f;
  const Opened two(golden);
  const Lengths lengths = {5, 1, 7, 4};
  const auto whole = engine::compare_embeddings(*one.engine, *two.engine, golden.ids, lengths);
  engine::ScoreOptions narrow;
  narrow.hidden_bytes = 1;
  std::uint64_t done = 0, total = 0;
  narrow.progress = [&](std::uint64_t now, std::uint64_t all) { done = now, total = all; };
  const auto parts =
      engine::compare_embeddings(*one.engine, *two.engine, golden.ids, lengths, narrow);
  ASSERT_TRUE(whole.has_value() && parts.has_value());
  EXPECT_EQ(whole->cosine_error, parts->cosine_error);
  EXPECT_EQ(whole->hidden_relative_error, parts->hidden_relative_error);
  EXPECT_GT(whole->cosine_error[0], 1e-4);
  EXPECT_GT(whole->hidden_relative_error, 1e-2);
  EXPECT_EQ(done, total);
  EXPECT_EQ(total, 17u * 4);
}

TEST(CompareEmbeddings, WidthsAndVocabulariesMustAgree) {
  test::GoldenModel golden = test::read_golden("bert");
  const Opened one(golden);
  golden.config.set("vocab_size", 130);
  golden.put(test::golden_tensor("embeddings.word_embeddings.weight", {130, 96}));
  const Opened two(golden);
  const std::vector<std::int32_t> ids = {1, 2};
  const Lengths lengths = {2};
  const auto compared = engine::compare_embeddings(*one.engine, *two.engine, ids, lengths);
  ASSERT_FALSE(compared.has_value());
  EXPECT_EQ(compared.error().code, ErrorCode::usage);
  EXPECT_NE(compared.error().message.find("131"), std::string::npos) << compared.error().message;
  EXPECT_NE(compared.error().message.find("130"), std::string::npos) << compared.error().message;
  EXPECT_FALSE(engine::compare_embeddings(*one.engine, *one.engine, ids, Lengths{3}).has_value());
}

// What is promised of real models: 1e-4 of the largest value.
TEST(MiniLm, HiddenStatesAndEmbeddingsEqualTheReference) {
  const auto folder = test::shared_path("models/minilm-l6");
  if (!folder) GTEST_SKIP() << "the shared model minilm-l6 is not here";
  SerialExecutor serial;
  const auto model = model::Model::load(*folder);
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_TRUE(model->warnings().empty()) << model->warnings().front();
  EXPECT_EQ(model->config().pooling, model::Pooling::mean);
  auto engine = engine::Engine::create(*model, serial);
  ASSERT_TRUE(engine.has_value()) << engine.error().message;
  const auto ids = io::read_npy_int32(*folder / "reference/sentence_ids.npy");
  const auto sizes = io::read_npy_int32(*folder / "reference/sentence_lengths.npy");
  ASSERT_TRUE(ids.has_value() && sizes.has_value());
  // The first ten of 256 texts, 1,153 tokens, are enough to tell.
  Lengths lengths;
  for (std::size_t s = 0; s < 10; ++s)
    lengths.push_back(static_cast<std::uint32_t>(sizes->values[s]));
  const std::size_t tokens = std::accumulate(lengths.begin(), lengths.end(), std::size_t{0});
  const auto text = std::span(ids->values).first(tokens);

  const auto first = engine::hidden_states(*engine, text.first(lengths[0]), {lengths.data(), 1});
  ASSERT_TRUE(first.has_value()) << first.error().message;
  const auto expected_states = test::read_npy_floats(*folder / "reference/hidden_first.npy");
  EXPECT_LE(test::largest_difference(first->values(), expected_states),
            1e-4f * test::largest(expected_states));

  const auto embeddings = engine::embed_texts(*engine, text, lengths);
  ASSERT_TRUE(embeddings.has_value()) << embeddings.error().message;
  const auto expected = test::read_npy_floats(*folder / "reference/embeddings.npy");
  ASSERT_EQ(expected.size(), 256u * 384);
  EXPECT_LE(test::largest_difference(embeddings->values(), std::span(expected).first(10 * 384)),
            1e-4f * test::largest(expected));
}

}  // namespace
}  // namespace quell
