// SPDX-License-Identifier: Apache-2.0
#pragma once

// How far a changed model is from the original, told from hidden states behind the last block.

#include <cstdint>
#include <span>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/engine/engine.hpp"

namespace quell::pipeline {

/// Mean over tokens (KL) or texts (cosine error), and its standard error with sequences taken as
/// the independent draws.
struct DamageValue {
  double mean = 0, standard_error = 0;
};

class Damage {
 public:
  /// `original`: states [T, hidden] of the original behind its last block, moved in. Error: those
  /// of engine::pool.
  static Result<Damage> create(engine::Engine& engine, Matrix original,
                               std::span<const std::uint32_t> lengths);

  /// One value for each of `changed`, [T, hidden] each. They go through the head together, so that
  /// a head that is not kept is packed once for all. Error: numeric (logits that are not finite),
  /// resource.
  Result<std::vector<DamageValue>> measure(std::span<const Matrix> changed) const;

 private:
  Damage(engine::Engine& engine, Matrix original, std::span<const std::uint32_t> lengths)
      : engine_(&engine), original_(std::move(original)), lengths_(lengths) {}
  Result<std::vector<DamageValue>> of_embeddings(std::span<const Matrix> changed) const;
  Result<std::vector<DamageValue>> of_predictions(std::span<const Matrix> changed) const;

  engine::Engine* engine_;
  Matrix original_;  // states; of an encoder, embeddings
  std::span<const std::uint32_t> lengths_;
};

}  // namespace quell::pipeline
