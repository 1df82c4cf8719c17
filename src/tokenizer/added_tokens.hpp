// SPDX-License-Identifier: Apache-2.0
#pragma once

// Tokens beside the model's vocabulary that are found in a text before anything else looks at it:
// special tokens, and words somebody added. Matching is leftmost, then longest. Tokens that are not
// `normalized` are looked for in the raw text; the others in the normalized text, in normalized
// form.

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/io/json.hpp"
#include "tokenizer/flat_map.hpp"
#include "tokenizer/normalizers.hpp"
#include "tokenizer/split_pattern.hpp"
#include "tokenizer/vocabulary.hpp"

namespace quell::tokenizer {

struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and behind it
  bool normalized = false;
  bool special = false;  // decoding leaves it out
};

class AddedTokens {
 public:
  /// Reads the member `added_tokens`; null is none. A token takes the id that the file gives it,
  /// also where ids leave gaps (the reference renumbers those). Errors (parse): a token of the
  /// model's vocabulary with another id, an id of another token.
  static Result<AddedTokens> read(const io::Json& value, const std::string& file,
                                  const Vocabulary& model, const Normalizer& normalizer);

  /// A special token of the vocabulary that text cannot spell. Errors (parse): ids and texts twice.
  Status add_unmatched(std::string_view content, std::int64_t id, const std::string& file);

  /// Calls take(span, token) for the tokens found and take(span, nullptr) for the text between
  /// them, in order. `normalized`: which of the two kinds to look for.
  template <typename Take>
  Status each_part(std::string_view text, bool normalized, MatchScratch& scratch, Take take) const;

  const Vocabulary& vocabulary() const noexcept { return vocabulary_; }
  const AddedToken* find(std::int64_t id) const noexcept;
  /// What decoding starts from: the content in normalized form, so that a decoder can undo it.
  std::string_view decode_text(const AddedToken& token) const noexcept;

 private:
  struct Matcher {
    ByteTrie trie;                                             // content -> index into tokens_
    std::vector<bool> starts = std::vector<bool>(256, false);  // [byte] some content starts with it
    bool is_empty = true;
    void add(std::string_view content, std::size_t index);
  };
  /// The longest token at a position, or nothing.
  const AddedToken* longest_at(std::string_view text, std::size_t position, bool normalized,
                               std::size_t& end) const noexcept;
  Result<bool> touches_word(std::string_view text, Span span, MatchScratch& scratch) const;

  std::vector<AddedToken> tokens_;
  std::vector<std::string> normal_texts_;  // [index into tokens_]
  std::unordered_map<std::int32_t, std::size_t> by_id_;
  Matcher raw_, normal_;
  Vocabulary vocabulary_;
  std::optional<SplitPattern> word_character_;
};

template <typename Take>
Status AddedTokens::each_part(std::string_view text, bool normalized, MatchScratch& scratch,
                              Take take) const {
  const Matcher& matcher = normalized ? normal_ : raw_;
  std::size_t done = 0;  // text before this is given away
  for (std::size_t i = 0; i < text.size() && !matcher.is_empty;) {
    if (!matcher.starts[static_cast<unsigned char>(text[i])]) {
      ++i;
      continue;
    }
    Span found{i, i};
    const AddedToken* token = longest_at(text, i, normalized, found.end);
    if (token == nullptr) {
      ++i;
      continue;
    }
    i = found.end;
    if (token->single_word) {
      QUELL_TRY(touches, touches_word(text, found, scratch));
      if (touches) continue;
    }
    while (token->lstrip && found.begin > done) {
      const Character c = character_before(text, found.begin);
      if (!is_white_space(c.code)) break;
      found.begin -= c.bytes;
    }
    while (token->rstrip && found.end < text.size()) {
      const Character c = character_at(text, found.end);
      if (!is_white_space(c.code)) break;
      found.end += c.bytes;
    }
    if (found.begin > done) QUELL_TRY(take(Span{done, found.begin}, nullptr));
    QUELL_TRY(take(found, token));
    done = found.end;
  }
  return done < text.size() ? take(Span{done, text.size()}, nullptr) : ok();
}

}  // namespace quell::tokenizer
