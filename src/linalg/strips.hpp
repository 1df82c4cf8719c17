// SPDX-License-Identifier: Apache-2.0
#pragma once

// Strips (quell/kernels/strip.hpp): sixteen rows of a matrix brought side by side and back. Rows
// count for themselves in all solvers here, so sixteen of them are what fills wide registers.

#include <cstddef>

#include "quell/kernels/strip.hpp"

namespace quell::linalg {

using kernels::kStripRows;
using kernels::subtract_strip;
using kernels::SubtractStrip;

/// strip[16 i + r] = rows[r * stride + i] for r < count and i < n; zero for the other r up to 16.
void load_strip(const float* rows, std::size_t stride, std::size_t count, std::size_t n,
                float* strip);
/// The way back; lanes from `count` on are left out.
void store_strip(const float* strip, std::size_t count, std::size_t n, float* rows,
                 std::size_t stride);

}  // namespace quell::linalg
