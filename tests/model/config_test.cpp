// SPDX-License-Identifier: Apache-2.0

// What config.json means: both generations of spelling, defaults, and errors that name the field.

#include "quell/model/config.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "quell/model/architecture.hpp"

namespace quell {
namespace {

using model::ModelConfig;
using model::Rope;

constexpr const char* kLlama =
    R"("architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":96,)"
    R"("intermediate_size":160,"num_hidden_layers":2,"num_attention_heads":6,"vocab_size":131,)"
    R"("max_position_embeddings":64)";

Result<ModelConfig> parse(const std::string& members) {
  auto json = io::parse_json("{" + members + "}", "config.json");
  EXPECT_TRUE(json.has_value()) << (json ? "" : json.error().message);
  if (!json) return std::move(json).error();
  return model::parse_config(*json, "config.json");
}

ModelConfig good(const std::string& members) {
  auto config = parse(members);
  EXPECT_TRUE(config.has_value()) << (config ? "" : config.error().message);
  return config ? *config : ModelConfig();
}

std::string message(const std::string& members) {
  const auto config = parse(members);
  return config ? "no error" : config.error().message;
}

/// The Llama above plus members, with one field replaced.
std::string llama(const std::string& more) {
  return std::string(kLlama) + "," + more;
}
std::string llama_with(const std::string& field, const std::string& value) {
  std::string text = kLlama;
  const std::size_t at = text.find("\"" + field + "\":") + field.size() + 3;
  const std::size_t end = text.find_first_of(",}", at);
  return text.replace(at, (end == std::string::npos ? text.size() : end) - at, value);
}

testing::AssertionResult contains(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "\"" << text << "\" lacks \"" << part << "\"";
}

TEST(Config, LlamaDefaults) {
  const ModelConfig config = good(kLlama);
  EXPECT_EQ(config.kv_heads, 6u);
  EXPECT_EQ(config.head_dim, 16u);
  EXPECT_EQ(config.attention_scale, 0.25f);
  EXPECT_EQ(config.norm_eps, 1e-6f);
  EXPECT_EQ(config.rope.base, 10000);
  EXPECT_EQ(config.rope.dims, 16u);
  EXPECT_EQ(config.rope.scaling, Rope::Scaling::none);
  EXPECT_FALSE(config.tied_head);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_EQ(config.activation, model::Activation::silu);
  EXPECT_EQ(config.windows, (std::vector<std::uint32_t>{0, 0}));
  EXPECT_EQ(model::position_limit(config), 64u);
}

TEST(Config, NullIsAbsent) {
  const ModelConfig config = good(llama(
      R"("num_key_value_heads":null,"head_dim":null,"rope_scaling":null,"bos_token_id":null)"));
  EXPECT_EQ(config.kv_heads, 6u);
  EXPECT_FALSE(config.bos.has_value());
}

TEST(Config, ModelTypeStandsInForAMissingClass) {
  std::string text = kLlama;
  text.erase(0, text.find("\"model_type\""));
  EXPECT_EQ(good(text).architecture, "LlamaForCausalLM");
}

TEST(Config, NewSpellingEqualsTheOldOne) {
  const ModelConfig older = good(llama(
      R"("rope_theta":500000.0,"torch_dtype":"bfloat16","rope_scaling":{"rope_type":"llama3",)"
      R"("factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,)"
      R"("original_max_position_embeddings":16})"));
  const ModelConfig newer = good(
      llama(R"("dtype":"bfloat16","rope_parameters":{"rope_theta":500000.0,"rope_type":"llama3",)"
            R"("factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,)"
            R"("original_max_position_embeddings":16})"));
  for (const ModelConfig& config : {older, newer}) {
    EXPECT_EQ(config.dtype, "bfloat16");
    EXPECT_EQ(config.rope.base, 500000);
    EXPECT_EQ(config.rope.scaling, Rope::Scaling::llama3);
    EXPECT_EQ(config.rope.factor, 8);
    EXPECT_EQ(config.rope.original_positions, 16u);
  }
  EXPECT_EQ(good(llama(R"("rope_theta":7.0,"rope_parameters":{"rope_theta":9.0})")).rope.base, 7);
}

TEST(Config, YarnMagnitudeHasItsDefault) {
  const std::string text =
      R"("rope_scaling":{"type":"yarn","factor":4.0,"original_max_position_embeddings":16)";
  EXPECT_DOUBLE_EQ(good(llama(text + "}")).rope.attention_factor, 0.1 * std::log(4.0) + 1);
  EXPECT_DOUBLE_EQ(good(llama(text + R"(,"attention_factor":1.5})")).rope.attention_factor, 1.5);
  EXPECT_EQ(model::position_limit(good(llama(text + "}"))), 64u);
}

