// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/model_bpe.hpp"

#include <algorithm>
#include <functional>

#include "tokenizer/component.hpp"
#include "tokenizer/unicode.hpp"

namespace quell::tokenizer {
namespace {

// A merge is a rank in 32 bits with one value to spare.
constexpr std::size_t kMaxMerges = 1u << 26;

std::uint64_t pair_key(std::int32_t left, std::int32_t right) noexcept {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}
std::uint64_t pair_key(char32_t left, char32_t right) noexcept {
  return static_cast<std::uint64_t>(left) << 32 | right;
}

}  // namespace

std::string byte_token(unsigned byte) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string token = "<0x00>";
  token[3] = kDigits[byte >> 4];
  token[4] = kDigits[byte & 15];
  return token;
}

Status read_vocabulary(const io::Json& model, const std::string& file, Vocabulary& vocabulary) {
  const io::JsonFields fields(model, file);
  const io::Json* vocab = fields.find("vocab");
  if (vocab == nullptr || !vocab->is(io::Json::Kind::object)) {
    return fields.wrong("vocab", "an object of pieces and their ids");
  }
  for (const auto& [piece, id] : vocab->members()) {
    if (!id.is(io::Json::Kind::integer)) {
      return Error{ErrorCode::parse,
                   file + ": the id of the piece \"" + piece.substr(0, 80) + "\" is not an integer",
                   file};
    }
    QUELL_TRY(vocabulary.add(piece, id.as_integer(), file));
  }
  return ok();
}

ModelResult read_bpe(const io::Json& value, const std::string& file) {
  return BpeModel::read(value, file);
}

ModelResult BpeModel::read(const io::Json& value, const std::string& file) {
  const io::JsonFields fields(value, file);
  auto model = std::make_unique<BpeModel>();
  QUELL_TRY(read_vocabulary(value, file, model->vocabulary_));
  Options& options = model->options_;
  QUELL_TRY(unknown, fields.optional_text("unk_token"));
  options.unknown = unknown;
  QUELL_TRY(prefix, fields.optional_text("continuing_subword_prefix"));
  options.continuing_prefix = prefix.value_or(std::string());
  QUELL_TRY(suffix, fields.optional_text("end_of_word_suffix"));
  options.end_suffix = suffix.value_or(std::string());
  QUELL_TRY(fuse, boolean_member(value, file, "fuse_unk", false));
  options.fuse_unknown = fuse;
  QUELL_TRY(fallback, boolean_member(value, file, "byte_fallback", false));
  options.byte_fallback = fallback;
  QUELL_TRY(ignore, boolean_member(value, file, "ignore_merges", false));
  options.ignore_merges = ignore;
  QUELL_TRY(merges, array_member(value, file, "merges"));
  QUELL_TRY(model->read_merges(*merges, file));
  model->prepare();
  return std::unique_ptr<Model>(std::move(model));
}

Status BpeModel::read_merges(const std::vector<io::Json>& merges, const std::string& file) {
  const auto wrong = [&](std::size_t index, const std::string& what) {
    return Error{ErrorCode::parse, file + ": merge " + std::to_string(index) + " " + what, file};
  };
  if (merges.size() > kMaxMerges) {
    return Error{ErrorCode::parse,
                 file + ": " + std::to_string(merges.size()) + " merges, expected at most " +
                     std::to_string(kMaxMerges),
                 file};
  }
  for (std::size_t index = 0; index < merges.size(); ++index) {
    const io::Json& merge = merges[index];
    std::string_view left, right;
    if (merge.is(io::Json::Kind::string)) {
      // "left right"; a line that starts with #version is a leftover of merges.txt.
      const std::string_view line = merge.as_string();
      if (line.starts_with("#version")) continue;
      const std::size_t space = line.find(' ');
      if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
        return wrong(index, "is not two pieces with one space between them");
      }
      left = line.substr(0, space);
      right = line.substr(space + 1);
    } else if (merge.is(io::Json::Kind::array) && merge.items().size() == 2 &&
               merge.items()[0].is(io::Json::Kind::string) &&
               merge.items()[1].is(io::Json::Kind::string)) {
      left = merge.items()[0].as_string();
      right = merge.items()[1].as_string();
    } else {
      return wrong(index, "is neither a string nor two strings");
    }
    const std::string_view prefix = options_.continuing_prefix;
    if (right.size() < prefix.size()) {
      return wrong(index, "has a right part shorter than the continuing_subword_prefix");
    }
    const std::string joined = std::string(left) + std::string(right.substr(prefix.size()));
    const std::int32_t left_id = vocabulary_.find(left), right_id = vocabulary_.find(right);
    const std::int32_t joined_id = vocabulary_.find(joined);
    for (const auto& [piece, id] : {std::pair(left, left_id), std::pair(right, right_id),
                                    std::pair(std::string_view(joined), joined_id)}) {
      if (id < 0) {
        return wrong(index, "names \"" + std::string(piece.substr(0, 80)) +
                                "\", which is not in the vocabulary");
      }
    }
    // The same pair twice means the later rank, as in the reference.
    ranks_.set(pair_key(left_id, right_id), static_cast<std::uint32_t>(merged_.size()));
    merged_.push_back(joined_id);
  }
  return ok();
}

