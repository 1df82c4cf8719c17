// SPDX-License-Identifier: Apache-2.0
#pragma once

// From token texts back to text: a list of steps, each from a list of strings to a list of strings,
// which are joined at the end.

#include <cstddef>
#include <string>
#include <variant>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/io/json.hpp"
#include "tokenizer/normalizers.hpp"

namespace quell::tokenizer {

class Decoder {
 public:
  struct Bytes {};         // letters of the byte alphabet back to bytes
  struct ByteFallback {};  // runs of <0xHH> back to bytes
  struct Fuse {};          // all strings into one
  struct Strip {
    std::string content;              // one character
    std::size_t start = 0, stop = 0;  // how many to take off at the ends of every string
  };
  struct Metaspace {
    std::string replacement;
    bool drop_first = true;  // the mark in the first string is not a space
  };
  struct WordPiece {
    std::string prefix;
    bool clean_up = true;
  };
  struct Suffix {
    std::string suffix;  // of words, becomes a space
  };
  /// The whole of decoding for SentencePiece files.
  struct SentencePiece {
    std::string unknown, unknown_surface;  // the unknown token and what it reads as
    bool byte_fallback = false;
    bool drops_first_space = true;   // one mark at the start of the text
    bool drops_all_leading = false;  // and those of all pieces until there is text
  };
  using Step = std::variant<Bytes, ByteFallback, Fuse, Strip, Metaspace, WordPiece, Suffix,
                            ReplaceText, SentencePiece>;

  /// Reads the member `decoder` of tokenizer.json. null: tokens are joined with spaces. Errors:
  /// parse, unsupported.
  static Result<Decoder> read(const io::Json& value, const std::string& file);

  void add(Step step) { steps_.push_back(std::move(step)); }
  /// The text of the tokens, valid UTF-8.
  std::string decode(std::vector<std::string> tokens, MatchScratch& scratch) const;

 private:
  Status add_from(const io::Json& value, const std::string& file);
  std::vector<Step> steps_;
  bool joins_with_spaces_ = false;
};

}  // namespace quell::tokenizer
