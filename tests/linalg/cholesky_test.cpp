// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include "linalg/linalg.hpp"
#include "quell/core/tensor.hpp"
#include "quell/kernels/isa.hpp"
#include "support/compare.hpp"
#include "support/matrices.hpp"

namespace quell::linalg {
namespace {

/// X^T X / n + identity / 10 of a Gaussian X, in double, rounded once.
Matrix positive_definite(std::size_t n, std::uint64_t seed) {
  const Matrix x = test::gaussian_matrix(n + 8, n, seed);
  Matrix a = *Matrix::uninitialized(n, n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = i == j ? 0.1 * static_cast<double>(n) : 0.0;
      for (std::size_t t = 0; t < x.rows(); ++t) {
        sum += static_cast<double>(x(t, i)) * static_cast<double>(x(t, j));
      }
      a(i, j) = static_cast<float>(sum / static_cast<double>(n));
      a(j, i) = a(i, j);
    }
  }
  return a;
}

std::vector<std::uint32_t> ascending(std::size_t n) {
  std::vector<std::uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0U);
  return order;
}

TEST(Cholesky, OfThreeByThreeIsKnown) {
  // [[4,12,-16],[12,37,-43],[-16,-43,98]] = L L^T with L = [[2,0,0],[6,1,0],[-8,5,3]].
  float a[9] = {4, 12, -16, 12, 37, -43, -16, -43, 98};
  SerialExecutor serial;
  Context context(serial);
  ASSERT_TRUE(cholesky_lower({a, 3, 3}, context));
  const float expected[9] = {2, 12, -16, 6, 1, -43, -8, 5, 3};  // above the diagonal: untouched
  for (int i = 0; i < 9; ++i) EXPECT_EQ(a[i], expected[i]) << i;
}

TEST(Cholesky, FactorMultipliesBackAtEverySize) {
  // Sizes around the leaf (64), its multiples and their splits.
  for (const std::size_t n : {1, 2, 3, 17, 63, 64, 65, 127, 128, 129, 200, 257, 320, 449}) {
    const Matrix a = positive_definite(n, n);
    Matrix l = *Matrix::uninitialized(n, n);
    SerialExecutor serial;
    Context context(serial);
    gather_lower(a.view(), ascending(n), 1.0F, {}, l.view(), serial);
    ASSERT_TRUE(cholesky_lower(l.view(), context)) << n;
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        if (j > i) {
          ASSERT_EQ(l(i, j), 0.0F);
          continue;
        }
        double sum = 0;
        for (std::size_t k = 0; k <= j; ++k) {
          sum += static_cast<double>(l(i, k)) * static_cast<double>(l(j, k));
        }
        // Backward error: (n + 1) units of 2^-24 times sqrt(a_ii a_jj), with a factor 2 for the
        // order of the sums (Higham, Accuracy and Stability, theorem 10.3).
        const double bound = 2.0 * static_cast<double>(n + 1) * 0x1p-24 *
                             std::sqrt(static_cast<double>(a(i, i)) * static_cast<double>(a(j, j)));
        ASSERT_NEAR(sum, static_cast<double>(a(i, j)), bound) << n << ": " << i << ", " << j;
      }
    }
  }
}

TEST(Cholesky, OfReversedOrderIsUpperFactorFromTheLastColumn) {
  // H = R R^T with R upper is J L J. For H = [[2,1],[1,2]]: R_11 = sqrt(2), R_01 = 1/sqrt(2),
  // R_00 = sqrt(3/2); R_kk * U_kk = 1 with U = [[0.816497, -0.408248], [0, 0.707107]].
  const float h[4] = {2, 1, 1, 2};
  const std::uint32_t reversed[2] = {1, 0};
  Matrix l = *Matrix::uninitialized(2, 2);
  SerialExecutor serial;
  Context context(serial);
  gather_lower({h, 2, 2}, reversed, 1.0F, {}, l.view(), serial);
  ASSERT_TRUE(cholesky_lower(l.view(), context));
  EXPECT_NEAR(l(0, 0) * 0.707107F, 1.0F, 1e-6F);
  EXPECT_NEAR(l(1, 1) * 0.816497F, 1.0F, 1e-6F);
  EXPECT_NEAR(l(1, 0), 0.707107F, 1e-6F);
}

