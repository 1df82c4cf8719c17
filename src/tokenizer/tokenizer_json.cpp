// SPDX-License-Identifier: Apache-2.0

// tokenizer.json: its parts in the order in which they depend on each other, and what
// tokenizer_config.json adds.

#include "tokenizer/component.hpp"
#include "tokenizer/state.hpp"

namespace quell::tokenizer {
namespace {

ModelResult read_model(const io::Json& value, const std::string& file) {
  QUELL_TRY(type, [&]() -> Result<std::string> {
    // Files older than the member `type` can be told apart by what else they have.
    if (value.is(io::Json::Kind::object) && value.find("type") == nullptr) {
      if (value.find("merges") != nullptr) return std::string("BPE");
      if (value.find("unk_id") != nullptr) return std::string("Unigram");
      if (value.find("max_input_chars_per_word") != nullptr) return std::string("WordPiece");
    }
    return component_type(value, file, "model");
  }());
  if (type == "BPE") return read_bpe(value, file);
  if (type == "Unigram") return read_unigram(value, file);
  if (type == "WordPiece") return read_wordpiece(value, file);
  return unsupported_component(value, file, "model", type, "BPE, Unigram and WordPiece");
}

/// The text of a token in tokenizer_config.json: a string, or an object with `content`.
std::optional<std::string> token_text(const io::Json* value) {
  if (value != nullptr && value->is(io::Json::Kind::object)) value = value->find("content");
  if (value == nullptr || !value->is(io::Json::Kind::string)) return std::nullopt;
  return value->as_string();
}

std::int32_t id_of(const Parts& parts, std::string_view piece) {
  const std::int32_t added = parts.added.vocabulary().find(piece);
  return added >= 0 ? added : parts.model->vocabulary().find(piece);
}

/// add_bos_token and add_eos_token, which count where the post-processor adds nothing.
Status read_config(const std::filesystem::path& path, Parts& parts) {
  std::error_code error;
  if (parts.post_processor.adds_ids() || !std::filesystem::exists(path, error)) return ok();
  QUELL_TRY(config, io::read_json(path));
  const std::string file = path.string();
  std::vector<std::int32_t> around[2];
  const std::pair<std::string_view, std::string_view> kNames[] = {{"add_bos_token", "bos_token"},
                                                                  {"add_eos_token", "eos_token"}};
  for (std::size_t i = 0; i < 2; ++i) {
    const auto [flag, name] = kNames[i];
    QUELL_TRY(wanted, boolean_member(config, file, flag, false));
    if (!wanted) continue;
    const std::optional<std::string> token = token_text(config.find(name));
    if (!token) continue;  // a tokenizer without such a token has nothing to add
    const std::int32_t id = id_of(parts, *token);
    if (id < 0) {
      return Error{ErrorCode::parse,
                   file + ": " + std::string(flag) + " is set, but the " + std::string(name) +
                       " \"" + token->substr(0, 80) + "\" is not a token",
                   file};
    }
    around[i].push_back(id);
  }
  if (!around[0].empty() || !around[1].empty()) {
    parts.post_processor.surround(std::move(around[0]), std::move(around[1]));
  }
  return ok();
}

}  // namespace

Result<Parts> read_tokenizer_json(const std::filesystem::path& path) {
  QUELL_TRY(json, io::read_json(path));
  const std::string file = path.string();
  const io::JsonFields fields(json, file);
  if (!json.is(io::Json::Kind::object)) {
    return Error{ErrorCode::parse, file + ": the file is not an object", file};
  }
  QUELL_TRY(version, fields.optional_text("version"));
  if (version && *version != "1.0") {
    return Error{ErrorCode::unsupported,
                 file + ": version " + version->substr(0, 80) + " of the format, expected 1.0",
                 file};
  }
  const io::Json* model = fields.find("model");
  if (model == nullptr) return fields.wrong("model", "an object");
  static const io::Json kNull;
  const auto member = [&](std::string_view name) -> const io::Json& {
    const io::Json* found = fields.find(name);
    return found == nullptr ? kNull : *found;
  };
  Parts parts;
  QUELL_TRY(read, read_model(*model, file));
  parts.model = std::move(read);
  QUELL_TRY(normalizer, Normalizer::read(member("normalizer"), file));
  parts.normalizer = std::move(normalizer);
  QUELL_TRY(added, AddedTokens::read(member("added_tokens"), file, parts.model->vocabulary(),
                                     parts.normalizer));
  parts.added = std::move(added);
  QUELL_TRY(pre_tokenizer, PreTokenizer::read(member("pre_tokenizer"), file));
  parts.pre_tokenizer = std::move(pre_tokenizer);
  QUELL_TRY(post_processor, TokenTemplate::read(member("post_processor"), file));
  parts.post_processor = std::move(post_processor);
  QUELL_TRY(decoder, Decoder::read(member("decoder"), file));
  parts.decoder = std::move(decoder);
  QUELL_TRY(read_config(path.parent_path() / "tokenizer_config.json", parts));
  const std::uint32_t ids =
      std::max(parts.model->vocabulary().id_end(), parts.added.vocabulary().id_end());
  for (const std::int32_t id : parts.post_processor.all_ids()) {
    if (static_cast<std::uint32_t>(id) >= ids) {
      return Error{ErrorCode::parse,
                   file + ": the post-processor adds the id " + std::to_string(id) +
                       ", but ids end at " + std::to_string(ids),
                   file};
    }
  }
  return parts;
}

}  // namespace quell::tokenizer
