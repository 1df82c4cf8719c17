// SPDX-License-Identifier: Apache-2.0

// What clipping would do: words, limits, and answers that must hold for any model.

#include "quell/pipeline/what_if.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "quell/pipeline/outliers.hpp"
#include "quell/tokenizer/tokenizer.hpp"
#include "support/shared.hpp"

namespace quell::pipeline {
namespace {

std::string error_of(std::string_view text) {
  const auto parsed = WhatIfClip::parse(text);
  if (parsed) return "";
  EXPECT_EQ(parsed.error().code, ErrorCode::usage);
  EXPECT_NE(parsed.error().message.find("clip:ZETA,GAMMA"), std::string::npos);
  EXPECT_NE(parsed.error().message.find("clip:alpha=A"), std::string::npos);
  return parsed.error().message.substr(0, parsed.error().message.find("; the form"));
}

TEST(WhatIfClip, ParsesBothForms) {
  auto clip = WhatIfClip::parse("clip:1.25,-0.03");
  ASSERT_TRUE(clip.has_value());
  EXPECT_EQ(clip->rule.zeta, 1.25f);
  EXPECT_EQ(clip->rule.gamma, -0.03f);
  EXPECT_FALSE(clip->alpha.has_value());
  clip = WhatIfClip::parse("clip:1,-1e-3");
  ASSERT_TRUE(clip.has_value());
  EXPECT_EQ(clip->rule.gamma, -0.001f);
  clip = WhatIfClip::parse("clip:alpha=2.5");
  ASSERT_TRUE(clip.has_value());
  EXPECT_EQ(clip->alpha, 2.5f);
}

TEST(WhatIfClip, NamesWhatIsWrong) {
  EXPECT_EQ(error_of("clip:0.5,-0.1"), "--what-if clip:0.5,-0.1: ZETA is 0.5, expected 1 or more");
  EXPECT_EQ(error_of("clip:1,0.1"), "--what-if clip:1,0.1: GAMMA is 0.1, expected 0 or less");
  EXPECT_EQ(error_of("clip:alpha=-1"), "--what-if clip:alpha=-1: A is -1, expected 0 or more");
  EXPECT_EQ(error_of("clip:1"), "--what-if clip:1: there is no comma between two numbers");
  EXPECT_EQ(error_of("gate"), "--what-if gate: it does not begin with \"clip:\"");
  for (const char* text : {"",
                           "clip:",
                           "clip:,",
                           "clip:1,",
                           "clip:,-1",
                           "clip:1,-1,2",
                           "clip: 1,-1",
                           "clip:1,-1 ",
                           "clip:nan,0",
                           "clip:1,-inf",
                           "clip:inf,0",
                           "clip:1e99,0",
                           "clip:alpha=",
                           "clip:alpha=two",
                           "clip:alpha=inf",
                           "clip:alpha=nan",
                           "clip:3e38,-3e38",
                           "clip:1,,-1",
                           "clip:0x1,0",
                           "CLIP:1,0"}) {
    EXPECT_NE(error_of(text), "") << text;
  }
}

class Silent final : public Observer {};

/// The demonstration model and the first `tokens` of its text, in windows of `length`.
struct Demonstration {
  Demonstration(std::uint32_t length, std::uint64_t tokens)
      : model(*model::Model::load(std::string(QUELL_SOURCE_DIR) + "/examples/models/books7m")) {
    const std::filesystem::path file =
        std::string(QUELL_SOURCE_DIR) + "/examples/text/evaluation.txt";
    auto tokenizer = tokenizer::Tokenizer::read(model.folder());
    calib::CutOptions cut;
    cut.length = length;
    cut.max_tokens = tokens;
    corpus = *calib::read_text({&file, 1}, *tokenizer, cut);
  }
  WhatIf ask(std::string_view clip, unsigned threads = 1) const {
    const auto executor = make_openmp_executor(threads);
    Silent observer;
    auto answer = what_if(model, corpus, *WhatIfClip::parse(clip), *executor, observer);
    EXPECT_TRUE(answer.has_value()) << (answer ? "" : answer.error().message);
    return answer ? *std::move(answer) : WhatIf();
  }
  model::Model model;
  calib::Corpus corpus;
};

TEST(WhatIf, NothingIsClippedAndNothingChanges) {
  const Demonstration demonstration(64, 256);
  const WhatIf answer = demonstration.ask("clip:1,0");
  ASSERT_EQ(answer.layers.size(), 8u);
  for (const WhatIfLayer& layer : answer.layers) {
    EXPECT_EQ(layer.zeros_after, layer.zeros_before);
    EXPECT_EQ(layer.output_change, 0);
    EXPECT_EQ(layer.residual_after, layer.residual_before);
    EXPECT_EQ(layer.down_in_after, layer.down_in_before);
    EXPECT_EQ(layer.empty_rows, 0);
  }
  ASSERT_TRUE(answer.predictions.has_value());
  EXPECT_EQ(answer.predictions->kl_max, 0);
  EXPECT_EQ(answer.predictions->top1_agreement, 1);
  EXPECT_EQ(answer.predictions->perplexity_after, answer.predictions->perplexity_before);
  EXPECT_FALSE(answer.embeddings.has_value());
}

TEST(WhatIf, StrongerClipsMakeMoreZerosAndMoveTheModelFurther) {
  const Demonstration demonstration(64, 256);
  double zeros = 0, divergence = 0;
  for (const char* clip : {"clip:alpha=0.5", "clip:alpha=2", "clip:alpha=8"}) {
    const WhatIf answer = demonstration.ask(clip);
    EXPECT_EQ(answer.rule.zeta, 1.0f);
    EXPECT_EQ(answer.rule.gamma, -*answer.alpha / 64);
    // Of the first block alone, where both models still see the same.
    EXPECT_GT(answer.layers[0].zeros_after, zeros);
    zeros = answer.layers[0].zeros_after;
    EXPECT_GT(answer.predictions->kl_mean, divergence);
    divergence = answer.predictions->kl_mean;
    EXPECT_EQ(answer.layers[0].zeros_before, 0) << "no probability is that small";
    EXPECT_GT(answer.layers[0].output_change, 0);
  }
  EXPECT_LT(zeros, 1);
}

TEST(WhatIf, OnlyProbabilitiesOfOneSurviveAnExtremeClip) {
  // Threshold 1 - 1e-3: of causal rows the first, and heads that are almost certain.
  const Demonstration demonstration(64, 128);
  const WhatIf answer = demonstration.ask("clip:1,-1000");
  for (const WhatIfLayer& layer : answer.layers) {
    EXPECT_LE(layer.empty_rows, 63.0 / 64);
    EXPECT_GT(layer.empty_rows, 0.9);
    EXPECT_GT(layer.zeros_after, 0.95);
  }
  // The massive activation sits at position 0, which attends to itself alone and so stays.
  EXPECT_NEAR(answer.layers[1].down_in_after, answer.layers[1].down_in_before, 0.1f);
  EXPECT_GT(answer.layers[1].down_in_before, 150.0f);
}

/// 128 ids by formula after the model's <|bos|>.
calib::Corpus formula_corpus() {
  calib::Corpus corpus;
  for (std::int32_t i = 0; i < 128; ++i) {
    corpus.ids.push_back(i == 0 ? 0 : (37 * i * i + 11 * i) % 4096);
  }
  corpus.lengths = {128};
  return corpus;
}

// Numbers of the same questions asked of transformers 5 (Llama in float32 with eager attention, its
// softmax replaced by the clipped one, KL in double).
TEST(WhatIf, EqualsAnotherImplementation) {
  Demonstration demonstration(64, 128);
  demonstration.corpus = formula_corpus();
  const WhatIf answer = demonstration.ask("clip:alpha=2");
  constexpr double kZeros[] = {0.77065164, 0.80402130, 0.86755091, 0.88381177,
                               0.86231226, 0.86791426, 0.81867731, 0.86861068};
  constexpr double kResidual[] = {128.23912, 240.81598, 264.65549, 282.76608,
                                  286.95157, 289.70283, 311.95062, 312.98257};
  ASSERT_EQ(answer.layers.size(), 8u);
  for (std::size_t l = 0; l < 8; ++l) {
    // Of 4 x 8256 pairs a few may lie so close to the threshold that rounding decides.
    EXPECT_NEAR(answer.layers[l].zeros_after, kZeros[l], 2e-4) << l;
    EXPECT_NEAR(static_cast<double>(answer.layers[l].residual_after), kResidual[l], 0.01) << l;
  }
  EXPECT_NEAR(answer.layers[0].empty_rows, 6.0 / 512, 1.5 / 512);
  EXPECT_NEAR(answer.predictions->kl_mean, 0.33618866, 3e-4);
  EXPECT_NEAR(answer.predictions->kl_max, 5.064322, 5e-3);
}

TEST(HeadActivity, EqualsAnotherImplementation) {
  Demonstration demonstration(64, 128);
  SerialExecutor serial;
  Silent observer;
  OutlierReport report;
  const auto done =
      measure_activations(demonstration.model, formula_corpus(), {}, report, serial, observer);
  ASSERT_TRUE(done.has_value()) << done.error().message;
  ASSERT_EQ(report.heads.size(), 32u);
  const auto expect_head = [&](std::size_t layer, std::size_t head, double idle, double first,
                               double ratio) {
    const HeadActivity& found = report.heads[4 * layer + head];
    EXPECT_EQ(found.layer, layer);
    EXPECT_EQ(found.head, head);
    EXPECT_NEAR(found.idle_mass, idle, 1e-5);
    EXPECT_NEAR(found.first_token_mass, first, 1e-5);
    EXPECT_NEAR(found.first_value_ratio, ratio, 1e-5);
    EXPECT_EQ(found.idle, idle >= 0.5);
  };
  expect_head(1, 2, 0.13355410, 0.13355410, 0.22438016);
  expect_head(5, 1, 0.05437774, 0.04769067, 0.38403355);
  expect_head(5, 3, 0.00906447, 0.00628230, 0.61910880);
  expect_head(7, 0, 0.60734223, 0.60734223, 0.29446545);
  expect_head(7, 1, 0.00018491, 0.00018491, 0.29446545);
  expect_head(7, 2, 0.47134729, 0.45235227, 0.17725325);
  expect_head(7, 3, 0.72218768, 0.70561338, 0.17725325);
}

TEST(WhatIf, TakesWholeSequencesUpToItsLimit) {
  Demonstration demonstration(256, 0);
  auto& corpus = demonstration.corpus;
  ASSERT_GT(corpus.ids.size(), 6000u);
  corpus.lengths[1] = 255;  // one token of the 17th sequence would fit
  corpus.ids.erase(corpus.ids.begin() + 256);
  const WhatIf answer = demonstration.ask("clip:alpha=2");
  EXPECT_EQ(answer.sequences, 16u);
  EXPECT_EQ(answer.tokens, 16u * 256 - 1);
  EXPECT_EQ(answer.length, 256u);
}

TEST(WhatIf, AnswersTheSameOnAnyNumberOfThreads) {
  const Demonstration demonstration(64, 256);
  const std::string one = demonstration.ask("clip:alpha=3", 1).to_json().dump();
  EXPECT_EQ(demonstration.ask("clip:alpha=3", 2).to_json().dump(), one);
  EXPECT_EQ(demonstration.ask("clip:alpha=3", 3).to_json().dump(), one);
}

TEST(WhatIf, OfAnEncoderMeasuresItsEmbeddings) {
  const auto folder = test::shared_path("models/minilm-l6");
  if (!folder) GTEST_SKIP() << "minilm-l6 is not at hand";
  const auto model = model::Model::load(*folder);
  ASSERT_TRUE(model.has_value());
  calib::Corpus corpus;
  corpus.ids = {101, 1996, 2314, 2938, 1012, 102, 101, 2054, 1029, 102};
  corpus.lengths = {6, 4};
  SerialExecutor serial;
  Silent observer;
  const auto none = what_if(*model, corpus, *WhatIfClip::parse("clip:1,0"), serial, observer);
  ASSERT_TRUE(none.has_value()) << none.error().message;
  EXPECT_EQ(none->embeddings->cosine_error_max, 0);
  const auto clipped =
      what_if(*model, corpus, *WhatIfClip::parse("clip:alpha=1"), serial, observer);
  ASSERT_TRUE(clipped.has_value());
  EXPECT_GT(clipped->embeddings->cosine_error_mean, 0);
  EXPECT_FALSE(clipped->predictions.has_value());
}

}  // namespace
}  // namespace quell::pipeline
