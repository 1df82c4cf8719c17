// SPDX-License-Identifier: Apache-2.0

// `quell outliers --what-if`, and the heads that do nothing.

#include <gtest/gtest.h>

#include <string>

#include "cli/program.hpp"

namespace quell::test {
namespace {

std::string demonstration() {
  return std::string(QUELL_SOURCE_DIR) + "/examples/models/books7m";
}
std::string demonstration_text() {
  return std::string(QUELL_SOURCE_DIR) + "/examples/text/evaluation.txt";
}

TEST(WhatIf, StandsInTheJsonAndInTheReport) {
  const std::vector<std::string> arguments = {"outliers",           demonstration(), "--calib",
                                              demonstration_text(), "--samples",     "2",
                                              "--what-if",          "clip:alpha=2"};
  const io::Json report = quell_json(arguments);
  const io::Json* answer = report.find("what_if");
  ASSERT_NE(answer, nullptr);
  EXPECT_EQ(answer->find("layers")->items().size(), 8u);
  EXPECT_EQ(answer->find("alpha")->as_number(), 2);
  EXPECT_NEAR(answer->find("gamma")->as_number(), -2 / answer->find("length")->as_number(), 1e-9);
  EXPECT_GT(answer->find("kl_mean")->as_number(), 0);
  std::vector<std::string> verbose = arguments;
  verbose.push_back("--verbose");
  const Ended text = quell(verbose);
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_NE(text.out.find("What if softmax were clipped"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("alpha 2 at"), std::string::npos) << text.out;
}

TEST(WhatIf, WrongWordsAreUsageErrors) {
  const std::vector<std::string> start = {"outliers", demonstration(), "--calib",
                                          demonstration_text(), "--what-if"};
  const auto with = [&](const std::string& word) {
    auto arguments = start;
    arguments.push_back(word);
    return quell(arguments);
  };
  expect_error(with("clip:0.5,-1"), 2, {"ZETA is 0.5", "1 or more", "clip:alpha=A"});
  expect_error(with("clip:1,2"), 2, {"GAMMA is 2", "0 or less", "clip:ZETA,GAMMA"});
  expect_error(with("clip:alpha=x"), 2, {"A is \"x\"", "clip:ZETA,GAMMA"});
  expect_error(with("gates"), 2, {"--what-if gates", "clip:ZETA,GAMMA"});
  expect_error(with(""), 2, {"--what-if"});
  expect_error(quell({"outliers", demonstration(), "--what-if", "clip:alpha=2"}), 2,
               {"--what-if", "text", "--calib"});
}

TEST(Heads, ThatDoNothingAreListed) {
  const std::vector<std::string> arguments = {"outliers",           demonstration(), "--calib",
                                              demonstration_text(), "--samples",     "4"};
  const io::Json report = quell_json(arguments);
  const auto& heads = report.find("heads")->items();
  ASSERT_EQ(heads.size(), 32u);
  std::size_t idle = 0;
  for (const io::Json& head : heads) {
    const double mass = head.find("idle_mass")->as_number();
    EXPECT_TRUE(mass >= 0 && mass <= 1);
    EXPECT_EQ(head.find("idle")->as_boolean(), mass >= 0.5);
    if (!head.find("idle")->as_boolean()) continue;
    ++idle;
    EXPECT_EQ(head.find("layer")->as_integer(), 5);
    EXPECT_EQ(head.find("head")->as_integer(), 1);
    EXPECT_LT(head.find("first_token_mass")->as_number(), 0.1) << "its keys are no sink";
  }
  EXPECT_EQ(idle, 1u);
  // The first value is far below the mean where its token is a sink.
  EXPECT_LT(heads[7 * 4 + 3].find("first_value_ratio")->as_number(), 0.3);
  const Ended text = quell(arguments);
  EXPECT_NE(text.out.find("1 of 32 do nothing"), std::string::npos) << text.out;
  EXPECT_EQ(report.find("what_if"), nullptr);
}

}  // namespace
}  // namespace quell::test
