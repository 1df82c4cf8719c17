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
  Recipe again;
  const Status status = apply_recipe_json(recipe.to_json(), "recipe", again);
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(again.to_json().dump(), recipe.to_json().dump());
  EXPECT_EQ(again.engine_precision, engine::Precision::bf16);
}

}  // namespace
}  // namespace quell::pipeline
