// SPDX-License-Identifier: Apache-2.0
#pragma once

// Problems for quantizers: second moments of inputs as real layers have them, fixed grids, and a
// reference solver in double that shares nothing with the library but the formulas.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "quell/core/random.hpp"
#include "quell/core/tensor.hpp"
#include "quell/grid/formats.hpp"
#include "quell/grid/groups.hpp"
#include "quell/quant/methods.hpp"
#include "quell/quant/quantizer.hpp"
#include "support/matrices.hpp"

namespace quell::test {

/// Mean of x x^T over the rows of x, summed in double. [K, K], symmetric to the bit.
inline Matrix second_moment(const Matrix& x) {
  const std::size_t n = x.cols();
  std::vector<double> sum(n * n);
  for (std::size_t t = 0; t < x.rows(); ++t) {
    const float* row = x.row(t).data();
    for (std::size_t i = 0; i < n; ++i) {
      const double a = static_cast<double>(row[i]);
      if (a == 0) continue;
      for (std::size_t j = 0; j <= i; ++j) sum[i * n + j] += a * static_cast<double>(row[j]);
    }
  }
  Matrix h = *Matrix::uninitialized(n, n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      h(i, j) = static_cast<float>(sum[i * n + j] / static_cast<double>(x.rows()));
      h(j, i) = h(i, j);
    }
  }
  return h;
}

/// Inputs in which neighbours correlate (0.7), channels differ in size by up to e^2 either way, and
/// one channel is 30 times as large: tokens x channels.
inline Matrix layer_inputs(std::size_t tokens, std::size_t channels, std::uint64_t seed = 1) {
  Matrix x = gaussian_matrix(tokens, channels, seed);
  const Random sizes(seed, 7);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t k = 1; k < channels; ++k) x(t, k) = 0.7F * x(t, k - 1) + 0.7F * x(t, k);
  }
  for (std::size_t k = 0; k < channels; ++k) {
    const double size = std::exp(std::clamp(sizes.normal(k), -2.0, 2.0));
    const auto factor = static_cast<float>(k == channels / 3 ? 30 * size : size);
    for (std::size_t t = 0; t < tokens; ++t) x(t, k) *= factor;
  }
  return x;
}

inline GroupParameters uniform_parameters(const GridSpec& grid, std::size_t rows, std::size_t cols,
                                          float scale) {
  const GroupLayout layout = group_layout(grid, rows, cols);
  GroupParameters p;
  p.rows = layout.rows;
  p.cols = layout.cols;
  p.scales.assign(p.rows * p.cols, scale);
  if (!grid.symmetric) p.zeros.assign(p.rows * p.cols, symmetric_zero(grid.format));
  return p;
}

/// The integers, for weights of small magnitude.
inline GridSpec integer_grid() {
  return *parse_grid("int8full:sym:oc:row:f32");
}

inline quant::Quantized solve(const quant::Quantizer& method, const quant::LayerProblem& layer) {
  SerialExecutor serial;
  auto result = method.quantize(layer, serial);
  if (!result) {
    ADD_FAILURE() << result.error().message;
    std::abort();
  }
  return *std::move(result);
}

/// Stored code minus zero for symmetric grids.
inline std::vector<int> signed_codes(const QuantizedTensor& tensor) {
  std::vector<int> all;
  std::vector<std::uint8_t> row(tensor.cols());
  for (std::size_t r = 0; r < tensor.rows(); ++r) {
    tensor.unpack_row(r, row);
    for (const std::uint8_t code : row) {
      all.push_back(static_cast<int>(code) - symmetric_zero(tensor.grid().format));
    }
  }
  return all;
}

inline Matrix values_of(const QuantizedTensor& tensor) {
  Matrix out = *Matrix::uninitialized(tensor.rows(), tensor.cols());
  for (std::size_t r = 0; r < tensor.rows(); ++r) tensor.dequantize_row(r, out.row(r));
  return out;
}

