// SPDX-License-Identifier: Apache-2.0
#pragma once

// One step of UTF-8: the strict form of the Unicode standard (table 3-7: no overlong forms, no
// surrogates, nothing above U+10FFFF).

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace quell::io {

struct CodePoint {
  std::uint32_t value = 0;
  std::size_t length = 0;  // bytes, 1 to 4; 0 if the text is not valid here
};

/// The code point that starts at `at` < text.size().
inline CodePoint decode_utf8(std::string_view text, std::size_t at) noexcept {
  const auto byte = [&](std::size_t i) -> std::uint32_t {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0;
  };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const std::uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first >= 0xC2 && first <= 0xDF && continues(1)) {
    return {(first & 0x1FU) << 6 | (byte(1) & 0x3FU), 2};
  }
  if (first >= 0xE0 && first <= 0xEF && continues(1) && continues(2)) {
    const std::uint32_t value = (first & 0x0FU) << 12 | (byte(1) & 0x3FU) << 6 | (byte(2) & 0x3FU);
    if (value < 0x800 || (value >= 0xD800 && value <= 0xDFFF)) return {};
    return {value, 3};
  }
  if (first >= 0xF0 && first <= 0xF4 && continues(1) && continues(2) && continues(3)) {
    const std::uint32_t value = (first & 0x07U) << 18 | (byte(1) & 0x3FU) << 12 |
                                (byte(2) & 0x3FU) << 6 | (byte(3) & 0x3FU);
    if (value < 0x10000 || value > 0x10FFFF) return {};
    return {value, 4};
  }
  return {};
}

}  // namespace quell::io
