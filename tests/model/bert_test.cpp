// SPDX-License-Identifier: Apache-2.0

// Encoders as data: what the configuration means, which names the tensors may have, that there is
// no head, and how a folder says that states become an embedding.

#include <gtest/gtest.h>

#include <string>

#include "quell/model/model.hpp"
#include "support/golden_model.hpp"

namespace quell::model {
namespace {

using test::GoldenModel;

struct Loaded {
  test::TemporaryFolder folder;
  Result<Model> model = Error{ErrorCode::missing, "not loaded"};
};

/// Writes the model, and beside it `pooling` if given, and loads it.
std::unique_ptr<Loaded> load(const GoldenModel& golden, const std::string& pooling = "",
                             const std::string& file = "pooling.json") {
  auto loaded = std::make_unique<Loaded>();
  golden.write(loaded->folder.path());
  if (!pooling.empty()) {
    std::filesystem::create_directories((loaded->folder / file).parent_path());
    test::write_bytes(loaded->folder / file, pooling);
  }
  loaded->model = Model::load(loaded->folder.path());
  return loaded;
}

void expect_load_error(const GoldenModel& golden, ErrorCode code, const std::string& says,
                       const std::string& pooling = "") {
  const auto loaded = load(golden, pooling);
  ASSERT_FALSE(loaded->model.has_value());
  EXPECT_EQ(loaded->model.error().code, code) << loaded->model.error().message;
  EXPECT_NE(loaded->model.error().message.find(says), std::string::npos)
      << loaded->model.error().message;
}

TEST(Bert, IsABidirectionalPostNormEncoderWithoutAHead) {
  const auto loaded = load(test::read_golden("bert"));
  ASSERT_TRUE(loaded->model.has_value()) << loaded->model.error().message;
  const Model& model = *loaded->model;
  const ModelConfig& config = model.config();
  EXPECT_EQ(config.architecture, "BertModel");
  EXPECT_FALSE(config.causal);
  EXPECT_TRUE(config.norm_after);
  EXPECT_FALSE(config.final_norm);
  EXPECT_FALSE(config.gated);
  EXPECT_EQ(config.norm, Norm::layer);
  EXPECT_EQ(config.norm_eps, 1e-12f);
  EXPECT_EQ(config.activation, Activation::gelu);
  EXPECT_EQ(config.positions, Positions::learned);
  EXPECT_EQ(config.token_types, 2u);
  EXPECT_TRUE(config.embedding_norm);
  EXPECT_EQ(config.pooling, Pooling::mean);
  EXPECT_FALSE(model.has_head());
  EXPECT_FALSE(model.tied_head());
  EXPECT_TRUE(model.warnings().empty()) << model.warnings().front();
  EXPECT_EQ(model.frame().token_types, "embeddings.token_type_embeddings.weight");
  ASSERT_EQ(model.frame().unread.size(), 1u);
  EXPECT_EQ(model.frame().unread[0].name, "pooler.dense");
  EXPECT_EQ(model.blocks()[1].qkv[2].name, "encoder.layer.1.attention.self.value");
  EXPECT_EQ(model.blocks()[1].down.name, "encoder.layer.1.output.dense");
  // Embeddings (V + P + 2) H, their norm 2 H; per layer four H x H with biases, two H x I with
  // theirs, two norms; the pooler.
  const std::uint64_t layer = 4 * (96 * 96 + 96) + 2 * 96 * 160 + 160 + 96 + 4 * 96;
  EXPECT_EQ(model.parameters(), (131u + 32 + 2) * 96 + 2 * 96 + 2 * layer + 96 * 96 + 96);
}

TEST(Bert, AModelWithAHeadForMasksIsTheEncoderInsideIt) {
  const auto loaded = load(test::read_golden("bert_masked_lm"));
  ASSERT_TRUE(loaded->model.has_value()) << loaded->model.error().message;
  const Model& model = *loaded->model;
  EXPECT_FALSE(model.has_head());
  EXPECT_EQ(model.frame().embedding, "bert.embeddings.word_embeddings.weight");
  EXPECT_EQ(model.blocks()[0].attention_norm.weight,
            "bert.encoder.layer.0.attention.output.LayerNorm.gamma");
  EXPECT_EQ(model.frame().embedding_norm.bias, "bert.embeddings.LayerNorm.beta");
  ASSERT_EQ(model.frame().unread.size(), 1u);
  EXPECT_EQ(model.frame().unread[0].name, "cls.predictions.transform.dense");
  // The rest of that head is used by nobody, and said to be.
  ASSERT_EQ(model.warnings().size(), 1u);
  EXPECT_NE(model.warnings()[0].find("cls.predictions."), std::string::npos);
}

TEST(Bert, APoolerAndCountedPositionsMayBeThereOrNot) {
  GoldenModel golden = test::read_golden("bert");
  golden.remove("pooler.dense.weight");
  golden.remove("pooler.dense.bias");
  golden.put(test::golden_tensor("embeddings.position_ids", {1, 32}));
  const auto loaded = load(golden);
  ASSERT_TRUE(loaded->model.has_value()) << loaded->model.error().message;
  EXPECT_TRUE(loaded->model->warnings().empty()) << loaded->model->warnings().front();
  EXPECT_TRUE(loaded->model->frame().unread.empty());
}

TEST(Bert, AHeadIsAskedForInVain) {
  const auto loaded = load(test::read_golden("bert"));
  ASSERT_TRUE(loaded->model.has_value());
  const Status status = expect_head(*loaded->model);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::unsupported);
  EXPECT_NE(status.error().message.find("BertModel is an encoder"), std::string::npos)
      << status.error().message;
  const auto decoder = load(test::read_golden("gpt2"));
  ASSERT_TRUE(decoder->model.has_value());
  EXPECT_TRUE(expect_head(*decoder->model));
}

TEST(Bert, WhatIsNotAnEncoderOfThisKindIsRefused) {
  GoldenModel golden = test::read_golden("bert");
  golden.config.set("position_embedding_type", "relative_key");
  expect_load_error(golden, ErrorCode::unsupported, "position_embedding_type");
  golden = test::read_golden("bert");
  golden.config.set("is_decoder", true);
  expect_load_error(golden, ErrorCode::unsupported, "is_decoder");
  golden = test::read_golden("bert");
  golden.config.set("hidden_act", "mish");
  expect_load_error(golden, ErrorCode::unsupported, "mish");
  golden = test::read_golden("bert");
  golden.config.set("layer_norm_eps", 0);
  expect_load_error(golden, ErrorCode::parse, "layer_norm_eps");
  golden = test::read_golden("bert");
  golden.config.set("type_vocab_size", -1);
  expect_load_error(golden, ErrorCode::parse, "type_vocab_size");
}

TEST(Bert, WeightsThatContradictTheConfigurationAreNamed) {
  GoldenModel golden = test::read_golden("bert");
  golden.config.set("type_vocab_size", 3);
  expect_load_error(golden, ErrorCode::shape, "embeddings.token_type_embeddings.weight");
  golden = test::read_golden("bert");
  golden.remove("embeddings.token_type_embeddings.weight");
  expect_load_error(golden, ErrorCode::missing, "embeddings.token_type_embeddings.weight");
  golden = test::read_golden("bert");
  golden.remove("embeddings.LayerNorm.bias");
  expect_load_error(golden, ErrorCode::missing, "embeddings.LayerNorm.bias");
  golden = test::read_golden("bert");
  golden.put(test::golden_tensor("pooler.dense.weight", {96, 95}));
  expect_load_error(golden, ErrorCode::shape, "pooler.dense.weight");
  golden = test::read_golden("bert");
  golden.config.set("num_hidden_layers", 3);
  expect_load_error(golden, ErrorCode::shape, "encoder.layer.2");
}

TEST(Pooling, IsReadFromEitherFileAndIsTheMeanOtherwise) {
  const GoldenModel golden = test::read_golden("bert");
  const auto pooling = [&](const std::string& json, const std::string& file) {
    const auto loaded = load(golden, json, file);
    EXPECT_TRUE(loaded->model.has_value()) << loaded->model.error().message;
    return loaded->model ? loaded->model->config().pooling : Pooling::mean;
  };
  const std::string first =
      R"({"word_embedding_dimension":96,"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false})";
  EXPECT_EQ(pooling(first, "pooling.json"), Pooling::first);
  EXPECT_EQ(pooling(first, "1_Pooling/config.json"), Pooling::first);
  EXPECT_EQ(pooling(first, "other.json"), Pooling::mean);
  EXPECT_EQ(pooling(R"({"pooling_mode_mean_sqrt_len_tokens":true})", "pooling.json"),
            Pooling::mean);
  EXPECT_EQ(to_string(Pooling::first), "first");
}

TEST(Pooling, ModesThatAreNotKnownAreRefusedByName) {
  const GoldenModel golden = test::read_golden("bert");
  expect_load_error(golden, ErrorCode::unsupported, "pooling_mode_max_tokens",
                    R"({"pooling_mode_max_tokens":true})");
  expect_load_error(golden, ErrorCode::unsupported, "both",
                    R"({"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":true})");
  expect_load_error(golden, ErrorCode::parse, "no pooling mode",
                    R"({"pooling_mode_mean_tokens":false})");
  expect_load_error(golden, ErrorCode::parse, "pooling_mode_mean_tokens",
                    R"({"pooling_mode_mean_tokens":1})");
  expect_load_error(golden, ErrorCode::parse, "96",
                    R"({"word_embedding_dimension":384,"pooling_mode_mean_tokens":true})");
  expect_load_error(golden, ErrorCode::parse, "pooling.json", "[]");
  expect_load_error(golden, ErrorCode::parse, "pooling.json", "{");
}

}  // namespace
}  // namespace quell::model
