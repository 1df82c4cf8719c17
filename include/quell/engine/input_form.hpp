// SPDX-License-Identifier: Apache-2.0
#pragma once

// InputForm: what a quantized layer multiplies in place of its input x [T, IC], computed in float32
// as the integer kernels do it with codes. First the rotation, if there is one. Then each token, or
// each group of its channels, is rounded with one scale by its largest magnitude m:
//
//     scale = m / top       code = round(x * (top / m)), half to even       x becomes code * scale
//
// with top = 127 for 8 bits and 7 for 4. For 8 bits this is quantize_rows, value for value; what
// is left to the product is a sum of integers times scales, so that products with the result differ
// from those of the kernels by the rounding of float32 sums alone. Channels kept beside the codes
// stay as they are, and have no part in m.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/engine/rotation.hpp"
#include "quell/io/export.hpp"
#include "quell/kernels/context.hpp"

namespace quell::engine {

struct InputForm {
  std::optional<Rotation> rotation;
  unsigned bits = 0;                // 8 or 4; 0: not rounded
  std::size_t group = 0;            // channels that share a scale; 0: the whole token
  std::vector<std::uint32_t> kept;  // channels, ascending

  /// As a module asks for. `kept`: the columns beside its codes. Errors: shape (a rotation that
  /// does not fit, naming the module).
  static Result<InputForm> of(const io::ModulePlan& module, std::span<const std::uint32_t> kept);

  bool changes_nothing() const noexcept { return !rotation && bits == 0; }
  /// Rows of x [T, IC] in place. A run with an element that is not finite becomes NaN. Errors:
  /// shape, resource.
  Status apply(MatrixView<float> x, kernels::Context& context) const;
};

}  // namespace quell::engine
