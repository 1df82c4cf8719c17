// SPDX-License-Identifier: Apache-2.0
#pragma once

// ModelConfig: what config.json means, in words that are the same for every architecture. The
// forward pass reads only this; which architecture it came from shows nowhere in it.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/io/json.hpp"

namespace quell::model {

enum class Norm { rms, layer };
enum class Activation { relu, silu, gelu, gelu_tanh, quick_gelu };
enum class Positions { rotary, learned };
/// How an encoder's hidden states become the embedding of a text, before it gets unit length: the
/// mean over all tokens, or the state of the first one.
enum class Pooling { mean, first };
std::string_view to_string(Pooling pooling) noexcept;  // "mean", "first"

/// Rotary embedding: theta_t = base^(-2t/dims), then the scaling.
struct Rope {
  enum class Scaling { none, linear, dynamic, yarn, longrope, llama3 };
  double base = 10000;
  std::uint32_t dims = 0;  // rotated dimensions of a head, even
  Scaling scaling = Scaling::none;
  double factor = 1;
  double low_frequency_factor = 1, high_frequency_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;                        // yarn
  bool truncate = true;                                        // yarn: round the ramp's ends
  double attention_factor =
      1;  // yarn, longrope: of cosine and sine; the defaults are worked out by the parser
  std::uint32_t original_positions = 0;           // llama3, yarn, longrope, dynamic
  std::vector<double> short_factor, long_factor;  // longrope, dims / 2 each
};

struct ModelConfig {
  std::string architecture;  // the class named in config.json
  std::string model_type;

  std::uint32_t layers = 0, hidden = 0, intermediate = 0, vocabulary = 0, max_positions = 0;
  std::uint32_t heads = 0, kv_heads = 0, head_dim = 0;
  bool qkv_bias = false, o_bias = false, mlp_bias = false;

  Norm norm = Norm::rms;
  float norm_eps = 1e-5f;
  bool norm_weights = true;  // false: norms without weight and bias
  bool final_norm = true;
  bool norm_after = false;  // the norm follows the residual sum instead of opening the branch
  Activation activation = Activation::silu;
  bool gated = true;        // act(gate) * up, else act(up)
  bool head_norms = false;  // RMS norm of every query and key head before the rotation

  Positions positions = Positions::rotary;
  Rope rope;
  std::uint32_t position_offset = 0;  // learned: row of the table for position 0
  std::uint32_t token_types = 0;      // rows of the table of token types, row 0 of which is added
  bool embedding_norm = false;        // the sum of embeddings is normalized

  float attention_scale = 0;                       // of q . k
  bool scale_by_inverse_layer = false;             // q . k is further divided by layer + 1
  float attention_softcap = 0, logit_softcap = 0;  // 0 = none
  bool causal = true;
  std::vector<std::uint32_t> windows;  // per layer; 0 = sees everything before it

  std::uint32_t embedding_width = 0;  // differs from hidden only with project_in / project_out
  Pooling pooling = Pooling::mean;    // encoders
  bool tied_head = false;  // as config.json says; Model::tied_head() is what the weights say
  std::string dtype;       // of the checkpoint, as config.json says: "bfloat16", ...
  std::optional<std::int32_t> bos, eos;
};

/// Layers a model may have; a larger number in a file is taken for damage.
inline constexpr std::uint32_t kMaxLayers = 4096;

/// Longest sequence the positions are meant for: the table or max_positions, or what the scaling
/// stretches it to. Beyond it the model was never trained, and the engine refuses.
std::uint32_t position_limit(const ModelConfig& config) noexcept;

/// Parses config.json. Errors: unsupported (unknown architecture: the known ones are listed),
/// parse (a field by its name).
Result<ModelConfig> parse_config(const io::Json& json, const std::string& file);

}  // namespace quell::model
