// SPDX-License-Identifier: Apache-2.0
#pragma once

// A regular expression that cuts text, with the meaning it has in the reference implementation
// (Oniguruma, Ruby syntax, Unicode). PCRE2 does the matching; pattern_dialect.cpp translates what
// the two spell differently. PCRE2 types stay inside split_pattern.cpp.

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "quell/core/result.hpp"

namespace quell::tokenizer {

/// Bytes [begin, end) of a text.
struct Span {
  std::size_t begin = 0, end = 0;
};

/// What one caller needs to match: PCRE2's match data and stack. Not shared between threads.
class MatchScratch {
 public:
  MatchScratch();
  ~MatchScratch();
  MatchScratch(const MatchScratch&) = delete;
  MatchScratch& operator=(const MatchScratch&) = delete;

 private:
  friend class SplitPattern;
  struct State;
  std::unique_ptr<State> state_;
};

class SplitPattern {
 public:
  /// Compiles a pattern of the reference's dialect. `file` names the source in errors. Errors:
  /// parse (not a regular expression), unsupported (a construct PCRE2 has no equivalent for).
  static Result<SplitPattern> compile(std::string_view pattern, const std::string& file);

  /// The first match that starts at or after `from` <= text.size(), if any. `text` is valid UTF-8.
  /// Errors: resource, when the pattern needs more backtracking than the limits allow.
  Result<std::optional<Span>> find(std::string_view text, std::size_t from,
                                   MatchScratch& scratch) const;

 private:
  struct Code;
  explicit SplitPattern(std::shared_ptr<const Code> code) : code_(std::move(code)) {}
  std::shared_ptr<const Code> code_;
};

/// Walks the matches of a pattern from left to right, as the reference does: after an empty match
/// the search goes on behind the same place, and an empty match directly behind a match does not
/// count.
class MatchWalk {
 public:
  MatchWalk(const SplitPattern& pattern, std::string_view text, MatchScratch& scratch)
      : pattern_(pattern), text_(text), scratch_(scratch) {}
  Result<std::optional<Span>> next();

 private:
  const SplitPattern& pattern_;
  std::string_view text_;
  MatchScratch& scratch_;
  std::size_t from_ = 0;
  std::optional<std::size_t> last_end_;
};

/// Whether PCRE2 knows a script by this name.
bool is_script_name(std::string_view name);

/// The pattern in PCRE2's dialect. Errors: unsupported.
Result<std::string> translate_pattern(std::string_view pattern, const std::string& file);

}  // namespace quell::tokenizer
