// SPDX-License-Identifier: Apache-2.0

// WordPiece (BERT): the longest piece the word starts with, then the longest continuation ("##...")
// at each place; one unknown token for the whole word if some place has none.

#include <algorithm>
#include <span>

#include "tokenizer/model.hpp"
#include "tokenizer/unicode.hpp"

namespace quell::tokenizer {
namespace {

class WordPieceModel final : public Model {
 public:
  static ModelResult read(const io::Json& value, const std::string& file) {
    const io::JsonFields fields(value, file);
    auto model = std::make_unique<WordPieceModel>();
    QUELL_TRY(read_vocabulary(value, file, model->vocabulary_));
    QUELL_TRY(unknown, fields.text("unk_token"));
    model->unknown_ = unknown;
    model->unknown_id_ = model->vocabulary_.find(unknown);
    QUELL_TRY(prefix, fields.text("continuing_subword_prefix"));
    model->prefix_ = prefix;
    QUELL_TRY(longest, fields.unsigned_integer("max_input_chars_per_word", 0, kMaxPieceBytes));
    model->max_characters_ = longest;
    return std::unique_ptr<Model>(std::move(model));
  }

  std::string_view type() const noexcept override { return "WordPiece"; }

  Status encode(std::string_view piece, ModelScratch& scratch,
                std::vector<std::int32_t>& ids) const override {
    if (scratch.cache.append(piece, ids)) return ok();
    const std::size_t first = ids.size();
    if (is_too_long(piece) || !append_pieces(piece, scratch, ids)) {
      if (unknown_id_ < 0) {
        return Error{ErrorCode::missing, "the word \"" + std::string(piece.substr(0, 80)) +
                                             "\" has no pieces, and the unknown token \"" +
                                             unknown_ + "\" is not in the vocabulary"};
      }
      ids.resize(first);
      ids.push_back(unknown_id_);
    }
    scratch.cache.remember(piece, std::span(ids).subspan(first));
    return ok();
  }

 private:
  bool is_too_long(std::string_view piece) const noexcept {
    if (piece.size() <= max_characters_) return false;
    const auto characters = std::count_if(piece.begin(), piece.end(), [](char c) {
      return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    });
    return static_cast<std::size_t>(characters) > max_characters_;
  }

  bool append_pieces(std::string_view piece, ModelScratch& scratch,
                     std::vector<std::int32_t>& ids) const {
    for (std::size_t start = 0; start < piece.size();) {
      std::string& text = scratch.text;
      text = start > 0 ? prefix_ : std::string();
      const std::size_t before = text.size();
      // No piece is longer than the longest of the vocabulary, so a long word costs no more per
      // place.
      text += piece.substr(start, vocabulary_.longest() + 4);
      std::int32_t id = -1;
      while (text.size() > before) {
        id = vocabulary_.find(text);
        if (id >= 0) break;
        // Drop one character; a character cut by the limit above is dropped bytewise.
        std::size_t end = text.size() - 1;
        while (end > before && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
        text.resize(end);
      }
      if (id < 0) return false;
      ids.push_back(id);
      start += text.size() - before;
    }
    return true;
  }

  std::string unknown_, prefix_;
  std::int32_t unknown_id_ = -1;
  std::size_t max_characters_ = 100;  // of a word, in code points
};

}  // namespace

ModelResult read_wordpiece(const io::Json& value, const std::string& file) {
  return WordPieceModel::read(value, file);
}

}  // namespace quell::tokenizer
