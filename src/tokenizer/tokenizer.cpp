// SPDX-License-Identifier: Apache-2.0

// The order of work for a text: tokens that match raw text, then for what is between them the
// normalizer, tokens that match normalized text, the pre-tokenizer, the model; the post-processor
// at the end. Each stage hands its parts to the next one as it finds them.

#include "quell/tokenizer/tokenizer.hpp"

#include <algorithm>
#include <utility>

#include "tokenizer/state.hpp"

namespace quell::tokenizer {
namespace {

/// A scratch out of the pool for as long as a call lasts.
class Borrowed {
 public:
  explicit Borrowed(ScratchPool& pool) : pool_(pool), scratch_(pool.take()) {}
  ~Borrowed() { pool_.give_back(std::move(scratch_)); }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  CallScratch& operator*() const noexcept { return *scratch_; }

 private:
  ScratchPool& pool_;
  std::unique_ptr<CallScratch> scratch_;
};

class ModelSink final : public PieceSink {
 public:
  ModelSink(const Model& model, ModelScratch& scratch, std::vector<std::int32_t>& ids)
      : model_(model), scratch_(scratch), ids_(ids) {}
  Status take(std::string_view piece) override { return model_.encode(piece, scratch_, ids_); }

 private:
  const Model& model_;
  ModelScratch& scratch_;
  std::vector<std::int32_t>& ids_;
};

Status encode_text(const Parts& parts, std::string_view text, CallScratch& scratch,
                   std::vector<std::int32_t>& ids) {
  MatchScratch& match = scratch.cut.match;
  ModelSink sink(*parts.model, scratch.model, ids);
  std::string normal;
  return parts.added.each_part(
      text, /*normalized=*/false, match, [&](Span raw, const AddedToken* token) -> Status {
        if (token != nullptr) return ids.push_back(token->id), ok();
        bool from_start = raw.begin == 0;
        std::string_view part = text.substr(raw.begin, raw.end - raw.begin);
        if (!parts.normalizer.is_empty()) {
          normal = part;
          QUELL_TRY(parts.normalizer.apply(normal, from_start, match));
          part = normal;
        }
        return parts.added.each_part(
            part, /*normalized=*/true, match, [&](Span span, const AddedToken* found) -> Status {
              if (found != nullptr) return ids.push_back(found->id), ok();
              return parts.pre_tokenizer.cut(part.substr(span.begin, span.end - span.begin),
                                             from_start && span.begin == 0, scratch.cut, sink);
            });
      });
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::read(const std::filesystem::path& folder) {
  auto state = std::make_unique<State>();
  const std::filesystem::path json = folder / "tokenizer.json",
                              sentencepiece = folder / "tokenizer.model";
  std::error_code error;
  const bool has_json = std::filesystem::exists(json, error);
  if (!has_json && !std::filesystem::exists(sentencepiece, error)) {
    return Error{ErrorCode::missing,
                 folder.string() +
                     ": neither tokenizer.json nor tokenizer.model is there; copy the "
                     "tokenizer of the model into its folder",
                 folder.string()};
  }
  QUELL_TRY(parts, has_json ? read_tokenizer_json(json) : read_sentencepiece(sentencepiece));
  state->parts = std::move(parts);
  return Tokenizer(std::move(state));
}

Result<std::vector<std::int32_t>> Tokenizer::encode(std::string_view text, bool add_special) const {
  std::string repaired;
  if (!is_utf8(text)) {
    repaired = sanitize(text);
    text = repaired;
  }
  const Borrowed scratch(state_->scratch);
  std::vector<std::int32_t> ids;
  QUELL_TRY(encode_text(state_->parts, text, *scratch, ids));
  state_->parts.post_processor.apply(ids, add_special);
  return ids;
}

std::vector<std::int32_t> Tokenizer::with_special(std::vector<std::int32_t> ids) const {
  state_->parts.post_processor.apply(ids, /*add_special=*/true);
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool keep_special) const {
  const Parts& parts = state_->parts;
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const std::int32_t id : ids) {
    if (const AddedToken* token = parts.added.find(id)) {
      if (keep_special || !token->special) tokens.emplace_back(parts.added.decode_text(*token));
    } else if (parts.model->vocabulary().has(id)) {
      // A vocabulary may name a special token twice; what it says decides, not the id.
      const std::string_view piece = parts.model->vocabulary().piece(id);
      const AddedToken* same = parts.added.find(parts.added.vocabulary().find(piece));
      if (keep_special || same == nullptr || !same->special) tokens.emplace_back(piece);
    }
  }
  const Borrowed scratch(state_->scratch);
  return parts.decoder.decode(std::move(tokens), (*scratch).cut.match);
}

std::uint32_t Tokenizer::size() const noexcept {
  return std::max(state_->parts.model->vocabulary().id_end(),
                  state_->parts.added.vocabulary().id_end());
}

std::string_view Tokenizer::piece(std::int32_t id) const noexcept {
  const AddedToken* token = state_->parts.added.find(id);
  return token != nullptr ? std::string_view(token->content)
                          : state_->parts.model->vocabulary().piece(id);
}

std::optional<std::int32_t> Tokenizer::id(std::string_view piece) const noexcept {
  std::int32_t id = state_->parts.added.vocabulary().find(piece);
  if (id < 0) id = state_->parts.model->vocabulary().find(piece);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::optional<std::int32_t> Tokenizer::bos() const noexcept {
  return state_->parts.post_processor.first_id();
}

std::string_view Tokenizer::model_type() const noexcept {
  return state_->parts.model->type();
}

}  // namespace quell::tokenizer
