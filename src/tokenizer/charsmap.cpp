// SPDX-License-Identifier: Apache-2.0

// A unit of the trie (the layout of Darts-clone):
//   bits 0-7    label: the byte that leads here; bit 31 set marks a leaf value, whose label never
//   fits bit 8       a leaf hangs at this node bit 9       the offset is in units of 256 bits 10-30
//   offset: xor of this node's position with that of its children
// A leaf is bit 31 plus its value in bits 0-30.

#include "tokenizer/charsmap.hpp"

#include "tokenizer/unicode.hpp"

namespace quell::tokenizer {
namespace {

std::uint32_t offset_of(std::uint32_t unit) noexcept {
  return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

std::optional<std::string> from_base64(std::string_view text) {
  std::string bytes;
  std::uint32_t bits = 0;
  int held = 0;
  std::size_t digits = 0;
  std::size_t end = text.size();
  while (end > 0 && text[end - 1] == '=') --end;
  for (std::size_t i = 0; i < end; ++i) {
    const char c = text[i];
    std::uint32_t digit = 0;
    if (c >= 'A' && c <= 'Z') {
      digit = static_cast<std::uint32_t>(c - 'A');
    } else if (c >= 'a' && c <= 'z') {
      digit = static_cast<std::uint32_t>(c - 'a') + 26;
    } else if (c >= '0' && c <= '9') {
      digit = static_cast<std::uint32_t>(c - '0') + 52;
    } else if (c == '+') {
      digit = 62;
    } else if (c == '/') {
      digit = 63;
    } else {
      return std::nullopt;
    }
    ++digits;
    bits = (bits << 6 | digit) & 0xFFFFFF;
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes.push_back(static_cast<char>(bits >> held & 0xFF));
    }
  }
  if (digits % 4 == 1) return std::nullopt;
  return bytes;
}

}  // namespace

Result<Charsmap> Charsmap::read(std::string_view bytes, const std::string& file) {
  Charsmap map;
  if (bytes.empty()) return map;
  const auto word = [&](std::size_t at) {
    std::uint32_t value = 0;
    for (std::size_t k = 4; k-- > 0;) {
      value = value << 8 | static_cast<unsigned char>(bytes[at + k]);
    }
    return value;
  };
  const std::size_t trie_bytes = bytes.size() < 4 ? 0 : word(0);
  if (bytes.size() < 4 || trie_bytes % 4 != 0 || trie_bytes == 0 || trie_bytes > bytes.size() - 4) {
    return Error{ErrorCode::parse,
                 file + ": the character map has " + std::to_string(bytes.size()) +
                     " bytes and says that its trie has " + std::to_string(trie_bytes),
                 file};
  }
  map.units_.reserve(trie_bytes / 4);
  for (std::size_t at = 4; at < 4 + trie_bytes; at += 4) map.units_.push_back(word(at));
  map.replacements_ = bytes.substr(4 + trie_bytes);
  if (!is_utf8(map.replacements_)) {
    return Error{ErrorCode::parse, file + ": the replacements of the character map are not UTF-8",
                 file};
  }
  return map;
}

Result<Charsmap> Charsmap::read_base64(std::string_view text, const std::string& file) {
  const std::optional<std::string> bytes = from_base64(text);
  if (!bytes) return Error{ErrorCode::parse, file + ": the character map is not base64", file};
  return read(*bytes, file);
}

std::optional<Charsmap::Match> Charsmap::search(std::string_view text,
                                                bool want_longest) const noexcept {
  std::optional<Match> best;
  if (units_.empty()) return best;
  std::size_t node = offset_of(units_[0]);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == 0) break;  // NUL marks leaves inside the trie and is never a label
    node ^= byte;
    if (node >= units_.size()) break;
    const std::uint32_t unit = units_[node];
    if ((unit & (1u << 31 | 0xFF)) != byte) break;
    node ^= offset_of(unit);
    if ((unit >> 8 & 1) == 0) continue;
    if (node >= units_.size()) break;
    const std::size_t start = units_[node] & 0x7FFFFFFF;
    if (start > replacements_.size()) break;
    if (start < replacements_.size() &&
        (static_cast<unsigned char>(replacements_[start]) & 0xC0) == 0x80) {
      break;  // inside a character: the file is damaged
    }
    const std::string_view rest = std::string_view(replacements_).substr(start);
    best = Match{i + 1, rest.substr(0, rest.find('\0'))};
    if (!want_longest) break;
  }
  return best;
}

std::optional<Charsmap::Match> Charsmap::shortest(std::string_view text) const noexcept {
  return search(text, false);
}
std::optional<Charsmap::Match> Charsmap::longest(std::string_view text) const noexcept {
  return search(text, true);
}

std::string Charsmap::map_graphemes(std::string_view text) const {
  constexpr std::size_t kWhole = 6;  // graphemes below this many bytes are looked up as a whole
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t end = grapheme_end(text, i);
    const std::string_view grapheme = text.substr(i, end - i);
    i = end;
    if (grapheme.size() < kWhole) {
      if (const auto match = shortest(grapheme)) {
        out += match->replacement;
        continue;
      }
    }
    for (std::size_t k = 0; k < grapheme.size();) {
      const std::string_view part = grapheme.substr(k, character_at(grapheme, k).bytes);
      const auto match = shortest(part);
      out += match ? match->replacement : part;
      k += part.size();
    }
  }
  return out;
}

}  // namespace quell::tokenizer
