// SPDX-License-Identifier: Apache-2.0
#pragma once

// Activations to int8, each token with one scale by its largest magnitude m:
//
//     scale = m / 127             code = round(x * (127 / m)), half to even, in [-127, 127]
//
// so x is about code * scale. The products with int8 activations do the same inside; this is for
// hosts with products, caches or files of their own.

#include <cstdint>
#include <span>

#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/core/view.hpp"

namespace quell::kernels {

/// codes [T, IC] and scales [T] of x [T, IC]. A row of zeros has scale 1; a row with an element
/// that is not finite has codes 0 and the scale NaN. The same bits on every instruction set and any
/// number of threads. Error: shape.
Status quantize_rows(MatrixView<const float> x, MatrixView<std::int8_t> codes,
                     std::span<float> scales, Executor& executor);

}  // namespace quell::kernels
