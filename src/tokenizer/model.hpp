// SPDX-License-Identifier: Apache-2.0
#pragma once

// From a piece of text to ids. A model is made once from the member `model` of tokenizer.json (or
// from a SentencePiece file), is not changed afterwards, and may be used by several callers at
// once, each with a scratch of its own.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/io/json.hpp"
#include "tokenizer/piece_cache.hpp"
#include "tokenizer/vocabulary.hpp"

namespace quell::tokenizer {

/// Working memory of one caller; the models' fields mean nothing between calls.
struct ModelScratch {
  PieceCache cache;

  // Byte-pair merging: symbols linked in a list, and the pairs waiting to be merged.
  struct Symbol {
    std::int32_t id = 0;
    std::int32_t previous = -1, next = -1;  // positions; -1 at the ends
    std::int32_t bytes = 0;                 // 0: merged into its left neighbour
  };
  std::vector<Symbol> symbols;
  std::vector<std::uint64_t> heap;

  // Unigram: the best path that ends at each byte.
  struct Arrival {
    double score = 0;
    std::int32_t from = -1;  // where its last piece starts; -1: no path yet
    std::int32_t id = 0;
  };
  std::vector<Arrival> arrivals;
  std::string text;

  /// Gives back what a giant piece has left behind: more than 16 MB in all.
  void trim() {
    constexpr std::size_t kKept = 16u << 20;
    const std::size_t bytes = symbols.capacity() * sizeof(Symbol) +
                              heap.capacity() * sizeof(std::uint64_t) +
                              arrivals.capacity() * sizeof(Arrival) + text.capacity();
    if (bytes <= kKept) return;
    symbols = {}, heap = {}, arrivals = {}, text = {};
  }
};

class Model {
 public:
  virtual ~Model() = default;
  /// "BPE", "Unigram", "WordPiece".
  virtual std::string_view type() const noexcept = 0;
  /// Appends the ids of a piece (valid UTF-8, not empty). Errors: missing (a character that has no
  /// id in a vocabulary without an unknown token), resource (a piece of 2 GiB or more).
  virtual Status encode(std::string_view piece, ModelScratch& scratch,
                        std::vector<std::int32_t>& ids) const = 0;
  const Vocabulary& vocabulary() const noexcept { return vocabulary_; }

 protected:
  Vocabulary vocabulary_;
};

using ModelResult = Result<std::unique_ptr<Model>>;
/// Errors: parse (damaged vocabularies and merges), unsupported.
ModelResult read_bpe(const io::Json& value, const std::string& file);
ModelResult read_unigram(const io::Json& value, const std::string& file);
ModelResult read_wordpiece(const io::Json& value, const std::string& file);

/// Positions inside a piece are 32-bit.
constexpr std::size_t kMaxPieceBytes = 0x7FFFFFFF;
inline Error piece_too_long(std::size_t bytes) {
  return Error{ErrorCode::resource, "a piece of text without a place to cut it has " +
                                        std::to_string(bytes) + " bytes; the limit is 2147483647"};
}

/// The token of a byte in vocabularies with byte fallback: <0x0A>.
std::string byte_token(unsigned byte);

/// Reads an object of piece: id. Errors: parse.
Status read_vocabulary(const io::Json& model, const std::string& file, Vocabulary& vocabulary);

}  // namespace quell::tokenizer
