// SPDX-License-Identifier: Apache-2.0

// Recursive Cholesky: factor the first half, solve for the block below it, subtract that block's
// product from the second half, factor the second half. All but the leaves is then a few large,
// nearly square products. The split depends on n alone, so the order of every sum is fixed.
//
// Leaves are 64 wide. Their share of the flops is (3/2) * 64 / n, 2.3 % at n = 4096, and the loops
// below reach about an eighth of the rate of the products there; at 32 the products get too thin,
// at 128 the leaves alone take as long as a third of the products.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "linalg/lanes.hpp"
#include "linalg/linalg.hpp"

namespace quell::linalg {
namespace {

constexpr std::size_t kLeaf = 64;
constexpr std::size_t kLanes = Lanes::kCount;  // rows of X solved together

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

/// Solves 16 rows: x holds them as [n][16], row r in lane r.
void solve_lanes(MatrixView<const float> l, float* x) {
  for (std::size_t k = 0; k < l.rows(); ++k) {
    const float* row = l.row(k).data();
    float* own = x + k * kLanes;
    ((Lanes::load(own) - weighted_sum(row, x, 0, k)) / row[k]).store(own);
  }
}

void solve_leaf(MatrixView<const float> l, MatrixView<float> x, Executor& executor) {
  const std::size_t n = l.rows();
  executor.run(x.rows(), kLanes, [&](std::size_t begin, std::size_t end, unsigned) {
    alignas(64) float strip[kLeaf * kLanes];
    for (std::size_t first = begin; first < end; first += kLanes) {
      const std::size_t rows = std::min(kLanes, end - first);
      if (rows < kLanes) std::memset(strip, 0, sizeof strip);
      for (std::size_t r = 0; r < rows; ++r) {
        const float* from = x.row(first + r).data();
        for (std::size_t k = 0; k < n; ++k) strip[k * kLanes + r] = from[k];
      }
      solve_lanes(l, strip);
      for (std::size_t r = 0; r < rows; ++r) {
        float* to = x.row(first + r).data();
        for (std::size_t k = 0; k < n; ++k) to[k] = strip[k * kLanes + r];
      }
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
  if (n <= kLeaf) {
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