TEST(Cholesky, NamesThePivotThatFails) {
  for (const std::size_t bad :
       {std::size_t{0}, std::size_t{63}, std::size_t{64}, std::size_t{150}}) {
    Matrix a = positive_definite(200, 3);
    a(bad, bad) = -1.0F;
    SerialExecutor serial;
    Context context(serial);
    const Status done = cholesky_lower(a.view(), context);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::numeric);
    EXPECT_NE(done.error().message.find("pivot " + std::to_string(bad) + " "), std::string::npos)
        << done.error().message;
  }
}

TEST(Cholesky, RefusesNaNAndSingularMatrices) {
  SerialExecutor serial;
  Context context(serial);
  Matrix nan = positive_definite(100, 4);
  nan(70, 70) = std::nanf("");
  EXPECT_FALSE(cholesky_lower(nan.view(), context));
  Matrix ones = test::constant_matrix(80, 80, 1.0F);
  EXPECT_FALSE(cholesky_lower(ones.view(), context));
}

TEST(Cholesky, DoesNotDependOnThreadsOrInstructionSet) {
  constexpr std::size_t kSize = 300;
  const Matrix a = positive_definite(kSize, 9);
  const auto factor = [&](Executor& executor) {
    Matrix l = *Matrix::uninitialized(kSize, kSize);
    Context context(executor);
    gather_lower(a.view(), ascending(kSize), 1.0F, {}, l.view(), executor);
    EXPECT_TRUE(cholesky_lower(l.view(), context));
    return l;
  };
  SerialExecutor serial;
  const Matrix expected = factor(serial);
  for (const unsigned threads : {2U, 3U}) {
    const Matrix l = factor(*make_openmp_executor(threads));
    EXPECT_TRUE(test::same_bits(l.values(), expected.values())) << threads;
  }
  for (const kernels::Isa cap : {kernels::Isa::scalar, kernels::Isa::avx2}) {
    kernels::set_isa_cap(cap);
    const Matrix l = factor(serial);
    kernels::clear_isa_cap();
    EXPECT_TRUE(test::same_bits(l.values(), expected.values())) << kernels::to_string(cap);
  }
}

TEST(TriangularSolve, UndoesTheProduct) {
  for (const std::size_t n : {1, 5, 64, 100, 130}) {
    const Matrix a = positive_definite(n, 5);
    Matrix l = *Matrix::uninitialized(n, n);
    SerialExecutor serial;
    Context context(serial);
    gather_lower(a.view(), ascending(n), 1.0F, {}, l.view(), serial);
    ASSERT_TRUE(cholesky_lower(l.view(), context));
    const Matrix x = test::gaussian_matrix(37, n, 6);
    Matrix product = *Matrix::uninitialized(37, n);
    for (std::size_t r = 0; r < 37; ++r) {
      for (std::size_t i = 0; i < n; ++i) {
        double sum = 0;
        for (std::size_t k = 0; k <= i; ++k) {
          sum += static_cast<double>(x(r, k)) * static_cast<double>(l(i, k));
        }
        product(r, i) = static_cast<float>(sum);
      }
    }
    ASSERT_TRUE(solve_lower_transposed(l.view(), product.view(), context));
    // Condition of L below 10 here (eigenvalues of a between 0.1 and 4.2): 100 units at worst per
    // sum.
    EXPECT_LT(test::relative_l2(product.view(), x.view()), 100 * 0x1p-24) << n;
  }
}

TEST(GatherLower, PermutesScalesAndAdds) {
  const float h[9] = {1, 2, 3, 2, 5, 6, 3, 6, 9};
  const std::uint32_t order[2] = {2, 0};
  const float added[2] = {0.5F, 0.25F};
  Matrix out = *Matrix::uninitialized(2, 2);
  SerialExecutor serial;
  gather_lower({h, 3, 3}, order, 2.0F, added, out.view(), serial);
  EXPECT_EQ(out(0, 0), 18.5F);
  EXPECT_EQ(out(0, 1), 0.0F);
  EXPECT_EQ(out(1, 0), 6.0F);
  EXPECT_EQ(out(1, 1), 2.25F);
}

}  // namespace
}  // namespace quell::linalg
