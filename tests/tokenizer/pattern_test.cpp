// SPDX-License-Identifier: Apache-2.0

// Regular expressions in the reference's dialect.

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "quell/io/json.hpp"
#include "tokenizer/split_pattern.hpp"
#include "tokenizer/unicode.hpp"

namespace quell::tokenizer {
namespace {

std::vector<std::string> cut(std::string_view pattern, std::string_view text) {
  const auto compiled = SplitPattern::compile(pattern, "test");
  if (!compiled) return {"error: " + compiled.error().message};
  MatchScratch scratch;
  MatchWalk walk(*compiled, text, scratch);
  std::vector<std::string> pieces;
  std::size_t done = 0;
  const auto put = [&](std::size_t begin, std::size_t end) {
    if (end > begin) pieces.emplace_back(text.substr(begin, end - begin));
  };
  for (;;) {
    const auto match = walk.next();
    if (!match) return {"error: " + match.error().message};
    if (!*match) break;
    put(done, (*match)->begin);
    put((*match)->begin, (*match)->end);
    done = (*match)->end;
  }
  put(done, text.size());
  return pieces;
}

TEST(SplitPattern, CutsAsTheReferenceDoes) {
  const auto golden = io::read_json(std::filesystem::path(QUELL_SOURCE_DIR) /
                                    "tests/golden/tokenizer/patterns.json");
  ASSERT_TRUE(golden) << golden.error().message;
  std::size_t cases = 0;
  for (const io::Json& pattern : golden->find("patterns")->items()) {
    for (const io::Json& each : pattern.find("cases")->items()) {
      std::vector<std::string> expected;
      for (const io::Json& piece : each.find("pieces")->items()) {
        expected.push_back(piece.as_string());
      }
      EXPECT_EQ(cut(pattern.find("pattern")->as_string(), each.find("text")->as_string()), expected)
          << pattern.find("name")->as_string() << " on " << each.find("text")->as_string();
      ++cases;
    }
  }
  EXPECT_GE(cases, 100u);
}

TEST(SplitPattern, GivesTheLastSpaceOfARunToTheNextWord) {
  EXPECT_EQ(cut("\\s+(?!\\S)| ?\\w+|\\s+", "a   b"), (std::vector<std::string>{"a", "  ", " b"}));
}

TEST(SplitPattern, WhiteSpaceHasNoMongolianVowelSeparator) {
  std::string text = "a";
  append_utf8(text, 0x180E);
  EXPECT_EQ(cut("\\s", text), std::vector<std::string>{text});
}

TEST(SplitPattern, RefusesByNameWhatItWouldMatchDifferently) {
  for (const char* pattern : {"a{1,2}+", "a{,2}", "\\pL", "(*ACCEPT)", "[^a[^b]]", "\\R", "\\X",
                              "[[:^alpha:]]", "[\\W]", "\\p{Word}", "(?~a)", "a\\"}) {
    const auto compiled = SplitPattern::compile(pattern, "file.json");
    ASSERT_FALSE(compiled) << pattern;
    EXPECT_EQ(compiled.error().code, ErrorCode::unsupported) << pattern;
    EXPECT_NE(compiled.error().message.find("file.json"), std::string::npos);
  }
}

TEST(SplitPattern, SaysWhatIsNoRegularExpression) {
  for (const char* pattern : {"(", "[a", "*a", "\\p{Nothing}", "a)", "\\p{L"}) {
    EXPECT_FALSE(SplitPattern::compile(pattern, "f")) << pattern;
  }
}

TEST(SplitPattern, AnExponentialPatternIsAnErrorNotAHang) {
  const auto compiled = SplitPattern::compile("(a+)+$b|(a|a)*c", "f");
  ASSERT_TRUE(compiled) << compiled.error().message;
  MatchScratch scratch;
  const std::string text(40, 'a');
  const auto match = compiled->find(text, 0, scratch);
  if (!match) {
    EXPECT_EQ(match.error().code, ErrorCode::resource);
  }
}

TEST(SplitPattern, MatchesTenMegabytesThatNestDeeply) {
  // A repeated group keeps its way back for every repetition: more than the compiled code's stack.
  const auto compiled = SplitPattern::compile("(?:ab|a.)+c|x", "f");
  ASSERT_TRUE(compiled) << compiled.error().message;
  MatchScratch scratch;
  std::string text;
  for (int i = 0; i < 1'000'000; ++i) text += "ab";
  text += "c";
  const auto match = compiled->find(text, 0, scratch);
  if (match) {
    ASSERT_TRUE(*match);
    EXPECT_EQ((*match)->end, text.size());
  } else {
    EXPECT_EQ(match.error().code, ErrorCode::resource) << match.error().message;
  }
}

}  // namespace
}  // namespace quell::tokenizer
