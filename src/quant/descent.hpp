// SPDX-License-Identifier: Apache-2.0
#pragma once

// Coordinate descent on a finished quantization: what a sweep, which never looks back, leaves.

#include <cstdint>
#include <vector>

#include "quant/problem.hpp"
#include "quell/quant/quantizer.hpp"

namespace quell::quant {

struct Descended {
  QuantizedTensor tensor;
  std::uint64_t codes = 0, scales = 0;  // moves made
  /// [OC]: by how much the loss of each row fell, in the units of MomentLoss; sums of float32
  /// gains.
  std::vector<double> gains;
};

/// Moves codes and scales of `start` one at a time, each to the best value given all others under
/// the layer's second moment, for so many rounds over the weight or until nothing moves. Every move
/// lowers the loss, so up to float32's rounding the result is never worse than the start. Given
/// scales, zeros of asymmetric grids and row scales of two-level ones stay. Costs 2 r d^2 flops at
/// the start and for each round, half of that for the last one; where a group has more than
/// kDescentBlock inputs, as much again for every round.
///
/// Kept columns are refused (unsupported). The layer has passed check_problem with a moment.
Result<Descended> descend(const LayerProblem& layer, const MomentProfile& profile,
                          const QuantizedTensor& start, unsigned rounds, Executor& executor);

/// Inputs whose moves see each other at once; beyond them the loss's slope is brought up to date by
/// one product. Results depend on it only through rounding and order.
inline constexpr std::size_t kDescentBlock = 128;

}  // namespace quell::quant
