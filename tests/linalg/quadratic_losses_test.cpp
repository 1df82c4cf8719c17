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
  // methods: H = [[4,2,1],[2,3,1],[1,1,2]]; e = w - [0,1,-1] and w - [0,0,0] for w =
  // [0.3,0.45,-0.4].
  const float h[9] = {4, 2, 1, 2, 3, 1, 1, 1, 2};
  const float e[6] = {0.3F, 0.3F, -0.55F, 0.45F, 0.6F, -0.4F};  // [3, 2]
  double losses[2];
  SerialExecutor serial;
  Context context(serial);
  ASSERT_TRUE(quadratic_losses(Loss::moment, {h, 3, 3}, {e, 3, 2}, losses, context));
  EXPECT_NEAR(losses[0], 1.0275, 1e-6);
  EXPECT_NEAR(losses[1], 1.2275, 1e-6);
}

TEST(QuadraticLosses, AgreeBetweenMomentAndFactor) {
  for (const std::size_t n : {1, 3, 255, 256, 300, 600}) {
    Matrix l = test::gaussian_matrix(n, n, 1);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = i + 1; j < n; ++j) l(i, j) = 0;
    }
    Matrix h = *Matrix::uninitialized(n, n);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        double sum = 0;
        for (std::size_t k = 0; k <= std::min(i, j); ++k) {
          sum += static_cast<double>(l(i, k)) * static_cast<double>(l(j, k));
        }
        h(i, j) = static_cast<float>(sum);
      }
    }
    const Matrix e = test::gaussian_matrix(n, 70, 2);
    std::vector<double> by_moment(70), by_factor(70);
    SerialExecutor serial;
    Context context(serial);
    ASSERT_TRUE(quadratic_losses(Loss::moment, h.view(), e.view(), by_moment, context));
    ASSERT_TRUE(quadratic_losses(Loss::factor, l.view(), e.view(), by_factor, context));
    for (std::size_t c = 0; c < 70; ++c) {
      // Both sums have positive value near n^2 / 2; float products of n terms err by sqrt(n) units.
      ASSERT_NEAR(by_moment[c], by_factor[c],
                  8 * std::sqrt(static_cast<double>(n)) * 0x1p-24 * by_factor[c] *
                      std::sqrt(static_cast<double>(n)))
          << n << ", " << c;
    }
  }
}

}  // namespace
}  // namespace quell::linalg
