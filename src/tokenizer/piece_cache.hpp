// SPDX-License-Identifier: Apache-2.0
#pragma once

// Ids of pieces seen before. Text repeats its words, so nearly every piece of a long text is found
// here. One cache belongs to one caller at a time; its memory is bounded, and it is emptied when
// full (the words of another text then take the place of the old ones).

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quell::tokenizer {

class PieceCache {
 public:
  /// Longer pieces are rare and rarely repeat.
  static constexpr std::size_t kMaxPiece = 64;
  /// 32,768 pieces with their bytes and ids take 3 MB at most; a book has about 20,000 words.
  static constexpr std::size_t kMaxPieces = 32768;

  /// Appends the ids of the piece to `ids`, or says that it is not here.
  bool append(std::string_view piece, std::vector<std::int32_t>& ids) const;
  /// Remembers the ids of a piece that is not here and not longer than kMaxPiece.
  void remember(std::string_view piece, std::span<const std::int32_t> ids);

 private:
  struct Slot {
    std::uint64_t hash = 0;
    std::uint32_t text = 0;        // offset into texts_
    std::uint32_t first = 0;       // offset into ids_
    std::uint16_t text_bytes = 0;  // 0: the slot is free
    std::uint16_t count = 0;
  };
  const Slot* find(std::string_view piece, std::uint64_t hash) const;

  std::vector<Slot> slots_;
  std::vector<std::int32_t> ids_;
  std::string texts_;
  std::size_t size_ = 0;
};

}  // namespace quell::tokenizer
