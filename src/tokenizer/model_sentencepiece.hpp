// SPDX-License-Identifier: Apache-2.0
#pragma once

// The models of a SentencePiece file. They differ from those of tokenizer.json: byte-pair merging
// asks for the score of the merged text instead of a rank of two tokens, and Unigram adds in single
// precision, which shows on long lines, so it is kept.

#include <map>
#include <utility>
#include <vector>

#include "tokenizer/flat_map.hpp"
#include "tokenizer/model.hpp"
#include "tokenizer/sentencepiece_file.hpp"

namespace quell::tokenizer {

class SentencePieceModel final : public Model {
 public:
  /// Errors: parse (no unknown piece, pieces that occur twice, byte pieces missing), unsupported
  /// (word and character models).
  static ModelResult make(const SentencePieceFile& source, const std::string& file);

  std::string_view type() const noexcept override { return is_bpe_ ? "BPE" : "Unigram"; }
  Status encode(std::string_view piece, ModelScratch& scratch,
                std::vector<std::int32_t>& ids) const override;

 private:
  using Type = SentencePieceFile::Type;
  struct Symbol {
    std::int32_t previous = -1, next = -1;
    std::int32_t begin = 0, bytes = 0;  // of the text; 0 bytes: merged away
    bool frozen = false;                // a user-defined piece
  };
  struct Pair {
    float score = 0;
    std::int32_t left = 0, right = 0, bytes = 0;
  };

  struct MergeSpace {
    std::vector<Symbol> symbols;
    std::vector<Pair> heap;
    // What an unused piece was merged from (bytes of its left part), to take it apart at the end.
    std::map<std::string_view, std::int32_t> left_bytes;
    // Parts still to be written (begin, bytes), the next one last.
    std::vector<std::pair<std::int32_t, std::int32_t>> parts;
  };

  void encode_bpe(std::string_view text, std::vector<std::int32_t>& found) const;
  void merge(std::string_view text, MergeSpace& space, std::vector<std::int32_t>& found) const;
  void encode_unigram(std::string_view text, ModelScratch& scratch,
                      std::vector<std::int32_t>& found) const;
  std::size_t user_defined_at(std::string_view text, std::size_t at) const noexcept;

  bool is_bpe_ = false, byte_fallback_ = false;
  std::int32_t unknown_id_ = -1;
  float lowest_ = 0, highest_ = 0;      // scores of normal pieces
  std::vector<float> scores_;           // [id]
  std::vector<Type> types_;             // [id]
  std::vector<std::int32_t> byte_ids_;  // [256]
  ByteTrie trie_;                       // normal, user-defined and unused pieces
  ByteTrie user_defined_;
  FlatMap adjacent_;  // code point << 32 | code point, inside some piece
};

}  // namespace quell::tokenizer
