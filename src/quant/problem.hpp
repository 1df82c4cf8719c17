// SPDX-License-Identifier: Apache-2.0
#pragma once

// What every quantizer does before and after its own idea: check the problem, profile the second
// moment, choose scales by importance, round, and judge errors by the undamped moment.

#include <cstdint>
#include <span>
#include <vector>

#include "linalg/linalg.hpp"
#include "quell/quant/quantizer.hpp"

namespace quell::quant {

/// Errors naming the layer: shape (an empty weight, a moment of the wrong size), numeric (an
/// element of W or H that is not finite; H asymmetric or with a negative diagonal).
/// `moment_needed`: an absent moment is an error too.
Status check_problem(const LayerProblem& layer, bool moment_needed, Executor& executor);

/// The diagonal of H, and a power of two that brings it near 1 so that neither squares nor products
/// leave the range of float32 (H scaled by 1e30 or 1e-30 gives the same codes).
struct MomentProfile {
  std::vector<std::uint32_t> live;  // channels with H_kk > 0, ascending
  std::vector<std::uint32_t> dead;  // channels with H_kk == 0, ascending
  std::vector<float> importance;    // [IC]: unit * H_kk
  float unit = 1;                   // power of two
  double mean = 0;                  // of unit * H_kk over live channels
};
MomentProfile profile_moment(MatrixView<const float> moment);

/// The given scales, or those of the layer's method weighted by `importance` ([IC] or empty).
/// Groups in which every weight of the search is zero take their absmax scales.
Result<GroupParameters> layer_scales(const LayerProblem& layer, std::span<const float> importance,
                                     Executor& executor);

/// Plain rounding on layer_scales().
Result<QuantizedTensor> round_layer(const LayerProblem& layer, std::span<const float> importance,
                                    Executor& executor);

/// Losses under H of rows of a weight.
class MomentLoss {
 public:
  MomentLoss(MatrixView<const float> moment, float unit);

  /// out[i] = scaled (W - Q) of row first + i * stride; without a tensor, scaled W. out: [rows,
  /// IC].
  void gather(MatrixView<const float> weight, const QuantizedTensor* tensor, std::size_t first,
              std::size_t stride, MatrixView<float> out, Executor& executor) const;
  /// The scale of gather(), a power of two; errors from elsewhere are multiplied by it.
  float error_scale() const noexcept { return error_scale_; }
  /// unit * e H e^T of every row e of `errors` [rows, IC].
  Status judge(MatrixView<const float> errors, std::span<double> out,
               linalg::Context& context) const;
  /// The loss of zero weights, by which losses are divided. Judging one row costs as much as
  /// sweeping it, so of more than kSampledRows rows that many, evenly spread, are judged, and their
  /// sum is scaled by sum_k H_kk w_k^2 of all rows over that of the judged ones. Ratios between
  /// methods are exact; their common unit is off by a few percent.
  static constexpr std::size_t kSampledRows = 512;
  Result<double> zero_loss(MatrixView<const float> weight, linalg::Context& context) const;

 private:
  MatrixView<const float> moment_;
  float error_scale_;
  double back_;  // unit / error_scale^2
};

/// Rows of a weight that are treated together, as a count that suits `width` threads: every panel
/// is a multiple of `step` rows. Nothing but speed depends on it.
std::size_t panel_rows(std::size_t rows, std::size_t preferred, std::size_t step, unsigned width);

}  // namespace quell::quant
