// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/model_sentencepiece.hpp"

#include <algorithm>
#include <limits>
#include <span>

#include "tokenizer/unicode.hpp"

namespace quell::tokenizer {
namespace {

constexpr float kUnknownPenalty = 10.0f;

// A sum in single precision loses the differences between pieces as it grows, so the reference
// counts from zero again when one falls below this; found by comparing ids on texts of a megabyte.
constexpr float kRestartBelow = -100'000.0f;

std::uint64_t adjacency(char32_t before, char32_t after) noexcept {
  return static_cast<std::uint64_t>(before) << 32 | after;
}

/// The id stored for exactly this text, or -1.
std::int32_t find_text(const ByteTrie& trie, std::string_view text) noexcept {
  std::uint32_t node = ByteTrie::kRoot;
  for (const char c : text) {
    node = trie.step(node, c);
    if (node == ByteTrie::kAbsent) return -1;
  }
  return trie.value(node) == ByteTrie::kAbsent ? -1 : static_cast<std::int32_t>(trie.value(node));
}

}  // namespace

ModelResult SentencePieceModel::make(const SentencePieceFile& source, const std::string& file) {
  const auto wrong = [&](const std::string& what) {
    return Error{ErrorCode::parse, file + ": " + what, file};
  };
  if (source.kind != SentencePieceFile::Kind::bpe &&
      source.kind != SentencePieceFile::Kind::unigram) {
    return Error{
        ErrorCode::unsupported,
        file +
            ": SentencePiece models of words and characters are not supported; supported are "
            "BPE and Unigram",
        file};
  }
  auto model = std::make_unique<SentencePieceModel>();
  model->is_bpe_ = source.kind == SentencePieceFile::Kind::bpe;
  model->byte_fallback_ = source.byte_fallback;
  model->byte_ids_.resize(256, -1);
  float lowest = std::numeric_limits<float>::max(), highest = std::numeric_limits<float>::lowest();
  for (std::size_t i = 0; i < source.pieces.size(); ++i) {
    const SentencePieceFile::Piece& piece = source.pieces[i];
    const auto id = static_cast<std::int32_t>(i);
    QUELL_TRY(model->vocabulary_.add(piece.text, id, file));
    model->scores_.push_back(piece.score);
    model->types_.push_back(piece.type);
    if (piece.type == Type::unknown) {
      if (model->unknown_id_ >= 0) return wrong("two pieces are of type unknown");
      model->unknown_id_ = id;
    }
    if (piece.type == Type::normal) {
      lowest = std::min(lowest, piece.score);
      highest = std::max(highest, piece.score);
    }
    if (piece.type == Type::user_defined) {
      model->user_defined_.insert(piece.text, static_cast<std::uint32_t>(i));
    }
    const bool in_text = piece.type == Type::normal || piece.type == Type::user_defined ||
                         piece.type == Type::unused;
    if (!in_text) continue;
    model->trie_.insert(piece.text, static_cast<std::uint32_t>(i));
    char32_t before = 0;
    for (std::size_t at = 0; at < piece.text.size();) {
      const Character c = character_at(piece.text, at);
      if (at > 0) model->adjacent_.set(adjacency(before, c.code), 0);
      before = c.code;
      at += c.bytes;
    }
  }
  if (model->unknown_id_ < 0) return wrong("no piece is of type unknown");
  for (unsigned byte = 0; byte < 256 && source.byte_fallback; ++byte) {
    const std::int32_t id = model->vocabulary_.find(byte_token(byte));
    if (id < 0 || source.pieces[static_cast<std::size_t>(id)].type != Type::byte) {
      return wrong("byte fallback is on, but there is no byte piece " + byte_token(byte));
    }
    model->byte_ids_[byte] = id;
  }
  model->lowest_ = lowest;
  model->highest_ = highest;
  return std::unique_ptr<Model>(std::move(model));
}

std::size_t SentencePieceModel::user_defined_at(std::string_view text,
                                                std::size_t at) const noexcept {
  std::size_t longest = 0;
  std::uint32_t node = ByteTrie::kRoot;
  for (std::size_t i = at; i < text.size(); ++i) {
    node = user_defined_.step(node, text[i]);
    if (node == ByteTrie::kAbsent) break;
    if (user_defined_.value(node) != ByteTrie::kAbsent) longest = i + 1 - at;
  }
  return longest;
}

// What the two algorithms find is a list of (id, bytes) in `found`; unknown pieces become bytes
// here, or one token for a run of them.
Status SentencePieceModel::encode(std::string_view piece, ModelScratch& scratch,
                                  std::vector<std::int32_t>& ids) const {
  if (scratch.cache.append(piece, ids)) return ok();
  if (piece.size() > kMaxPieceBytes) return piece_too_long(piece.size());
  const std::size_t first = ids.size();
  std::vector<std::int32_t> found;
  if (is_bpe_) {
    encode_bpe(piece, found);
  } else {
    encode_unigram(piece, scratch, found);
  }
  std::size_t at = 0;
  bool after_unknown = false;
  for (std::size_t i = 0; i < found.size(); i += 2) {
    const std::int32_t id = found[i];
    const auto bytes = static_cast<std::size_t>(found[i + 1]);
    const bool unknown = id == unknown_id_;
    if (unknown && byte_fallback_) {
      for (const char c : piece.substr(at, bytes)) {
        ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
      }
    } else if (!unknown || !after_unknown) {
      ids.push_back(id);
    }
    after_unknown = unknown;
    at += bytes;
  }
  scratch.cache.remember(piece, std::span(ids).subspan(first));
  return ok();
}

/// Cuts the text where no piece reaches across (model_bpe.hpp has the argument) and merges each
/// part.
void SentencePieceModel::encode_bpe(std::string_view text, std::vector<std::int32_t>& found) const {
  MergeSpace space;
  std::size_t start = 0;
  char32_t before = 0;
  for (std::size_t i = 0; i < text.size();) {
    const Character c = character_at(text, i);
    if (i > start && adjacent_.find(adjacency(before, c.code)) == FlatMap::kAbsent) {
      merge(text.substr(start, i - start), space, found);
      start = i;
    }
    before = c.code;
    i += c.bytes;
  }
  if (start < text.size()) merge(text.substr(start), space, found);
}

void SentencePieceModel::merge(std::string_view text, MergeSpace& space,
                               std::vector<std::int32_t>& found) const {
  auto& symbols = space.symbols;
  auto& heap = space.heap;
  auto& left_bytes = space.left_bytes;
  auto& parts = space.parts;
  symbols.clear();
  heap.clear();
  left_bytes.clear();
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t whole = user_defined_at(text, at);
    const std::size_t bytes = whole > 0 ? whole : character_at(text, at).bytes;
    const auto index = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({index - 1, at + bytes < text.size() ? index + 1 : -1,
                       static_cast<std::int32_t>(at), static_cast<std::int32_t>(bytes), whole > 0});
    at += bytes;
  }
  const auto at = [&](std::int32_t i) -> Symbol& { return symbols[static_cast<std::size_t>(i)]; };
  const auto text_of = [&](std::int32_t begin, std::int32_t bytes) {
    return text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(bytes));
  };
  // Highest score first, the leftmost among equals.
  const auto later = [](const Pair& a, const Pair& b) {
    return a.score < b.score || (a.score == b.score && a.left > b.left);
  };
  const auto wait = [&](std::int32_t left, std::int32_t right) {
    if (left < 0 || right < 0 || at(left).frozen || at(right).frozen) return;
    const std::int32_t bytes = at(left).bytes + at(right).bytes;
    if (static_cast<std::size_t>(bytes) > vocabulary_.longest()) return;
    const std::string_view merged = text_of(at(left).begin, bytes);
    const std::int32_t id = find_text(trie_, merged);
    if (id < 0) return;
    heap.push_back({scores_[static_cast<std::size_t>(id)], left, right, bytes});
    std::push_heap(heap.begin(), heap.end(), later);
    if (types_[static_cast<std::size_t>(id)] == Type::unused) left_bytes[merged] = at(left).bytes;
  };
  for (std::int32_t i = 1; i < static_cast<std::int32_t>(symbols.size()); ++i) wait(i - 1, i);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Pair top = heap.back();
    heap.pop_back();
    Symbol& left = at(top.left);
    Symbol& right = at(top.right);
    if (left.bytes == 0 || right.bytes == 0 || left.bytes + right.bytes != top.bytes) continue;
    left.bytes = top.bytes;
    left.next = right.next;
    right.bytes = 0;
    if (left.next >= 0) at(left.next).previous = top.left;
    wait(left.previous, top.left);
    wait(top.left, left.next);
  }
  for (std::int32_t i = 0; i >= 0 && !symbols.empty(); i = at(i).next) {
    parts.emplace_back(at(i).begin, at(i).bytes);
    while (!parts.empty()) {
      const auto [begin, bytes] = parts.back();
      parts.pop_back();
      const std::string_view part = text_of(begin, bytes);
      std::int32_t id = find_text(trie_, part);
      if (id >= 0 && types_[static_cast<std::size_t>(id)] == Type::unused) {
        if (const auto split = left_bytes.find(part); split != left_bytes.end()) {
          parts.emplace_back(begin + split->second, bytes - split->second);
          parts.emplace_back(begin, split->second);
          continue;
        }
      }
      if (id < 0) id = unknown_id_;
      found.push_back(id);
      found.push_back(bytes);
    }
  }
}

