// SPDX-License-Identifier: Apache-2.0
#pragma once

// The compiled character map of SentencePiece: a double-array trie from strings to replacements.
//
//   u32 little-endian  bytes of the trie (a multiple of 4)
//   u32 units          the trie; unit = leaf value, or label | leaf flag | offset (see
//   charsmap.cpp) bytes              NUL-terminated replacement strings; a leaf value is an offset
//   into them
//
// Files are hostile: every index is checked against the array before it is used.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/result.hpp"

namespace quell::tokenizer {

class Charsmap {
 public:
  Charsmap() = default;
  /// Errors (parse): sizes that disagree, replacements that are not UTF-8.
  static Result<Charsmap> read(std::string_view bytes, const std::string& file);
  /// As read, from base64.
  static Result<Charsmap> read_base64(std::string_view text, const std::string& file);

  /// A stored string that `text` starts with, and what takes its place.
  struct Match {
    std::size_t bytes = 0;
    std::string_view replacement;
  };
  std::optional<Match> shortest(std::string_view text) const noexcept;
  std::optional<Match> longest(std::string_view text) const noexcept;

  bool is_empty() const noexcept { return units_.empty(); }

  /// The text as the reference implementation of tokenizer.json maps it: a grapheme of fewer than
  /// six bytes is replaced as a whole by the *shortest* stored string it starts with; otherwise
  /// each of its characters is.
  std::string map_graphemes(std::string_view text) const;

 private:
  std::optional<Match> search(std::string_view text, bool want_longest) const noexcept;
  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

}  // namespace quell::tokenizer
