// SPDX-License-Identifier: Apache-2.0
#pragma once

// Where the largest value of the residual stream comes from and where it goes: block after block,
// over the first tokens of the first sequence (where massive values live), and which neuron of the
// MLP writes the change.

#include <cstdint>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/model/model.hpp"
#include "quell/pipeline/outliers.hpp"

namespace quell::pipeline {

class LifeCycle {
 public:
  /// Positions that are followed: a few MB for the widest models.
  static constexpr std::size_t kPositions = 64;

  /// The residual stream before the first block, and after each: rows of the first sequence.
  Status residual(MatrixView<const float> first_sequence);
  /// What the block's down projection reads.
  Status inner(MatrixView<const float> first_sequence);
  /// Compares the last two residual streams. Adds events of block `layer` to `events`; their tokens
  /// are left to the caller.
  Status finish_block(const model::Model& model, std::uint32_t layer, Executor& executor,
                      std::vector<LifeCycleEvent>& events);

 private:
  Matrix before_, after_, inner_;
};

}  // namespace quell::pipeline