void SentencePieceModel::encode_unigram(std::string_view text, ModelScratch& scratch,
                                        std::vector<std::int32_t>& found) const {
  auto& arrivals = scratch.arrivals;  // scores are held as doubles but always rounded to float
  arrivals.assign(text.size() + 1, {});
  const float unknown_score = lowest_ - kUnknownPenalty;
  // The new total is compared before it is rounded: for user-defined pieces it is a double.
  const auto offer = [&](std::size_t from, std::size_t to, double total, std::int32_t id) {
    ModelScratch::Arrival& target = arrivals[to];
    if (target.from >= 0 && !(total > target.score)) return;
    target = {static_cast<double>(static_cast<float>(total)), static_cast<std::int32_t>(from), id};
  };
  for (std::size_t from = 0; from < text.size();) {
    const std::size_t bytes = character_at(text, from).bytes;
    if (arrivals[from].score < static_cast<double>(kRestartBelow)) {
      const auto base = static_cast<float>(arrivals[from].score);
      // No path has gone further than one piece ahead.
      const std::size_t end = std::min(text.size(), from + vocabulary_.longest());
      for (std::size_t i = from; i <= end; ++i) {
        if (i > 0 && arrivals[i].from < 0) continue;
        arrivals[i].score = static_cast<double>(static_cast<float>(arrivals[i].score) - base);
      }
    }
    const auto so_far = static_cast<float>(arrivals[from].score);
    bool has_character = false;
    std::uint32_t node = ByteTrie::kRoot;
    for (std::size_t to = from; to < text.size();) {
      node = trie_.step(node, text[to]);
      if (node == ByteTrie::kAbsent) break;
      ++to;
      if (trie_.value(node) == ByteTrie::kAbsent) continue;
      const auto id = static_cast<std::int32_t>(trie_.value(node));
      const Type type = types_[static_cast<std::size_t>(id)];
      if (type == Type::unused) continue;
      if (type == Type::user_defined) {
        // Longer than anything else that fits, so that it always wins.
        const double score = static_cast<double>(static_cast<float>(to - from) * highest_) - 0.1;
        offer(from, to, score + static_cast<double>(so_far), id);
      } else {
        const float total = scores_[static_cast<std::size_t>(id)] + so_far;
        offer(from, to, static_cast<double>(total), id);
      }
      has_character |= to - from == bytes;
    }
    if (!has_character) {
      const float total = unknown_score + so_far;
      offer(from, from + bytes, static_cast<double>(total), unknown_id_);
    }
    from += bytes;
  }
  const std::size_t first = found.size();
  for (auto end = static_cast<std::int32_t>(text.size()); end > 0;) {
    const ModelScratch::Arrival& arrival = arrivals[static_cast<std::size_t>(end)];
    found.push_back(end - arrival.from);  // turned round below, so bytes come before ids here
    found.push_back(arrival.id);
    end = arrival.from;
  }
  std::reverse(found.begin() + static_cast<std::ptrdiff_t>(first), found.end());
}

}  // namespace quell::tokenizer
