// SPDX-License-Identifier: Apache-2.0
#pragma once

// How the error of a quantized model comes about on its way: pipeline::ErrorStage, measured on the
// first sequences of a text.

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/engine/engine.hpp"
#include "quell/pipeline/sensitivity.hpp"

namespace quell::pipeline {

/// Keeps the first rows that come by at each site of a block: one group of sequences, at most
/// engine::Engine::kGroupRows tokens or one sequence.
class FirstInputs final : public engine::Tap {
 public:
  Status input(std::uint32_t layer, model::Site site, MatrixView<const float> x) override;
  /// [n, IC].
  const Matrix& at(model::Site site) const { return inputs_.at(site); }

 private:
  std::map<model::Site, Matrix> inputs_;
};

/// A linear layer W, quantized Q [OC, IC], with its inputs h in the original and k in the quantized
/// model, [n, IC]. Its bias is left out: it is no part of the error, and the gains are those of the
/// matrix.
Result<ErrorStage> linear_stage(const std::string& name, std::uint32_t layer, const Matrix& weight,
                                const Matrix& decoded, const Matrix& h, const Matrix& k,
                                kernels::Context& context);

/// A whole block on the sequences of `lengths`, whose states in front of it are h in the original
/// and k in the quantized model.
Result<ErrorStage> block_stage(engine::Engine& engine, const engine::BlockWeights& original,
                               const engine::BlockWeights& quantized,
                               std::span<const std::uint32_t> lengths, MatrixView<const float> h,
                               MatrixView<const float> k);

}  // namespace quell::pipeline
