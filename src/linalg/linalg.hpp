// SPDX-License-Identifier: Apache-2.0
#pragma once

// The dense solvers under the methods: second moments, the triangular factor, and the two
// triangular operations that the error-feedback sweep needs. Everything large is a product on
// gemm_dense; the blocks between are plain loops in one fixed order. So the bits are the same for
// any number of threads and on any instruction set, which no library that blocks by cache size
// promises.
//
// The factor. A sweep that quantizes channels in the order c_0, c_1, ... needs H = R R^T with R
// upper triangular in that order, a Cholesky factorization that runs from the last index to the
// first. With J the reversal of indices and L the usual lower factor of J H J it is R = J L J. So
// nothing here knows of R: positions are numbered backwards when H is copied (`gather_lower`), and
// the lower factor L of that copy is R with both indices reversed.

#include <cstddef>
#include <cstdint>
#include <span>

#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/core/view.hpp"
#include "quell/kernels/context.hpp"
#include "quell/kernels/gemm.hpp"
#include "quell/kernels/hadamard.hpp"

namespace quell::linalg {

// For methods, which do not see the kernels: the product everything here stands on, and rotations,
// under our roof.
using kernels::Accumulate;
using kernels::Context;
using kernels::DenseOperand;
using kernels::DenseProduct;
using kernels::gemm_dense;
using kernels::Hadamard;
using kernels::hadamard_supported;

/// Tokens of one chunk of accumulate_second_moment. A sum of 2,048 products in float32 has a
/// relative error of at most 2048 * 2^-24 = 1.2e-4, in practice near its square root, 3e-6.
inline constexpr std::size_t kMomentChunk = 2048;

/// sum += X^T X on the lower triangle (column <= row); the rest of `sum` is left as it is.
/// x: [T, K]; sum: [K, K]. Rows are taken in chunks of kMomentChunk: products inside a chunk in
/// float32, chunks added in double. Errors: shape, resource.
Status accumulate_second_moment(MatrixView<const float> x, MatrixView<double> sum,
                                Context& context);

/// out[p, q] = scale * H[order[p], order[q]] for q <= p, plus added[p] on the diagonal; 0 above it.
/// H: [K, K], symmetric; out: [n, n] with n = order.size(); `added` has n elements or none.
void gather_lower(MatrixView<const float> h, std::span<const std::uint32_t> order, float scale,
                  std::span<const float> added, MatrixView<float> out, Executor& executor);

/// A = L L^T in place: reads the lower triangle of a [n, n], leaves L there and what was above it.
/// n^3 / 3 flops. Error: numeric, with the index of the first pivot that is not positive and finite
/// (then `a` is spoiled).
Status cholesky_lower(MatrixView<float> a, Context& context);

/// a[p, q] := a[n-1-p, n-1-q]: a lower triangle becomes the upper one of the reversed order.
void reverse_both(MatrixView<float> a, Executor& executor);

/// X := X * L^-T for x [M, n] and the lower triangle of l [n, n] with a diagonal that is not zero.
/// M * n^2 flops.
Status solve_lower_transposed(MatrixView<const float> l, MatrixView<float> x, Context& context);

/// out[r] = e_r H e_r^T for every row e_r of e [P, n]; h: [n, n], symmetric, both triangles
/// present. P * n^2 flops: each unordered pair of inputs is touched once. Products in float32,
/// their sums over n in double.
Status quadratic_losses(MatrixView<const float> h, MatrixView<const float> e, std::span<double> out,
                        Context& context);

/// The largest singular value of w, from below; 0 for an empty one. Values that lie further apart
/// than a hundredth come out with a relative error of about 1e-6; closer ones as one of them. Two
/// passes over w a step, at most 64 steps. The start is fixed. Errors: resource.
Result<double> spectral_norm(MatrixView<const float> w, Context& context);

}  // namespace quell::linalg
