// SPDX-License-Identifier: Apache-2.0
#include "quell/io/printable.hpp"

#include <gtest/gtest.h>

#include "io/utf8.hpp"

namespace quell::io {
namespace {

using namespace std::string_literals;

TEST(Printable, LeavesVisibleTextAlone) {
  EXPECT_EQ(printable(""), "");
  EXPECT_EQ(printable("model.layers.0.self_attn.q_proj.weight"),
            "model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(printable("\xC3\xA9\xE6\xBC\xA2\xF0\x9F\x98\x80 \"<script>\""),
            "\xC3\xA9\xE6\xBC\xA2\xF0\x9F\x98\x80 \"<script>\"");
}

TEST(Printable, EscapesControlsAndBackslash) {
  EXPECT_EQ(printable("a\nb\rc\td\\e"), "a\\nb\\rc\\td\\\\e");
  EXPECT_EQ(printable("\x1b[31m\x7f\x01"), "\\x1b[31m\\x7f\\x01");
  EXPECT_EQ(printable("a\0b"s), "a\\x00b");
}

TEST(Printable, EscapesWhatIsInvisibleOrTurnsTextAround) {
  EXPECT_EQ(printable("\xC2\x85"), "\\u{85}");
  EXPECT_EQ(printable("\xE2\x80\xAE"), "\\u{202e}");
  EXPECT_EQ(printable("\xE2\x80\x8B"), "\\u{200b}");
  EXPECT_EQ(printable("\xEF\xBB\xBF"), "\\u{feff}");
  EXPECT_EQ(printable("\xF3\xA0\x80\x81"), "\\u{e0001}");
}

TEST(Printable, EscapesBrokenUtf8ByteByByte) {
  EXPECT_EQ(printable("\xff\xfe"), "\\xff\\xfe");
  EXPECT_EQ(printable("\xC3"), "\\xc3");
  EXPECT_EQ(printable("\xE2\x80"), "\\xe2\\x80");
  EXPECT_EQ(printable("\xC0\x80"), "\\xc0\\x80") << "an overlong NUL";
  EXPECT_EQ(printable("\xED\xA0\x80"), "\\xed\\xa0\\x80") << "a surrogate";
  EXPECT_EQ(printable("\xF4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80") << "above U+10FFFF";
}

TEST(Printable, CutsTheMiddleOfLongText) {
  const std::string text = std::string(5000, 'a') + std::string(5000, 'b');
  const std::string shown = printable(text, 23);
  EXPECT_EQ(shown, std::string(10, 'a') + "..." + std::string(10, 'b'));
  EXPECT_EQ(printable(std::string(23, 'x'), 23), std::string(23, 'x'));
}

TEST(Printable, NeverCutsACharacterInTwo) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "\xE6\xBC\xA2";
  for (std::size_t limit = 0; limit < 40; ++limit) {
    const std::string shown = printable(text, limit);
    EXPECT_EQ(shown.find("\\x"), std::string::npos) << limit << ": " << shown;
    EXPECT_LE(shown.size(), limit + 3) << limit;
  }
}

TEST(Utf8, DecodesTheEndsOfEachLength) {
  const struct {
    const char* bytes;
    std::uint32_t value;
    std::size_t length;
  } cases[] = {{"\x7f", 0x7F, 1},
               {"\xC2\x80", 0x80, 2},
               {"\xDF\xBF", 0x7FF, 2},
               {"\xE0\xA0\x80", 0x800, 3},
               {"\xED\x9F\xBF", 0xD7FF, 3},
               {"\xEE\x80\x80", 0xE000, 3},
               {"\xEF\xBF\xBF", 0xFFFF, 3},
               {"\xF0\x90\x80\x80", 0x10000, 4},
               {"\xF4\x8F\xBF\xBF", 0x10FFFF, 4}};
  for (const auto& item : cases) {
    const CodePoint point = decode_utf8(item.bytes, 0);
    EXPECT_EQ(point.value, item.value);
    EXPECT_EQ(point.length, item.length);
  }
}

TEST(Utf8, RefusesWhatIsCutOffOverlongOrOutOfRange) {
  for (const std::string& bytes :
       {"\x80"s, "\xBF"s, "\xC1\xBF"s, "\xE0\x9F\xBF"s, "\xED\xBF\xBF"s, "\xF0\x8F\xBF\xBF"s,
        "\xF5\x80\x80\x80"s, "\xFF"s, "\xC3"s, "\xE2\x82"s, "\xF0\x9F\x98"s, "\xC3\x28"s,
        "\xE2\x28\xA1"s, "\xE2\x82\x28"s, "\xF0\x28\x8C\xBC"s, "\xF0\x90\x28\xBC"s,
        "\xF0\x90\x8C\x28"s}) {
    EXPECT_EQ(decode_utf8(bytes, 0).length, 0u) << printable(bytes);
  }
}

}  // namespace
}  // namespace quell::io
