// SPDX-License-Identifier: Apache-2.0

// GPT-2 (GPT2LMHeadModel): layer norms with biases, learned positions, one fused q/k/v product and
// an MLP without a gate. Its linear layers are stored [in, out]. The original files have no prefix,
// later ones say "transformer.".

#include <string>

#include "model/architecture_list.hpp"
#include "model/checkpoint_names.hpp"
#include "model/config_fields.hpp"

namespace quell::model {
namespace {

std::string prefix(const io::Checkpoint& checkpoint) {
  return find_prefix(checkpoint, "wte", {"transformer.", ""});
}

Result<ModelConfig> parse_gpt2(const io::JsonFields& fields) {
  SizeNames names;
  names.hidden = "n_embd";
  names.intermediate = "";
  names.layers = "n_layer";
  names.heads = "n_head";
  names.kv_heads = "";
  names.head_dim = "";
  names.positions = fields.find("n_positions") == nullptr && fields.find("n_ctx") != nullptr
                        ? "n_ctx"
                        : "n_positions";
  ModelConfig config;
  QUELL_TRY(parse_sizes(fields, names, config));
  QUELL_TRY(parse_frame_fields(fields, /*tied_by_default=*/true, config));
  QUELL_TRY(inner, fields.optional_unsigned("n_inner", 1, kMaxWidth));
  config.intermediate = inner ? static_cast<std::uint32_t>(*inner) : 4 * config.hidden;
  QUELL_TRY(eps, positive_number(fields, "layer_norm_epsilon", 1e-5));
  QUELL_TRY(activation, parse_activation(fields, "activation_function", "gelu_new"));
  QUELL_TRY(scaled, flag(fields, "scale_attn_weights", true));
  QUELL_TRY(by_layer, flag(fields, "scale_attn_by_inverse_layer_idx", false));
  QUELL_TRY(cross, flag(fields, "add_cross_attention", false));
  if (cross) {
    Error error = fields.wrong("add_cross_attention", "false: there is no encoder to attend to");
    error.code = ErrorCode::unsupported;
    return error;
  }
  // reorder_and_upcast_attn changes rounding in half precision only.
  config.norm = Norm::layer;
  config.norm_eps = static_cast<float>(eps);
  config.activation = activation;
  config.gated = false;
  config.positions = Positions::learned;
  config.qkv_bias = config.o_bias = config.mlp_bias = true;
  config.scale_by_inverse_layer = by_layer;
  if (!scaled) config.attention_scale = 1;
  return config;
}

Frame gpt2_frame(const ModelConfig&, const io::Checkpoint& checkpoint) {
  const std::string p = prefix(checkpoint);
  Frame frame;
  frame.embedding = p + "wte.weight";
  frame.positions = p + "wpe.weight";
  frame.final_norm = {p + "ln_f.weight", p + "ln_f.bias"};
  frame.head = has_module(checkpoint, "lm_head") ? "lm_head.weight" : frame.embedding;
  return frame;
}

Block gpt2_block(const ModelConfig& config, const io::Checkpoint& checkpoint, std::uint32_t layer) {
  const std::string p = prefix(checkpoint) + "h." + std::to_string(layer) + ".";
  const auto linear = [&](const char* name, std::size_t rows, std::size_t cols) {
    return Linear{p + name, rows, cols, /*transposed=*/true, /*bias=*/true};
  };
  const std::size_t hidden = config.hidden;
  Block block;
  block.attention_norm = {p + "ln_1.weight", p + "ln_1.bias"};
  block.mlp_norm = {p + "ln_2.weight", p + "ln_2.bias"};
  block.qkv = {linear("attn.c_attn", 3 * hidden, hidden)};
  block.o = linear("attn.c_proj", hidden, hidden);
  block.gate_up = {linear("mlp.c_fc", config.intermediate, hidden)};
  block.down = linear("mlp.c_proj", hidden, config.intermediate);
  return block;
}

}  // namespace

const Architecture kGpt2 = {
    "GPT2LMHeadModel", "gpt2",     "n_embd, n_inner, n_head, vocab_size, n_positions",
    "n_layer",         parse_gpt2, gpt2_frame,
    gpt2_block};

}  // namespace quell::model
