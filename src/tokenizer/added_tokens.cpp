// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/added_tokens.hpp"

#include "tokenizer/component.hpp"

namespace quell::tokenizer {
namespace {

// Looking for a token costs its length at every place where it nearly matches; no token in use is
// longer than a hundred bytes or so.
constexpr std::size_t kMaxContent = 4096;

}  // namespace

void AddedTokens::Matcher::add(std::string_view content, std::size_t index) {
  if (content.empty()) return;
  trie.insert(content, static_cast<std::uint32_t>(index));
  starts[static_cast<unsigned char>(content.front())] = true;
  is_empty = false;
}

Result<AddedTokens> AddedTokens::read(const io::Json& value, const std::string& file,
                                      const Vocabulary& model, const Normalizer& normalizer) {
  AddedTokens added;
  if (value.is(io::Json::Kind::null)) return added;
  if (!value.is(io::Json::Kind::array)) {
    return Error{ErrorCode::parse, file + ": added_tokens is not an array", file};
  }
  MatchScratch scratch;
  for (const io::Json& item : value.items()) {
    const io::JsonFields fields(item, file);
    AddedToken token;
    QUELL_TRY(content, fields.text("content"));
    QUELL_TRY(id, fields.unsigned_integer("id", 0, static_cast<std::uint64_t>(kMaxIds - 1)));
    token.content = content;
    token.id = static_cast<std::int32_t>(id);
    QUELL_TRY(single, boolean_member(item, file, "single_word", false));
    token.single_word = single;
    QUELL_TRY(left, boolean_member(item, file, "lstrip", false));
    token.lstrip = left;
    QUELL_TRY(right, boolean_member(item, file, "rstrip", false));
    token.rstrip = right;
    QUELL_TRY(special, boolean_member(item, file, "special", false));
    token.special = special;
    QUELL_TRY(normalized, boolean_member(item, file, "normalized", !special));
    token.normalized = normalized;
    if (token.content.empty()) continue;
    if (token.content.size() > kMaxContent) {
      return Error{ErrorCode::parse,
                   file + ": the added token " + std::to_string(token.id) + " has " +
                       std::to_string(token.content.size()) + " bytes, expected at most " +
                       std::to_string(kMaxContent),
                   file};
    }
    const std::int32_t model_id = model.find(token.content);
    if (model_id >= 0 && model_id != token.id) {
      return Error{ErrorCode::parse,
                   file + ": the added token \"" + token.content.substr(0, 80) + "\" has the id " +
                       std::to_string(token.id) + ", but the vocabulary gives it " +
                       std::to_string(model_id),
                   file};
    }
    if (model_id < 0 && model.has(token.id)) {
      return Error{ErrorCode::parse,
                   file + ": the added token \"" + token.content.substr(0, 80) + "\" has the id " +
                       std::to_string(token.id) + ", which belongs to \"" +
                       std::string(model.piece(token.id).substr(0, 80)) + "\" of the vocabulary",
                   file};
    }
    const auto known = added.by_id_.find(token.id);
    if (known != added.by_id_.end() && added.tokens_[known->second].content == token.content) {
      added.tokens_[known->second] = token;  // named twice: the later flags count
      continue;
    }
    QUELL_TRY(added.vocabulary_.add(token.content, token.id, file));
    added.by_id_.emplace(token.id, added.tokens_.size());
    added.tokens_.push_back(std::move(token));
  }
  for (std::size_t i = 0; i < added.tokens_.size(); ++i) {
    const AddedToken& token = added.tokens_[i];
    std::string text = token.content;
    if (token.normalized) {
      bool from_start = true;
      QUELL_TRY(normalizer.apply(text, from_start, scratch));
    }
    (token.normalized ? added.normal_ : added.raw_).add(text, i);
    added.normal_texts_.push_back(std::move(text));
    if (token.single_word && !added.word_character_) {
      QUELL_TRY(pattern, SplitPattern::compile(
                             "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}]", file));
      added.word_character_ = std::move(pattern);
    }
  }
  return added;
}

Status AddedTokens::add_unmatched(std::string_view content, std::int64_t id,
                                  const std::string& file) {
  QUELL_TRY(vocabulary_.add(content, id, file));
  AddedToken token;
  token.content = content;
  token.id = static_cast<std::int32_t>(id);
  token.special = true;
  by_id_.emplace(token.id, tokens_.size());
  tokens_.push_back(std::move(token));
  normal_texts_.emplace_back(content);
  return ok();
}

const AddedToken* AddedTokens::find(std::int64_t id) const noexcept {
  if (id < 0 || id >= kMaxIds) return nullptr;
  const auto found = by_id_.find(static_cast<std::int32_t>(id));
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

std::string_view AddedTokens::decode_text(const AddedToken& token) const noexcept {
  return normal_texts_[static_cast<std::size_t>(&token - tokens_.data())];
}

const AddedToken* AddedTokens::longest_at(std::string_view text, std::size_t position,
                                          bool normalized, std::size_t& end) const noexcept {
  const ByteTrie& trie = (normalized ? normal_ : raw_).trie;
  const AddedToken* longest = nullptr;
  std::uint32_t node = ByteTrie::kRoot;
  for (std::size_t i = position; i < text.size(); ++i) {
    node = trie.step(node, text[i]);
    if (node == ByteTrie::kAbsent) break;
    if (trie.value(node) == ByteTrie::kAbsent) continue;
    longest = &tokens_[trie.value(node)];
    end = i + 1;
  }
  return longest;
}

Result<bool> AddedTokens::touches_word(std::string_view text, Span span,
                                       MatchScratch& scratch) const {
  const auto is_word = [&](std::size_t at, std::size_t bytes) -> Result<bool> {
    QUELL_TRY(match, word_character_->find(text.substr(at, bytes), 0, scratch));
    return match.has_value();
  };
  if (span.begin > 0) {
    const std::size_t bytes = character_before(text, span.begin).bytes;
    QUELL_TRY(word, is_word(span.begin - bytes, bytes));
    if (word) return true;
  }
  if (span.end < text.size()) return is_word(span.end, character_at(text, span.end).bytes);
  return false;
}

}  // namespace quell::tokenizer
