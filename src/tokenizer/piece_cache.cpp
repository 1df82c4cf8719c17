// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/piece_cache.hpp"

#include <cstring>

namespace quell::tokenizer {
namespace {

constexpr std::size_t kSlots = 2 * PieceCache::kMaxPieces;  // half full at most
static_assert((kSlots & (kSlots - 1)) == 0, "slots are masked");

/// Eight bytes at a time, multiplied and folded. Only speed depends on its quality.
std::uint64_t hash_of(std::string_view piece) noexcept {
  std::uint64_t hash = 0x9E3779B97F4A7C15u ^ piece.size();
  const char* at = piece.data();
  std::size_t left = piece.size();
  while (left > 0) {
    std::uint64_t word = 0;
    const std::size_t step = left < 8 ? left : 8;
    std::memcpy(&word, at, step);
    hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
    hash ^= hash >> 32;
    at += step;
    left -= step;
  }
  return hash;
}

}  // namespace

const PieceCache::Slot* PieceCache::find(std::string_view piece, std::uint64_t hash) const {
  if (slots_.empty()) return nullptr;
  for (std::size_t i = hash & (kSlots - 1);; i = (i + 1) & (kSlots - 1)) {
    const Slot& slot = slots_[i];
    if (slot.text_bytes == 0) return nullptr;
    if (slot.hash == hash && slot.text_bytes == piece.size() &&
        std::memcmp(texts_.data() + slot.text, piece.data(), piece.size()) == 0) {
      return &slot;
    }
  }
}

bool PieceCache::append(std::string_view piece, std::vector<std::int32_t>& ids) const {
  if (piece.empty() || piece.size() > kMaxPiece) return false;
  const Slot* slot = find(piece, hash_of(piece));
  if (slot == nullptr) return false;
  const auto first = ids_.begin() + static_cast<std::ptrdiff_t>(slot->first);
  ids.insert(ids.end(), first, first + slot->count);
  return true;
}

void PieceCache::remember(std::string_view piece, std::span<const std::int32_t> ids) {
  // A piece of at most 64 bytes has at most 64 ids per byte of a fallback; the field holds 65,535.
  if (piece.empty() || piece.size() > kMaxPiece || ids.size() > 0xFFFF) return;
  if (slots_.empty() || size_ >= kMaxPieces) {
    slots_.assign(kSlots, Slot());
    ids_.clear();
    texts_.clear();
    size_ = 0;
  }
  const std::uint64_t hash = hash_of(piece);
  std::size_t i = hash & (kSlots - 1);
  while (slots_[i].text_bytes != 0) i = (i + 1) & (kSlots - 1);
  slots_[i] = {hash, static_cast<std::uint32_t>(texts_.size()),
               static_cast<std::uint32_t>(ids_.size()), static_cast<std::uint16_t>(piece.size()),
               static_cast<std::uint16_t>(ids.size())};
  texts_.append(piece);
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  ++size_;
}

}  // namespace quell::tokenizer
