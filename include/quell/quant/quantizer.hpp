// SPDX-License-Identifier: Apache-2.0
#pragma once

// Quantizer: (one weight, its statistics, a grid) -> codes. A method sees matrices only, never the
// network, so it can be tested without one.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/core/view.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/grid/scale.hpp"
#include "quell/grid/spec.hpp"

namespace quell::quant {

/// What a method reads besides the weight; flags, so that no more than that is collected.
enum class Needs : unsigned {
  weights_only = 0,
  second_moment = 1u << 0,  // H = mean of x x^T over calibration tokens
  drift = 1u << 1,          // D = mean of (x_original - x) x^T, or of what the output is added to
  activation_ranges = 1u << 2,
  gradient_weights = 1u << 3,
};
constexpr Needs operator|(Needs a, Needs b) {
  return static_cast<Needs>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
constexpr bool includes(Needs all, Needs one) {
  return (static_cast<unsigned>(all) & static_cast<unsigned>(one)) != 0;
}

/// One weight to be quantized.
struct LayerProblem {
  std::string name;                // for messages
  MatrixView<const float> weight;  // [OC, IC], finite
  GridSpec grid;
  ScaleMethod scale = ScaleMethod::absmax;
  /// The direction of groups is settled; else a method that chooses directions (adadim) may answer
  /// with the other one.
  bool keep_direction = false;
  /// [IC, IC], symmetric, finite; scaled as a mean over tokens. Empty where not needed. The same
  /// matrix is shared by several layers: a method copies what it changes.
  MatrixView<const float> second_moment;
  std::uint64_t tokens = 0;  // behind the moment
  /// How far the model has drifted from what it was before anything was quantized, where x are the
  /// inputs that the moment is of. [IC, IC]: mean of (x_original - x) x^T, of which the output
  /// loses W times that. Or, with drift_of_output, [OC, IC]: mean of (y_original - y) x^T, where y
  /// is what the layer, not yet quantized, adds its output to, with the output added. Empty where
  /// not needed or not known.
  MatrixView<const float> drift;
  bool drift_of_output = false;
  /// Scales and zeros to use instead of choosing them (tests, refits).
  const GroupParameters* given = nullptr;
  /// For a method whose choice depends on more than this layer: the loss of a candidate, judged by
  /// the pipeline on the enclosing module. Empty if the pipeline offers none.
  std::function<Result<double>(const QuantizedTensor&)> evaluate;
};

/// The codes and how they came to be.
struct Quantized {
  Quantized(QuantizedTensor t) : tensor(std::move(t)) {}  // NOLINT: a bare tensor is an answer

  QuantizedTensor tensor;
  /// tr((W - Q) H (W - Q)^T) with the undamped H, over the same of zero weights (of more than 512
  /// rows the divisor is estimated from 512 evenly spread ones, the same for every method); without
  /// H the plain squared error over the squared weights. objective_rtn: the same for rounding on
  /// the same kind of grid and scales. Where a method moves the target (balanced), W stands for the
  /// moved one in all of these.
  double objective = 0, objective_rtn = 0;
  /// The objective of the direction of groups that was tried and not taken (adadim).
  std::optional<double> objective_other_direction;
  double damping = 0;              // that the factorization took, relative to the mean diagonal
  std::uint64_t dead_inputs = 0;   // H_kk == 0
  std::uint64_t guarded_rows = 0;  // rows where rounding was better, and kept (or refined)
  std::string fallback;            // empty, or why the method was not used as asked
};

class Quantizer {
 public:
  virtual ~Quantizer() = default;
  virtual std::string_view name() const = 0;
  virtual Needs needs() const = 0;
  /// Safe to call from several threads on different layers; the result does not depend on the
  /// number of threads. Errors: numeric (NaN in weight or moment, naming layer and element), shape,
  /// unsupported.
  virtual Result<Quantized> quantize(const LayerProblem& layer, Executor& executor) const = 0;
};

}  // namespace quell::quant
