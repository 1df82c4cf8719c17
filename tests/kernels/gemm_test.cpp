// SPDX-License-Identifier: Apache-2.0

#include "quell/kernels/gemm.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "quell/kernels/isa.hpp"
#include "support/same_bits.hpp"

namespace quell::kernels {
namespace {

using test::Numbers;
using test::same_bits;

class Gemm : public testing::Test {
 protected:
  SerialExecutor serial_;
  Context context_{serial_};
};

TEST_F(Gemm, MultipliesByHand) {
  const std::vector<float> a = {1, 2, 3, 4, 5, 6};                     // [2, 3]
  const std::vector<float> b = {1, 0, -1, 2, 1, 0, 0, 0, 1, 1, 1, 1};  // [4, 3]
  std::vector<float> c(8);
  ASSERT_TRUE(gemm_dense({{{a.data(), 2, 3}}, {{b.data(), 4, 3}}, {c.data(), 2, 4}}, context_));
  EXPECT_EQ(c, (std::vector<float>{-2, 4, 3, 6, -2, 13, 6, 15}));
}

TEST_F(Gemm, AddsAndSubtractsFromWhatIsThere) {
  const std::vector<float> a = {1, 2, 3}, b = {4, 5, 6};
  std::vector<float> c = {100};
  const DenseProduct product{
      {{a.data(), 1, 3}}, {{b.data(), 1, 3}}, {c.data(), 1, 1}, Accumulate::subtract};
  ASSERT_TRUE(gemm_dense(product, context_));
  EXPECT_EQ(c[0], 68);
  ASSERT_TRUE(gemm_dense({product.a, product.b, product.c, Accumulate::add}, context_));
  EXPECT_EQ(c[0], 100);
}

TEST_F(Gemm, ReadsTransposedOperandsInPlace) {
  const std::vector<float> a_transposed = {1, 4, 2, 5, 3, 6};   // [3, 2]
  const std::vector<float> b_transposed = {1, 2, 0, 1, -1, 0};  // [3, 2]
  std::vector<float> c(4);
  ASSERT_TRUE(gemm_dense(
      {{{a_transposed.data(), 3, 2}, true}, {{b_transposed.data(), 3, 2}, true}, {c.data(), 2, 2}},
      context_));
  EXPECT_EQ(c, (std::vector<float>{-2, 4, -2, 13}));
}

TEST_F(Gemm, LowerTriangleLeavesTheRestAsItWas) {
  const std::size_t n = 100, k = 3;
  const std::vector<float> a(n * k, 1.0f);
  std::vector<float> c(n * n, 7.0f);
  ASSERT_TRUE(gemm_dense(
      {{{a.data(), n, k}}, {{a.data(), n, k}}, {c.data(), n, n}, Accumulate::set, Triangle::lower},
      context_));
  for (std::size_t r = 0; r < n; ++r) {
    for (std::size_t col = 0; col < n; ++col) {
      ASSERT_EQ(c[r * n + col], col <= r ? 3.0f : 7.0f) << r << "," << col;
    }
  }
}

TEST_F(Gemm, OfNoDepthIsZeroOrWhatWasThere) {
  std::vector<float> c = {1, 2, 3, 4};
  const MatrixView<const float> nothing(nullptr, 2, 0);
  ASSERT_TRUE(gemm_dense({{nothing}, {nothing}, {c.data(), 2, 2}, Accumulate::add}, context_));
  EXPECT_EQ(c, (std::vector<float>{1, 2, 3, 4}));
  ASSERT_TRUE(gemm_dense({{nothing}, {nothing}, {c.data(), 2, 2}, Accumulate::set, Triangle::lower},
                         context_));
  EXPECT_EQ(c, (std::vector<float>{0, 2, 0, 0}));
  ASSERT_TRUE(gemm_dense({{nothing}, {nothing}, {c.data(), 2, 2}}, context_));
  EXPECT_EQ(c, (std::vector<float>{0, 0, 0, 0}));
}

TEST_F(Gemm, RefusesSizesThatDisagreeAndNamesThem) {
  const std::vector<float> x(64, 1.0f);
  std::vector<float> c(64);
  const Status depth =
      gemm_dense({{{x.data(), 2, 5}}, {{x.data(), 3, 4}}, {c.data(), 2, 3}}, context_);
  ASSERT_FALSE(depth);
  EXPECT_EQ(depth.error().code, ErrorCode::shape);
  EXPECT_NE(depth.error().message.find("[2, 5]"), std::string::npos) << depth.error().message;
  EXPECT_NE(depth.error().message.find("[3, 4]"), std::string::npos) << depth.error().message;
  EXPECT_FALSE(gemm_dense({{{x.data(), 2, 4}}, {{x.data(), 3, 4}}, {c.data(), 2, 2}}, context_));
  EXPECT_FALSE(gemm_dense(
      {{{x.data(), 2, 4}}, {{x.data(), 3, 4}}, {c.data(), 2, 3}, Accumulate::set, Triangle::lower},
      context_));
  const auto packed = pack({x.data(), 3, 4}, serial_);
  ASSERT_TRUE(packed);
  const Status wrong = gemm({x.data(), 2, 5}, *packed, {c.data(), 2, 3}, context_);
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().message.find("4 columns"), std::string::npos) << wrong.error().message;
}

TEST_F(Gemm, StaysWithinTheBoundOfItsRoundings) {
  // K fused multiply-adds, each with one rounding of at most u = 2^-24 relative: the error is at
  // most gamma sum |a b| with gamma = K u / (1 - K u) (Higham, Accuracy and Stability, 3.1).
  const std::size_t m = 23, n = 41, k = 1500;
  std::vector<float> a(m * k), b(n * k), c(m * n);
  Numbers numbers(1);
  numbers.fill(a);
  numbers.fill(b);
  a[7] = 1000.0f;  // an outlier among them
  ASSERT_TRUE(gemm_dense({{{a.data(), m, k}}, {{b.data(), n, k}}, {c.data(), m, n}}, context_));
  const double gamma = static_cast<double>(k) * 0x1p-24 / (1 - static_cast<double>(k) * 0x1p-24);
  for (std::size_t r = 0; r < m; ++r) {
    for (std::size_t col = 0; col < n; ++col) {
      double exact = 0, magnitude = 0;
      for (std::size_t i = 0; i < k; ++i) {
        const double term = double{a[r * k + i]} * double{b[col * k + i]};
        exact += term;
        magnitude += std::fabs(term);
      }
      // The reference itself rounds in double, 2^29 times finer.
      ASSERT_LE(std::fabs(double{c[r * n + col]} - exact), gamma * magnitude * (1 + 1e-6));
    }
  }
}

TEST_F(Gemm, CutsADepthThatIsTooTallToPackAtOnceWithoutATrace) {
  // 33,000 rows of 520 are 69 MB, more than the 64 MB that are packed at a time.
  const std::size_t m = 33000, n = 2, k = 520;
  std::vector<float> a(m * k), b(n * k), c(m * n, 0.5f);
  Numbers numbers(2);
  for (float& value : a) value = numbers.uniform();
  for (float& value : b) value = numbers.uniform();
  const auto threads = make_openmp_executor(2);
  Context context(*threads);
  ASSERT_TRUE(gemm_dense(
      {{{a.data(), m, k}}, {{b.data(), n, k}}, {c.data(), m, n}, Accumulate::add}, context));
  for (std::size_t r = 0; r < m; r += 97) {
    for (std::size_t col = 0; col < n; ++col) {
      float sum = 0.5f;
      for (std::size_t i = 0; i < k; ++i) sum = std::fma(a[r * k + i], b[col * k + i], sum);
      ASSERT_TRUE(same_bits(c[r * n + col], sum)) << r << "," << col;
    }
  }
}

TEST_F(Gemm, KeepsSubnormalsAndHugeNumbers) {
  const float tiny = std::numeric_limits<float>::denorm_min();
  const float huge = std::numeric_limits<float>::max();
  const std::vector<float> a = {tiny, 0, 0, huge}, b = {1, 0, 0, 2};
  std::vector<float> c(4);
  ASSERT_TRUE(gemm_dense({{{a.data(), 2, 2}}, {{b.data(), 2, 2}}, {c.data(), 2, 2}}, context_));
  EXPECT_EQ(c[0], tiny);
  EXPECT_EQ(c[3], std::numeric_limits<float>::infinity());
}

TEST_F(Gemm, ProductThatCancelsNeedsTheFusedRounding) {
  // (1 + e)(1 - e) - 1 = -e^2 survives only if the product is not rounded before the addition.
  const float e = 0x1p-13f;
  const std::vector<float> a = {1 + e}, b = {1 - e};
  std::vector<float> c = {-1.0f};
  ASSERT_TRUE(gemm_dense(
      {{{a.data(), 1, 1}}, {{b.data(), 1, 1}}, {c.data(), 1, 1}, Accumulate::add}, context_));
  EXPECT_EQ(c[0], -0x1p-26f);
}

TEST_F(Gemm, PackedWeightsSurviveMoving) {
  const std::vector<float> w = {1, 2, 3, 4}, x = {1, 1};
  PackedWeights weights;
  EXPECT_EQ(weights.rows(), 0u);
  EXPECT_EQ(weights.bytes(), 0u);
  auto packed = pack({w.data(), 2, 2}, serial_);
  ASSERT_TRUE(packed);
  weights = std::move(*packed);
  const PackedWeights moved(std::move(weights));
  std::vector<float> y(2);
  ASSERT_TRUE(gemm({x.data(), 1, 2}, moved, {y.data(), 1, 2}, context_));
  EXPECT_EQ(y, (std::vector<float>{3, 7}));
}

TEST_F(Gemm, PackedWeightsKeepTheirKernelWhenTheCapChanges) {
  const std::vector<float> w(33 * 5, 1.0f), x(5, 2.0f);
  const auto packed = pack({w.data(), 33, 5}, serial_);
  ASSERT_TRUE(packed);
  set_isa_cap(Isa::scalar);
  std::vector<float> y(33);
  const Status done = gemm({x.data(), 1, 5}, *packed, {y.data(), 1, 33}, context_);
  clear_isa_cap();
  ASSERT_TRUE(done);
  EXPECT_EQ(y, std::vector<float>(33, 10.0f));
}

}  // namespace
}  // namespace quell::kernels
