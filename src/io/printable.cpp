// SPDX-License-Identifier: Apache-2.0
#include "quell/io/printable.hpp"

#include <charconv>

#include "io/utf8.hpp"

namespace quell::io {
namespace {

constexpr char kHex[] = "0123456789abcdef";

void append_byte(std::string& out, unsigned char byte) {
  out += "\\x";
  out += kHex[byte >> 4];
  out += kHex[byte & 15];
}

// Code points that show nothing or change how their neighbours are shown: C1 controls, the soft
// hyphen, zero-width and direction marks, line and paragraph separators, the byte-order mark, tags.
bool is_invisible(std::uint32_t value) {
  return (value >= 0x80 && value < 0xA0) || value == 0xAD || value == 0x61C ||
         (value >= 0x200B && value <= 0x200F) || (value >= 0x2028 && value <= 0x202E) ||
         (value >= 0x2060 && value <= 0x206F) || value == 0xFEFF ||
         (value >= 0xFFF9 && value <= 0xFFFB) || (value >= 0xE0000 && value <= 0xE0FFF);
}

void append_code_point(std::string& out, std::string_view raw, std::uint32_t value) {
  if (value == '\n') {
    out += "\\n";
  } else if (value == '\r') {
    out += "\\r";
  } else if (value == '\t') {
    out += "\\t";
  } else if (value == '\\') {
    out += "\\\\";
  } else if (value < 0x20 || value == 0x7F) {
    append_byte(out, static_cast<unsigned char>(value));
  } else if (is_invisible(value)) {
    char digits[8];
    const auto end = std::to_chars(digits, digits + sizeof digits, value, 16).ptr;
    out += "\\u{";
    out.append(digits, end);
    out += '}';
  } else {
    out += raw;
  }
}

}  // namespace

std::string printable(std::string_view text, std::size_t limit) {
  std::string out;
  // Only the two ends of a long text are escaped: the middle would be thrown away.
  constexpr std::string_view kGap = "...";
  const bool cut = text.size() > limit;
  const std::size_t kept = limit > kGap.size() ? limit - kGap.size() : 0;
  const std::size_t head_end = cut ? (kept + 1) / 2 : text.size();
  std::size_t tail_begin = cut ? text.size() - kept / 2 : text.size();
  // The tail starts at the start of a code point, where there is one.
  for (int step = 0; step < 3 && tail_begin < text.size(); ++step) {
    if ((static_cast<unsigned char>(text[tail_begin]) & 0xC0U) != 0x80U) break;
    ++tail_begin;
  }
  const auto escape = [&](std::size_t at, std::size_t end) {
    while (at < end) {
      const CodePoint point = decode_utf8(text, at);
      if (point.length == 0) {
        append_byte(out, static_cast<unsigned char>(text[at]));
        ++at;
      } else if (cut && at + point.length > end && end != text.size()) {
        break;
      } else {
        append_code_point(out, text.substr(at, point.length), point.value);
        at += point.length;
      }
    }
  };
  escape(0, head_end);
  if (cut) {
    out += kGap;
    escape(tail_begin, text.size());
  }
  return out;
}

}  // namespace quell::io
