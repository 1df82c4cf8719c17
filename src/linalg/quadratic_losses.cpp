// SPDX-License-Identifier: Apache-2.0

// Losses of many error rows at once. With the inputs halved, e H e^T is the loss of the first half,
// that of the second, and twice the product between them; recursively, so that nearly all work is a
// few large products of 2^i x 2^i parts of H. At the bottom, parts of 128 inputs are multiplied
// whole: 128 / n more than needed, 3 % at n = 4096.

#include <algorithm>

#include "linalg/linalg.hpp"

namespace quell::linalg {
namespace {

constexpr std::size_t kLeaf = 128;

struct Losses {
  MatrixView<const float> h, e;
  std::span<double> out;
  MatrixView<float> product;  // scratch, [P, at least half of n]
  Context& context;

  /// out[r] += weight * (row r of e, inputs [first, first + width)) . (row r of product)
  void add_dots(std::size_t first, std::size_t width, double weight) {
    context.executor().run(e.rows(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
      for (std::size_t r = begin; r < end; ++r) {
        const float* a = e.row(r).data() + first;
        const float* b = product.row(r).data();
        double sums[4] = {};  // four chains of additions
        std::size_t k = 0;
        for (; k + 4 <= width; k += 4) {
          for (std::size_t i = 0; i < 4; ++i) {
            sums[i] += static_cast<double>(a[k + i]) * static_cast<double>(b[k + i]);
          }
        }
        for (; k < width; ++k) sums[0] += static_cast<double>(a[k]) * static_cast<double>(b[k]);
        out[r] += weight * ((sums[0] + sums[1]) + (sums[2] + sums[3]));
      }
    });
  }

  /// Products of inputs [col, col + width) with inputs [row, row + height).
  Status add_block(std::size_t row, std::size_t height, std::size_t col, std::size_t width,
                   double weight) {
    QUELL_TRY(gemm_dense({{e.cols_from(col, width)},
                          {h.block(row, col, height, width)},
                          product.cols_from(0, height)},
                         context));
    add_dots(row, height, weight);
    return ok();
  }

  Status range(std::size_t first, std::size_t width) {
    if (width <= kLeaf) return add_block(first, width, first, width, 1.0);
    const std::size_t half = (width / 2 + kLeaf - 1) / kLeaf * kLeaf;
    QUELL_TRY(range(first, half));
    QUELL_TRY(add_block(first + half, width - half, first, half, 2.0));
    return range(first + half, width - half);
  }
};

}  // namespace

Status quadratic_losses(MatrixView<const float> h, MatrixView<const float> e, std::span<double> out,
                        Context& context) {
  const std::size_t n = h.rows();
  if (h.cols() != n || e.cols() != n || out.size() != e.rows()) {
    return Error{ErrorCode::shape, "losses: a moment of " + std::to_string(n) + " x " +
                                       std::to_string(h.cols()) + ", errors of " +
                                       std::to_string(e.rows()) + " x " + std::to_string(e.cols()) +
                                       " and room for " + std::to_string(out.size()) + " losses"};
  }
  std::fill(out.begin(), out.end(), 0.0);
  if (e.empty()) return ok();
  QUELL_TRY(product, Matrix::uninitialized(e.rows(), std::max(std::min(n, kLeaf), n / 2)));
  Losses losses{h, e, out, product.view(), context};
  return losses.range(0, n);
}

}  // namespace quell::linalg
