// SPDX-License-Identifier: Apache-2.0
#pragma once

// Pieces and their ids. Texts live in one arena; the table from text to id is open addressing over
// their hashes.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "quell/core/result.hpp"

namespace quell::tokenizer {

/// Four times the largest vocabulary known (about a million pieces). Ids index tables, so a file
/// that names a larger one is refused before it can ask for memory.
constexpr std::int64_t kMaxIds = 1 << 22;

class Vocabulary {
 public:
  /// Adds a piece. Errors (parse): an id outside [0, kMaxIds), an id already taken, a piece already
  /// there. `file` names the source.
  Status add(std::string_view piece, std::int64_t id, const std::string& file);
  /// As add, but a piece that is there already keeps its text under both ids and means the new one.
  Status add_or_replace(std::string_view piece, std::int64_t id, const std::string& file);

  /// The id of a piece, or -1.
  std::int32_t find(std::string_view piece) const noexcept {
    const auto found = ids_.find(piece);
    return found == ids_.end() ? -1 : found->second;
  }
  /// The text of an id, or empty where there is none.
  std::string_view piece(std::int64_t id) const noexcept {
    if (id < 0 || static_cast<std::size_t>(id) >= pieces_.size()) return {};
    return pieces_[static_cast<std::size_t>(id)];
  }
  bool has(std::int64_t id) const noexcept { return piece(id).data() != nullptr; }
  /// Largest id plus one.
  std::uint32_t id_end() const noexcept { return static_cast<std::uint32_t>(pieces_.size()); }
  /// Bytes of the longest piece.
  std::size_t longest() const noexcept { return longest_; }
  /// Calls fn(piece, id) for every piece in the order of ids.
  template <typename F>
  void each(F&& fn) const {
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      if (pieces_[i].data() != nullptr) fn(pieces_[i], static_cast<std::int32_t>(i));
    }
  }

 private:
  Result<std::string_view> store(std::string_view piece, std::int64_t id, const std::string& file);

  std::deque<std::string> texts_;         // stable addresses
  std::vector<std::string_view> pieces_;  // [id]; a null pointer where the id is not used
  std::unordered_map<std::string_view, std::int32_t> ids_;
  std::size_t longest_ = 0;
};

}  // namespace quell::tokenizer
