// SPDX-License-Identifier: Apache-2.0
#pragma once

// The alphabet of byte-level tokenizers: every byte is one printable character. 21-7E, A1-AC and
// AE-FF stand for themselves (as code points); the other 68 bytes, in ascending order, are U+0100,
// U+0101 and so on. So the space 20 is U+0120 and the newline 0A is U+010A.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace quell::tokenizer {

namespace detail {

struct ByteAlphabet {
  std::array<char32_t, 256> letter{};      // [byte]
  std::array<std::int16_t, 0x144> byte{};  // [code point], or -1; U+0143 is the last letter
};

constexpr ByteAlphabet make_byte_alphabet() {
  ByteAlphabet alphabet;
  for (auto& byte : alphabet.byte) byte = -1;
  char32_t next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    alphabet.letter[b] = itself ? b : next++;
    alphabet.byte[alphabet.letter[b]] = static_cast<std::int16_t>(b);
  }
  return alphabet;
}

inline constexpr ByteAlphabet kByteAlphabet = make_byte_alphabet();
static_assert(kByteAlphabet.letter[0x20] == 0x120 && kByteAlphabet.letter[0x0A] == 0x10A);

}  // namespace detail

/// The letter of a byte.
constexpr char32_t letter_of(unsigned char byte) noexcept {
  return detail::kByteAlphabet.letter[byte];
}

/// The byte of a letter, if it is one.
constexpr std::optional<unsigned char> byte_of(char32_t letter) noexcept {
  if (letter >= detail::kByteAlphabet.byte.size() || detail::kByteAlphabet.byte[letter] < 0) {
    return std::nullopt;
  }
  return static_cast<unsigned char>(detail::kByteAlphabet.byte[letter]);
}

/// Appends the letters of all bytes; a letter takes one or two bytes of UTF-8.
inline void append_letters(std::string& letters, std::string_view bytes) {
  for (const char c : bytes) {
    const char32_t letter = letter_of(static_cast<unsigned char>(c));
    if (letter < 0x80) {
      letters.push_back(static_cast<char>(letter));
    } else {
      letters.push_back(static_cast<char>(0xC0 | letter >> 6));
      letters.push_back(static_cast<char>(0x80 | (letter & 0x3F)));
    }
  }
}

}  // namespace quell::tokenizer
