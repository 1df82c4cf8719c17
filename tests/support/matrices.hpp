// SPDX-License-Identifier: Apache-2.0
#pragma once

// Matrices with which a method is tried: what is ordinary, what outliers look like, and what breaks
// arithmetic. Gaussian matrices alone prove nothing in this library. All are functions of their
// sizes and a seed, the same on every machine.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "quell/core/random.hpp"
#include "quell/core/tensor.hpp"

namespace quell::test {

inline Matrix constant_matrix(std::size_t rows, std::size_t cols, float value) {
  Matrix m = *Matrix::uninitialized(rows, cols);
  std::fill_n(m.data(), m.size(), value);
  return m;
}

inline Matrix zero_matrix(std::size_t rows, std::size_t cols) {
  return constant_matrix(rows, cols, 0.0f);
}

inline Matrix gaussian_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed = 1,
                              float deviation = 1.0f) {
  Matrix m = *Matrix::uninitialized(rows, cols);
  Random(seed).fill_normal(m.values());
  for (float& x : m.values()) x *= deviation;
  return m;
}

/// Student t with `degrees` (1 to 16) degrees of freedom: normal / sqrt(mean of squared normals).
/// Four degrees have finite variance and infinite kurtosis.
inline Matrix student_matrix(std::size_t rows, std::size_t cols, unsigned degrees,
                             std::uint64_t seed = 1) {
  Matrix m = *Matrix::uninitialized(rows, cols);
  const Random top(seed, 0);
  const Random bottom(seed, 1);
  for (std::size_t i = 0; i < m.size(); ++i) {
    double squares = 0;
    for (unsigned k = 0; k < degrees; ++k) {
      const double z = bottom.normal(i * 16 + k);
      squares += z * z;
    }
    m.data()[i] = static_cast<float>(top.normal(i) / std::sqrt(squares / degrees));
  }
  return m;
}

/// Gaussian with one element multiplied.
inline Matrix one_outlier_matrix(std::size_t rows, std::size_t cols, std::size_t row,
                                 std::size_t col, float value, std::uint64_t seed = 1) {
  Matrix m = gaussian_matrix(rows, cols, seed);
  m(row, col) = value;
  return m;
}

/// Gaussian with one column (an outlier input channel) multiplied by `factor`.
inline Matrix outlier_column_matrix(std::size_t rows, std::size_t cols, std::size_t col,
                                    float factor, std::uint64_t seed = 1) {
  Matrix m = gaussian_matrix(rows, cols, seed);
  for (std::size_t r = 0; r < rows; ++r) m(r, col) *= factor;
  return m;
}

inline Matrix outlier_row_matrix(std::size_t rows, std::size_t cols, std::size_t row, float factor,
                                 std::uint64_t seed = 1) {
  Matrix m = gaussian_matrix(rows, cols, seed);
  for (std::size_t c = 0; c < cols; ++c) m(row, c) *= factor;
  return m;
}

/// +value, -value, +value, ... along rows, starting with the sign of the row's parity.
inline Matrix alternating_matrix(std::size_t rows, std::size_t cols, float value) {
  Matrix m = *Matrix::uninitialized(rows, cols);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < cols; ++c) m(r, c) = (r + c) % 2 == 0 ? value : -value;
  }
  return m;
}

/// Integers -range .. range times the smallest float.
inline Matrix subnormal_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed = 1) {
  Matrix m = *Matrix::uninitialized(rows, cols);
  for (std::size_t i = 0; i < m.size(); ++i) {
    const auto step = static_cast<float>(static_cast<int>(Random(seed).below(i, 2001)) - 1000);
    m.data()[i] = step * std::numeric_limits<float>::denorm_min();
  }
  return m;
}

struct NamedMatrix {
  std::string name;
  Matrix matrix;
};

/// The finite cases above with values that float arithmetic on ordinary scales can hold. Sizes
/// >= 1.
inline std::vector<NamedMatrix> ordinary_matrices(std::size_t rows, std::size_t cols) {
  std::vector<NamedMatrix> all;
  const auto add = [&](std::string name, Matrix m) {
    all.push_back({std::move(name), std::move(m)});
  };
  add("gaussian", gaussian_matrix(rows, cols));
  add("gaussian_small", gaussian_matrix(rows, cols, 2, 0.02f));
  add("student_t4", student_matrix(rows, cols, 4));
  add("one_outlier", one_outlier_matrix(rows, cols, rows / 2, cols / 2, 1000.0f));
  add("outlier_column", outlier_column_matrix(rows, cols, cols / 2, 50.0f));
  add("outlier_row", outlier_row_matrix(rows, cols, rows / 2, 50.0f));
  add("zero", zero_matrix(rows, cols));
  add("constant_positive", constant_matrix(rows, cols, 0.37f));
  add("constant_negative", constant_matrix(rows, cols, -2.5f));
  add("alternating", alternating_matrix(rows, cols, 1.5f));
  Matrix positive = gaussian_matrix(rows, cols, 3);
  for (float& x : positive.values()) x = std::fabs(x) + 0.5f;
  add("all_positive", std::move(positive));
  Matrix negative = gaussian_matrix(rows, cols, 4);
  for (float& x : negative.values()) x = -std::fabs(x) - 0.5f;
  add("all_negative", std::move(negative));
  Matrix shifted = gaussian_matrix(rows, cols, 5);
  for (float& x : shifted.values()) x += 3.0f;
  add("shifted", std::move(shifted));
  return all;
}

}  // namespace quell::test
