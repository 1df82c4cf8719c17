// SPDX-License-Identifier: Apache-2.0
#pragma once

// Scales of two levels (spec.hpp) out of scales of one. For every row of the array of scales:
//
//     row scale d = largest scale s of the row / 15, rounded to its type
//     integer     = round(s / d), 1 to 15
//
// Codes are chosen afterwards, for the products. Trying smaller and larger row scales, judged by
// how far the products miss the scales, was measured to save less than 1 % of the error.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

#include "quell/grid/quantized.hpp"
#include "quell/grid/strip_inline.hpp"

namespace quell {

/// Makes two levels of parameters whose `scales` were chosen by the functions of strip.hpp on this
/// two-level grid with f32 scales: finite, >= 0, 0 for groups of zeros, which take the integer 1. A
/// row of such groups has the row scale 1. Error: numeric (a row whose scale its type cannot hold,
/// with the number and the types to use instead).
inline Status split_levels(const GridSpec& grid, GroupParameters& parameters) {
  constexpr auto kHighest = static_cast<float>(kHighestGroupInteger);
  const std::size_t cols = parameters.cols;
  parameters.row_scales.assign(parameters.rows, 1.0f);
  parameters.integers.assign(parameters.rows * cols, 1);
  for (std::size_t r = 0; r < parameters.rows; ++r) {
    const float* const scales = parameters.scales.data() + r * cols;
    const float largest = *std::max_element(scales, scales + cols);
    if (largest == 0) continue;
    const float scale = round_scale(largest / kHighest, grid.scale_type);
    if (scale == 0 || !std::isfinite(scale * kHighest)) {
      return Error{ErrorCode::numeric,
                   "grid " + to_string(grid) + ": row scale " + std::to_string(r) +
                       " needs the value " +
                       detail::number_text(static_cast<double>(largest / kHighest)) + ", which " +
                       std::string(to_string(grid.scale_type)) + " cannot hold; " +
                       (grid.scale_type == ScaleType::f32   ? "rescale the weight or keep it in "
                                                              "floating point"
                        : grid.scale_type == ScaleType::f16 ? "use bf16 or f32 scales"
                                                            : "use f32 scales")};
    }
    parameters.row_scales[r] = scale;
    for (std::size_t c = 0; c < cols; ++c) {
      parameters.integers[r * cols + c] =
          static_cast<std::uint8_t>(detail::round_between(scales[c] / scale, 1.0f, kHighest));
    }
  }
  multiply_levels(parameters);
  return ok();
}

}  // namespace quell
