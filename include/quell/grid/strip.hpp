// SPDX-License-Identifier: Apache-2.0
#pragma once

// Scales, zeros and codes for sixteen groups at a time. A strip holds one element of each group per
// row: values [n][16], group r in lane r, so every loop below is the same arithmetic on sixteen
// lanes and vectorizes on any machine, while no lane ever sees another: a group gets the same bits
// alone or in company. Unused lanes hold zeros. Callers that quantize column by column with error
// feedback use these functions on their own buffers; whole matrices go through scale.hpp, which is
// built on them.
//
// All functions tolerate non-finite values without undefined behaviour, but promise nothing about
// the lanes that hold them. A scale that the grid's scale type cannot hold is returned as what
// rounding makes of it, 0 or infinity; that group's codes mean nothing, and the caller must look.
//
// On two-level grids the scales chosen here are those of one level, and split_levels
// (two_level.hpp) makes two of them; round_strip takes the products.

#include <cstddef>
#include <cstdint>

#include "quell/grid/spec.hpp"

namespace quell {

/// Groups per strip: four 4-lane registers, or one of 16 lanes.
inline constexpr std::size_t kStripLanes = 16;

/// Symmetric grids: scale = max |x| / the format's absmax divisor, zero = 2^(bits-1). A codebook
/// whose lower end is longer gets a negative scale where the extreme is positive, so that the
/// extreme always lands on the lowest level. Asymmetric grids: as minmax_strip. An all-zero group
/// gets empty_scale(grid).
inline void absmax_strip(const GridSpec& grid, const float* values, std::size_t n,
                         float scales[kStripLanes], std::uint8_t zeros[kStripLanes]);

/// Asymmetric grids: with lo = min(0, min x), hi = max(0, max x), M = 2^bits - 1: scale = (hi - lo)
/// / M rounded to its type, zero = round(-lo / scale) clamped to [0, M]. Symmetric grids: as
/// absmax_strip.
inline void minmax_strip(const GridSpec& grid, const float* values, std::size_t n,
                         float scales[kStripLanes], std::uint8_t zeros[kStripLanes]);

/// The scale (and zero) of least weighted squared error sum_i importance[i] (x_i - value_i)^2 among
/// those tried; never worse than absmax_strip, up to the rounding of that sum (relative 1e-5).
/// `importance`: n weights >= 0, finite, or null for all equal; all zero gives the absmax result.
/// Scales may be negative where allows_negative_scale(grid). Groups whose range is below 2^-100 or
/// above 2^100 keep the absmax result, since the sums might leave the range of float.
inline void search_strip(const GridSpec& grid, const float* values, const float* importance,
                         std::size_t n, float scales[kStripLanes], std::uint8_t zeros[kStripLanes]);

/// codes[i][r] = clamp(round-half-even(x / scale) + zero), or the nearest level of a codebook, by a
/// true division; with `reconstruction` not null also the values. NaN takes the lowest code.
inline void round_strip(const GridSpec& grid, const float* values, std::size_t n,
                        const float scales[kStripLanes], const std::uint8_t zeros[kStripLanes],
                        std::uint8_t* codes, float* reconstruction);

}  // namespace quell

#include "quell/grid/strip_inline.hpp"  // IWYU pragma: export
