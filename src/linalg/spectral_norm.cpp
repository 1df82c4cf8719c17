// SPDX-License-Identifier: Apache-2.0

// Lanczos bidiagonalization (Golub and Kahan, 1965) with every new vector made orthogonal to all
// before it: W V = U B with B upper bidiagonal, and the largest singular value of B grows towards
// that of W. Power iteration was rejected: where singular values lie close, as in weights trained
// with orthogonalized updates, it needs hundreds of passes over W where this needs tens.

#include <algorithm>
#include <cmath>
#include <vector>

#include "linalg/linalg.hpp"
#include "quell/core/random.hpp"

namespace quell::linalg {
namespace {

constexpr std::size_t kSteps = 64;
constexpr double kTolerance = 1e-7;  // relative change of the estimate over a step

double norm(std::span<const float> x) {
  double sum = 0;
  for (const float value : x) sum += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(sum);
}

/// x -= projections on the first `count` rows of `basis`. Twice, since once leaves what rounding
/// put back (Parlett 1980: twice is enough).
void orthogonalize(MatrixView<const float> basis, std::size_t count, std::span<float> x) {
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = 0; i < count; ++i) {
      const auto row = basis.row(i);
      double dot = 0;
      for (std::size_t j = 0; j < x.size(); ++j) {
        dot += static_cast<double>(row[j]) * static_cast<double>(x[j]);
      }
      const float factor = static_cast<float>(dot);
      for (std::size_t j = 0; j < x.size(); ++j) x[j] -= factor * row[j];
    }
  }
}

/// Divides x by its norm; returns the norm, 0 where nothing is left.
double normalize(std::span<float> x) {
  const double length = norm(x);
  if (!(length > 0)) return 0;
  const double inverse = 1 / length;
  for (float& value : x) value = static_cast<float>(static_cast<double>(value) * inverse);
  return length;
}

/// Largest eigenvalue of B B^T, tridiagonal, for B [n, n + 1] with `a` on its diagonal and `b`
/// right of it. By bisection on the signs of the pivots (Sturm's sequence).
double largest_eigenvalue(const std::vector<double>& a, const std::vector<double>& b) {
  const std::size_t n = a.size();
  const auto diagonal = [&](std::size_t i) { return a[i] * a[i] + b[i] * b[i]; };
  const auto off = [&](std::size_t i) { return b[i] * a[i + 1]; };  // between i and i + 1
  double low = 0, high = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double left = i == 0 ? 0 : std::fabs(off(i - 1));
    const double right = i + 1 < n ? std::fabs(off(i)) : 0;
    low = std::max(low, diagonal(i));
    high = std::max(high, diagonal(i) + left + right);  // Gershgorin
  }
  for (int round = 0; round < 60 && high > low; ++round) {
    const double middle = low + (high - low) / 2;
    bool all_below = true;
    double pivot = 1;
    for (std::size_t i = 0; i < n && all_below; ++i) {
      pivot = diagonal(i) - middle - (i == 0 ? 0 : off(i - 1) * off(i - 1) / pivot);
      all_below = pivot < 0;
    }
    (all_below ? high : low) = middle;
  }
  return high;
}

}  // namespace

Result<double> spectral_norm(MatrixView<const float> w, Context& context) {
  const std::size_t steps = std::min({kSteps, w.rows(), w.cols()});
  if (steps == 0) return 0.0;
  QUELL_TRY(right, Matrix::zeros(steps + 1, w.cols()));
  QUELL_TRY(left, Matrix::zeros(steps, w.rows()));
  Random(0x5EED).fill_normal(right.row(0));
  normalize(right.row(0));

  std::vector<double> a, b;
  double estimate = 0;
  for (std::size_t step = 0; step < steps; ++step) {
    DenseProduct product;
    product.a = {right.view().rows_from(step, 1), false};
    product.b = {w, false};
    product.c = left.view().rows_from(step, 1);
    QUELL_TRY(gemm_dense(product, context));
    orthogonalize(left.view(), step, left.row(step));
    a.push_back(normalize(left.row(step)));

    product.a = {left.view().rows_from(step, 1), false};
    product.b = {w, true};
    product.c = right.view().rows_from(step + 1, 1);
    QUELL_TRY(gemm_dense(product, context));
    orthogonalize(right.view(), step + 1, right.row(step + 1));
    b.push_back(normalize(right.row(step + 1)));

    const double next = std::sqrt(largest_eigenvalue(a, b));
    const bool settled = step > 8 && next - estimate <= kTolerance * next;
    estimate = next;
    // A zero: the vectors span all that w maps to or from anything but zero.
    if (settled || !(a.back() > 0) || !(b.back() > 0)) break;
  }
  return estimate;
}

}  // namespace quell::linalg
