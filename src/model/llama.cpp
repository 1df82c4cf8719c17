// SPDX-License-Identifier: Apache-2.0

// Llama 2 and 3 (LlamaForCausalLM), and the parts of it that Mistral and Qwen build on:
//
//   a = rms(x)   x += o(attention(rope(q a), rope(k a), v a))
//   m = rms(x)   x += down(silu(gate m) * up m)            logits = head(rms(x))

#include "model/llama_family.hpp"

#include <string>

#include "model/architecture_list.hpp"
#include "model/checkpoint_names.hpp"

namespace quell::model {
namespace {

std::string prefix(const io::Checkpoint& checkpoint) {
  return find_prefix(checkpoint, "embed_tokens", {"model.", ""});
}

Result<ModelConfig> parse_llama(const io::JsonFields& fields) {
  QUELL_TRY(config, parse_llama_family(fields));
  QUELL_TRY(attention_bias, flag(fields, "attention_bias", false));
  QUELL_TRY(mlp_bias, flag(fields, "mlp_bias", false));
  config.qkv_bias = config.o_bias = attention_bias;
  config.mlp_bias = mlp_bias;
  return config;
}

}  // namespace

Result<ModelConfig> parse_llama_family(const io::JsonFields& fields,
                                       std::uint32_t default_head_dim) {
  ModelConfig config;
  SizeNames names;
  names.default_head_dim = default_head_dim;
  QUELL_TRY(parse_sizes(fields, names, config));
  QUELL_TRY(parse_frame_fields(fields, /*tied_by_default=*/false, config));
  QUELL_TRY(eps, positive_number(fields, "rms_norm_eps", 1e-6));
  QUELL_TRY(activation, parse_activation(fields, "hidden_act", "silu"));
  QUELL_TRY(rope, parse_rope(fields, config));
  config.norm_eps = static_cast<float>(eps);
  config.activation = activation;
  config.rope = std::move(rope);
  return config;
}

Frame llama_frame(const ModelConfig&, const io::Checkpoint& checkpoint) {
  const std::string p = prefix(checkpoint);
  Frame frame;
  frame.embedding = p + "embed_tokens.weight";
  frame.final_norm.weight = p + "norm.weight";
  frame.head = has_module(checkpoint, "lm_head") ? "lm_head.weight" : frame.embedding;
  return frame;
}

Block llama_block(const ModelConfig& config, const io::Checkpoint& checkpoint,
                  std::uint32_t layer) {
  const std::string p = prefix(checkpoint) + "layers." + std::to_string(layer) + ".";
  const std::size_t q = std::size_t{config.heads} * config.head_dim;
  const std::size_t kv = std::size_t{config.kv_heads} * config.head_dim;
  const auto linear = [&](const char* name, std::size_t rows, std::size_t cols, bool bias) {
    return Linear{p + name, rows, cols, /*transposed=*/false, bias};
  };
  Block block;
  block.attention_norm.weight = p + "input_layernorm.weight";
  block.mlp_norm.weight = p + "post_attention_layernorm.weight";
  if (config.head_norms) {
    block.q_norm.weight = p + "self_attn.q_norm.weight";
    block.k_norm.weight = p + "self_attn.k_norm.weight";
  }
  block.qkv = {linear("self_attn.q_proj", q, config.hidden, config.qkv_bias),
               linear("self_attn.k_proj", kv, config.hidden, config.qkv_bias),
               linear("self_attn.v_proj", kv, config.hidden, config.qkv_bias)};
  block.o = linear("self_attn.o_proj", config.hidden, q, config.o_bias);
  block.gate_up = {linear("mlp.gate_proj", config.intermediate, config.hidden, config.mlp_bias),
                   linear("mlp.up_proj", config.intermediate, config.hidden, config.mlp_bias)};
  block.down = linear("mlp.down_proj", config.hidden, config.intermediate, config.mlp_bias);
  return block;
}

const Architecture kLlama = {"LlamaForCausalLM", "llama",     kLlamaSizes, "num_hidden_layers",
                             parse_llama,        llama_frame, llama_block};

}  // namespace quell::model
