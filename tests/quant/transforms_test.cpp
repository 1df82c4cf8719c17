// SPDX-License-Identifier: Apache-2.0

// The numbers of the diagonal transforms by hand: factors, ties, clamps, chains.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "quant/transforms/scales.hpp"
#include "quell/core/bits.hpp"
#include "support/golden_model.hpp"

namespace quell::quant {
namespace {

using model::Site;

TEST(SmoothFactors, OfTheSpecificationsExample) {
  const std::vector<double> x = {8, 1, 2}, w = {0.5, 2, 0.125};
  const std::vector<float> s = smooth_factors(x, w, 0.5);
  EXPECT_FLOAT_EQ(s[0], 4);
  EXPECT_FLOAT_EQ(s[1], 0.70710678F);
  EXPECT_FLOAT_EQ(s[2], 4);
  for (std::size_t j = 0; j < 3; ++j) {
    // At one half both maxima become the root of their product.
    EXPECT_NEAR(x[j] / static_cast<double>(s[j]), w[j] * static_cast<double>(s[j]), 1e-6);
  }
}

TEST(SmoothFactors, AtTheEndsAllDifficultyIsOnOneSide) {
  const std::vector<double> x = {8, 1, 2}, w = {0.5, 2, 0.125};
  const std::vector<float> weights = smooth_factors(x, w, 1), inputs = smooth_factors(x, w, 0);
  for (std::size_t j = 0; j < 3; ++j) {
    EXPECT_NEAR(x[j] / static_cast<double>(weights[j]), 1, 1e-6);
    EXPECT_NEAR(w[j] * static_cast<double>(inputs[j]), 1, 1e-6);
  }
}

TEST(SmoothFactors, OfATenfoldWeightFallByItsPower) {
  const std::vector<double> x = {3}, w = {0.2}, larger = {2};
  const float before = smooth_factors(x, w, 0.7)[0], after = smooth_factors(x, larger, 0.7)[0];
  EXPECT_NEAR(static_cast<double>(before / after), std::pow(10, 0.3), 1e-5);
}

TEST(SmoothFactors, OfADeadChannelIsOneAndAllAreFinite) {
  const std::vector<double> x = {0, 0, 5, 1e-9}, w = {0, 1, 0, 1e-9};
  for (const double alpha : {0.0, 0.3, 0.5, 1.0}) {
    const std::vector<float> s = smooth_factors(x, w, alpha);
    EXPECT_EQ(s[0], 1.0F);
    EXPECT_EQ(s[3], 1.0F);
    for (const float factor : s) {
      EXPECT_TRUE(std::isfinite(factor));
      EXPECT_GT(factor, 0.0F);
    }
  }
}

TEST(AwqFactors, AreDividedByTheMiddleOfTheirRange) {
  const std::vector<double> a = {4, 1, 0.25}, b = {16, 1, 1};
  EXPECT_EQ(awq_factors(a, {}, 0.5), (std::vector<float>{2, 1, 0.5}));
  EXPECT_EQ(awq_factors(b, {}, 0.5), (std::vector<float>{2, 0.5, 0.5}));
}

TEST(AwqFactors, AtZeroAreTheIdentity) {
  const std::vector<double> a = {7, 0, 0.01};
  EXPECT_EQ(awq_factors(a, {}, 0), (std::vector<float>{1, 1, 1}));
}

TEST(AwqFactors, OfAnInputThatIsAlwaysZeroStayFinite) {
  const std::vector<double> a = {0, 2, 3}, w = {0.5, 0, 0.25};
  for (int step = 0; step < 20; ++step) {
    for (const bool shares : {false, true}) {
      const auto s = awq_factors(a, shares ? std::span<const double>(w) : std::span<const double>(),
                                 step / 20.0);
      for (const float factor : s) {
        EXPECT_TRUE(std::isfinite(factor));
        EXPECT_GT(factor, 0.0F);
      }
    }
  }
}

model::Model loaded(const test::TemporaryFolder& folder, const std::string& name) {
  test::read_golden(name).write(folder.path() / name);
  auto model = model::Model::load(folder.path() / name);
  EXPECT_TRUE(model) << model.error().message;
  return *std::move(model);
}

TEST(Scaling, FollowsWhatTheProducerCanTake) {
  const test::TemporaryFolder folder;
  const model::Model llama = loaded(folder, "llama"), gpt2 = loaded(folder, "gpt2"),
                     opt = loaded(folder, "opt"), bert = loaded(folder, "bert");
  for (const Site site : model::kSites) EXPECT_EQ(refuse_scaling(llama, 0, site), "");
  // GELU does not pass factors on, ReLU does.
  EXPECT_NE(refuse_scaling(gpt2, 0, Site::down_in), "");
  EXPECT_EQ(refuse_scaling(opt, 0, Site::down_in), "");
  // A norm after the sum feeds the stream too.
  EXPECT_NE(refuse_scaling(bert, 0, Site::qkv_in), "");
  EXPECT_NE(refuse_scaling(bert, 0, Site::mlp_in), "");
  EXPECT_EQ(refuse_scaling(bert, 0, Site::o_in), "");
}

TEST(Scaling, OfSharedValueHeadsIsTied) {
  model::ModelConfig config;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 3;
  // Query heads 0 and 1 read value head 0, heads 2 and 3 value head 1.
  const std::size_t expected[] = {0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5};
  for (std::size_t j = 0; j < 12; ++j) {
    EXPECT_EQ(free_channel(config, Site::o_in, j), expected[j]);
    EXPECT_EQ(free_channel(config, Site::mlp_in, j), j);
  }
}

TEST(Scaling, RefusesFactorsForEachQueryHeadAndBadOnes) {
  const test::TemporaryFolder folder;
  const model::Model model = loaded(folder, "llama");
  ASSERT_LT(model.config().kv_heads, model.config().heads);
  model::Edits edits;
  const std::vector<float> each(model.blocks()[0].o.cols, 2.0F);
  EXPECT_EQ(apply_scaling(model, 0, Site::o_in, each, edits).error().code, ErrorCode::shape);
  for (const float bad : {0.0F, -1.0F, INFINITY, std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> factors(model.config().hidden, 1.0F);
    factors[3] = bad;
    const auto refused = apply_scaling(model, 0, Site::qkv_in, factors, edits);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::numeric);
    EXPECT_NE(refused.error().message.find("channel 3"), std::string::npos);
  }
  EXPECT_FALSE(edits.contains(model.blocks()[0].attention_norm.weight));
}

TEST(Scaling, ByOneChangesNoWeight) {
  const test::TemporaryFolder folder;
  const model::Model model = loaded(folder, "qwen2");
  const auto edits = std::make_shared<model::Edits>();
  SerialExecutor serial;
  for (const Site site : model::kSites) {
    const std::vector<float> ones(free_channels(model, 0, site), 1.0F);
    ASSERT_TRUE(apply_scaling(model, 0, site, ones, *edits));
  }
  const model::Model edited = model.edited(edits);
  for (const Site site : model::kSites) {
    for (const model::Linear* linear : linears_at(model.blocks()[0], site)) {
      const auto before = model.weight(*linear, serial), after = edited.weight(*linear, serial);
      ASSERT_TRUE(before && after);
      EXPECT_TRUE(
          std::equal(before->values().begin(), before->values().end(), after->values().begin()));
    }
  }
}

TEST(Scaling, LeavesAChannelWhoseNormWeightIsZero) {
  const test::TemporaryFolder folder;
  test::GoldenModel golden = test::read_golden("llama");
  golden.tensor("model.layers.0.input_layernorm.weight").values[5] = 0;
  golden.write(folder.path());
  const auto model = model::Model::load(folder.path());
  ASSERT_TRUE(model);
  model::Edits edits;
  const std::vector<float> twos(model->config().hidden, 2.0F);
  const auto divisors = apply_scaling(*model, 0, Site::qkv_in, twos, edits);
  ASSERT_TRUE(divisors);
  EXPECT_EQ((*divisors)[5], 1.0F);
  EXPECT_EQ((*divisors)[4], 2.0F);
}

// In 16 bits the divided norm weight is rounded, and the factor moves with it: their product is the
// weight the file had, up to the rounding of two float32 operations.
TEST(Scaling, KeepsNormWeightsExactInTheirType) {
  const test::TemporaryFolder folder;
  test::GoldenModel golden = test::read_golden("llama");
  test::GoldenTensor& norm = golden.tensor("model.layers.0.input_layernorm.weight");
  norm.dtype = "BF16";
  for (float& value : norm.values) {
    const std::uint16_t bits = float_to_bf16(value);
    value = bf16_to_float(bits);
    norm.raw.push_back(static_cast<char>(bits & 255));
    norm.raw.push_back(static_cast<char>(bits >> 8));
  }
  const std::vector<float> original = norm.values;
  golden.write(folder.path());
  const auto model = model::Model::load(folder.path());
  ASSERT_TRUE(model) << model.error().message;
  const auto edits = std::make_shared<model::Edits>();
  std::vector<float> factors(model->config().hidden);
  for (std::size_t j = 0; j < factors.size(); ++j) {
    factors[j] = std::exp2(static_cast<float>(j % 13) * 0.77F - 4.5F);
  }
  const auto divisors = apply_scaling(*model, 0, Site::qkv_in, factors, *edits);
  ASSERT_TRUE(divisors);
  const auto divided = model->edited(edits).tensor("model.layers.0.input_layernorm.weight");
  ASSERT_TRUE(divided);
  for (std::size_t j = 0; j < factors.size(); ++j) {
    const float g = divided->values()[j];
    EXPECT_EQ(bf16_to_float(float_to_bf16(g)), g);
    EXPECT_NEAR(g * (*divisors)[j], original[j], 2e-7F * std::abs(original[j]));
    // Two roundings to 8 bits, of the factor and of the weight.
    EXPECT_NEAR((*divisors)[j], factors[j], 0.0079F * factors[j]);
  }
}

TEST(Statistics, ThatAreAbsentOrDamagedAreRefused) {
  const test::TemporaryFolder folder;
  const model::Model model = loaded(folder, "llama");
  SerialExecutor serial;
  for (const TransformEntry& entry : transforms()) {
    if (entry.whole_model || entry.name == "bias_correction") continue;
    SCOPED_TRACE(entry.name);
    const auto transform = entry.make({});
    SiteProblem problem{model, 0, Site::mlp_in, {}, {}, {}, {}};
    for (const model::Linear* linear : linears_at(model.blocks()[0], Site::mlp_in)) {
      problem.linears.push_back({linear, *parse_grid("int4:sym:oc:g8:f32"), ScaleMethod::absmax});
    }
    EXPECT_EQ(transform->scale_site(problem, serial).error().code, ErrorCode::numeric);
    const std::size_t n = model.config().hidden;
    for (const double bad : {-1.0, std::numeric_limits<double>::quiet_NaN(), HUGE_VAL}) {
      std::vector<double> means(n, 1.0);
      std::vector<float> maxima(n, 1.0F);
      means[7] = bad;
      maxima[7] = static_cast<float>(bad);
      problem.mean_magnitudes = means;
      problem.max_magnitudes = maxima;
      const auto refused = transform->scale_site(problem, serial);
      ASSERT_FALSE(refused);
      EXPECT_EQ(refused.error().code, ErrorCode::numeric);
      EXPECT_NE(refused.error().message.find("channel 7"), std::string::npos);
    }
  }
}

// By hand: W - Q is [[0.25, 0], [0, -0.5]], and inputs have the means 2 and 4.
TEST(BiasCorrection, TakesTheMeanErrorOffTheOutput) {
  const auto transform = bias_correction();
  Matrix weight = *Matrix::zeros(2, 2);
  weight(0, 0) = 1.25F;
  weight(0, 1) = 2;
  weight(1, 0) = -3;
  weight(1, 1) = 0.5F;
  const std::vector<std::uint8_t> codes = {1 + 8, 2 + 8, 8 - 3, 1 + 8};
  std::vector<std::uint8_t> packed(2);
  for (std::size_t r = 0; r < 2; ++r) {
    pack_codes(std::span(codes).subspan(2 * r, 2), 4, std::span(packed).subspan(r, 1));
  }
  GroupParameters parameters;
  parameters.rows = 2;
  parameters.cols = 1;
  parameters.scales = {1, 1};
  const auto quantized = QuantizedTensor::create(*parse_grid("int4:sym:oc:row:f32"), 2, 2,
                                                 std::move(packed), std::move(parameters));
  ASSERT_TRUE(quantized) << quantized.error().message;
  const std::vector<double> mean = {2, 4};
  const auto change = transform->bias_change(weight.view(), *quantized, mean);
  ASSERT_TRUE(change) << change.error().message;
  EXPECT_EQ(*change, (std::vector<float>{0.5F, -2}));
  const auto refused =
      transform->bias_change(weight.view(), *quantized, std::span<const double>(mean).first(1));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("means of 1 inputs, expected 2"), std::string::npos);
}

// The head of such a model reads the mean of the stream, which a rotation takes out.
TEST(Rotation, IsRefusedWithLayerNormsAndNoFinalOne) {
  const test::TemporaryFolder folder;
  test::GoldenModel golden = test::read_golden("opt");
  golden.config.set("_remove_final_layer_norm", true);
  golden.remove("model.decoder.final_layer_norm.weight");
  golden.remove("model.decoder.final_layer_norm.bias");
  golden.write(folder.path() / "opt");
  const auto model = model::Model::load(folder.path() / "opt");
  ASSERT_TRUE(model) << model.error().message;
  const Status refused = rotation()->check(*model);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::unsupported);
  EXPECT_NE(refused.error().message.find("no final norm"), std::string::npos);
  EXPECT_TRUE(norm_folding()->check(*model));
  EXPECT_TRUE(rotation()->check(loaded(folder, "llama")));
}

