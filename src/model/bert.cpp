// SPDX-License-Identifier: Apache-2.0

// BERT (BertModel, and BertForMaskedLM without its head): an encoder. Every token sees every other
// one, norms follow the residual sums, and what goes into the first block is the sum of a word, a
// position and a token type, normalized. Texts are single, so the type is always 0. There is no
// head: what the model gives is the hidden states themselves.

#include <string>

#include "model/architecture_list.hpp"
#include "model/checkpoint_names.hpp"
#include "model/config_fields.hpp"

namespace quell::model {
namespace {

// Far above any real table; real ones have 1 or 2 rows.
constexpr std::uint64_t kMaxTokenTypes = 1u << 16;

std::string prefix(const io::Checkpoint& checkpoint) {
  return find_prefix(checkpoint, "embeddings.word_embeddings", {"", "bert."});
}

/// A field that must have its only supported value; absent counts as that value.
Status refuse_flag(const io::JsonFields& fields, std::string_view name, const char* reason) {
  QUELL_TRY(set, flag(fields, name, false));
  if (!set) return ok();
  Error error = fields.wrong(name, reason);
  error.code = ErrorCode::unsupported;
  return error;
}

Result<ModelConfig> parse_bert(const io::JsonFields& fields) {
  SizeNames names;
  names.kv_heads = "";
  names.head_dim = "";
  ModelConfig config;
  QUELL_TRY(parse_sizes(fields, names, config));
  QUELL_TRY(parse_frame_fields(fields, /*tied_by_default=*/true, config));
  QUELL_TRY(eps, positive_number(fields, "layer_norm_eps", 1e-12));
  QUELL_TRY(activation, parse_activation(fields, "hidden_act", "gelu"));
  QUELL_TRY(types, fields.optional_unsigned("type_vocab_size", 1, kMaxTokenTypes));
  QUELL_TRY(positions, fields.optional_text("position_embedding_type"));
  if (positions && *positions != "absolute") {
    Error error = fields.wrong("position_embedding_type", "absolute");
    error.code = ErrorCode::unsupported;
    return error;
  }
  QUELL_TRY(refuse_flag(fields, "is_decoder", "false: BERT is read as an encoder"));
  QUELL_TRY(refuse_flag(fields, "add_cross_attention", "false: there is nothing to attend to"));
  config.norm = Norm::layer;
  config.norm_eps = static_cast<float>(eps);
  config.norm_after = true;
  config.final_norm = false;
  config.activation = activation;
  config.gated = false;
  config.causal = false;
  config.positions = Positions::learned;
  config.token_types = types ? static_cast<std::uint32_t>(*types) : 2;
  config.embedding_norm = true;
  config.qkv_bias = config.o_bias = config.mlp_bias = true;
  return config;
}

/// Files from before 2019 call the weight gamma and the bias beta.
NormTensors norm(const io::Checkpoint& checkpoint, const std::string& name) {
  const bool old = checkpoint.find(name + ".gamma") != nullptr;
  return {name + (old ? ".gamma" : ".weight"), name + (old ? ".beta" : ".bias")};
}

Frame bert_frame(const ModelConfig& config, const io::Checkpoint& checkpoint) {
  const std::string p = prefix(checkpoint);
  Frame frame;
  frame.embedding = p + "embeddings.word_embeddings.weight";
  frame.positions = p + "embeddings.position_embeddings.weight";
  frame.token_types = p + "embeddings.token_type_embeddings.weight";
  frame.embedding_norm = norm(checkpoint, p + "embeddings.LayerNorm");
  const auto add_unread = [&](const std::string& name, std::size_t rows) {
    if (checkpoint.find(name + ".weight") == nullptr) return;
    const bool bias = checkpoint.find(name + ".bias") != nullptr;
    frame.unread.push_back({name, rows, config.hidden, /*transposed=*/false, bias});
  };
  add_unread(p + "pooler.dense", config.hidden);
  add_unread("cls.predictions.transform.dense", config.hidden);
  add_unread("cls.predictions.decoder", config.vocabulary);
  return frame;
}

Block bert_block(const ModelConfig& config, const io::Checkpoint& checkpoint, std::uint32_t layer) {
  const std::string p = prefix(checkpoint) + "encoder.layer." + std::to_string(layer) + ".";
  const auto linear = [&](const char* name, std::size_t rows, std::size_t cols) {
    return Linear{p + name, rows, cols, /*transposed=*/false, /*bias=*/true};
  };
  const std::size_t hidden = config.hidden;
  Block block;
  block.attention_norm = norm(checkpoint, p + "attention.output.LayerNorm");
  block.mlp_norm = norm(checkpoint, p + "output.LayerNorm");
  block.qkv = {linear("attention.self.query", hidden, hidden),
               linear("attention.self.key", hidden, hidden),
               linear("attention.self.value", hidden, hidden)};
  block.o = linear("attention.output.dense", hidden, hidden);
  block.gate_up = {linear("intermediate.dense", config.intermediate, hidden)};
  block.down = linear("output.dense", hidden, config.intermediate);
  return block;
}

constexpr const char* kSizes =
    "hidden_size, intermediate_size, num_attention_heads, vocab_size, max_position_embeddings, "
    "type_vocab_size";

}  // namespace

const Architecture kBert = {"BertModel", "bert",     kSizes,    "num_hidden_layers",
                            parse_bert,  bert_frame, bert_block};
const Architecture kBertForMaskedLm = {
    "BertForMaskedLM", "bert", kSizes, "num_hidden_layers", parse_bert, bert_frame, bert_block};

}  // namespace quell::model
