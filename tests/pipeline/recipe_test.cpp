// SPDX-License-Identifier: Apache-2.0

// Words of recipes: globs, rules, schemes, nearest names.

#include "quell/pipeline/recipe.hpp"

#include <gtest/gtest.h>

namespace quell::pipeline {
namespace {

TEST(Glob, MatchesStarsAndQuestionMarks) {
  EXPECT_TRUE(matches_glob("*", ""));
  EXPECT_TRUE(matches_glob("*.down_proj", "model.layers.3.mlp.down_proj"));
  EXPECT_FALSE(matches_glob("*.down_proj", "model.layers.3.mlp.down_proj2"));
  EXPECT_TRUE(matches_glob("model.layers.?.mlp.*", "model.layers.3.mlp.up_proj"));
  EXPECT_FALSE(matches_glob("model.layers.?.mlp.*", "model.layers.13.mlp.up_proj"));
  EXPECT_TRUE(matches_glob("a*b*c", "axxbyyc"));
  EXPECT_FALSE(matches_glob("a*b*c", "axxbyyd"));
  EXPECT_TRUE(matches_glob("**", "anything"));
  EXPECT_FALSE(matches_glob("", "a"));
}

TEST(Glob, IsNotExponential) {
  std::string pattern;
  for (int i = 0; i < 200; ++i) pattern += "*a";
  EXPECT_FALSE(matches_glob(pattern + "b", std::string(2000, 'a')));
}

TEST(Rule, ParsesMethodAndGrid) {
  const auto rule = Rule::parse("*.o_proj=rtn@int8:sym:oc:g64:f32");
  ASSERT_TRUE(rule) << rule.error().message;
  EXPECT_EQ(rule->pattern, "*.o_proj");
  EXPECT_EQ(*rule->method, "rtn");
  EXPECT_EQ(rule->grid->group, 64u);
  EXPECT_TRUE(rule->scale_type_given);
  EXPECT_FALSE(Rule::parse("*=int4:sym:oc:g32")->scale_type_given);
  EXPECT_FALSE(Rule::parse("*=int4:sym:oc:g32:u4")->scale_type_given);
  EXPECT_TRUE(Rule::parse("*=int4:sym:oc:g32:bf16:u4")->scale_type_given);
  EXPECT_TRUE(Rule::parse("*=keep")->keep);
}

TEST(Rule, ErrorsShowTheFormAndTheKnownNames) {
  for (const char* text :
       {"", "=", "x=", "=keep", "keep", "x=int5", "x=gptqq@int4", "x=int4:oops"}) {
    const auto rule = Rule::parse(text);
    ASSERT_FALSE(rule) << text;
    EXPECT_EQ(rule.error().code, ErrorCode::usage);
  }
  EXPECT_NE(Rule::parse("x=gptqq@int4").error().message.find("gptq"), std::string::npos);
}

TEST(Scheme, SetsTheBitsOfWeightsAndOfActivations) {
  Recipe recipe;
  ASSERT_TRUE(recipe.apply_scheme("W4A8"));
  EXPECT_EQ(recipe.bits, 4u);
  EXPECT_EQ(recipe.activation_bits, 8u);
  ASSERT_TRUE(recipe.apply_scheme("W8A16"));
  EXPECT_EQ(recipe.bits, 8u);
  EXPECT_EQ(recipe.activation_bits, 16u);
  const Status unknown = recipe.apply_scheme("W4A2");
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message.find("W4A4"), std::string::npos) << unknown.error().message;
}

TEST(MethodWord, RotatesBehindHadamard) {
  EXPECT_FALSE(MethodWord::parse("gptq")->rotate);
  const auto rotated = MethodWord::parse("hadamard+rtn");
  ASSERT_TRUE(rotated.has_value());
  EXPECT_TRUE(rotated->rotate);
  EXPECT_EQ(rotated->quantizer, "rtn");
  for (const char* word :
       {"", "hadamard", "hadamard+", "hadamard+hadamard+gptq", "gptq+hadamard"}) {
    const auto wrong = MethodWord::parse(word);
    ASSERT_FALSE(wrong.has_value()) << word;
    EXPECT_NE(wrong.error().message.find("gptq"), std::string::npos);
  }
  EXPECT_EQ(*Rule::parse("*=hadamard+gptq@int4:sym:oc:g32")->method, "hadamard+gptq");
}

TEST(Nearest, FindsTheLikelyWordOrNone) {
  const std::vector<std::string> words = {"--method", "--samples", "--seqlen"};
  EXPECT_EQ(nearest("--methd", words), "--method");
  EXPECT_EQ(nearest("--sample", words), "--samples");
  EXPECT_EQ(nearest("zzzzzzzz", words), "");
}

TEST(RecipeJson, ReadsBackWhatItWrites) {
  Recipe recipe;
  recipe.method = "gptq";
  recipe.bits = 3;
  recipe.group = 64;
  recipe.engine_precision = engine::Precision::bf16;
  recipe.rules.push_back(*Rule::parse("a*=rtn@int8:sym:oc:row"));
  recipe.rules.push_back(*Rule::parse("b=keep"));
  recipe.ignore = {"c*"};
  ASSERT_TRUE(recipe.apply_scheme("W4A4"));
  recipe.activation_group = 64;
  recipe.keep_columns = 0;
  Recipe again;
  const Status status = apply_recipe_json(recipe.to_json(), "recipe", again);
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(again.to_json().dump(), recipe.to_json().dump());
  EXPECT_EQ(again.engine_precision, engine::Precision::bf16);
}

}  // namespace
}  // namespace quell::pipeline
