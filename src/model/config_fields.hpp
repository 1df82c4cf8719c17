// SPDX-License-Identifier: Apache-2.0
#pragma once

// The parts of config.json that several architectures spell the same way. An architecture's parse
// function is a sequence of these plus what is its own.

#include <cstdint>
#include <string>
#include <string_view>

#include "quell/core/result.hpp"
#include "quell/io/json.hpp"
#include "quell/model/config.hpp"

namespace quell::model {

/// Limits on sizes that a file controls. They are far above any real model and keep every product
/// of two of them, times four bytes, inside 64 bits.
inline constexpr std::uint64_t kMaxWidth = 1u << 20;  // hidden, intermediate, head_dim x heads
inline constexpr std::uint64_t kMaxVocabulary = 1u << 26;
inline constexpr std::uint64_t kMaxPositions = 1u << 30;
inline constexpr std::uint64_t kMaxHeads = 1u << 16;

/// The names under which an architecture keeps its sizes; empty where it has none.
struct SizeNames {
  std::string_view hidden = "hidden_size";
  std::string_view intermediate = "intermediate_size";
  std::string_view layers = "num_hidden_layers";
  std::string_view heads = "num_attention_heads";
  std::string_view kv_heads = "num_key_value_heads";
  std::string_view head_dim = "head_dim";
  std::string_view positions = "max_position_embeddings";
  std::uint32_t default_head_dim = 0;  // 0: hidden / heads
};

/// Fills layers, hidden, intermediate (if named), vocabulary, max_positions, heads, kv_heads,
/// head_dim, attention_scale = 1 / sqrt(head_dim) and embedding_width = hidden. Errors (parse) name
/// the field; among them heads that kv_heads do not divide and a hidden size that heads do not
/// divide.
Status parse_sizes(const io::JsonFields& fields, const SizeNames& names, ModelConfig& config);

/// Token ids, dtype, tie_word_embeddings.
Status parse_frame_fields(const io::JsonFields& fields, bool tied_by_default, ModelConfig& config);

/// An optional number > 0 that becomes `fallback` when absent.
Result<double> positive_number(const io::JsonFields& fields, std::string_view name,
                               double fallback);
/// An optional boolean.
Result<bool> flag(const io::JsonFields& fields, std::string_view name, bool fallback);

/// The activation's name. Errors: unsupported, listing the names read.
Result<Activation> parse_activation(const io::JsonFields& fields, std::string_view name,
                                    std::string_view fallback);

/// Rotary positions, with every spelling of the scaling. Needs head_dim and max_positions.
Result<Rope> parse_rope(const io::JsonFields& fields, const ModelConfig& config,
                        double default_base = 10000);

/// Fills config.windows: layers that `layer_types` calls sliding_attention, or, without that list,
/// layers from `first_windowed` on, see `window` positions (0: none does).
Status parse_windows(const io::JsonFields& fields, std::uint32_t window,
                     std::uint32_t first_windowed, ModelConfig& config);

}  // namespace quell::model
