// SPDX-License-Identifier: Apache-2.0

// Second moments by blocks of output rows: a block of 512 channels is one product against all
// channels before it, so the float32 scratch is 512 x K and not K x K, and each block is added to
// the double sum while it is still in the outer cache.

#include <algorithm>

#include "linalg/linalg.hpp"
#include "quell/core/tensor.hpp"

namespace quell::linalg {
namespace {

constexpr std::size_t kBlock = 512;

/// sum += product over the columns [0, col + row) of each row, or all of them when `triangle` is
/// off.
void add_rows(MatrixView<const float> product, MatrixView<double> sum, bool triangle,
              Executor& executor) {
  executor.run(product.rows(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t r = begin; r < end; ++r) {
      const std::size_t width = triangle ? r + 1 : product.cols();
      const float* from = product.row(r).data();
      double* to = sum.row(r).data();
      for (std::size_t c = 0; c < width; ++c) to[c] += static_cast<double>(from[c]);
    }
  });
}

}  // namespace

Status accumulate_second_moment(MatrixView<const float> x, MatrixView<double> sum,
                                Context& context) {
  const std::size_t channels = x.cols();
  if (sum.rows() != channels || sum.cols() != channels) {
    return Error{ErrorCode::shape, "second moment: the sum is " + std::to_string(sum.rows()) +
                                       " x " + std::to_string(sum.cols()) + ", expected " +
                                       std::to_string(channels) + " x " + std::to_string(channels)};
  }
  QUELL_TRY(scratch, large_matrix(std::min(kBlock, channels), channels));
  for (std::size_t t = 0; t < x.rows(); t += kMomentChunk) {
    const auto chunk = x.rows_from(t, std::min(kMomentChunk, x.rows() - t));
    for (std::size_t first = 0; first < channels; first += kBlock) {
      const std::size_t rows = std::min(kBlock, channels - first);
      const DenseOperand own{chunk.cols_from(first, rows), true};
      if (first != 0) {
        const auto left = scratch.view().block(0, 0, rows, first);
        QUELL_TRY(gemm_dense({own, {chunk.cols_from(0, first), true}, left}, context));
        add_rows(left, sum.block(first, 0, rows, first), false, context.executor());
      }
      const auto diagonal = scratch.view().block(0, first, rows, rows);
      QUELL_TRY(
          gemm_dense({own, own, diagonal, Accumulate::set, kernels::Triangle::lower}, context));
      add_rows(diagonal, sum.block(first, first, rows, rows), true, context.executor());
    }
  }
  return ok();
}

}  // namespace quell::linalg