/// tr((W - Q) H (W - Q)^T), in double from scratch.
inline double loss(MatrixView<const float> w, MatrixView<const float> q,
                   MatrixView<const float> h) {
  double sum = 0;
  std::vector<double> e(w.cols());
  for (std::size_t r = 0; r < w.rows(); ++r) {
    for (std::size_t k = 0; k < e.size(); ++k) {
      e[k] = static_cast<double>(w(r, k)) - (q.empty() ? 0.0 : static_cast<double>(q(r, k)));
    }
    for (std::size_t i = 0; i < e.size(); ++i) {
      double row = 0;
      for (std::size_t j = 0; j < e.size(); ++j) row += static_cast<double>(h(i, j)) * e[j];
      sum += e[i] * row;
    }
  }
  return sum;
}

/// The textbook form in double: U upper with (H + ridge I)^-1 = U^T U, right-looking updates of W,
/// one channel at a time in natural order, on a symmetric grid with the given scales. No dead
/// channels.
struct Reference {
  std::vector<int> codes;        // [rows * cols], signed
  std::vector<double> margin;    // distance of every target from a rounding boundary, in steps
  std::vector<double> diagonal;  // U_kk
};
inline Reference reference_gptq(MatrixView<const float> w, MatrixView<const float> h, double ridge,
                                const GridSpec& grid, const GroupParameters& given) {
  const std::size_t n = w.cols();
  std::vector<double> a(n * n), inverse(n * n), u(n * n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) a[i * n + j] = static_cast<double>(h(i, j));
    a[i * n + i] += ridge;
    inverse[i * n + i] = 1;
  }
  // Gauss-Jordan without pivoting, which positive definite matrices allow.
  for (std::size_t k = 0; k < n; ++k) {
    const double pivot = a[k * n + k];
    for (std::size_t j = 0; j < n; ++j) {
      a[k * n + j] /= pivot;
      inverse[k * n + j] /= pivot;
    }
    for (std::size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double factor = a[i * n + k];
      if (factor == 0) continue;
      for (std::size_t j = 0; j < n; ++j) {
        a[i * n + j] -= factor * a[k * n + j];
        inverse[i * n + j] -= factor * inverse[k * n + j];
      }
    }
  }
  for (std::size_t i = 0; i < n; ++i) {  // inverse = U^T U
    for (std::size_t j = i; j < n; ++j) {
      double sum = inverse[i * n + j];
      for (std::size_t k = 0; k < i; ++k) sum -= u[k * n + i] * u[k * n + j];
      u[i * n + j] = i == j ? std::sqrt(sum) : sum / u[i * n + i];
    }
  }
  const GroupLayout layout = group_layout(grid, w.rows(), n);
  Reference result;
  for (std::size_t k = 0; k < n; ++k) result.diagonal.push_back(u[k * n + k]);
  for (std::size_t r = 0; r < w.rows(); ++r) {
    std::vector<double> row(n);
    for (std::size_t k = 0; k < n; ++k) row[k] = static_cast<double>(w(r, k));
    for (std::size_t k = 0; k < n; ++k) {
      const double scale = static_cast<double>(given.scales[layout.index(r, k)]);
      const double step = row[k] / scale;
      const double code = std::clamp<double>(std::nearbyint(step), info(grid.format).lowest,
                                             info(grid.format).highest);
      result.codes.push_back(static_cast<int>(code));
      result.margin.push_back(std::abs(step - std::floor(step) - 0.5));
      const double error = (row[k] - code * scale) / u[k * n + k];
      for (std::size_t j = k + 1; j < n; ++j) row[j] -= error * u[k * n + j];
    }
  }
  return result;
}

/// Codes differ in no more rows than can be explained by ties: in every row the first difference
/// sits at a target within `margin` steps of a rounding boundary.
inline void expect_same_codes(const std::vector<int>& codes, const Reference& reference,
                              std::size_t cols, double margin) {
  ASSERT_EQ(codes.size(), reference.codes.size());
  for (std::size_t row = 0; row < codes.size(); row += cols) {
    for (std::size_t k = row; k < row + cols; ++k) {
      if (codes[k] == reference.codes[k]) continue;
      EXPECT_LT(reference.margin[k], margin)
          << "row " << row / cols << ", column " << k - row << ": " << codes[k] << ", expected "
          << reference.codes[k];
      break;  // what follows was fed by the difference
    }
  }
}

}  // namespace quell::test
