// SPDX-License-Identifier: Apache-2.0

// A tokenizer out of a SentencePiece file alone, for folders without tokenizer.json. Ids are those
// of the SentencePiece program; text that spells a control piece is text. The file does not say
// whether a BOS goes in front: tokenizer_config.json does, and without it a file that has a BOS
// piece gets it.

#include "tokenizer/sentencepiece_file.hpp"

#include <cstdio>
#include <limits>

#include "tokenizer/component.hpp"
#include "tokenizer/model_sentencepiece.hpp"
#include "tokenizer/state.hpp"

namespace quell::tokenizer {
namespace {

constexpr std::uint64_t kMaxFile = 256u << 20;  // bytes; the largest known has 5 MB

Result<std::string> read_file(const std::filesystem::path& path) {
  const std::string file = path.string();
  std::error_code error;
  const std::uint64_t bytes = std::filesystem::file_size(path, error);
  if (error) return Error{ErrorCode::resource, file + ": " + error.message(), file};
  if (bytes > kMaxFile) {
    return Error{ErrorCode::parse,
                 file + ": " + std::to_string(bytes) + " bytes, expected at most " +
                     std::to_string(kMaxFile),
                 file};
  }
  std::FILE* stream = std::fopen(file.c_str(), "rb");
  if (stream == nullptr) return Error{ErrorCode::resource, file + ": cannot be opened", file};
  std::string content(static_cast<std::size_t>(bytes), '\0');
  const std::size_t got = std::fread(content.data(), 1, content.size(), stream);
  std::fclose(stream);
  if (got != content.size()) {
    return Error{ErrorCode::resource,
                 file + ": read " + std::to_string(got) + " of " + std::to_string(bytes) + " bytes",
                 file};
  }
  return content;
}

}  // namespace

Result<Parts> read_sentencepiece(const std::filesystem::path& path) {
  const std::string file = path.string();
  QUELL_TRY(bytes, read_file(path));
  QUELL_TRY(source, parse_sentencepiece(bytes, file));
  Parts parts;
  QUELL_TRY(model, SentencePieceModel::make(source, file));
  parts.model = std::move(model);

  MapSentencePiece map;
  QUELL_TRY(charsmap, Charsmap::read(source.charsmap, file));
  map.charsmap = std::move(charsmap);
  map.prefix = source.add_dummy_prefix && !source.space_as_suffix;
  map.suffix = source.add_dummy_prefix && source.space_as_suffix;
  map.remove_extra_spaces = source.remove_extra_spaces;
  map.escape_spaces = source.escape_spaces;
  Decoder::SentencePiece join;
  join.drops_first_space = source.add_dummy_prefix || source.remove_extra_spaces;
  join.drops_all_leading = source.remove_extra_spaces;
  join.byte_fallback = source.byte_fallback;
  join.unknown_surface = source.unknown_surface;
  for (std::size_t i = 0; i < source.pieces.size(); ++i) {
    const SentencePieceFile::Piece& piece = source.pieces[i];
    if (piece.type == SentencePieceFile::Type::user_defined) {
      map.user_defined.insert(piece.text, static_cast<std::uint32_t>(i));
    } else if (piece.type == SentencePieceFile::Type::control) {
      QUELL_TRY(parts.added.add_unmatched(piece.text, static_cast<std::int64_t>(i), file));
    } else if (piece.type == SentencePieceFile::Type::unknown) {
      join.unknown = piece.text;
    }
  }
  parts.normalizer.add(std::move(map));
  parts.decoder.add(std::move(join));

  const auto control = [&](std::int32_t id) {
    return id >= 0 && static_cast<std::size_t>(id) < source.pieces.size() &&
           source.pieces[static_cast<std::size_t>(id)].type == SentencePieceFile::Type::control;
  };
  bool add_bos = true, add_eos = false;
  const std::filesystem::path config_path = path.parent_path() / "tokenizer_config.json";
  std::error_code error;
  if (std::filesystem::exists(config_path, error)) {
    QUELL_TRY(config, io::read_json(config_path));
    QUELL_TRY(bos, boolean_member(config, config_path.string(), "add_bos_token", add_bos));
    QUELL_TRY(eos, boolean_member(config, config_path.string(), "add_eos_token", add_eos));
    add_bos = bos;
    add_eos = eos;
  }
  std::vector<std::int32_t> before, after;
  if (add_bos && control(source.bos)) before.push_back(source.bos);
  if (add_eos && control(source.eos)) after.push_back(source.eos);
  if (!before.empty() || !after.empty()) parts.post_processor.surround(before, after);
  return parts;
}

}  // namespace quell::tokenizer
