// SPDX-License-Identifier: Apache-2.0

// Unigram (Kudo 2018): every piece has a log probability, and a text is cut where the sum over its
// pieces is largest. Viterbi over byte positions with a trie of the pieces: O(n * longest piece).

#include <charconv>
#include <limits>
#include <span>
#include <system_error>

#include "tokenizer/component.hpp"
#include "tokenizer/flat_map.hpp"
#include "tokenizer/model.hpp"
#include "tokenizer/unicode.hpp"

namespace quell::tokenizer {
namespace {

// What an unknown character costs below the least likely piece; fixed by the reference.
constexpr double kUnknownPenalty = 10.0;

/// A score as the reference reads it. It takes the digits as one integer, rounds that to a double,
/// and multiplies or divides by a power of ten, which can be one unit in the last place away from
/// the nearest double. Among cuttings of a run of equal characters, whose sums are equal but for
/// rounding, that unit decides. Files are written with the fewest digits, so the value gives back
/// the digits.
double score_as_read(double value) noexcept {
  char text[40];
  const auto [end, error] =
      std::to_chars(text, text + sizeof text, value, std::chars_format::scientific);
  if (error != std::errc()) return value;
  std::uint64_t digits = 0;
  int exponent = 0, decimals = 0;
  bool negative = false, behind_point = false;
  for (const char* at = text; at < end; ++at) {
    if (*at == 'e') {
      const char* first = at[1] == '+' ? at + 2 : at + 1;
      std::from_chars(first, end, exponent);
      break;
    }
    if (*at == '-') negative = true;
    if (*at == '.') behind_point = true;
    if (*at < '0' || *at > '9') continue;
    digits = digits * 10 + static_cast<std::uint64_t>(*at - '0');  // 17 digits at most
    decimals += behind_point ? 1 : 0;
  }
  exponent -= decimals;
  // Powers of ten up to 22 are exact doubles; scores beyond that do not occur.
  if (exponent < -22 || exponent > 22) return value;
  double power = 1;
  for (int i = exponent < 0 ? -exponent : exponent; i > 0; --i) power *= 10;
  const auto whole = static_cast<double>(digits);
  const double read = exponent < 0 ? whole / power : whole * power;
  return negative ? -read : read;
}

class UnigramModel final : public Model {
 public:
  static ModelResult read(const io::Json& value, const std::string& file) {
    const io::JsonFields fields(value, file);
    auto model = std::make_unique<UnigramModel>();
    QUELL_TRY(vocab, array_member(value, file, "vocab"));
    double lowest = std::numeric_limits<double>::infinity();
    for (const io::Json& entry : *vocab) {
      const auto& pair = entry.items();
      if (!entry.is(io::Json::Kind::array) || pair.size() != 2 ||
          !pair[0].is(io::Json::Kind::string) || !pair[1].is_number()) {
        return Error{ErrorCode::parse,
                     file + ": entry " + std::to_string(model->scores_.size()) +
                         " of the vocabulary is not a piece and its score",
                     file};
      }
      const std::string& piece = pair[0].as_string();
      const auto id = static_cast<std::int64_t>(model->scores_.size());
      // A piece that occurs twice means its last id, as in the reference.
      QUELL_TRY(model->vocabulary_.add_or_replace(piece, id, file));
      const double score = score_as_read(pair[1].as_number());
      model->scores_.push_back(score);
      if (score < lowest) lowest = score;
      if (!piece.empty()) model->trie_.insert(piece, static_cast<std::uint32_t>(id));
    }
    model->unknown_score_ = lowest - kUnknownPenalty;
    const std::size_t count = model->scores_.size();
    QUELL_TRY(unknown, fields.optional_unsigned("unk_id", 0, count == 0 ? 0 : count - 1));
    if (unknown && count == 0) return fields.wrong("vocab", "at least one piece");
    if (unknown) model->unknown_id_ = static_cast<std::int32_t>(*unknown);
    QUELL_TRY(fallback, boolean_member(value, file, "byte_fallback", false));
    model->byte_fallback_ = fallback;
    return std::unique_ptr<Model>(std::move(model));
  }

  std::string_view type() const noexcept override { return "Unigram"; }

