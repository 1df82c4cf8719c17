// SPDX-License-Identifier: Apache-2.0

// Losses of many error vectors at once. Both kinds walk the matrix in blocks of columns and touch
// each unordered pair of indices once: the factor because it is triangular, the moment because it
// is symmetric (pairs in different blocks count twice). Half the flops of the product E^T H.

#include <algorithm>

#include "linalg/linalg.hpp"
#include "quell/core/tensor.hpp"

namespace quell::linalg {
namespace {

constexpr std::size_t kBlock = 256;
constexpr std::size_t kColumns = 64;  // of e per work item: 256 bytes of each row

template <typename Term>
void add_terms(MatrixView<const float> product, std::span<double> out, Executor& executor,
               Term term) {
  executor.run(product.cols(), kColumns, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t k = 0; k < product.rows(); ++k) {
      const float* row = product.row(k).data();
      for (std::size_t c = begin; c < end; ++c) out[c] += term(k, c, row[c]);
    }
  });
}

}  // namespace

Status quadratic_losses(Loss kind, MatrixView<const float> matrix, MatrixView<const float> e,
                        std::span<double> out, Context& context) {
  const std::size_t n = matrix.rows();
  if (matrix.cols() != n || e.rows() != n || out.size() != e.cols()) {
    return Error{ErrorCode::shape, "losses: a matrix of " + std::to_string(n) + " x " +
                                       std::to_string(matrix.cols()) + " and errors of " +
                                       std::to_string(e.rows()) + " x " + std::to_string(e.cols())};
  }
  std::fill(out.begin(), out.end(), 0.0);
  QUELL_TRY(product, Matrix::uninitialized(std::min(kBlock, n), e.cols()));
  for (std::size_t first = 0; first < n; first += kBlock) {
    const std::size_t width = std::min(kBlock, n - first);
    const auto part = product.view().rows_from(0, width);
    if (kind == Loss::factor) {
      // Column q of L meets the errors from position q on.
      const DenseOperand columns{matrix.block(first, first, n - first, width), true};
      const DenseOperand errors{e.rows_from(first, n - first), true};
      QUELL_TRY(gemm_dense({columns, errors, part}, context));
      add_terms(part, out, context.executor(), [](std::size_t, std::size_t, float value) {
        return static_cast<double>(value) * static_cast<double>(value);
      });
      continue;
    }
    const auto own = e.rows_from(first, width);
    const auto term = [&](double weight) {
      return [&, weight](std::size_t k, std::size_t c, float value) {
        return weight * (static_cast<double>(own(k, c)) * static_cast<double>(value));
      };
    };
    if (first != 0) {
      QUELL_TRY(gemm_dense(
          {{matrix.block(first, 0, width, first)}, {e.rows_from(0, first), true}, part}, context));
      add_terms(part, out, context.executor(), term(2.0));
    }
    QUELL_TRY(gemm_dense({{matrix.block(first, first, width, width)}, {own, true}, part}, context));
    add_terms(part, out, context.executor(), term(1.0));
  }
  return ok();
}

}  // namespace quell::linalg