void BpeModel::prepare() {
  if (options_.unknown) unknown_id_ = vocabulary_.find(*options_.unknown);
  byte_ids_.resize(256, -1);
  for (unsigned byte = 0; byte < 256; ++byte) byte_ids_[byte] = vocabulary_.find(byte_token(byte));
  vocabulary_.each([&](std::string_view piece, std::int32_t id) {
    if (piece.empty()) return;
    const Character c = character_at(piece, 0);
    if (c.bytes == piece.size()) characters_.set(c.code, static_cast<std::uint32_t>(id));
  });
  // With prefixes and suffixes the first symbols of a piece depend on where it starts and ends.
  cuts_ = options_.continuing_prefix.empty() && options_.end_suffix.empty();
  if (!cuts_) return;
  for (const std::int32_t id : merged_) {
    const std::string_view piece = vocabulary_.piece(id);
    char32_t before = 0;
    for (std::size_t i = 0; i < piece.size();) {
      const Character c = character_at(piece, i);
      if (i > 0) adjacent_.set(pair_key(before, c.code), 0);
      before = c.code;
      i += c.bytes;
    }
  }
}

std::int32_t BpeModel::character_id(char32_t code) const noexcept {
  const std::uint32_t id = characters_.find(code);
  return id == FlatMap::kAbsent ? -1 : static_cast<std::int32_t>(id);
}

/// Both sides must be known characters: unknown ones may fuse, and the tokens of their bytes may
/// merge.
bool BpeModel::is_boundary(char32_t before, char32_t after) const noexcept {
  return adjacent_.find(pair_key(before, after)) == FlatMap::kAbsent && character_id(before) >= 0 &&
         character_id(after) >= 0;
}

Status BpeModel::encode(std::string_view piece, ModelScratch& scratch,
                        std::vector<std::int32_t>& ids) const {
  if (scratch.cache.append(piece, ids)) return ok();
  const std::size_t first = ids.size();
  const std::int32_t whole = options_.ignore_merges ? vocabulary_.find(piece) : -1;
  if (whole >= 0) {
    ids.push_back(whole);
  } else if (piece.size() <= PieceCache::kMaxPiece || !cuts_) {
    QUELL_TRY(merge(piece, scratch, ids));
  } else {
    std::size_t start = 0;
    const auto segment = [&](std::size_t end) -> Status {
      const std::string_view part = piece.substr(start, end - start);
      start = end;
      // A piece that is a token need not be what merging its characters gives, so where that
      // matters segments and pieces must not share the cache.
      if (options_.ignore_merges) return merge(part, scratch, ids);
      if (scratch.cache.append(part, ids)) return ok();
      const std::size_t before = ids.size();
      QUELL_TRY(merge(part, scratch, ids));
      scratch.cache.remember(part, std::span(ids).subspan(before));
      return ok();
    };
    char32_t before = 0;
    for (std::size_t i = 0; i < piece.size();) {
      const Character c = character_at(piece, i);
      if (i > start && is_boundary(before, c.code)) QUELL_TRY(segment(i));
      before = c.code;
      i += c.bytes;
    }
    QUELL_TRY(segment(piece.size()));
  }
  scratch.cache.remember(piece, std::span(ids).subspan(first));
  return ok();
}

