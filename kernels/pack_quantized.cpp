// SPDX-License-Identifier: Apache-2.0

// Which kernel a quantized weight gets. What panels cannot hold is multiplied as floats, where that
// is the same product; with int8 activations it would be another one, and is refused.

#include <memory>
#include <string>
#include <utility>

#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/packed_form.hpp"
#include "quell/core/tensor.hpp"
#include "quell/kernels/gemm.hpp"

namespace quell::kernels {

Result<PackedWeights> pack(const QuantizedTensor& weight, Activations activations,
                           Executor& executor) {
  const PanelPlan plan = plan_panels(weight);
  std::string refused = plan.refused != nullptr ? plan.refused : "";
  if (activations == Activations::int8) {
    if (refused.empty() && plan.layout.group > gemm_int8::kMostInGroup) {
      refused = "a sum over a group of " + std::to_string(plan.layout.group) +
                " input channels may exceed 32 bits (at most " +
                std::to_string(gemm_int8::kMostInGroup) + ")";
    }
    if (refused.empty() && info(weight.grid().format).codebook != nullptr) {
      refused = "values of a codebook are not whole numbers";
    }
    if (!refused.empty()) {
      return Error{ErrorCode::unsupported,
                   "grid " + to_string(weight.grid()) + " of a weight " +
                       std::to_string(weight.rows()) + " x " + std::to_string(weight.cols()) +
                       " is not multiplied with int8 activations: " + refused +
                       "; pack it for float32 activations"};
    }
  } else if (!refused.empty()) {
    QUELL_TRY(dense, Matrix::uninitialized(weight.rows(), weight.cols()));
    QUELL_TRY(dequantize(weight, dense.view(), executor));
    return pack(std::as_const(dense).view(), executor);
  }
  QUELL_TRY(panels, pack_panels(weight, plan.layout, executor));
  const auto make = activations == Activations::int8 ? make_int8_form : make_float_form;
  return PackedWeights(make(weight, plan.layout, std::move(panels)));
}

}  // namespace quell::kernels