TEST(Config, ScalingStretchesThePositionLimit) {
  EXPECT_EQ(model::position_limit(good(llama(R"("rope_scaling":{"type":"dynamic","factor":2.5})"))),
            160u);
  EXPECT_EQ(
      model::position_limit(good(llama(
          R"("rope_scaling":{"type":"yarn","factor":4,"original_max_position_embeddings":32})"))),
      128u);
  EXPECT_EQ(model::position_limit(good(llama(R"("rope_scaling":{"type":"linear","factor":2})"))),
            64u);
}

TEST(Config, WrongScalingsAreNamed) {
  EXPECT_TRUE(contains(message(llama(R"("rope_scaling":{"type":"cubic"})")),
                       "rope_scaling: type is \"cubic\""));
  EXPECT_TRUE(contains(message(llama(R"("rope_scaling":{"rope_type":"linear"})")),
                       "rope_scaling: factor is missing"));
  EXPECT_TRUE(contains(message(llama(R"("rope_scaling":{"rope_type":"linear","factor":0})")),
                       "factor is 0"));
  EXPECT_TRUE(contains(message(llama(R"("rope_scaling":"linear")")), "rope_scaling is \"linear\""));
  EXPECT_TRUE(contains(
      message(llama(
          R"("rope_scaling":{"type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4})")),
      "high_freq_factor is 4"));
  EXPECT_TRUE(contains(
      message(llama(R"("rope_scaling":{"type":"longrope","short_factor":[1],"long_factor":[1]})")),
      "a list of 8 numbers above 0"));
  EXPECT_TRUE(contains(message(llama(R"("rope_parameters":{"full_attention":{"rope_theta":1.0}})")),
                       "it has one for \"full_attention\""));
  EXPECT_TRUE(contains(message(llama(R"("rope_theta":-1)")), "rope_theta is -1"));
  EXPECT_TRUE(contains(message(llama(R"("head_dim":15)")), "rotate 15 dimensions"));
  EXPECT_TRUE(contains(message(llama(R"("partial_rotary_factor":1.5)")), "partial_rotary_factor"));
}

TEST(Config, NumbersThatAreNoSizesAreNamed) {
  for (const char* value : {"\"96\"", "-96", "96.5", "1e3", "0", "null", "true", "[96]",
                            "99999999999999999999", "1048577"}) {
    const auto config = parse(llama_with("hidden_size", value));
    ASSERT_FALSE(config.has_value()) << value;
    EXPECT_TRUE(contains(config.error().message, "hidden_size")) << value;
    EXPECT_TRUE(config.error().code == ErrorCode::parse ||
                config.error().code == ErrorCode::missing)
        << value;
  }
}

TEST(Config, EverySizeIsRequired) {
  for (const char* field : {"hidden_size", "intermediate_size", "num_hidden_layers",
                            "num_attention_heads", "vocab_size", "max_position_embeddings"}) {
    std::string text = kLlama;
    text.insert(text.find(field), "no_");
    const auto config = parse(text);
    ASSERT_FALSE(config.has_value()) << field;
    EXPECT_TRUE(contains(config.error().message, std::string(field) + " is missing"));
    EXPECT_EQ(config.error().code, ErrorCode::missing) << config.error().message;
  }
}

TEST(Config, LayersBeyondTheLimitAreDamage) {
  EXPECT_EQ(good(llama_with("num_hidden_layers", "4096")).layers, 4096u);
  EXPECT_TRUE(
      contains(message(llama_with("num_hidden_layers", "4097")), "num_hidden_layers is 4097"));
}

TEST(Config, HeadsThatDoNotDivideAreNamedWithBothValues) {
  EXPECT_TRUE(contains(message(llama(R"("num_key_value_heads":4)")), "num_key_value_heads is 4"));
  EXPECT_TRUE(
      contains(message(llama(R"("num_key_value_heads":4)")), "a divisor of num_attention_heads 6"));
  EXPECT_TRUE(contains(message(llama_with("num_attention_heads", "7")), "hidden_size is 96"));
  EXPECT_TRUE(contains(message(llama_with("num_attention_heads", "7")),
                       "a multiple of num_attention_heads 7"));
}

TEST(Config, UnknownArchitectureListsTheKnownOnesAndTheWayOut) {
  const auto config = parse(R"("architectures":["FalconForCausalLM"],"model_type":"falcon")");
  ASSERT_FALSE(config.has_value());
  EXPECT_EQ(config.error().code, ErrorCode::unsupported);
  EXPECT_TRUE(contains(config.error().message, "FalconForCausalLM"));
  for (const model::Architecture& known : model::architectures()) {
    EXPECT_TRUE(contains(config.error().message, std::string(known.name)));
  }
  EXPECT_TRUE(contains(config.error().message, "--method rtn"));
  // A classifier shares the model type of the language model but not its head.
  EXPECT_TRUE(contains(
      message(R"("architectures":["LlamaForSequenceClassification"],"model_type":"llama")"),
      "LlamaForSequenceClassification"));
  EXPECT_TRUE(contains(message(R"("architectures":["Mine"],"auto_map":{"AutoModel":"x.Mine"})"),
                       "never run"));
  EXPECT_TRUE(contains(message(""), "neither architectures nor model_type"));
  EXPECT_TRUE(contains(message(R"("architectures":"Llama")"), "architectures is \"Llama\""));
}

