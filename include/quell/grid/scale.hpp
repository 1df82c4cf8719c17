// SPDX-License-Identifier: Apache-2.0
#pragma once

// Choice of scale and zero for every group of a weight, and rounding to codes with them.

#include <cstdint>
#include <span>
#include <string_view>

#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/grid/spec.hpp"

namespace quell {

enum class ScaleMethod {
  absmax,  // symmetric: absmax over the grid's half range (7.5 for int4); asymmetric: min-max
  minmax,  // the same on symmetric grids; min and max, with zero inside, on asymmetric ones
  search,  // least squares over shrunk ranges, both signs of the scale, weighted by importance
};

/// Scales and zeros of all groups. `importance` has one weight >= 0 per input channel (empty: all 1) and is
/// read by `search` alone. All-zero groups get scale 1. Scales are rounded to the grid's scale type.
/// Errors: numeric (a non-finite element with its place; a scale that the scale type cannot hold).
Result<GroupParameters> choose_scales(MatrixView<const float> weight, const GridSpec& grid,
                                      ScaleMethod method, std::span<const float> importance,
                                      Executor& executor);

/// Codes = round-half-even(w / scale) + zero, clamped to the format's range.
Result<QuantizedTensor> quantize_to_grid(MatrixView<const float> weight, const GridSpec& grid,
                                         GroupParameters parameters, Executor& executor);

}  // namespace quell
