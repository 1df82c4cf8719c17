// SPDX-License-Identifier: Apache-2.0

// With H + ridge = L L^T the correction is X L^-T L^-1, X = W D or the drift of the output. The
// first is a solve of the linear module. So is the second once everything is read backwards: J the
// reversal of indices,
//
//     Y L^-1 = ((Y J) M^-T) J,     M = J L^T J, lower triangular.

#include "quant/drift.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "linalg/linalg.hpp"

namespace quell::quant {
namespace {

/// a[i, j] <-> a[n-1-j, n-1-i]: a lower triangle stays one.
void mirror_at_antidiagonal(MatrixView<float> a) {
  const std::size_t n = a.rows();
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; i + j + 1 < n && j <= i; ++j) {
      std::swap(a(i, j), a(n - 1 - j, n - 1 - i));
    }
  }
}

void reverse_columns(MatrixView<float> a, Executor& executor) {
  executor.run(a.rows(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t r = begin; r < end; ++r) std::reverse(a.row(r).begin(), a.row(r).end());
  });
}

}  // namespace

Result<Matrix> drift_target(const LayerProblem& layer, const MomentProfile& profile,
                            double strength, double ridge, Executor& executor) {
  const std::size_t rows = layer.weight.rows(), inputs = layer.weight.cols();
  const auto& drift = layer.drift;
  const std::size_t expected = layer.drift_of_output ? rows : inputs;
  if (drift.rows() != expected || drift.cols() != inputs) {
    return Error{ErrorCode::shape,
                 layer.name + ": the drift is " + std::to_string(drift.rows()) + " x " +
                     std::to_string(drift.cols()) + ", expected " + std::to_string(expected) +
                     " x " + std::to_string(inputs) + ", the " +
                     (layer.drift_of_output ? "shape of the weight" : "inputs of the weight")};
  }
  for (std::size_t i = 0; i < expected; ++i) {
    for (std::size_t j = 0; j < inputs; ++j) {
      if (std::isfinite(drift(i, j))) continue;
      return Error{ErrorCode::numeric, "element [" + std::to_string(i) + ", " + std::to_string(j) +
                                           "] of the drift is not a finite number"};
    }
  }
  linalg::Context context(executor);
  QUELL_TRY(lower, Matrix::uninitialized(inputs, inputs));
  std::vector<std::uint32_t> order(inputs);
  std::iota(order.begin(), order.end(), 0u);
  // Dead inputs have no drift towards them either; the ridge alone keeps them in the factor.
  const std::vector<float> added(inputs, static_cast<float>(ridge * profile.mean));
  linalg::gather_lower(layer.second_moment, order, profile.unit, added, lower.view(), executor);
  QUELL_TRY(linalg::cholesky_lower(lower.view(), context));

  QUELL_TRY(target, Matrix::uninitialized(rows, inputs));
  if (layer.drift_of_output) {
    for (std::size_t r = 0; r < rows; ++r) {
      std::copy_n(drift.row(r).data(), inputs, target.row(r).data());
    }
  } else {
    QUELL_TRY(linalg::gemm_dense({{layer.weight}, {drift, true}, target.view()}, context));
  }
  QUELL_TRY(linalg::solve_lower_transposed(lower.view(), target.view(), context));
  mirror_at_antidiagonal(lower.view());
  reverse_columns(target.view(), executor);
  QUELL_TRY(linalg::solve_lower_transposed(lower.view(), target.view(), context));
  reverse_columns(target.view(), executor);
  // The factor is of unit * H.
  const auto share = static_cast<float>(strength * static_cast<double>(profile.unit));
  executor.run(rows, 16, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t r = begin; r < end; ++r) {
      const float* weight = layer.weight.row(r).data();
      float* to = target.row(r).data();
      for (std::size_t k = 0; k < inputs; ++k) to[k] = weight[k] + share * to[k];
    }
  });
  for (const float value : target.values()) {
    if (!std::isfinite(value)) {
      return Error{ErrorCode::numeric, "the corrected weight left the range of float32"};
    }
  }
  return target;
}

}  // namespace quell::quant
