// SPDX-License-Identifier: Apache-2.0
#pragma once

// Split: W -> a part to be quantized + a part that is kept beside the codes, losing nothing. Where
// a few input channels hold most of what makes a layer hard to quantize, keeping those few costs
// next to nothing.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/core/view.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/quant/quantizer.hpp"

namespace quell::quant {

/// One weight to be split, and what is known of its inputs.
struct SplitProblem {
  std::string name;                // for messages
  MatrixView<const float> weight;  // [OC, IC], finite
  /// [IC], finite, 0 or more: what each input channel has in the peaks that set the scales of
  /// tokens (calib SiteStatistics::peaks).
  std::span<const double> peaks;
  std::size_t budget = 0;  // columns that may be kept, at most IC
};

/// rest + kept = W, exactly, where kept stands for its float32 values in its columns.
struct Parts {
  Matrix rest;  // [OC, IC]; in kept columns what f16 cannot hold of W, elsewhere W
  KeptColumns kept;
};

class Split {
 public:
  virtual ~Split() = default;
  virtual std::string_view name() const = 0;
  virtual Needs needs() const = 0;
  /// Safe to call from several threads on different layers. Errors: shape, numeric (statistics or
  /// kept weights that are not finite or leave the range of f16, naming layer and place).
  virtual Result<Parts> split(const SplitProblem& problem) const = 0;
};

}  // namespace quell::quant
