// SPDX-License-Identifier: Apache-2.0
#pragma once

// Byte-pair encoding (Sennrich, Haddow, Birch 2016): start from characters, repeatedly merge the
// adjacent pair with the lowest rank, the leftmost among equals.
//
// A heap of waiting pairs makes that O(n log n) in the length of a piece. Two things make it fast
// in practice: pieces seen before come from a cache, and a long piece is first cut where no merge
// can reach across. The second needs an argument. Every token that a merge makes is a vocabulary
// entry whose text is known. If no such text has character d directly behind character c, then no
// merge ever joins something that ends in c with something that begins with d, and the merges on
// both sides of the boundary c|d are independent of each other. Texts whose spaces are U+2581 and
// that reach the model uncut thereby fall into words.

#include <optional>
#include <string>

#include "tokenizer/flat_map.hpp"
#include "tokenizer/model.hpp"

namespace quell::tokenizer {

class BpeModel final : public Model {
 public:
  struct Options {
    std::optional<std::string> unknown;  // the token for characters that are not in the vocabulary
    std::string continuing_prefix;       // in front of every character but the first
    std::string end_suffix;              // behind the last character
    bool fuse_unknown = false;           // one unknown token for a run of unknown characters
    bool byte_fallback = false;          // <0xHH> tokens for the bytes of an unknown character
    bool ignore_merges = false;          // a piece that is a token is that token
  };

  static ModelResult read(const io::Json& value, const std::string& file);

  std::string_view type() const noexcept override { return "BPE"; }
  Status encode(std::string_view piece, ModelScratch& scratch,
                std::vector<std::int32_t>& ids) const override;

 private:
  Status read_merges(const std::vector<io::Json>& merges, const std::string& file);
  void prepare();
  std::int32_t character_id(char32_t code) const noexcept;
  bool is_boundary(char32_t before, char32_t after) const noexcept;
  Status merge(std::string_view piece, ModelScratch& scratch, std::vector<std::int32_t>& ids) const;
  Status start_symbols(std::string_view piece, ModelScratch& scratch) const;

  Options options_;
  std::int32_t unknown_id_ = -1;
  std::vector<std::int32_t> byte_ids_;  // [256], -1 where <0xHH> is not a token
  FlatMap ranks_;                       // left id << 32 | right id -> rank
  std::vector<std::int32_t> merged_;    // [rank] the id that the merge makes
  FlatMap characters_;                  // code point -> id
  FlatMap adjacent_;                    // code point << 32 | code point, inside something merged
  bool cuts_ = false;                   // long pieces may be cut at boundaries
};

}  // namespace quell::tokenizer
