// SPDX-License-Identifier: Apache-2.0

#include "pipeline/changed_models.hpp"

#include <cstring>
#include <utility>

namespace quell::pipeline {
namespace {

// Packed bytes up to which all blocks stay in memory: reading and packing them again takes as long
// as some 20 tokens do.
constexpr std::uint64_t kKeptBytes = 512u << 20;

/// The packed weight of a linear of a block. Null if it is none of the block's.
kernels::PackedWeights* packed_weight(engine::BlockWeights& weights, const model::Block& block,
                                      const model::Linear& linear) {
  for (std::size_t i = 0; i < block.qkv.size(); ++i) {
    if (block.qkv[i].name == linear.name) return &weights.qkv[i].weight;
  }
  for (std::size_t i = 0; i < block.gate_up.size(); ++i) {
    if (block.gate_up[i].name == linear.name) return &weights.gate_up[i].weight;
  }
  if (block.o.name == linear.name) return &weights.o.weight;
  if (block.down.name == linear.name) return &weights.down.weight;
  return nullptr;
}

}  // namespace

PackedBlocks::PackedBlocks(engine::Engine& engine, engine::WeightSource* source)
    : engine_(&engine), source_(source), keep_(engine.packed_bytes() <= kKeptBytes) {
  const std::size_t slots = keep_ ? engine.model().blocks().size() : 1;
  blocks_.resize(slots);
  loaded_.resize(slots, false);
}

Result<engine::BlockWeights*> PackedBlocks::at(std::uint32_t layer) {
  const std::size_t slot = keep_ ? layer : 0;
  if (!loaded_[slot] || blocks_[slot].layer != layer) {
    loaded_[slot] = false;
    blocks_[slot] = {};  // before the next one is read: two blocks may not fit
    QUELL_TRY(weights, engine_->load_block(layer, source_));
    blocks_[slot] = std::move(weights);
    loaded_[slot] = true;
  }
  return &blocks_[slot];
}

ChangedModels::ChangedModels(engine::Engine& engine, PackedBlocks& blocks,
                             std::span<const std::uint32_t> lengths, const Damage& damage,
                             std::uint64_t state_bytes, Done done)
    : engine_(&engine),
      blocks_(&blocks),
      lengths_(lengths),
      damage_(&damage),
      state_bytes_(state_bytes),
      done_(std::move(done)) {}

Status ChangedModels::add(std::size_t id, std::uint32_t layer, const model::Linear& linear,
                          MatrixView<const float> weight, const Matrix& x) {
  QUELL_TRY(changed, copy_of(x.view()));
  QUELL_TRY(packed, kernels::pack(weight, engine_->context().executor()));
  QUELL_TRY(block, blocks_->at(layer));
  kernels::PackedWeights* slot = packed_weight(*block, engine_->model().blocks()[layer], linear);
  QUELL_ASSERT(slot != nullptr);
  std::swap(*slot, packed);
  const Status ran = engine_->run_block(*block, lengths_, changed.view());
  std::swap(*slot, packed);  // the block is as it was, whatever happened
  QUELL_TRY(ran);
  states_.push_back(std::move(changed));
  ids_.push_back(id);
  const std::uint64_t bytes = x.size() * sizeof(float);
  return (states_.size() + 1) * bytes <= state_bytes_ ? ok() : finish(layer);
}

Status ChangedModels::finish(std::uint32_t layer) {
  if (states_.empty()) return ok();
  while (++layer < engine_->model().blocks().size()) {
    QUELL_TRY(block, blocks_->at(layer));
    for (Matrix& states : states_) {
      QUELL_TRY(engine_->run_block(*block, lengths_, states.view()));
    }
  }
  QUELL_TRY(values, damage_->measure(states_));
  for (std::size_t i = 0; i < values.size(); ++i) done_(ids_[i], values[i]);
  states_.clear();
  ids_.clear();
  return ok();
}

Result<Matrix> copy_of(MatrixView<const float> x) {
  QUELL_TRY(copy, Matrix::uninitialized(x.rows(), x.cols()));
  for (std::size_t r = 0; r < x.rows(); ++r) {
    std::memcpy(copy.row(r).data(), x.row(r).data(), x.cols() * sizeof(float));
  }
  return copy;
}

}  // namespace quell::pipeline
