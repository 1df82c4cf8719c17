// SPDX-License-Identifier: Apache-2.0
#pragma once

// What happens to a text before it is cut: a list of steps, each from text to text. A Sequence of
// the file is flattened into the list.

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/io/json.hpp"
#include "tokenizer/charsmap.hpp"
#include "tokenizer/flat_map.hpp"
#include "tokenizer/split_pattern.hpp"
#include "tokenizer/unicode.hpp"

namespace quell::tokenizer {

struct PrependText {
  std::string text;  // put in front of every text that is not empty
};
struct ReplaceText {
  std::string from;  // literal, when there is no pattern
  std::optional<SplitPattern> pattern;
  std::string to;
};
struct LowerCase {};
struct StripSpace {
  bool left = true, right = true;
};
struct StripMarks {};  // drops category M
struct BytesToLetters {};
struct MapNmt {};  // the clean-up of SentencePiece's nmt rules, without its character map
struct MapBert {
  bool clean_text = true, isolate_ideographs = true, strip_accents = true, lower_case = true;
};

/// The normalizer of a SentencePiece file (normalizers_sentencepiece.cpp).
struct MapSentencePiece {
  Charsmap charsmap;
  ByteTrie user_defined;
  bool prefix = true, suffix = false;  // a space at the start, or at the end
  bool remove_extra_spaces = true;     // at both ends and after another
  bool escape_spaces = true;           // U+2581 for a space
};
void map_sentencepiece(const MapSentencePiece& map, std::string& text);

class Normalizer {
 public:
  using Step = std::variant<NormalForm, PrependText, ReplaceText, LowerCase, StripSpace, StripMarks,
                            BytesToLetters, MapNmt, MapBert, Charsmap, MapSentencePiece>;

  /// Reads the member `normalizer` of tokenizer.json; null gives no steps. Errors: parse,
  /// unsupported.
  static Result<Normalizer> read(const io::Json& value, const std::string& file);

  void add(Step step) { steps_.push_back(std::move(step)); }
  bool is_empty() const noexcept { return steps_.empty(); }

  /// Normalizes `text` in place. `from_start` is cleared when the first character of the result
  /// does not come from the first character of the text; Metaspace asks for that. Errors: resource.
  Status apply(std::string& text, bool& from_start, MatchScratch& scratch) const;

 private:
  Status add_from(const io::Json& value, const std::string& file);
  std::vector<Step> steps_;
};

/// The replacement of every match, with the reference's rules for empty matches; also a decoder.
Status replace_all(const ReplaceText& step, std::string& text, bool& from_start,
                   MatchScratch& scratch);
/// {"pattern": ..., "content": ...}.
Result<ReplaceText> read_replace(const io::Json& value, const std::string& file);

}  // namespace quell::tokenizer
