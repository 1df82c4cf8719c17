// SPDX-License-Identifier: Apache-2.0
// Expected answers are those of Python's re.match.
#include "io/name_pattern.hpp"

#include <gtest/gtest.h>

#include <string>

namespace quell::io {
namespace {

bool matches(const std::string& pattern, const std::string& name) {
  const auto compiled = NamePattern::compile(pattern);
  EXPECT_TRUE(compiled.has_value()) << compiled.error().message;
  return compiled && compiled->matches_start(name);
}

TEST(NamePattern, MatchesFromTheStart) {
  EXPECT_TRUE(matches("model", "model.layers"));
  EXPECT_FALSE(matches("layers", "model.layers"));
  EXPECT_TRUE(matches(".*layers", "model.layers"));
  EXPECT_TRUE(matches("", "anything"));
  EXPECT_TRUE(matches("a.c", "abcd"));
  EXPECT_FALSE(matches(R"(a\.c)", "abcd"));
  EXPECT_FALSE(matches("abc", "ab"));
}

TEST(NamePattern, KnowsWhatCheckpointsUse) {
  const std::string name = "model.layers.11.self_attn.q_proj";
  EXPECT_TRUE(matches(".*q_proj$", name));
  EXPECT_FALSE(matches(".*q_proj$", name + "_norm"));
  EXPECT_TRUE(matches(R"(.*\.(q|k|v)_proj)", name));
  EXPECT_FALSE(matches(R"(.*\.(gate|up)_proj)", name));
  EXPECT_TRUE(matches(R"(model\.layers\.\d+\.self_attn.*)", name));
  EXPECT_TRUE(matches(R"(model\.layers\.(?:[0-9]|1[0-5])\.)", name));
  EXPECT_FALSE(matches(R"(model\.layers\.(?:[0-9]|1[2-5])\.)", name));
  EXPECT_TRUE(matches("^model", name));
  EXPECT_FALSE(matches("x*^layers", name));
}

TEST(NamePattern, RepeatsAndChooses) {
  EXPECT_TRUE(matches("ab*c$", "ac"));
  EXPECT_TRUE(matches("ab*c$", "abbbc"));
  EXPECT_FALSE(matches("ab+c$", "ac"));
  EXPECT_TRUE(matches("ab?c$", "abc"));
  EXPECT_FALSE(matches("ab?c$", "abbc"));
  EXPECT_TRUE(matches("a{2}$", "aa"));
  EXPECT_FALSE(matches("a{2}$", "a"));
  EXPECT_FALSE(matches("a{2}$", "aaa"));
  EXPECT_TRUE(matches("a{2,}$", "aaaaa"));
  EXPECT_TRUE(matches("(ab){1,2}$", "abab"));
  EXPECT_FALSE(matches("(ab){1,2}$", "ababab"));
  EXPECT_TRUE(matches("a|b|cd$", "cd"));
  EXPECT_TRUE(matches("x(a|)y$", "xy"));
  EXPECT_TRUE(matches("(a*)*b", "aaab"));
  EXPECT_FALSE(matches("(a*)*b", "aaac"));
  EXPECT_TRUE(matches(".*?b$", "aab"));
}

TEST(NamePattern, KnowsSets) {
  EXPECT_TRUE(matches("[abc]+$", "cab"));
  EXPECT_FALSE(matches("[^abc]", "b"));
  EXPECT_TRUE(matches("[^abc]", "d"));
  EXPECT_TRUE(matches("[a-c0-9_]+$", "b7_"));
  EXPECT_TRUE(matches("[]x]+$", "]x"));
  EXPECT_TRUE(matches("[a-]+$", "a-"));
  EXPECT_TRUE(matches(R"([\d.]+$)", "1.5"));
  EXPECT_TRUE(matches(R"(\w+\s\S\D$)", "ab_9 xy"));
  EXPECT_FALSE(matches(".", "\n"));
}

TEST(NamePattern, RefusesWhatItDoesNotKnowByName) {
  for (const char* const pattern :
       {"(?!a)b", "(?=a)", "(?<=a)b", "(?i)a", R"((a)\1)", R"(\bword)", "a(", "a)", "[a", "*a",
        "a**", "a{x}", "a{3,2}", "a{5000}", "\\", "[z-a]", "(((a{100}){100}){100})"}) {
    const auto compiled = NamePattern::compile(pattern);
    ASSERT_FALSE(compiled.has_value()) << pattern;
    EXPECT_EQ(compiled.error().code, ErrorCode::unsupported) << pattern;
    EXPECT_NE(compiled.error().message.find("re:"), std::string::npos) << pattern;
  }
  EXPECT_FALSE(NamePattern::compile(std::string(5000, 'a')).has_value());
  EXPECT_FALSE(NamePattern::compile(std::string(3000, '(')).has_value());
}

// A backtracking matcher needs 2^30 steps for this one.
TEST(NamePattern, TakesLinearTime) {
  std::string pattern;
  for (int i = 0; i < 30; ++i) pattern += "a?";
  pattern += std::string(30, 'a') + "$";
  EXPECT_TRUE(matches(pattern, std::string(30, 'a')));
  EXPECT_FALSE(matches(pattern, std::string(29, 'a')));
  EXPECT_FALSE(matches("(a+)+$", std::string(20'000, 'a') + "b"));
}

}  // namespace
}  // namespace quell::io
