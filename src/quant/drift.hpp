// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a layer should compute when its inputs are no longer those of the original model.

#include "quant/problem.hpp"
#include "quell/quant/quantizer.hpp"

namespace quell::quant {

/// W' = W + strength * W D (H + ridge mean(diag H) I)^-1, [OC, IC]: with strength 1 and no ridge
/// the weight whose outputs on the drifted inputs x are nearest to those of W on the original ones,
/// in the mean of squares (the target of GPTAQ, Li and others 2025, and of Qronos, Zhang and others
/// 2025, in closed form). `strength` is between 0 and 1; less than 1, since D is an estimate from
/// few tokens. 3 r d^2 + d^3 / 3 flops.
///
/// Errors: shape (with the layer); numeric, without it (D not finite, with its place; H + ridge
/// that cannot be factored; a W' that is not finite).
Result<Matrix> drift_target(const LayerProblem& layer, const MomentProfile& profile,
                            double strength, double ridge, Executor& executor);

}  // namespace quell::quant
