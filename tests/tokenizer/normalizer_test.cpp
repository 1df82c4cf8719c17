// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/normalizers.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "quell/io/json.hpp"

namespace quell::tokenizer {
namespace {

TEST(Normalizer, GivesTheTextsOfTheReference) {
  const auto golden = io::read_json(std::filesystem::path(QUELL_SOURCE_DIR) /
                                    "tests/golden/tokenizer/normalizers.json");
  ASSERT_TRUE(golden) << golden.error().message;
  MatchScratch scratch;
  std::size_t cases = 0;
  for (const io::Json& each : golden->find("normalizers")->items()) {
    const auto normalizer = Normalizer::read(*each.find("json"), "golden");
    ASSERT_TRUE(normalizer) << normalizer.error().message;
    for (const io::Json& sample : each.find("cases")->items()) {
      std::string text = sample.find("text")->as_string();
      bool from_start = true;
      ASSERT_TRUE(normalizer->apply(text, from_start, scratch));
      EXPECT_EQ(text, sample.find("normal")->as_string())
          << each.find("name")->as_string() << " on " << sample.find("text")->as_string();
      ++cases;
    }
  }
  EXPECT_GE(cases, 300u);
}

TEST(Normalizer, SaysWhenTheFirstCharacterIsGone) {
  const auto starts = [](Normalizer::Step step, std::string text) {
    Normalizer normalizer;
    normalizer.add(std::move(step));
    MatchScratch scratch;
    bool from_start = true;
    EXPECT_TRUE(normalizer.apply(text, from_start, scratch));
    return from_start;
  };
  EXPECT_TRUE(starts(StripSpace{true, true}, "a "));
  EXPECT_FALSE(starts(StripSpace{true, true}, " a"));
  EXPECT_TRUE(starts(StripSpace{false, true}, " a "));
  EXPECT_TRUE(starts(PrependText{"_"}, "a"));
  EXPECT_TRUE(starts(ReplaceText{"a", {}, "b"}, "ab"));
  EXPECT_FALSE(starts(ReplaceText{"aa", {}, "b"}, "aab"));
  EXPECT_FALSE(starts(ReplaceText{"a", {}, ""}, "ab"));
}

TEST(Normalizer, SortsARunOfAMillionMarksInLinearithmicTime) {
  std::string text = "e";
  for (int i = 0; i < 500'000; ++i) text += "\xCC\x81\xCC\xA3";  // U+0301 (230), U+0323 (220)
  const std::string normal = normal_form(text, NormalForm::nfc);
  EXPECT_EQ(normal.substr(0, 5), "\xE1\xBA\xB9\xCC\xA3");  // U+1EB9, then the other dots below
  EXPECT_EQ(normal.size(), text.size());                   // e and a dot become three bytes
}

TEST(Normalizer, GrowsOneCharacterEighteenfold) {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += "\xEF\xB7\xBA";               // U+FDFA
  EXPECT_EQ(normal_form(text, NormalForm::nfkc).size(), 33u * 100'000u);  // 15 letters, 3 spaces
}

TEST(Unicode, ReplacesMalformedBytesByMaximalParts) {
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(sanitize("a\xFF\x62"), "a" + bad + "b");
  EXPECT_EQ(sanitize("\xC3\xA9"), "\xC3\xA9");
  EXPECT_EQ(sanitize("\xC3"), bad);
  EXPECT_EQ(sanitize("\xE2\x82"), bad);  // cut short: one
  EXPECT_EQ(sanitize("\xE2\x82z"), bad + "z");
  EXPECT_EQ(sanitize("\xC0\x80"), bad + bad);            // overlong
  EXPECT_EQ(sanitize("\xED\xA0\x80"), bad + bad + bad);  // a surrogate
  EXPECT_EQ(sanitize("\xF4\x90\x80\x80"), bad + bad + bad + bad);
  EXPECT_FALSE(is_utf8("\xF0\x80\x80\x80"));
  EXPECT_TRUE(is_utf8(std::string_view("\0z\xF4\x8F\xBF\xBF", 6)));
}

TEST(Charsmap, RefusesSizesThatDisagree) {
  EXPECT_TRUE(Charsmap::read("", "f"));
  EXPECT_FALSE(Charsmap::read("\x01", "f"));
  EXPECT_FALSE(Charsmap::read(std::string_view("\x08\0\0\0\0\0\0\0", 8), "f"));
  EXPECT_FALSE(Charsmap::read(std::string_view("\x03\0\0\0abcd", 8), "f"));
  EXPECT_FALSE(Charsmap::read(std::string_view("\x04\0\0\0\0\0\0\0\xFF", 9), "f"));
  EXPECT_FALSE(Charsmap::read_base64("A", "f"));
  EXPECT_FALSE(Charsmap::read_base64("A*==", "f"));
}

TEST(Charsmap, NeverLeavesItsArrays) {
  // Any units at all: searching must stay inside, whatever it finds.
  std::uint32_t state = 1;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes("\x40\0\0\0", 4);
    for (int i = 0; i < 64; ++i) {
      state = state * 1664525u + 1013904223u;
      bytes.push_back(static_cast<char>(state >> 24));
    }
    bytes += "replacement";
    bytes.push_back('\0');
    const auto map = Charsmap::read(bytes, "f");
    ASSERT_TRUE(map);
    for (char c = 1; c > 0 && c < 127; ++c) {
      const std::string text = {c, 'b', 'c'};
      (void)map->longest(text);
      (void)map->map_graphemes(text);
    }
  }
}

}  // namespace
}  // namespace quell::tokenizer
