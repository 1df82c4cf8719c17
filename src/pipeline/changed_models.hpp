// SPDX-License-Identifier: Apache-2.0
#pragma once

// Models that differ from a given one in one weight. Each starts at its own block, from the states
// kept in front of it; those of one block go through the blocks behind together, so that a block is
// read once for all of them.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "pipeline/damage.hpp"
#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/engine/engine.hpp"

namespace quell::pipeline {

/// Blocks by layer. Those of a small model stay in memory once they have been packed.
class PackedBlocks {
 public:
  /// `source`, if any, gives the weights instead of the model's files; it outlives this.
  explicit PackedBlocks(engine::Engine& engine, engine::WeightSource* source = nullptr);
  /// Valid until the next call.
  Result<engine::BlockWeights*> at(std::uint32_t layer);

 private:
  engine::Engine* engine_;
  engine::WeightSource* source_;
  bool keep_ = false;
  std::vector<engine::BlockWeights> blocks_;  // by layer if kept, else the one at hand
  std::vector<bool> loaded_;
};

class ChangedModels {
 public:
  using Done = std::function<void(std::size_t id, const DamageValue&)>;
  /// `done` hears of every model once it has been measured. Models are held up to `state_bytes` of
  /// hidden states (at least one).
  ChangedModels(engine::Engine& engine, PackedBlocks& blocks,
                std::span<const std::uint32_t> lengths, const Damage& damage,
                std::uint64_t state_bytes, Done done);

  /// A model in which `linear` of block `layer` has the weight given; x: states [T, hidden] in
  /// front of that block.
  Status add(std::size_t id, std::uint32_t layer, const model::Linear& linear,
             MatrixView<const float> weight, const Matrix& x);
  /// Takes the models at hand, which have gone through `layer`, to the end. Call before a model of
  /// another layer is added, and at the end.
  Status finish(std::uint32_t layer);

 private:
  engine::Engine* engine_;
  PackedBlocks* blocks_;
  std::span<const std::uint32_t> lengths_;
  const Damage* damage_;
  std::uint64_t state_bytes_;
  Done done_;
  std::vector<Matrix> states_;
  std::vector<std::size_t> ids_;
};

Result<Matrix> copy_of(MatrixView<const float> x);

}  // namespace quell::pipeline
