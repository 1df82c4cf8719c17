// SPDX-License-Identifier: Apache-2.0
#pragma once

// UTF-8 and the Unicode properties that tokenizers ask for. Every function but sanitize() takes
// valid UTF-8; encode() sanitizes its text once, so nothing behind it checks again. The tables are
// those of utf8proc (Unicode 15.0); a character assigned later counts as unassigned.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace quell::tokenizer {

/// One code point of valid UTF-8 and the bytes it takes (1 to 4).
struct Character {
  char32_t code = 0;
  std::size_t bytes = 1;
};

/// The code point that starts at `position` < text.size().
inline Character character_at(std::string_view text, std::size_t position) noexcept {
  const auto byte = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[position + i]));
  };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          4};
}

/// The code point that ends just before `end` > 0.
inline Character character_before(std::string_view text, std::size_t end) noexcept {
  std::size_t start = end - 1;
  while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
  return character_at(text, start);
}

void append_utf8(std::string& text, char32_t code);

/// Whether the bytes are UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view bytes) noexcept;

/// The bytes with every maximal malformed part replaced by U+FFFD (Unicode 15, section 3.9, the
/// practice of substituting maximal subparts).
std::string sanitize(std::string_view bytes);

/// The property White_Space: 25 code points, among them no U+180E and no U+200B.
bool is_white_space(char32_t code) noexcept;
/// General category N: Nd, Nl, No.
bool is_numeric(char32_t code) noexcept;
/// General category P, or an ASCII symbol such as + and $, which tokenizers count as punctuation.
bool is_punctuation(char32_t code) noexcept;
/// General category M.
bool is_mark(char32_t code) noexcept;
/// General category Mn.
bool is_nonspacing_mark(char32_t code) noexcept;
/// General category C (control, format, surrogate, private use), without unassigned code points.
bool is_other(char32_t code) noexcept;

/// Full lower case of each code point by itself: no final sigma, and U+0130 becomes two.
std::string lower_case(std::string_view text);

enum class NormalForm { nfc, nfd, nfkc, nfkd };
/// The text in a normal form. O(n log n) for any text: marks are sorted, not bubbled.
std::string normal_form(std::string_view text, NormalForm form);

/// The end of the extended grapheme cluster that starts at `position` < text.size().
std::size_t grapheme_end(std::string_view text, std::size_t position) noexcept;

}  // namespace quell::tokenizer
