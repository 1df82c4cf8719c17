// SPDX-License-Identifier: Apache-2.0
#pragma once

// tokenizer.model, the protocol-buffer file of SentencePiece, as plain data. Only the members that
// encoding and decoding need are read; unknown ones are skipped.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/result.hpp"

namespace quell::tokenizer {

struct SentencePieceFile {
  enum class Type { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  struct Piece {
    std::string text;
    float score = 0;
    Type type = Type::normal;
  };
  enum class Kind { unigram = 1, bpe = 2, word = 3, character = 4 };

  std::vector<Piece> pieces;  // [id]

  // Of the trainer.
  Kind kind = Kind::unigram;
  bool space_as_suffix = false;
  bool byte_fallback = false;
  std::int32_t bos = 1, eos = 2;  // -1: none
  std::string unknown_surface =
      " \xE2\x81\x87 ";  // what an unknown token reads as: U+2047 in spaces

  // Of the normalizer.
  std::string charsmap;
  bool add_dummy_prefix = true;
  bool remove_extra_spaces = true;
  bool escape_spaces = true;
};

/// Errors (parse): truncated or malformed fields, more than two million pieces, pieces longer than
/// 1,024 bytes, empty or not UTF-8, scores that are not finite.
Result<SentencePieceFile> parse_sentencepiece(std::string_view bytes, const std::string& file);

}  // namespace quell::tokenizer
