// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>

#include "linalg/linalg.hpp"
#include "quell/core/tensor.hpp"
#include "support/matrices.hpp"

namespace quell::linalg {
namespace {

TEST(SecondMoment, OfTwoTokensIsKnown) {
  const float x[6] = {1, 2, 3, -1, 0, 4};
  Matrix64 sum = *Matrix64::zeros(3, 3);
  SerialExecutor serial;
  Context context(serial);
  ASSERT_TRUE(accumulate_second_moment({x, 2, 3}, sum.view(), context));
  ASSERT_TRUE(accumulate_second_moment({x, 1, 3}, sum.view(), context));  // adds
  const double expected[9] = {3, 0, 0, 4, 8, 0, 2, 12, 34};
  for (int i = 0; i < 9; ++i) EXPECT_EQ(sum.data()[i], expected[i]) << i;
}

TEST(SecondMoment, LeavesTheUpperTriangle) {
  const Matrix x = test::gaussian_matrix(5, 700, 1);
  Matrix64 sum = *Matrix64::zeros(700, 700);
  for (double& value : sum.values()) value = 7;
  SerialExecutor serial;
  Context context(serial);
  ASSERT_TRUE(accumulate_second_moment(x.view(), sum.view(), context));
  for (std::size_t i = 0; i < 700; ++i) {
    for (std::size_t j = i + 1; j < 700; ++j) ASSERT_EQ(sum(i, j), 7.0);
  }
}

TEST(SecondMoment, AgreesWithDoubleAcrossChunksAndBlocks) {
  constexpr std::size_t kTokens = kMomentChunk + 77;
  constexpr std::size_t kChannels = 530;  // one block of 512 and a rest
  const Matrix x = test::outlier_column_matrix(kTokens, kChannels, 520, 100.0F);
  Matrix64 sum = *Matrix64::zeros(kChannels, kChannels);
  SerialExecutor serial;
  Context context(serial);
  ASSERT_TRUE(accumulate_second_moment(x.view(), sum.view(), context));
  for (std::size_t i = 0; i < kChannels; i += 13) {
    for (std::size_t j = 0; j <= i; j += 7) {
      double exact = 0, size = 0;
      for (std::size_t t = 0; t < kTokens; ++t) {
        const double product = static_cast<double>(x(t, i)) * static_cast<double>(x(t, j));
        exact += product;
        size += std::abs(product);
      }
      ASSERT_NEAR(sum(i, j), exact, static_cast<double>(kMomentChunk) * 0x1p-24 * size);
    }
  }
}

TEST(SecondMoment, DoesNotDependOnThreads) {
  const Matrix x = test::gaussian_matrix(100, 600, 3);
  const auto accumulate = [&](Executor& executor) {
    Matrix64 sum = *Matrix64::zeros(600, 600);
    Context context(executor);
    EXPECT_TRUE(accumulate_second_moment(x.view(), sum.view(), context));
    return sum;
  };
  SerialExecutor serial;
  const Matrix64 expected = accumulate(serial);
  for (const unsigned threads : {2U, 3U}) {
    const Matrix64 sum = accumulate(*make_openmp_executor(threads));
    EXPECT_EQ(std::memcmp(sum.data(), expected.data(), sum.size() * sizeof(double)), 0);
  }
}

TEST(SecondMoment, NamesSizesThatDisagree) {
  const Matrix x = test::gaussian_matrix(4, 5, 3);
  Matrix64 sum = *Matrix64::zeros(5, 6);
  SerialExecutor serial;
  Context context(serial);
  const Status done = accumulate_second_moment(x.view(), sum.view(), context);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::shape);
  EXPECT_NE(done.error().message.find("5 x 6, expected 5 x 5"), std::string::npos);
}

}  // namespace
}  // namespace quell::linalg
