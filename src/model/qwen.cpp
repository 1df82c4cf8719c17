// SPDX-License-Identifier: Apache-2.0

// Qwen2 and 2.5 (Qwen2ForCausalLM): Llama with biases on q, k and v. Qwen3 (Qwen3ForCausalLM):
// without biases, with an RMS norm on every query and key head before the rotation and heads of 128
// whatever the hidden size. Sliding windows exist in both but are off unless use_sliding_window
// says so.

#include "model/architecture_list.hpp"
#include "model/llama_family.hpp"

namespace quell::model {
namespace {

constexpr std::uint32_t kQwen3HeadDim = 128;  // where the config does not say

Status parse_qwen_windows(const io::JsonFields& fields, ModelConfig& config) {
  QUELL_TRY(use, flag(fields, "use_sliding_window", false));
  QUELL_TRY(window, fields.optional_unsigned("sliding_window", 1, kMaxPositions));
  // Layers below max_window_layers see everything; 28 is what its absence means.
  QUELL_TRY(first, fields.optional_unsigned("max_window_layers", 0, kMaxPositions));
  if (use && !window) {
    return fields.wrong("sliding_window", "a number above 0, since use_sliding_window is true");
  }
  return parse_windows(fields, use ? static_cast<std::uint32_t>(*window) : 0,
                       static_cast<std::uint32_t>(first.value_or(28)), config);
}

Result<ModelConfig> parse_qwen2(const io::JsonFields& fields) {
  QUELL_TRY(config, parse_llama_family(fields));
  config.qkv_bias = true;
  QUELL_TRY(parse_qwen_windows(fields, config));
  return config;
}

Result<ModelConfig> parse_qwen3(const io::JsonFields& fields) {
  QUELL_TRY(config, parse_llama_family(fields, kQwen3HeadDim));
  QUELL_TRY(attention_bias, flag(fields, "attention_bias", false));
  config.qkv_bias = config.o_bias = attention_bias;
  config.head_norms = true;
  QUELL_TRY(parse_qwen_windows(fields, config));
  return config;
}

}  // namespace

const Architecture kQwen2 = {"Qwen2ForCausalLM", "qwen2",     kLlamaSizes, "num_hidden_layers",
                             parse_qwen2,        llama_frame, llama_block};
const Architecture kQwen3 = {"Qwen3ForCausalLM", "qwen3",     kLlamaSizes, "num_hidden_layers",
                             parse_qwen3,        llama_frame, llama_block};

}  // namespace quell::model
