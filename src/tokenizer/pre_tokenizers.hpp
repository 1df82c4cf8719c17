// SPDX-License-Identifier: Apache-2.0
#pragma once

// Cutting a normalized text into the pieces that the model sees. The steps form a chain: a piece
// that one step makes goes through the next ones at once, so that no list of pieces is ever kept (a
// text of 30 MB has seven million).

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/io/json.hpp"
#include "tokenizer/split_pattern.hpp"

namespace quell::tokenizer {

/// Takes the pieces in order; none is empty. The text of a piece is valid during the call only.
class PieceSink {
 public:
  virtual ~PieceSink() = default;
  virtual Status take(std::string_view piece) = 0;
};

/// What becomes of the parts that match, shown on "a--b" cut at "-".
enum class SplitBehavior {
  removed,               // a b
  isolated,              // a - - b
  merged_with_previous,  // a- - b
  merged_with_next,      // a - -b
  contiguous,            // a -- b
};

class PreTokenizer {
 public:
  using CharacterTest = bool (*)(char32_t);
  struct Split {
    // Exactly one of these says what matches; a literal is not empty.
    std::variant<SplitPattern, std::string, CharacterTest> what;
    SplitBehavior behavior = SplitBehavior::isolated;
    bool invert = false;
  };
  struct ByteLevel {
    bool add_prefix_space = false;
    std::optional<SplitPattern> pattern;
  };
  enum class Scheme { first, never, always };
  struct Metaspace {
    std::string replacement;  // one character
    Scheme scheme = Scheme::always;
    bool split = true;
  };
  using Step = std::variant<Split, ByteLevel, Metaspace>;

  /// Buffers of one caller.
  struct Scratch {
    MatchScratch match;
    std::vector<std::string> texts;
  };

  /// Reads the member `pre_tokenizer` of tokenizer.json; null passes texts through. Errors: parse,
  /// unsupported.
  static Result<PreTokenizer> read(const io::Json& value, const std::string& file);

  /// Cuts `text` and gives the pieces to `sink`. `from_start`: the text begins where the raw text
  /// begins. Errors: resource (matching), and those of the sink.
  Status cut(std::string_view text, bool from_start, Scratch& scratch, PieceSink& sink) const;

 private:
  class Chain;
  Status add_from(const io::Json& value, const std::string& file);
  std::vector<Step> steps_;
};

}  // namespace quell::tokenizer
