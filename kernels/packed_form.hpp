// SPDX-License-Identifier: Apache-2.0
#pragma once

// What PackedWeights hold: one kind of weight in the arrangement of one kernel. Private.

#include <cstddef>
#include <memory>
#include <string_view>

#include "kernels/panels.hpp"
#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/core/view.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/kernels/context.hpp"
#include "quell/kernels/isa.hpp"

namespace quell::kernels {

class PackedForm {
 public:
  PackedForm() = default;
  PackedForm(const PackedForm&) = delete;
  PackedForm& operator=(const PackedForm&) = delete;
  virtual ~PackedForm() = default;

  /// Shapes agree. Errors: resource (scratch).
  virtual Status multiply(MatrixView<const float> x, MatrixView<float> y,
                          Context& context) const = 0;

  std::string_view family;
  Isa isa = Isa::scalar;
  std::size_t rows = 0, cols = 0;  // OC, IC
  AlignedBytes bytes;
};

std::unique_ptr<PackedForm> make_int8_form(const QuantizedTensor& weight, const PanelLayout& layout,
                                           AlignedBytes panels);
std::unique_ptr<PackedForm> make_float_form(const QuantizedTensor& weight,
                                            const PanelLayout& layout, AlignedBytes panels);
/// Of float_panels.
std::unique_ptr<PackedForm> make_half_form(const PanelLayout& layout, AlignedBytes panels);

}  // namespace quell::kernels
