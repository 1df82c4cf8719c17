// SPDX-License-Identifier: Apache-2.0

// Which kernel a weight gets, quantized or in floats of 16 bits. What panels cannot hold is
// multiplied as floats, where that is the same product; with int8 activations it would be another
// one, and is refused.

#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/packed_form.hpp"
#include "quell/core/tensor.hpp"
#include "quell/kernels/gemm.hpp"

namespace quell::kernels {

Result<PackedWeights> pack(MatrixView<const float> weight, DType as, Executor& executor) {
  if (as == DType::f32) return pack(weight, executor);
  if (as != DType::f16 && as != DType::bf16) {
    return Error{ErrorCode::unsupported, "pack: weights in " + std::string(to_string(as)) +
                                             " are not multiplied; use f32, f16 or bf16"};
  }
  // 65,520 is the first that rounds to infinity.
  for (std::size_t r = 0; as == DType::f16 && r < weight.rows(); ++r) {
    for (std::size_t c = 0; c < weight.cols(); ++c) {
      const float value = weight(r, c);
      if (!(std::fabs(value) >= 65520.0f) || std::isinf(value)) continue;
      return Error{ErrorCode::numeric, "pack: element (" + std::to_string(r) + ", " +
                                           std::to_string(c) + ") is " + std::to_string(value) +
                                           ", and f16 ends at 65504; use bf16 or f32"};
    }
  }
  const PanelLayout layout = float_panels(weight.rows(), weight.cols(), as == DType::bf16);
  QUELL_TRY(panels, pack_panels(weight, layout, executor));
  return PackedWeights(make_half_form(layout, std::move(panels)));
}

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
