// SPDX-License-Identifier: Apache-2.0

// OPT (OPTForCausalLM): layer norms with biases, learned positions whose table starts two rows
// late, ReLU. The 350m size differs: its norms follow the residual sums, there is no final norm,
// and the embedding is narrower than the network, with a projection at each end.

#include <string>

#include "model/architecture_list.hpp"
#include "model/checkpoint_names.hpp"
#include "model/config_fields.hpp"

namespace quell::model {
namespace {

constexpr std::uint32_t kPositionOffset = 2;

std::string prefix(const io::Checkpoint& checkpoint) {
  return find_prefix(checkpoint, "embed_tokens", {"model.decoder.", "decoder.", ""});
}

Result<ModelConfig> parse_opt(const io::JsonFields& fields) {
  SizeNames names;
  names.intermediate = "ffn_dim";
  names.kv_heads = "";
  names.head_dim = "";
  ModelConfig config;
  QUELL_TRY(parse_sizes(fields, names, config));
  QUELL_TRY(parse_frame_fields(fields, /*tied_by_default=*/true, config));
  QUELL_TRY(width, fields.optional_unsigned("word_embed_proj_dim", 1, kMaxWidth));
  QUELL_TRY(before, flag(fields, "do_layer_norm_before", true));
  QUELL_TRY(no_final_norm, flag(fields, "_remove_final_layer_norm", false));
  QUELL_TRY(bias, flag(fields, "enable_bias", true));
  QUELL_TRY(affine, flag(fields, "layer_norm_elementwise_affine", true));
  QUELL_TRY(activation, parse_activation(fields, "activation_function", "relu"));
  if (width) config.embedding_width = static_cast<std::uint32_t>(*width);
  config.norm = Norm::layer;
  config.norm_eps = 1e-5f;
  config.norm_weights = affine;
  config.norm_after = !before;
  config.final_norm = before && !no_final_norm;
  config.activation = activation;
  config.gated = false;
  config.positions = Positions::learned;
  config.position_offset = kPositionOffset;
  config.qkv_bias = config.o_bias = config.mlp_bias = bias;
  return config;
}

NormTensors norm(const ModelConfig& config, const std::string& name) {
  if (!config.norm_weights) return {};
  return {name + ".weight", name + ".bias"};
}

Frame opt_frame(const ModelConfig& config, const io::Checkpoint& checkpoint) {
  const std::string p = prefix(checkpoint);
  Frame frame;
  frame.embedding = p + "embed_tokens.weight";
  frame.positions = p + "embed_positions.weight";
  if (config.embedding_width != config.hidden) {
    frame.project_in =
        Linear{p + "project_in", config.hidden, config.embedding_width, false, false};
    frame.project_out =
        Linear{p + "project_out", config.embedding_width, config.hidden, false, false};
  }
  if (config.final_norm) frame.final_norm = norm(config, p + "final_layer_norm");
  frame.head = has_module(checkpoint, "lm_head") ? "lm_head.weight" : frame.embedding;
  return frame;
}

Block opt_block(const ModelConfig& config, const io::Checkpoint& checkpoint, std::uint32_t layer) {
  const std::string p = prefix(checkpoint) + "layers." + std::to_string(layer) + ".";
  const std::size_t hidden = config.hidden;
  const auto linear = [&](const char* name, std::size_t rows, std::size_t cols, bool bias) {
    return Linear{p + name, rows, cols, /*transposed=*/false, bias};
  };
  Block block;
  block.attention_norm = norm(config, p + "self_attn_layer_norm");
  block.mlp_norm = norm(config, p + "final_layer_norm");
  block.qkv = {linear("self_attn.q_proj", hidden, hidden, config.qkv_bias),
               linear("self_attn.k_proj", hidden, hidden, config.qkv_bias),
               linear("self_attn.v_proj", hidden, hidden, config.qkv_bias)};
  block.o = linear("self_attn.out_proj", hidden, hidden, config.o_bias);
  block.gate_up = {linear("fc1", config.intermediate, hidden, config.mlp_bias)};
  block.down = linear("fc2", hidden, config.intermediate, config.mlp_bias);
  return block;
}

}  // namespace

const Architecture kOpt = {"OPTForCausalLM",
                           "opt",
                           "hidden_size, ffn_dim, num_attention_heads, word_embed_proj_dim, "
                           "vocab_size, max_position_embeddings",
                           "num_hidden_layers",
                           parse_opt,
                           opt_frame,
                           opt_block};

}  // namespace quell::model
