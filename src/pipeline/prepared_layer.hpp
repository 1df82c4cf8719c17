// SPDX-License-Identifier: Apache-2.0
#pragma once

// A layer as its quantizer sees it, once kept columns are split off or its inputs are rotated, and
// the way back. A quantizer knows of neither: a kept column is an input without energy whose
// weights are zero, and a rotated layer is a layer.

#include <span>

#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/pipeline/plan.hpp"
#include "quell/quant/quantizer.hpp"

namespace quell::pipeline {

/// What is known of a layer's inputs; empty where nothing is.
struct InputStatistics {
  MatrixView<const float> moment, drift;  // as in quant::LayerProblem
  std::span<const double> peaks;          // [IC]
  std::uint64_t tokens = 0;
};

class PreparedLayer {
 public:
  /// `weight` [OC, IC] and what `inputs` views must outlive the layer. Errors: those of the split
  /// and of the rotation.
  static Result<PreparedLayer> create(const Task& task, MatrixView<const float> weight,
                                      const InputStatistics& inputs, Executor& executor);

  const quant::LayerProblem& problem() const noexcept { return problem_; }
  /// What the finished tensor stands for: W, or W rotated.
  MatrixView<const float> target() const noexcept { return target_; }
  /// The tensor that the quantizer gave for problem(), with the columns that were kept. Error:
  /// numeric (a code of a kept column that does not mean zero).
  Result<QuantizedTensor> finish(QuantizedTensor tensor);

 private:
  PreparedLayer() = default;
  Status split(const Task& task, const InputStatistics& inputs, Executor& executor);
  Status rotate(const Task& task, Executor& executor);

  quant::LayerProblem problem_;
  MatrixView<const float> target_;
  Matrix weight_, moment_, drift_;  // changed copies; empty where the layer is as it was
  KeptColumns kept_;
};

}  // namespace quell::pipeline
