// SPDX-License-Identifier: Apache-2.0
#include "io/json_text.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "io/utf8.hpp"

namespace quell::io {
namespace {

constexpr std::uint64_t kOnes = 0x0101010101010101U;
constexpr std::uint64_t kTops = 0x8080808080808080U;

std::uint32_t saturate(std::uint64_t value) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::min(value, kMost));
}

}  // namespace

Place place_of(std::string_view text, std::size_t offset) noexcept {
  offset = std::min(offset, text.size());
  std::uint64_t line = 1;
  std::size_t start = 0;
  for (std::size_t at = text.find('\n'); at < offset; at = text.find('\n', at + 1)) {
    ++line;
    start = at + 1;
  }
  return {saturate(line), saturate(offset - start + 1)};
}

void append_json_string(std::string& out, std::string_view text) {
  constexpr std::string_view kShort = "\"\\\b\f\n\r\t";
  constexpr std::string_view kLetters = "\"\\bfnrt";
  constexpr std::string_view kHex = "0123456789abcdef";
  out += '"';
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    const auto code = static_cast<unsigned char>(c);
    if (const auto found = kShort.find(c); found != kShort.npos) {
      out += '\\';
      out += kLetters[found];
      ++at;
    } else if (code < 0x20) {
      out += "\\u00";
      out += kHex[code >> 4];
      out += kHex[code & 15U];
      ++at;
    } else if (const CodePoint point = decode_utf8(text, at); point.length != 0) {
      out += text.substr(at, point.length);
      at += point.length;
    } else {
      out += "\xEF\xBF\xBD";
      ++at;
    }
  }
  out += '"';
}

std::optional<TextFault> find_text_fault(std::string_view text) noexcept {
  if (text.substr(0, 3) == "\xEF\xBB\xBF") return TextFault{0, "a byte-order mark"};
  std::size_t at = 0;
  while (at < text.size()) {
    // Eight plain characters at a time. The second term is not zero exactly if one of the bytes is:
    // subtracting 1 from each byte borrows into the top bit of the lowest zero byte, and `~word`
    // drops the bytes whose top bit was set before (which the first term has found already).
    if (text.size() - at >= sizeof(std::uint64_t)) {
      std::uint64_t word = 0;
      std::memcpy(&word, text.data() + at, sizeof word);
      if ((word & kTops) == 0 && ((word - kOnes) & ~word & kTops) == 0) {
        at += sizeof word;
        continue;
      }
    }
    if (text[at] == '\0') return TextFault{at, "a NUL byte"};
    const CodePoint point = decode_utf8(text, at);
    if (point.length == 0) return TextFault{at, "not UTF-8"};
    at += point.length;
  }
  return std::nullopt;
}

}  // namespace quell::io
