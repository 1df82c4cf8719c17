// SPDX-License-Identifier: Apache-2.0

// Recursive Cholesky: factor the first half, solve for the block below it, subtract that block's
// product from the second half, factor the second half. All but the leaves is then a few large,
// nearly square products. The split depends on n alone, so the order of every sum is fixed.
//
// The factor's leaves are 64 wide: (3/2) * 64 / n of the flops, 2.3 % at n = 4096, at about an
// eighth of the rate of the products. The solves' leaves are 256 wide and work on strips of sixteen
// rows: products of 64 and 128 columns are too thin for gemm_dense, which would pack X for each.

#include <algorithm>
#include <cmath>
#include <utility>

#include "linalg/linalg.hpp"
#include "linalg/strips.hpp"

namespace quell::linalg {
namespace {

constexpr std::size_t kLeaf = 64;
constexpr std::size_t kSolveLeaf = 256;
// Unknowns of a strip that one product prepares: enough accumulators to hide the latency.
constexpr std::size_t kSolveStep = 8;

/// First part of a split: a multiple of the leaf, about half.
std::size_t first_half(std::size_t n) {
  return (n / 2 + kLeaf - 1) / kLeaf * kLeaf;
}

/// Unblocked factor of n <= kLeaf; columns from left to right, each updating the ones to its right.
/// Returns n, or the index of the pivot that failed.
std::size_t factor_leaf(MatrixView<float> a) {
  const std::size_t n = a.rows();
  float column[kLeaf];  // of L, contiguous so that the update below is a loop over lanes
  for (std::size_t k = 0; k < n; ++k) {
    const float pivot = a(k, k);
    if (!(pivot > 0.0F) || !std::isfinite(pivot)) return k;
    const float root = std::sqrt(pivot);
    a(k, k) = root;
    for (std::size_t i = k + 1; i < n; ++i) {
      column[i] = a(i, k) / root;
      a(i, k) = column[i];
    }
    for (std::size_t i = k + 1; i < n; ++i) {
      float* row = a.row(i).data();
      const float factor = column[i];
      for (std::size_t j = k + 1; j <= i; ++j) row[j] -= factor * column[j];
    }
  }
  return n;
}

/// Solves sixteen rows.
void solve_strip(MatrixView<const float> l, float* x, SubtractStrip subtract) {
  const std::size_t n = l.rows();
  for (std::size_t first = 0; first < n; first += kSolveStep) {
    const std::size_t count = std::min(kSolveStep, n - first);
    float* const own = x + first * kStripRows;
    subtract(l.row(first).data(), l.stride(), count, first, x, own);
    for (std::size_t k = 0; k < count; ++k) {
      const float* row = l.row(first + k).data() + first;
      float* to = own + k * kStripRows;
      subtract(row, l.stride(), 1, k, own, to);
      for (std::size_t lane = 0; lane < kStripRows; ++lane) to[lane] /= row[k];
    }
  }
}

void solve_leaf(MatrixView<const float> l, MatrixView<float> x, Executor& executor) {
  const std::size_t n = l.rows();
  const SubtractStrip subtract = subtract_strip();
  executor.run(x.rows(), kStripRows, [&](std::size_t begin, std::size_t end, unsigned) {
    alignas(64) float strip[kSolveLeaf * kStripRows];
    for (std::size_t first = begin; first < end; first += kStripRows) {
      const std::size_t rows = std::min(kStripRows, end - first);
      float* const from = x.row(first).data();
      load_strip(from, x.stride(), rows, n, strip);
      solve_strip(l, strip, subtract);
      store_strip(strip, rows, n, from, x.stride());
    }
  });
}

/// `offset` is the place of `a` in the whole matrix, for the message.
Status factor(MatrixView<float> a, std::size_t offset, Context& context) {
  const std::size_t n = a.rows();
  if (n <= kLeaf) {
    const std::size_t done = factor_leaf(a);
    if (done == n) return ok();
    return Error{ErrorCode::numeric, "the matrix is not positive definite: pivot " +
                                         std::to_string(offset + done) + " is " +
                                         std::to_string(static_cast<double>(a(done, done))) +
                                         ", expected a positive finite number"};
  }
  const std::size_t half = first_half(n);
  const std::size_t rest = n - half;
  const auto top = a.block(0, 0, half, half);
  const auto below = a.block(half, 0, rest, half);
  const auto bottom = a.block(half, half, rest, rest);
  QUELL_TRY(factor(top, offset, context));
  QUELL_TRY(solve_lower_transposed(top, below, context));
  QUELL_TRY(gemm_dense({{below}, {below}, bottom, Accumulate::subtract, kernels::Triangle::lower},
                       context));
  return factor(bottom, offset + half, context);
}

}  // namespace

Status cholesky_lower(MatrixView<float> a, Context& context) {
  if (a.rows() != a.cols()) {
    return Error{ErrorCode::shape, "cholesky: a matrix of " + std::to_string(a.rows()) + " x " +
                                       std::to_string(a.cols()) + " is not square"};
  }
  if (a.rows() == 0) return ok();
  return factor(a, 0, context);
}

Status solve_lower_transposed(MatrixView<const float> l, MatrixView<float> x, Context& context) {
  const std::size_t n = l.rows();
  if (l.cols() != n || x.cols() != n) {
    return Error{ErrorCode::shape, "triangular solve: L is " + std::to_string(n) + " x " +
                                       std::to_string(l.cols()) + ", X has " +
                                       std::to_string(x.cols()) + " columns"};
  }
  if (n == 0 || x.rows() == 0) return ok();
  if (n <= kSolveLeaf) {
    solve_leaf(l, x, context.executor());
    return ok();
  }
  const std::size_t half = first_half(n);
  const std::size_t rest = n - half;
  const auto left = x.cols_from(0, half);
  const auto right = x.cols_from(half, rest);
  QUELL_TRY(solve_lower_transposed(l.block(0, 0, half, half), left, context));
  QUELL_TRY(
      gemm_dense({{left}, {l.block(half, 0, rest, half)}, right, Accumulate::subtract}, context));
  return solve_lower_transposed(l.block(half, half, rest, rest), right, context);
}

void reverse_both(MatrixView<float> a, Executor& executor) {
  const std::size_t n = a.rows();
  const auto swap_rows = [&](std::size_t p, std::size_t count) {
    float* const low = a.row(p).data();
    float* const high = a.row(n - 1 - p).data();
    for (std::size_t q = 0; q < count; ++q) std::swap(low[q], high[n - 1 - q]);
  };
  executor.run(n / 2, 16, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t p = begin; p < end; ++p) swap_rows(p, n);
  });
  if (n % 2 == 1) swap_rows(n / 2, n / 2);
}

void gather_lower(MatrixView<const float> h, std::span<const std::uint32_t> order, float scale,
                  std::span<const float> added, MatrixView<float> out, Executor& executor) {
  executor.run(order.size(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t p = begin; p < end; ++p) {
      const float* from = h.row(order[p]).data();
      float* to = out.row(p).data();
      for (std::size_t q = 0; q <= p; ++q) to[q] = scale * from[order[q]];
      if (!added.empty()) to[p] += added[p];
      std::fill(to + p + 1, to + order.size(), 0.0F);
    }
  });
}

}  // namespace quell::linalg
