// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "linalg/linalg.hpp"
#include "quell/core/executor.hpp"
#include "support/matrices.hpp"

namespace quell::linalg {
namespace {

double norm(const Matrix& w, unsigned threads = 1) {
  const auto executor = make_openmp_executor(threads);
  Context context(*executor);
  const auto result = spectral_norm(w.view(), context);
  EXPECT_TRUE(result.has_value());
  return *result;
}

/// (I - 2 u u^T) diag(s) (I - 2 v v^T): the singular values are s, and no direction is an axis.
Matrix with_singular_values(const std::vector<double>& s, std::size_t rows, std::size_t cols) {
  const auto direction = [](std::size_t n, std::uint64_t seed) {
    std::vector<double> u(n);
    double squares = 0;
    for (std::size_t i = 0; i < n; ++i) {
      u[i] = Random(seed).normal(i);
      squares += u[i] * u[i];
    }
    for (double& x : u) x /= std::sqrt(squares);
    return u;
  };
  const auto u = direction(rows, 1), v = direction(cols, 2);
  std::vector<double> m(rows * cols);
  for (std::size_t i = 0; i < s.size(); ++i) m[i * cols + i] = s[i];
  for (std::size_t c = 0; c < cols; ++c) {
    double dot = 0;
    for (std::size_t r = 0; r < rows; ++r) dot += u[r] * m[r * cols + c];
    for (std::size_t r = 0; r < rows; ++r) m[r * cols + c] -= 2 * dot * u[r];
  }
  for (std::size_t r = 0; r < rows; ++r) {
    double dot = 0;
    for (std::size_t c = 0; c < cols; ++c) dot += m[r * cols + c] * v[c];
    for (std::size_t c = 0; c < cols; ++c) m[r * cols + c] -= 2 * dot * v[c];
  }
  Matrix w = *Matrix::uninitialized(rows, cols);
  for (std::size_t i = 0; i < m.size(); ++i) w.data()[i] = static_cast<float>(m[i]);
  return w;
}

TEST(SpectralNorm, OfPlantedSingularValuesIsTheLargest) {
  std::vector<double> s(40);
  for (std::size_t i = 0; i < s.size(); ++i) s[i] = 7 / (1 + static_cast<double>(i));
  EXPECT_NEAR(norm(with_singular_values(s, 40, 60)), 7, 7e-6);
  EXPECT_NEAR(norm(with_singular_values(s, 60, 40)), 7, 7e-6);
}

TEST(SpectralNorm, OfCloseSingularValuesIsOneOfThem) {
  std::vector<double> s(300);
  for (std::size_t i = 0; i < s.size(); ++i) s[i] = 2 - 1e-4 * static_cast<double>(i);
  const double found = norm(with_singular_values(s, 300, 300));
  EXPECT_LE(found, 2 * (1 + 1e-6));
  EXPECT_GE(found, 2 * (1 - 1e-3));
}

TEST(SpectralNorm, OfSimpleMatricesIsExact) {
  EXPECT_EQ(norm(test::zero_matrix(5, 9)), 0);
  EXPECT_EQ(norm(Matrix()), 0);
  Matrix one = test::constant_matrix(1, 1, -3);
  EXPECT_NEAR(norm(one), 3, 1e-6);
  // All ones: rank one, sqrt(rows * cols).
  EXPECT_NEAR(norm(test::constant_matrix(16, 25, 1)), 20, 2e-5);
  EXPECT_NEAR(norm(test::constant_matrix(1, 400, 0.5F)), 10, 1e-5);
  EXPECT_NEAR(norm(test::constant_matrix(400, 1, 0.5F)), 10, 1e-5);
}

TEST(SpectralNorm, HasTheSameBitsForAnyNumberOfThreads) {
  const Matrix w = test::gaussian_matrix(130, 257);
  const double one = norm(w, 1);
  EXPECT_EQ(norm(w, 2), one);
  EXPECT_EQ(norm(w, 5), one);
  // sqrt(130) + sqrt(257) = 27.4 for large Gaussian matrices.
  EXPECT_NEAR(one, 27.4, 1.5);
}

}  // namespace
}  // namespace quell::linalg
