// SPDX-License-Identifier: Apache-2.0

#include "pipeline/error_stages.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "support/matrices.hpp"

namespace quell::pipeline {
namespace {

ErrorStage stage_of(const Matrix& weight, const Matrix& decoded, const Matrix& h, const Matrix& k) {
  SerialExecutor executor;
  kernels::Context context(executor);
  auto stage = linear_stage("module", 0, weight, decoded, h, k, context);
  EXPECT_TRUE(stage.has_value());
  return *std::move(stage);
}

Matrix plus(const Matrix& a, float factor, const Matrix& b) {
  Matrix sum = *Matrix::uninitialized(a.rows(), a.cols());
  for (std::size_t i = 0; i < a.size(); ++i) sum.data()[i] = a.data()[i] + factor * b.data()[i];
  return sum;
}

TEST(ErrorStage, OfALinearLayerSplitsTheErrorOfItsOutput) {
  const Matrix w = test::gaussian_matrix(24, 32, 1), h = test::gaussian_matrix(9, 32, 2);
  const Matrix q = plus(w, 0.1F, test::gaussian_matrix(24, 32, 3));
  const Matrix k = plus(h, 0.2F, test::gaussian_matrix(9, 32, 4));
  const ErrorStage stage = stage_of(w, q, h, k);
  double error = 0, output = 0;
  for (std::size_t t = 0; t < 9; ++t) {
    for (std::size_t o = 0; o < 24; ++o) {
      double y = 0, z = 0;
      for (std::size_t i = 0; i < 32; ++i) {
        y += static_cast<double>(w(o, i)) * static_cast<double>(h(t, i));
        z += static_cast<double>(q(o, i)) * static_cast<double>(k(t, i));
      }
      error += (z - y) * (z - y);
      output += y * y;
    }
  }
  // Products of 32 in float32: 32 * 2^-24 each at worst.
  EXPECT_NEAR(stage.split.total(), error / output, 1e-5 * error / output);
  EXPECT_NEAR(stage.split.gain(), stage.weight_gain * stage.alignment_gain, 1e-12);
  EXPECT_GT(stage.split.fresh, 0);
}

TEST(ErrorStage, WithoutAnErrorOfItsOwnCarriesAllOrNothing) {
  // An orthogonal weight passes on what comes in; one that reads a single direction passes nothing
  // of an error across it.
  const std::size_t n = 16;
  Matrix turn = test::zero_matrix(n, n);
  for (std::size_t i = 0; i < n; ++i) turn(i, (i + 5) % n) = i % 2 == 0 ? 1.0F : -1.0F;
  const Matrix h = test::gaussian_matrix(7, n, 1),
               k = plus(h, 0.3F, test::gaussian_matrix(7, n, 2));
  const ErrorStage even = stage_of(turn, turn, h, k);
  EXPECT_EQ(even.split.fresh, 0);
  EXPECT_NEAR(even.split.gain(), 1, 1e-6);
  EXPECT_NEAR(even.weight_gain, 1, 1e-6);
  EXPECT_NEAR(even.alignment_gain, 1, 1e-6);

  Matrix reader = test::zero_matrix(4, n), signal = test::zero_matrix(3, n);
  for (std::size_t o = 0; o < 4; ++o) reader(o, 3) = 2;
  for (std::size_t t = 0; t < 3; ++t) signal(t, 3) = 1;
  Matrix off = plus(signal, 0, signal);
  for (std::size_t t = 0; t < 3; ++t) off(t, 8) = 5;
  const ErrorStage deaf = stage_of(reader, reader, signal, off);
  EXPECT_EQ(deaf.split.gain(), 0);
  EXPECT_EQ(deaf.split.previous, 25);
}

TEST(ErrorStage, GainsMeanSquareOfTheSpectrumWhereTheErrorHasNoDirection) {
  // Signal along the first singular direction, the same error in every direction: the gain is
  // mean s_i^2 / s_1^2.
  const std::size_t n = 8;
  Matrix w = test::zero_matrix(n, n), h = test::zero_matrix(n, n);
  double mean = 0;
  for (std::size_t i = 0; i < n; ++i) {
    w(i, i) = static_cast<float>(1.0 / static_cast<double>(i + 1));
    mean += static_cast<double>(w(i, i)) * static_cast<double>(w(i, i)) / static_cast<double>(n);
    h(i, 0) = 1;
  }
  Matrix k = plus(h, 0, h);
  for (std::size_t i = 0; i < n; ++i) k(i, i) += 0.125F;
  EXPECT_NEAR(stage_of(w, w, h, k).split.gain(), mean, 1e-6);
}

}  // namespace
}  // namespace quell::pipeline
