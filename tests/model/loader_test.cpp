// SPDX-License-Identifier: Apache-2.0

// Configuration and weights must tell the same story; what is wrong is named with both values.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "quell/model/model.hpp"
#include "support/compare.hpp"
#include "support/golden_model.hpp"
#include "support/shared.hpp"

namespace quell {
namespace {

using model::Model;

/// A model written to disk for one test.
class Folder {
 public:
  explicit Folder(const test::GoldenModel& golden) { golden.write(folder_.path()); }
  Result<Model> load() const { return Model::load(folder_.path()); }
  const std::filesystem::path& path() const { return folder_.path(); }

 private:
  test::TemporaryFolder folder_;
};

Error load_error(const test::GoldenModel& golden) {
  const auto model = Folder(golden).load();
  EXPECT_FALSE(model.has_value());
  return model ? Error{} : model.error();
}

testing::AssertionResult contains(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "\"" << text << "\" lacks \"" << part << "\"";
}

std::string all_warnings(const Model& model) {
  std::string text;
  for (const std::string& warning : model.warnings()) text += warning + "\n";
  return text;
}

TEST(Model, LlamaHasSevenLinearsInEveryBlock) {
  const Folder folder(test::read_golden("llama"));
  const auto model = folder.load();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  ASSERT_EQ(model->blocks().size(), 2u);
  const model::Block& block = model->blocks()[1];
  EXPECT_EQ(linears_at(block, model::Site::qkv_in).size(), 3u);
  EXPECT_EQ(linears_at(block, model::Site::mlp_in).size(), 2u);
  EXPECT_EQ(block.qkv[1].name, "model.layers.1.self_attn.k_proj");
  EXPECT_EQ(block.qkv[1].rows, 32u);
  EXPECT_EQ(block.down.cols, 160u);
  EXPECT_FALSE(model->tied_head());
  EXPECT_TRUE(model->warnings().empty()) << all_warnings(*model);
  // 2 V H + L (2 H + (2 A D + 2 B D) H + 3 I H) + H.
  EXPECT_EQ(model->parameters(), 2u * 131 * 96 + 2 * (2 * 96 + 256 * 96 + 480 * 96) + 96);
  EXPECT_TRUE(model->generic_linears().empty());
}

TEST(Model, Gpt2WeightsAreTransposedToRowsOfOutputs) {
  const test::GoldenModel golden = test::read_golden("gpt2");
  const Folder folder(golden);
  const auto model = folder.load();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  const model::Linear& fused = model->blocks()[0].qkv[0];
  EXPECT_EQ(fused.rows, 288u);
  EXPECT_EQ(fused.cols, 96u);
  SerialExecutor serial;
  const auto weight = model->weight(fused, serial);
  ASSERT_TRUE(weight.has_value());
  const auto stored = test::golden_tensor("transformer.h.0.attn.c_attn.weight", {96, 288});
  EXPECT_EQ((*weight)(200, 33), stored.values[33 * 288 + 200]);
  EXPECT_EQ((*weight)(287, 95), stored.values[95 * 288 + 287]);
  EXPECT_EQ(model->bias(fused)->cols(), 288u);
}

TEST(Model, RowsEqualTheWholeTensor) {
  const Folder folder(test::read_golden("llama"));
  const auto model = folder.load();
  const auto whole = model->tensor("lm_head.weight");
  const auto some = model->rows("lm_head.weight", 100, 31);
  ASSERT_TRUE(some.has_value());
  EXPECT_TRUE(test::same_bits(some->values(), whole->values().subspan(100 * 96)));
}

TEST(Model, HalfPrecisionRowsAreWidened) {
  test::GoldenModel golden = test::read_golden("llama");
  // Two values of BF16 lie in the bytes of one float: 1.0 is 0x3F80, -2.0 is 0xC000.
  test::GoldenTensor& head = golden.tensor("lm_head.weight");
  head.values.assign(131 * 48, std::bit_cast<float>(0xC000'3F80u));
  head.dtype = "BF16";
  const Folder folder(golden);
  const auto model = folder.load();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  const auto rows = model->rows("lm_head.weight", 130, 1);
  ASSERT_TRUE(rows.has_value());
  EXPECT_EQ((*rows)(0, 0), 1);
  EXPECT_EQ((*rows)(0, 95), -2);
}

TEST(Model, HiddenSizeThatDisagreesIsNamedWithBothValues) {
  test::GoldenModel golden = test::read_golden("llama");
  golden.config.set("hidden_size", 192);
  golden.config.set("head_dim", 16);
  const Error error = load_error(golden);
  EXPECT_EQ(error.code, ErrorCode::shape);
  EXPECT_TRUE(contains(error.message, "has shape [96]"));
  EXPECT_TRUE(contains(error.message, "config.json asks for [192]"));
  EXPECT_TRUE(contains(error.message, "hidden_size 192"));
}

TEST(Model, VocabularyThatDisagreesIsNamedWithBothValues) {
  test::GoldenModel golden = test::read_golden("opt");
  golden.config.set("vocab_size", 130);
  const Error error = load_error(golden);
  EXPECT_TRUE(contains(error.message, "model.decoder.embed_tokens.weight has shape [131, 96]"));
  EXPECT_TRUE(contains(error.message, "vocab_size 130"));
  EXPECT_EQ(error.tensor, "model.decoder.embed_tokens.weight");
}

TEST(Model, LayerCountThatDisagreesIsNamedWithBothValues) {
  for (const char* name : {"llama", "gpt2", "opt"}) {
    test::GoldenModel golden = test::read_golden(name);
    const std::string field = std::string(name) == "gpt2" ? "n_layer" : "num_hidden_layers";
    golden.config.set(field, 3);
    Error error = load_error(golden);
    EXPECT_EQ(error.code, ErrorCode::shape);
    EXPECT_TRUE(contains(error.message, field + " 3, but the weights hold 2 layers (there is no "));
    golden.config.set(field, 1);
    error = load_error(golden);
    EXPECT_TRUE(contains(error.message, field + " 1, but the weights hold 2 layers (there is "));
  }
}

TEST(Model, MissingTensorIsNamedWithItsShape) {
  test::GoldenModel golden = test::read_golden("qwen2");
  golden.remove("model.layers.1.self_attn.k_proj.bias");
  const Error error = load_error(golden);
  EXPECT_EQ(error.code, ErrorCode::missing);
  EXPECT_TRUE(contains(error.message, "model.layers.1.self_attn.k_proj.bias is missing"));
  EXPECT_TRUE(contains(error.message, "Qwen2ForCausalLM needs it with shape [32]"));
}

TEST(Model, IntegerWeightsAreUnsupported) {
  test::GoldenModel golden = test::read_golden("llama");
  golden.tensor("model.norm.weight").dtype = "I32";
  const Error error = load_error(golden);
  EXPECT_EQ(error.code, ErrorCode::unsupported);
  EXPECT_TRUE(contains(error.message, "model.norm.weight has type I32"));
}

TEST(Model, KnownBuffersAreSilentOtherTensorsAreMentioned) {
  test::GoldenModel golden = test::read_golden("llama");
  golden.put(test::golden_tensor("model.layers.0.self_attn.rotary_emb.inv_freq", {8}));
  EXPECT_TRUE(Folder(golden).load()->warnings().empty());
  golden.put(test::golden_tensor("model.layers.0.self_attn.q_proj.bias", {96}));
  const auto model = Folder(golden).load();
  ASSERT_TRUE(model.has_value());
  EXPECT_TRUE(contains(all_warnings(*model),
                       "1 tensors are not part of LlamaForCausalLM and are "
                       "not used, the first is "
                       "model.layers.0.self_attn.q_proj.bias"));
}

// Case C05, the four combinations of flag and head.
TEST(TiedHead, FlagSetAndNoHeadIsTied) {
  const auto model = Folder(test::read_golden("llama_bare_tied")).load();
  EXPECT_TRUE(model->tied_head());
  EXPECT_TRUE(model->warnings().empty()) << all_warnings(*model);
}

TEST(TiedHead, FlagSetAndAnEqualHeadIsTied) {
  test::GoldenModel golden = test::read_golden("llama");
  golden.config.set("tie_word_embeddings", true);
  golden.tensor("lm_head.weight").values = golden.tensor("model.embed_tokens.weight").values;
  const auto model = Folder(golden).load();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_TRUE(model->tied_head());
  EXPECT_EQ(model->parameters(), 131u * 96 + 2 * (2 * 96 + 256 * 96 + 480 * 96) + 96);
  EXPECT_TRUE(model->warnings().empty()) << all_warnings(*model);
}

TEST(TiedHead, FlagSetAndADifferentHeadIsUntiedWithAWarning) {
  test::GoldenModel golden = test::read_golden("llama");
  golden.config.set("tie_word_embeddings", true);
  golden.tensor("lm_head.weight").values = golden.tensor("model.embed_tokens.weight").values;
  golden.tensor("lm_head.weight").values.back() += 1;  // the last element alone
  const auto model = Folder(golden).load();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_FALSE(model->tied_head());
  EXPECT_TRUE(contains(all_warnings(*model), "lm_head.weight differs from"));
}

TEST(TiedHead, FlagNotSetAndNoHeadIsTiedWithAWarning) {
  test::GoldenModel golden = test::read_golden("llama");
  golden.remove("lm_head.weight");
  const auto model = Folder(golden).load();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_TRUE(model->tied_head());
  EXPECT_TRUE(contains(all_warnings(*model), "tie_word_embeddings is false"));
}

TEST(NonFinite, ElementIsNamedByTensorAndIndex) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = INFINITY;
  struct Case {
    const char* tensor;
    std::size_t at;
    float value;
    const char* text;
  };
  for (const Case& one : {Case{"model.layers.0.mlp.down_proj.weight", 161, nan, "[1, 1] is nan"},
                          Case{"lm_head.weight", 131 * 96 - 1, inf, "[130, 95] is inf"},
                          Case{"model.norm.weight", 5, -inf, "[5] is -inf"}}) {
    test::GoldenModel golden = test::read_golden("llama");
    golden.tensor(one.tensor).values[one.at] = one.value;
    const Folder folder(golden);
    const auto model = folder.load();
    ASSERT_TRUE(model.has_value()) << model.error().message;
    const auto tensor = model->tensor(one.tensor);
    ASSERT_FALSE(tensor.has_value()) << one.tensor;
    EXPECT_EQ(tensor.error().code, ErrorCode::parse);
    EXPECT_TRUE(
        contains(tensor.error().message, std::string(one.tensor) + ": element " + one.text));
    EXPECT_TRUE(contains(tensor.error().message, "--nonfinite"));
    EXPECT_TRUE(model->tensor(one.tensor, /*allow_nonfinite=*/true).has_value());
  }
}

TEST(NonFinite, RowsCountFromTheStartOfTheTensor) {
  test::GoldenModel golden = test::read_golden("llama");
  golden.tensor("lm_head.weight").values[120 * 96 + 3] = INFINITY;
  const Folder folder(golden);
  const auto model = folder.load();
  EXPECT_TRUE(model->rows("lm_head.weight", 0, 120).has_value());
  EXPECT_TRUE(contains(model->rows("lm_head.weight", 110, 20).error().message, "[120, 3] is inf"));
}

TEST(Model, FoldersThatAreNoModelsAreMissing) {
  const test::TemporaryFolder folder;
  EXPECT_EQ(Model::load(folder.path()).error().code, ErrorCode::missing);
  EXPECT_TRUE(contains(Model::load(folder / "nothing").error().message, "no such folder"));
  test::write_bytes(folder / "file", "x");
  EXPECT_TRUE(contains(Model::load(folder / "file").error().message, "not a folder"));
  test::write_bytes(folder / "config.json", "");
  EXPECT_EQ(Model::load(folder.path()).error().code, ErrorCode::parse);
}

TEST(Model, PickledWeightsAreNotRead) {
  test::GoldenModel golden = test::read_golden("llama");
  const Folder folder(golden);
  std::filesystem::rename(folder.path() / "model.safetensors", folder.path() / "pytorch_model.bin");
  const auto model = folder.load();
  ASSERT_FALSE(model.has_value());
  EXPECT_TRUE(
      contains(model.error().message, "pickled weights are not read; convert to safetensors"));
}

TEST(Model, ProgramsThatComeWithAModelAreMentionedAndNotRun) {
  test::GoldenModel golden = test::read_golden("llama");
  io::Json map = io::Json::object();
  map.set("AutoModelForCausalLM", "modeling_llama.LlamaForCausalLM");
  golden.config.set("auto_map", map);
  const auto model = Folder(golden).load();
  ASSERT_TRUE(model.has_value());
  EXPECT_TRUE(contains(all_warnings(*model), "never run"));
}

TEST(WeightsOnly, ListsTheMatricesOfAnUnknownArchitecture) {
  test::GoldenModel golden = test::read_golden("llama");
  io::Json unknown = io::Json::array();
  unknown.push("NewForCausalLM");
  golden.config.set("architectures", unknown);
  golden.put(test::golden_tensor("model.conv.weight", {4, 3, 5}));
  golden.put(test::golden_tensor("model.table", {4, 3}));
  const Folder folder(golden);
  const auto refused = folder.load();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::unsupported);

  const auto model = Model::load_weights_only(folder.path());
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_TRUE(model->blocks().empty());
  ASSERT_EQ(model->generic_linears().size(), 14u);  // seven in each layer
  EXPECT_EQ(model->generic_linears().front().name, "model.layers.0.mlp.down_proj");
  EXPECT_EQ(model->generic_linears().front().cols, 160u);
  SerialExecutor serial;
  for (const model::Linear& linear : model->generic_linears()) {
    const auto weight = model->weight(linear, serial);
    ASSERT_TRUE(weight.has_value());
    EXPECT_EQ(weight->rows(), linear.rows);
  }
}

TEST(SharedModels, LoadWithoutWarnings) {
  for (const char* name : {"tiny1m", "stories260K", "babyllama105", "books7m"}) {
    const auto folder = test::shared_path(std::string("models/") + name);
    if (!folder) GTEST_SKIP() << "the shared models are not here";
    const auto model = Model::load(*folder);
    ASSERT_TRUE(model.has_value()) << model.error().message;
    EXPECT_TRUE(model->warnings().empty()) << all_warnings(*model);
    if (std::string(name) == "books7m") {
      EXPECT_EQ(model->parameters(), 7'344'384u);
      EXPECT_TRUE(model->tied_head());
    }
  }
}

}  // namespace
}  // namespace quell