TEST(Config, UnknownActivationIsUnsupported) {
  const auto config = parse(llama(R"("hidden_act":"xielu")"));
  ASSERT_FALSE(config.has_value());
  EXPECT_EQ(config.error().code, ErrorCode::unsupported);
  EXPECT_TRUE(contains(config.error().message, "hidden_act is \"xielu\""));
}

TEST(Config, MistralWindowMeansTheFirstReleaseWhenAbsent) {
  std::string text = kLlama;
  text.replace(text.find("LlamaForCausalLM"), 16, "MistralForCausalLM");
  EXPECT_EQ(good(text).windows, (std::vector<std::uint32_t>{4096, 4096}));
  EXPECT_EQ(good(text + R"(,"sliding_window":null)").windows, (std::vector<std::uint32_t>{0, 0}));
  EXPECT_EQ(good(text + R"(,"sliding_window":5)").windows, (std::vector<std::uint32_t>{5, 5}));
  EXPECT_TRUE(contains(message(text + R"(,"sliding_window":0)"), "sliding_window is 0"));
}

TEST(Config, QwenWindowsFollowLayerTypesOrMaxWindowLayers) {
  std::string text = kLlama;
  text.replace(text.find("LlamaForCausalLM"), 16, "Qwen2ForCausalLM");
  const std::string windowed = text + R"(,"use_sliding_window":true,"sliding_window":5)";
  EXPECT_EQ(good(text + R"(,"sliding_window":5)").windows, (std::vector<std::uint32_t>{0, 0}));
  EXPECT_EQ(good(windowed + R"(,"max_window_layers":1)").windows,
            (std::vector<std::uint32_t>{0, 5}));
  EXPECT_EQ(good(windowed).windows, (std::vector<std::uint32_t>{0, 0}));
  EXPECT_EQ(good(windowed + R"(,"layer_types":["sliding_attention","full_attention"])").windows,
            (std::vector<std::uint32_t>{5, 0}));
  EXPECT_TRUE(contains(message(windowed + R"(,"layer_types":["full_attention"])"), "layer_types"));
  EXPECT_TRUE(
      contains(message(windowed + R"(,"layer_types":["full_attention","linear"])"), "layer 1"));
  EXPECT_TRUE(contains(message(text + R"(,"use_sliding_window":true)"), "sliding_window"));
  EXPECT_TRUE(good(text).qkv_bias);
  EXPECT_FALSE(good(text).o_bias);
}

TEST(Config, Qwen3HeadsAre128WhereNotSaid) {
  std::string text = kLlama;
  text.replace(text.find("LlamaForCausalLM"), 16, "Qwen3ForCausalLM");
  EXPECT_EQ(good(text).head_dim, 128u);
  EXPECT_TRUE(good(text).head_norms);
}

TEST(Config, EosMayBeAList) {
  EXPECT_EQ(good(llama(R"("eos_token_id":[5,6],"bos_token_id":1)")).eos, 5);
  EXPECT_EQ(good(llama(R"("eos_token_id":-1)")).eos, std::nullopt);
  EXPECT_TRUE(contains(message(llama(R"("eos_token_id":"x")")), "eos_token_id"));
}

TEST(Config, TextConfigWinsOverTheTopLevel) {
  const ModelConfig config = good(llama(R"("text_config":{"hidden_size":192,"model_type":"x"})"));
  EXPECT_EQ(config.hidden, 192u);
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
}

TEST(Config, Gpt2HasItsOwnNames) {
  const std::string text =
      R"("architectures":["GPT2LMHeadModel"],"n_embd":96,"n_layer":2,"n_head":6,"vocab_size":131)";
  const ModelConfig config = good(text + R"(,"n_ctx":32,"n_inner":null)");
  EXPECT_EQ(config.intermediate, 384u);
  EXPECT_EQ(config.max_positions, 32u);
  EXPECT_TRUE(config.tied_head);
  EXPECT_EQ(config.positions, model::Positions::learned);
  EXPECT_TRUE(contains(message(text), "n_positions is missing"));
  EXPECT_TRUE(
      contains(message(text + R"(,"n_ctx":32,"add_cross_attention":true)"), "add_cross_attention"));
}

TEST(Config, NotAnObjectIsRefused) {
  auto json = io::parse_json("[1]", "config.json");
  EXPECT_EQ(model::parse_config(*json, "config.json").error().code, ErrorCode::parse);
}

}  // namespace
}  // namespace quell
