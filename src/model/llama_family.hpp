// SPDX-License-Identifier: Apache-2.0
#pragma once

// What Llama and its relatives share: sizes, RMS norms, rotary positions, gated MLP, tensor names.

#include "model/config_fields.hpp"
#include "quell/model/config.hpp"
#include "quell/model/model.hpp"

namespace quell::model {

inline constexpr std::string_view kLlamaSizes =
    "hidden_size, intermediate_size, num_attention_heads, num_key_value_heads, head_dim, "
    "vocab_size";

/// Everything but biases, windows and head norms.
Result<ModelConfig> parse_llama_family(const io::JsonFields& fields,
                                       std::uint32_t default_head_dim = 0);
Frame llama_frame(const ModelConfig& config, const io::Checkpoint& checkpoint);
Block llama_block(const ModelConfig& config, const io::Checkpoint& checkpoint, std::uint32_t layer);

}  // namespace quell::model
