// SPDX-License-Identifier: Apache-2.0
#pragma once

// Text from a model, token by token over a key-value cache. The same options give the same tokens
// on every run and any number of threads: token i is drawn with random number i of the seed.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/engine/engine.hpp"

namespace quell::engine {

struct GenerateOptions {
  std::uint32_t tokens = 100;  // at most; fewer if a stop token comes or the positions end
  double temperature = 0;  // 0: always the most likely token; else softmax(logits / temperature)
  std::uint64_t seed = 0;
  std::vector<std::int32_t> stop;  // ids that end the text; the one that does is not returned
  /// The blocks stay packed in memory if they fit into this, else all are read again for every
  /// token.
  std::uint64_t memory_bytes = std::uint64_t{4} << 30;
  WeightSource* source = nullptr;  // weights to use in place of the model's own
  /// Called once before the prompt is computed, when what fits into memory_bytes is packed.
  std::function<void()> on_loaded;
  /// Called with every new token as soon as it is known; false ends the text.
  std::function<bool(std::int32_t)> on_token;
};

/// The continuation of `prompt` (at least one id). Errors: those of Engine::embed, usage (a
/// temperature below 0 or not finite), unsupported (an encoder), numeric (logits that are not
/// finite).
Result<std::vector<std::int32_t>> generate(Engine& engine, std::span<const std::int32_t> prompt,
                                           const GenerateOptions& options);

/// The token of a row of logits: the largest (first of equals) for temperature 0, else the one in
/// whose share of the distribution `uniform`, in [0, 1), falls.
std::int32_t choose_token(std::span<const float> logits, double temperature, double uniform);

}  // namespace quell::engine
