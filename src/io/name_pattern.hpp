// SPDX-License-Identifier: Apache-2.0
#pragma once

// Patterns over module names, as checkpoints write them behind "re:". They come from files, so they
// are matched in time linear in pattern times name, without backtracking (Thompson 1968: all places
// in the pattern that a prefix of the name can lead to are followed at once).
//
// The subset of regular expressions: characters, . [...] [^...] \d \w \s \D \W \S, escaped
// punctuation, groups (...) and (?:...), alternatives |, * + ? {m} {m,} {m,n} with or without a
// trailing ?, ^ and $. Lookaround, back-references and flags are refused by name. A dot matches one
// byte.

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/result.hpp"

namespace quell::io {

class NamePattern {
 public:
  /// Errors (unsupported): outside of the subset, or too long; with the place.
  static Result<NamePattern> compile(std::string_view pattern);

  /// True if the pattern matches some beginning of `name`, the rule of these checkpoints.
  bool matches_start(std::string_view name) const;

 private:
  friend class PatternParser;
  struct Step {
    enum class Kind : std::uint8_t { set, split, jump, begin, end, match };
    Kind kind = Kind::match;
    std::uint16_t set = 0;    // index into sets_
    std::int32_t first = 1;   // where to go on, relative to this step
    std::int32_t second = 0;  // split: the other place
  };
  using Program = std::vector<Step>;
  using Set = std::bitset<256>;

  Program program_;
  std::vector<Set> sets_;
};

}  // namespace quell::io