  Status encode(std::string_view piece, ModelScratch& scratch,
                std::vector<std::int32_t>& ids) const override {
    if (scratch.cache.append(piece, ids)) return ok();
    if (piece.size() > kMaxPieceBytes) return piece_too_long(piece.size());
    const std::size_t first = ids.size();
    QUELL_TRY(find_best_path(piece, scratch));
    QUELL_TRY(follow_path(piece, scratch, ids));
    scratch.cache.remember(piece, std::span(ids).subspan(first));
    return ok();
  }

 private:
  Status find_best_path(std::string_view piece, ModelScratch& scratch) const {
    auto& arrivals = scratch.arrivals;
    arrivals.assign(piece.size() + 1, {});
    const auto offer = [&](std::size_t from, std::size_t to, double score, std::int32_t id) {
      ModelScratch::Arrival& target = arrivals[to];
      const double total = score + arrivals[from].score;
      if (target.from < 0 || total > target.score) {
        target = {total, static_cast<std::int32_t>(from), id};
      }
    };
    for (std::size_t from = 0; from < piece.size();) {
      const std::size_t bytes = character_at(piece, from).bytes;
      bool has_character = false;
      std::uint32_t node = ByteTrie::kRoot;
      for (std::size_t to = from; to < piece.size();) {
        node = trie_.step(node, piece[to]);
        if (node == ByteTrie::kAbsent) break;
        ++to;
        const std::uint32_t id = trie_.value(node);
        if (id == ByteTrie::kAbsent) continue;
        offer(from, to, scores_[id], static_cast<std::int32_t>(id));
        has_character |= to - from == bytes;
      }
      if (!has_character) {
        if (unknown_id_ < 0) {
          return Error{ErrorCode::missing,
                       "the character \"" + std::string(piece.substr(from, bytes)) +
                           "\" is not in the vocabulary, which has no unknown token"};
        }
        offer(from, from + bytes, unknown_score_, unknown_id_);
      }
      from += bytes;
    }
    return ok();
  }

  /// Reads the path backwards, joins runs of unknown pieces, and appends ids in forward order.
  Status follow_path(std::string_view piece, ModelScratch& scratch,
                     std::vector<std::int32_t>& ids) const {
    auto& arrivals = scratch.arrivals;
    // The links are turned round in place: from[] of a start becomes where its piece ends.
    std::int32_t end = static_cast<std::int32_t>(piece.size()), next = -1;
    std::int32_t next_id = 0;
    while (end > 0) {
      ModelScratch::Arrival& arrival = arrivals[static_cast<std::size_t>(end)];
      const std::int32_t start = arrival.from, id = arrival.id;
      arrival.from = next;
      arrival.id = next_id;
      next = end;
      next_id = id;
      end = start;
    }
    arrivals[0] = {0, next, next_id};
    for (std::size_t start = 0; start < piece.size();) {
      const bool unknown = arrivals[start].id == unknown_id_;
      auto stop = static_cast<std::size_t>(arrivals[start].from);
      while (unknown && stop < piece.size() && arrivals[stop].id == unknown_id_) {
        stop = static_cast<std::size_t>(arrivals[stop].from);
      }
      append_ids(piece.substr(start, stop - start), ids);
      start = stop;
    }
    return ok();
  }

  void append_ids(std::string_view text, std::vector<std::int32_t>& ids) const {
    const std::int32_t id = vocabulary_.find(text);
    if (id >= 0) return ids.push_back(id);
    if (byte_fallback_) {
      const std::size_t first = ids.size();
      bool complete = true;
      for (const char byte : text) {
        const std::int32_t token = vocabulary_.find(byte_token(static_cast<unsigned char>(byte)));
        complete &= token >= 0;
        ids.push_back(token);
      }
      if (complete) return;
      ids.resize(first);
    }
    ids.push_back(unknown_id_);
  }

  std::vector<double> scores_;  // [id]
  ByteTrie trie_;               // piece -> id
  std::int32_t unknown_id_ = -1;
  double unknown_score_ = 0;
  bool byte_fallback_ = false;
};

}  // namespace

ModelResult read_unigram(const io::Json& value, const std::string& file) {
  return UnigramModel::read(value, file);
}

}  // namespace quell::tokenizer
