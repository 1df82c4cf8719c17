// SPDX-License-Identifier: Apache-2.0

// config.json: which architecture it is, the merge of nested text configurations, and the shared
// fields. Every number is checked against a limit before it is narrowed.

#include "quell/model/config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "model/config_fields.hpp"
#include "quell/model/architecture.hpp"

namespace quell::model {
namespace {

/// A multimodal config keeps the language model's fields in text_config; these win over the top
/// level, which still has the class and the token ids.
io::Json merge_text_config(const io::Json& json) {
  const io::Json* text = json.find("text_config");
  if (text == nullptr || !text->is(io::Json::Kind::object)) return json;
  io::Json merged = json;
  for (const io::Json::Member& member : text->members()) {
    if (member.first == "architectures" || member.first == "model_type") continue;
    merged.set(member.first, member.second);
  }
  return merged;
}

/// The class of the model: the first entry of "architectures".
Result<std::string> class_name(const io::JsonFields& fields) {
  const io::Json* list = fields.find("architectures");
  if (list == nullptr) return std::string();
  if (!list->is(io::Json::Kind::array) || list->items().empty() ||
      !list->items().front().is(io::Json::Kind::string)) {
    return fields.wrong("architectures", "a list with the class of the model");
  }
  return list->items().front().as_string();
}

Error unknown_architecture(const io::JsonFields& fields, const std::string& name,
                           const std::string& type) {
  std::string known;
  for (const Architecture& architecture : architectures()) {
    if (!known.empty()) known += ", ";
    known += architecture.name;
  }
  std::string message = fields.file() + ": the architecture is ";
  message += name.empty() ? "model_type \"" + type + "\"" : "\"" + name + "\"";
  if (fields.find("auto_map") != nullptr) {
    message +=
        ", defined by program files that come with the model (auto_map), which are never run";
  }
  message += "; known are " + known +
             ". Round-to-nearest needs no architecture: --method rtn quantizes every 2-D *.weight "
             "except embeddings and head";
  return Error{ErrorCode::unsupported, std::move(message), fields.file(), {}};
}

}  // namespace

std::uint32_t position_limit(const ModelConfig& config) noexcept {
  if (config.positions == Positions::learned) return config.max_positions;
  const Rope& rope = config.rope;
  double stretched = 0;
  // These two are switched on for a model whose max_position_embeddings may still be the trained
  // length; with the others that field is already what the scaling was trained for.
  if (rope.scaling == Rope::Scaling::dynamic || rope.scaling == Rope::Scaling::yarn) {
    stretched = std::floor(rope.factor * rope.original_positions);
  }
  const double limit = std::max(static_cast<double>(config.max_positions), stretched);
  return static_cast<std::uint32_t>(std::min(limit, static_cast<double>(kMaxPositions)));
}

Result<ModelConfig> parse_config(const io::Json& json, const std::string& file) {
  if (!json.is(io::Json::Kind::object)) {
    return Error{
        ErrorCode::parse, file + ": expected an object with the model's configuration", file, {}};
  }
  const io::Json merged = merge_text_config(json);
  const io::JsonFields fields(merged, file);
  QUELL_TRY(name, class_name(fields));
  QUELL_TRY(type, fields.optional_text("model_type"));
  if (name.empty() && !type) {
    return Error{ErrorCode::missing,
                 file + ": neither architectures nor model_type says what model this is",
                 file,
                 {}};
  }
  const std::string model_type = type.value_or("");
  const Architecture* architecture = find_architecture(name, model_type);
  if (architecture == nullptr) return unknown_architecture(fields, name, model_type);
  QUELL_TRY(config, architecture->parse(fields));
  config.architecture = architecture->name;
  config.model_type = model_type.empty() ? std::string(architecture->model_type) : model_type;
  return config;
}

Result<double> positive_number(const io::JsonFields& fields, std::string_view name,
                               double fallback) {
  QUELL_TRY(value, fields.optional_number(name));
  if (!value) return fallback;
  if (!(*value > 0) || !std::isfinite(*value)) return fields.wrong(name, "a number above 0");
  return *value;
}

Result<bool> flag(const io::JsonFields& fields, std::string_view name, bool fallback) {
  QUELL_TRY(value, fields.optional_boolean(name));
  return value.value_or(fallback);
}

Status parse_sizes(const io::JsonFields& fields, const SizeNames& names, ModelConfig& config) {
  const auto narrow = [](std::uint64_t value) { return static_cast<std::uint32_t>(value); };
  QUELL_TRY(hidden, fields.unsigned_integer(names.hidden, 1, kMaxWidth));
  QUELL_TRY(layers, fields.unsigned_integer(names.layers, 1, kMaxLayers));
  QUELL_TRY(heads, fields.unsigned_integer(names.heads, 1, kMaxHeads));
  QUELL_TRY(vocabulary, fields.unsigned_integer("vocab_size", 1, kMaxVocabulary));
  QUELL_TRY(positions, fields.unsigned_integer(names.positions, 1, kMaxPositions));
  config.hidden = narrow(hidden);
  config.layers = narrow(layers);
  config.heads = narrow(heads);
  config.vocabulary = narrow(vocabulary);
  config.max_positions = narrow(positions);
  config.embedding_width = config.hidden;
  if (!names.intermediate.empty()) {
    QUELL_TRY(intermediate, fields.unsigned_integer(names.intermediate, 1, kMaxWidth));
    config.intermediate = narrow(intermediate);
  }

  config.kv_heads = config.heads;
  if (!names.kv_heads.empty()) {
    QUELL_TRY(kv_heads, fields.optional_unsigned(names.kv_heads, 1, kMaxHeads));
    if (kv_heads) config.kv_heads = narrow(*kv_heads);
    if (config.heads % config.kv_heads != 0) {
      return fields.wrong(names.kv_heads, "a divisor of " + std::string(names.heads) + " " +
                                              std::to_string(config.heads));
    }
  }

  std::optional<std::uint64_t> head_dim;
  if (!names.head_dim.empty()) {
    QUELL_TRY(given, fields.optional_unsigned(names.head_dim, 1, kMaxWidth));
    head_dim = given;
  }
  if (!head_dim && names.default_head_dim != 0) head_dim = names.default_head_dim;
  if (!head_dim) {
    if (config.hidden % config.heads != 0) {
      return fields.wrong(names.hidden, "a multiple of " + std::string(names.heads) + " " +
                                            std::to_string(config.heads));
    }
    head_dim = config.hidden / config.heads;
  }
  config.head_dim = narrow(*head_dim);
  if (*head_dim * config.heads > kMaxWidth) {
    return fields.wrong(names.heads, "at most " + std::to_string(kMaxWidth / *head_dim) +
                                         " with heads of " + std::to_string(*head_dim));
  }
  config.attention_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(*head_dim)));
  config.windows.assign(config.layers, 0);
  return ok();
}

