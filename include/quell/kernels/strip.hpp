// SPDX-License-Identifier: Apache-2.0
#pragma once

// Strips: sixteen rows of a problem side by side, element (j, row) at x[16 j + row]. What solvers
// use inside their blocks, where products are too thin for gemm_dense.

#include <cstddef>

namespace quell::kernels {

inline constexpr std::size_t kStripRows = 16;

/// out[16 r + lane] -= sum over j < depth of c[r * stride + j] * x[16 j + lane], for r < rows;
/// `out` does not overlap x. One accumulator for each output, j ascending, fused: the same bits on
/// every x86 instruction set, and wherever a range of j is cut.
using SubtractStrip = void (*)(const float* c, std::size_t stride, std::size_t rows,
                               std::size_t depth, const float* x, float* out);

/// The best of this machine under the cap; ask once for many calls.
SubtractStrip subtract_strip() noexcept;

}  // namespace quell::kernels
