// SPDX-License-Identifier: Apache-2.0

// The normalizer of SentencePiece files: character map with the longest match, spaces, the mark in
// front. User-defined pieces pass through the map untouched.

#include "tokenizer/normalizers.hpp"

namespace quell::tokenizer {
namespace {

constexpr std::string_view kMark = "\xE2\x96\x81";  // U+2581

/// What stands for the start of `text`, and how many of its bytes that takes.
struct Mapped {
  std::string_view text;
  std::size_t bytes = 0;
};

Mapped map_start(const MapSentencePiece& map, std::string_view text) {
  std::size_t whole = 0;
  std::uint32_t node = ByteTrie::kRoot;
  for (std::size_t i = 0; i < text.size(); ++i) {
    node = map.user_defined.step(node, text[i]);
    if (node == ByteTrie::kAbsent) break;
    if (map.user_defined.value(node) != ByteTrie::kAbsent) whole = i + 1;
  }
  if (whole > 0) return {text.substr(0, whole), whole};
  if (const auto match = map.charsmap.longest(text)) return {match->replacement, match->bytes};
  const std::size_t bytes = character_at(text, 0).bytes;
  return {text.substr(0, bytes), bytes};
}

}  // namespace

void map_sentencepiece(const MapSentencePiece& map, std::string& text) {
  std::string_view rest = text;
  while (map.remove_extra_spaces && !rest.empty()) {
    const Mapped mapped = map_start(map, rest);
    if (mapped.text != " ") break;
    rest.remove_prefix(mapped.bytes);
  }
  std::string out;
  if (rest.empty()) {
    text.clear();
    return;
  }
  out.reserve(rest.size() * 3 / 2);
  const std::string_view space = map.escape_spaces ? kMark : " ";
  if (map.prefix) out += space;
  bool after_space = map.remove_extra_spaces;
  while (!rest.empty()) {
    const Mapped mapped = map_start(map, rest);
    std::string_view part = mapped.text;
    while (after_space && part.starts_with(' ')) part.remove_prefix(1);
    if (!part.empty()) {
      for (const char c : part) {
        if (c == ' ') {
          out += space;
        } else {
          out.push_back(c);
        }
      }
      after_space = part.back() == ' ' && map.remove_extra_spaces;
    }
    rest.remove_prefix(mapped.bytes);
  }
  while (map.remove_extra_spaces && out.ends_with(space)) out.resize(out.size() - space.size());
  if (map.suffix) out += space;
  text = std::move(out);
}

}  // namespace quell::tokenizer