Status parse_frame_fields(const io::JsonFields& fields, bool tied_by_default, ModelConfig& config) {
  QUELL_TRY(tied, flag(fields, "tie_word_embeddings", tied_by_default));
  config.tied_head = tied;
  for (const char* name : {"dtype", "torch_dtype"}) {
    QUELL_TRY(dtype, fields.optional_text(name));
    if (dtype) config.dtype = *dtype;
  }
  // Either may be a list of ids, of which the first is the one to write; ids that no vocabulary has
  // (-1 for "none") count as absent.
  const auto first_id = [&](const char* name) -> Result<std::optional<std::int32_t>> {
    const io::Json* value = fields.find(name);
    if (value != nullptr && value->is(io::Json::Kind::array)) {
      value = value->items().empty() ? nullptr : &value->items().front();
    }
    if (value == nullptr) return std::optional<std::int32_t>();
    if (!value->is(io::Json::Kind::integer))
      return fields.wrong(name, "a token id or a list of them");
    const std::int64_t id = value->as_integer();
    if (id < 0 || id >= static_cast<std::int64_t>(kMaxVocabulary))
      return std::optional<std::int32_t>();
    return std::optional<std::int32_t>(static_cast<std::int32_t>(id));
  };
  QUELL_TRY(bos, first_id("bos_token_id"));
  QUELL_TRY(eos, first_id("eos_token_id"));
  config.bos = bos;
  config.eos = eos;
  return ok();
}

Result<Activation> parse_activation(const io::JsonFields& fields, std::string_view name,
                                    std::string_view fallback) {
  struct Name {
    std::string_view word;
    Activation activation;
  };
  // "gelu" is the exact error-function form; the others of that family are the tanh form, which
  // several libraries named.
  static constexpr std::array<Name, 9> kNames = {{{"relu", Activation::relu},
                                                  {"silu", Activation::silu},
                                                  {"swish", Activation::silu},
                                                  {"gelu", Activation::gelu},
                                                  {"gelu_python", Activation::gelu},
                                                  {"gelu_new", Activation::gelu_tanh},
                                                  {"gelu_fast", Activation::gelu_tanh},
                                                  {"gelu_pytorch_tanh", Activation::gelu_tanh},
                                                  {"quick_gelu", Activation::quick_gelu}}};
  QUELL_TRY(given, fields.optional_text(name));
  const std::string word = given.value_or(std::string(fallback));
  std::string known;
  for (const Name& entry : kNames) {
    if (entry.word == word) return entry.activation;
    if (!known.empty()) known += ", ";
    known += entry.word;
  }
  Error error = fields.wrong(name, "one of " + known);
  error.code = ErrorCode::unsupported;
  return error;
}

Status parse_windows(const io::JsonFields& fields, std::uint32_t window,
                     std::uint32_t first_windowed, ModelConfig& config) {
  config.windows.assign(config.layers, 0);
  const io::Json* types = fields.find("layer_types");
  if (types == nullptr) {
    for (std::uint32_t layer = first_windowed; layer < config.layers; ++layer) {
      config.windows[layer] = window;
    }
    return ok();
  }
  if (!types->is(io::Json::Kind::array) || types->items().size() != config.layers) {
    return fields.wrong("layer_types", "a list of " + std::to_string(config.layers) +
                                           " names, one for every layer");
  }
  for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
    const io::Json& type = types->items()[layer];
    const bool sliding = type.is(io::Json::Kind::string) && type.as_string() == "sliding_attention";
    const bool full = type.is(io::Json::Kind::string) && type.as_string() == "full_attention";
    if (!sliding && !full) {
      Error error = fields.wrong(
          "layer_types", "full_attention or sliding_attention for layer " + std::to_string(layer));
      error.code = ErrorCode::unsupported;
      return error;
    }
    if (sliding && window == 0) {
      return fields.wrong("sliding_window",
                          "a number above 0, since layer_types has sliding layers");
    }
    if (sliding) config.windows[layer] = window;
  }
  return ok();
}

}  // namespace quell::model