TEST(FreeValues, OfSharedHeadsAreTheLargestOrTheMean) {
  const test::TemporaryFolder folder;
  const model::Model model = loaded(folder, "llama");
  const model::ModelConfig& config = model.config();
  ASSERT_LT(config.kv_heads, config.heads);
  const std::size_t copies = config.heads / config.kv_heads;
  const SiteProblem problem{model, 0, Site::o_in, {}, {}, {}, {}};
  std::vector<double> values(std::size_t{config.heads} * config.head_dim, 0.0);
  values[0] = 6;  // one of the channels that share the first value channel
  const auto largest = free_values(problem, std::span<const double>(values), Ties::largest, "x");
  const auto mean = free_values(problem, std::span<const double>(values), Ties::mean, "x");
  ASSERT_TRUE(largest && mean);
  EXPECT_EQ(largest->size(), values.size() / copies);
  EXPECT_EQ((*largest)[0], 6);
  EXPECT_EQ((*mean)[0], 6.0 / static_cast<double>(copies));
  EXPECT_EQ((*mean)[1], 0);
}

TEST(Chain, OfATransformAloneSaysWhatIsMissing) {
  const Status refused = check_chain("rotation+awq");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("awq is a transform"), std::string::npos);
  EXPECT_NE(refused.error().message.find("awq+balanced"), std::string::npos);
}

TEST(Chain, TakesTransformsOffTheFront) {
  const MethodChain chain = take_transforms("rotation+awq+balanced");
  EXPECT_EQ(chain.transforms, (std::vector<std::string>{"rotation", "awq"}));
  EXPECT_EQ(chain.quantizer, "balanced");
  EXPECT_EQ(take_transforms("gptq").quantizer, "gptq");
  EXPECT_EQ(take_transforms("awq").quantizer, "");
  EXPECT_EQ(take_transforms("x+gptq").quantizer, "x+gptq");
}

TEST(Chain, IsCheckedWithItsOrder) {
  EXPECT_TRUE(check_chain("smoothquant+rtn"));
  EXPECT_TRUE(check_chain("rotation+awq+gptq"));
  for (const char* bad :
       {"", "awq", "awq+", "+rtn", "awq+x", "awq+awq+rtn", "awq+rotation+rtn", "rtn+awq"}) {
    const Status refused = check_chain(bad);
    ASSERT_FALSE(refused) << bad;
    EXPECT_EQ(refused.error().code, ErrorCode::usage);
  }
}

}  // namespace
}  // namespace quell::quant
