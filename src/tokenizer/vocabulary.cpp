// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/vocabulary.hpp"

namespace quell::tokenizer {
namespace {

std::string shown(std::string_view piece) {
  return "\"" + std::string(piece.substr(0, 80)) + (piece.size() > 80 ? "...\"" : "\"");
}

}  // namespace

Result<std::string_view> Vocabulary::store(std::string_view piece, std::int64_t id,
                                           const std::string& file) {
  if (id < 0 || id >= kMaxIds) {
    return Error{ErrorCode::parse,
                 file + ": the piece " + shown(piece) + " has the id " + std::to_string(id) +
                     ", expected 0 to " + std::to_string(kMaxIds - 1),
                 file};
  }
  if (has(id)) {
    return Error{ErrorCode::parse,
                 file + ": the id " + std::to_string(id) + " belongs to both " +
                     shown(this->piece(id)) + " and " + shown(piece),
                 file};
  }
  if (static_cast<std::size_t>(id) >= pieces_.size())
    pieces_.resize(static_cast<std::size_t>(id) + 1);
  texts_.emplace_back(piece);
  const std::string_view kept = texts_.back();
  pieces_[static_cast<std::size_t>(id)] = kept;
  if (piece.size() > longest_) longest_ = piece.size();
  return kept;
}

Status Vocabulary::add(std::string_view piece, std::int64_t id, const std::string& file) {
  if (const std::int32_t other = find(piece); other >= 0) {
    return Error{ErrorCode::parse,
                 file + ": the piece " + shown(piece) + " has two ids, " + std::to_string(other) +
                     " and " + std::to_string(id),
                 file};
  }
  return add_or_replace(piece, id, file);
}

Status Vocabulary::add_or_replace(std::string_view piece, std::int64_t id,
                                  const std::string& file) {
  QUELL_TRY(kept, store(piece, id, file));
  const auto [entry, fresh] = ids_.try_emplace(kept, static_cast<std::int32_t>(id));
  if (!fresh) entry->second = static_cast<std::int32_t>(id);
  return ok();
}

}  // namespace quell::tokenizer