Status BpeModel::start_symbols(std::string_view piece, ModelScratch& scratch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  const auto add = [&](std::int32_t id, std::size_t bytes) {
    symbols.push_back({id, -1, -1, static_cast<std::int32_t>(bytes)});
  };
  bool waiting = false;  // an unknown token that the next unknown character may join
  std::size_t waiting_bytes = 0;
  for (std::size_t i = 0; i < piece.size();) {
    const Character c = character_at(piece, i);
    const std::string_view text = piece.substr(i, c.bytes);
    std::int32_t id = -1;
    std::string_view shown = text;
    if (cuts_) {
      id = character_id(c.code);
    } else {
      std::string& spelled = scratch.text;
      spelled.clear();
      if (i > 0) spelled += options_.continuing_prefix;
      spelled += text;
      if (i + c.bytes == piece.size()) spelled += options_.end_suffix;
      id = vocabulary_.find(spelled);
      shown = spelled;
    }
    i += c.bytes;
    if (id >= 0) {
      if (waiting) add(unknown_id_, waiting_bytes);
      waiting = false;
      add(id, c.bytes);
      continue;
    }
    if (options_.byte_fallback && std::all_of(shown.begin(), shown.end(), [&](char byte) {
          return byte_ids_[static_cast<unsigned char>(byte)] >= 0;
        })) {
      // A waiting unknown token stays behind these, as it does in the reference.
      for (const char byte : shown) add(byte_ids_[static_cast<unsigned char>(byte)], 1);
      continue;
    }
    if (!options_.unknown) continue;
    if (unknown_id_ < 0) {
      return Error{ErrorCode::missing,
                   "the character \"" + std::string(text) +
                       "\" is not in the vocabulary, and neither is the unknown token \"" +
                       *options_.unknown + "\""};
    }
    if (waiting && options_.fuse_unknown) {
      waiting_bytes += c.bytes;
    } else {
      if (waiting) add(unknown_id_, waiting_bytes);
      waiting = true;
      waiting_bytes = c.bytes;
    }
  }
  if (waiting) add(unknown_id_, waiting_bytes);
  const std::int32_t count = static_cast<std::int32_t>(symbols.size());
  for (std::int32_t i = 0; i < count; ++i) {
    symbols[static_cast<std::size_t>(i)].previous = i - 1;
    symbols[static_cast<std::size_t>(i)].next = i + 1 < count ? i + 1 : -1;
  }
  return ok();
}

Status BpeModel::merge(std::string_view piece, ModelScratch& scratch,
                       std::vector<std::int32_t>& ids) const {
  if (piece.size() > kMaxPieceBytes) return piece_too_long(piece.size());
  QUELL_TRY(start_symbols(piece, scratch));
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;  // rank << 32 | position of the left symbol: order is rank, then place
  heap.clear();
  const auto at = [&](std::int32_t i) -> ModelScratch::Symbol& {
    return symbols[static_cast<std::size_t>(i)];
  };
  const auto rank_at = [&](std::int32_t i) {
    return ranks_.find(pair_key(at(i).id, at(at(i).next).id));
  };
  const auto entry = [](std::uint32_t rank, std::int32_t i) {
    return static_cast<std::uint64_t>(rank) << 32 | static_cast<std::uint32_t>(i);
  };
  for (std::int32_t i = 0; i + 1 < static_cast<std::int32_t>(symbols.size()); ++i) {
    const std::uint32_t rank = rank_at(i);
    if (rank != FlatMap::kAbsent) heap.push_back(entry(rank, i));
  }
  const auto later = std::greater<>();
  std::make_heap(heap.begin(), heap.end(), later);
  const auto wait = [&](std::int32_t i) {
    const std::uint32_t rank = rank_at(i);
    if (rank == FlatMap::kAbsent) return;
    heap.push_back(entry(rank, i));
    std::push_heap(heap.begin(), heap.end(), later);
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const std::uint64_t top = heap.back();
    heap.pop_back();
    const auto position = static_cast<std::int32_t>(top & 0xFFFFFFFFu);
    const std::int32_t made = merged_[static_cast<std::size_t>(top >> 32)];
    ModelScratch::Symbol& left = at(position);
    if (left.bytes == 0 || left.next < 0) continue;
    // Stale when the pair that stands here now makes another token. A pair of another rank that
    // makes the same token is merged at this rank: so does the reference.
    const std::uint32_t now = rank_at(position);
    if (now == FlatMap::kAbsent || merged_[now] != made) continue;
    ModelScratch::Symbol& right = at(left.next);
    left.id = made;
    left.bytes += right.bytes;
    left.next = right.next;
    right.bytes = 0;
    if (left.next >= 0) at(left.next).previous = position;
    if (left.previous >= 0) wait(left.previous);
    if (left.next >= 0) wait(position);
  }
  for (const auto& symbol : symbols) {
    if (symbol.bytes != 0) ids.push_back(symbol.id);
  }
  return ok();
}

}  // namespace quell::tokenizer
