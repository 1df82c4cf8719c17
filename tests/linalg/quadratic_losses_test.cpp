// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "linalg/linalg.hpp"
#include "quell/core/tensor.hpp"
#include "support/matrices.hpp"

namespace quell::linalg {
namespace {

TEST(QuadraticLosses, OfTheThreeColumnExampleAreKnown) {
  // w = [0.3, 0.45, -0.4] less [0, 1, -1] and less [0, 0, 0].
  const float h[9] = {4, 2, 1, 2, 3, 1, 1, 1, 2};
  const float e[6] = {0.3F, -0.55F, 0.6F, 0.3F, 0.45F, -0.4F};
  double losses[2];
  SerialExecutor serial;
  Context context(serial);
  ASSERT_TRUE(quadratic_losses({h, 3, 3}, {e, 2, 3}, losses, context));
  EXPECT_NEAR(losses[0], 1.0275, 1e-6);
  EXPECT_NEAR(losses[1], 1.2275, 1e-6);
}

TEST(QuadraticLosses, AgreeWithDoubleAtEverySize) {
  for (const std::size_t n : {1, 2, 127, 128, 129, 255, 256, 300, 520}) {
    const Matrix x = test::gaussian_matrix(n + 3, n, 1);
    Matrix h = *Matrix::uninitialized(n, n);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        double sum = 0;
        for (std::size_t t = 0; t < x.rows(); ++t) {
          sum += static_cast<double>(x(t, i)) * static_cast<double>(x(t, j));
        }
        h(i, j) = static_cast<float>(sum);
      }
    }
    const Matrix e = test::gaussian_matrix(21, n, 2);
    std::vector<double> losses(21);
    SerialExecutor serial;
    Context context(serial);
    ASSERT_TRUE(quadratic_losses(h.view(), e.view(), losses, context));
    for (std::size_t r = 0; r < 21; ++r) {
      double exact = 0, size = 0;
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
          const double term = static_cast<double>(e(r, i)) * static_cast<double>(h(i, j)) *
                              static_cast<double>(e(r, j));
          exact += term;
          size += std::abs(term);
        }
      }
      // Each float32 sum of up to n products errs by at most n units of its absolute terms.
      ASSERT_NEAR(losses[r], exact, static_cast<double>(n) * 0x1p-24 * size) << n << ", " << r;
    }
  }
}

TEST(QuadraticLosses, OfARowDoNotDependOnItsCompany) {
  const Matrix h = [] {
    Matrix m = test::gaussian_matrix(150, 150, 3);
    for (std::size_t i = 0; i < 150; ++i) {
      for (std::size_t j = 0; j < i; ++j) m(j, i) = m(i, j);
    }
    return m;
  }();
  const Matrix e = test::gaussian_matrix(40, 150, 2);
  std::vector<double> all(40), one(1);
  const auto executor = make_openmp_executor(2);
  Context context(*executor);
  ASSERT_TRUE(quadratic_losses(h.view(), e.view(), all, context));
  for (const std::size_t r : {0, 17, 39}) {
    ASSERT_TRUE(quadratic_losses(h.view(), e.view().rows_from(r, 1), one, context));
    EXPECT_EQ(one[0], all[r]);
  }
}

}  // namespace
}  // namespace quell::linalg
