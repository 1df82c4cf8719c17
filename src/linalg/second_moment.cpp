// SPDX-License-Identifier: Apache-2.0

// Second moments, in squares of 4096 x 4096 channels: a product packs both of its operands, 64 MB
// for a square, and uses what it packed 4096 times.

#include <algorithm>

#include "linalg/linalg.hpp"

namespace quell::linalg {
namespace {

constexpr std::size_t kBlock = 4096;

}  // namespace

Status accumulate_second_moment(MatrixView<const float> x, MatrixView<double> sum,
                                Context& context) {
  const std::size_t channels = x.cols();
  if (sum.rows() != channels || sum.cols() != channels) {
    return Error{ErrorCode::shape, "second moment: the sum is " + std::to_string(sum.rows()) +
                                       " x " + std::to_string(sum.cols()) + ", expected " +
                                       std::to_string(channels) + " x " + std::to_string(channels)};
  }
  for (std::size_t t = 0; t < x.rows(); t += kMomentChunk) {
    const auto chunk = x.rows_from(t, std::min(kMomentChunk, x.rows() - t));
    const auto block = [&](std::size_t first) {
      return DenseOperand{chunk.cols_from(first, std::min(kBlock, channels - first)), true};
    };
    for (std::size_t row = 0; row < channels; row += kBlock) {
      for (std::size_t col = 0; col <= row; col += kBlock) {
        const DenseOperand a = block(row), b = block(col);
        QUELL_TRY(kernels::add_product(
            a, b, row == col ? kernels::Triangle::lower : kernels::Triangle::full,
            sum.block(row, col, a.rows(), b.rows()), context));
      }
    }
  }
  return ok();
}

}  // namespace quell::linalg
