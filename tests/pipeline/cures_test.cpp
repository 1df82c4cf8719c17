// SPDX-License-Identifier: Apache-2.0

// What each cure leaves of the loss, on matrices with one thing wrong with them.

#include "pipeline/cures.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "quell/quant/registry.hpp"
#include "support/matrices.hpp"

namespace quell::pipeline {
namespace {

constexpr std::size_t kSize = 256;
constexpr std::size_t kChannel = 17;

class Cures : public ::testing::Test {
 protected:
  /// Ratio of losses for a Gaussian weight whose column 17 is multiplied by `weight`, with inputs
  /// that are independent but for their sizes: channel 17 is `input` times as large.
  double ratio(Cure::Kind kind, float weight, float input) {
    Matrix w = test::outlier_column_matrix(kSize, kSize, kChannel, weight, 5);
    return ratio_of(kind, w, input);
  }
  double ratio_of(Cure::Kind kind, const Matrix& w, float input, const char* method = "rtn") {
    Matrix h = test::zero_matrix(w.cols(), w.cols());
    for (std::size_t c = 0; c < h.rows(); ++c) h(c, c) = c == kChannel ? input * input : 1.0F;
    linear_.name = "layer";
    linear_.rows = w.rows();
    linear_.cols = w.cols();
    task_.linear = &linear_;
    task_.grid = *parse_grid("int4:sym:oc:g128");
    const auto quantizer = *quant::make_quantizer(method);
    const LinearStudy study(task_, *quantizer, w, h, 1000, executor_);
    const auto planned = study.planned();
    EXPECT_TRUE(planned.has_value());
    const auto cured = study.cured(kind, *planned);
    EXPECT_TRUE(cured.has_value() && cured->has_value());
    action_ = (*cured)->action;
    available_ = (*cured)->available;
    bytes_ = static_cast<double>((*cured)->bytes) - static_cast<double>(planned->bytes);
    EXPECT_LE(*study.loss(planned->weight), *study.energy());
    return *study.loss((*cured)->weight) / *study.loss(planned->weight);
  }

  SerialExecutor executor_;
  model::Linear linear_;
  Task task_;
  std::string action_;
  bool available_ = false;
  double bytes_ = 0;
};

TEST_F(Cures, OfTheGroupDirectionFollowTheChannelsOfTheWeight) {
  // Plain rounding of 256 x 256 Gaussian weights, group 128: methods differ by these factors in the
  // table that AdaDim's question was checked with.
  EXPECT_LT(ratio(Cure::Kind::direction, 0.1F, 30), 0.5);  // small weights, large input
  EXPECT_LT(ratio(Cure::Kind::direction, 0.1F, 100), 0.2);
  EXPECT_LT(ratio(Cure::Kind::direction, 20, 1), 0.6);    // one large column spoils the rows
  EXPECT_GT(ratio(Cure::Kind::direction, 20, 30), 1.25);  // but carries the input: it is exact
  const double even = ratio(Cure::Kind::direction, 1, 1);
  EXPECT_GT(even, 0.8);
  EXPECT_LT(even, 1.25);
  EXPECT_EQ(action_, "int4:sym:ic:g128");
  EXPECT_TRUE(available_);
  EXPECT_EQ(bytes_, 0);
}

TEST_F(Cures, OfMoreBitsAreSeventeenTimesFiner) {
  // Steps of absmax / 7.5 and absmax / 127.5 or so: 1 / 289 of the squared error, a little more for
  // the scale's own rounding.
  const double left = ratio(Cure::Kind::bits, 1, 1);
  EXPECT_GT(left, 1 / 330.0);
  EXPECT_LT(left, 1 / 250.0);
  EXPECT_EQ(action_, "int8full:sym:oc:g128");
  EXPECT_EQ(bytes_, kSize * kSize / 2);
}

TEST_F(Cures, OfSmallerGroupsCutTheRange) {
  // The largest of 128 normal values is 2.7 deviations, of 32 it is 2.2: (2.2 / 2.7)^2 = 0.66.
  EXPECT_NEAR(ratio(Cure::Kind::group, 1, 1), 0.66, 0.08);
  EXPECT_EQ(action_, "int4:sym:oc:g32");
}

TEST_F(Cures, OfKeptColumnsTakeOutALoudOne) {
  // Two of 256 columns. The loud input alone makes nearly all the loss.
  EXPECT_LT(ratio(Cure::Kind::kept_columns, 1, 100), 0.03);
  EXPECT_EQ(action_, "2 columns kept in 16 bits");
  EXPECT_FALSE(available_);
  EXPECT_EQ(bytes_, 2 * (2 * kSize + 4));
  // A large column leaves, and the others get their range back.
  EXPECT_LT(ratio(Cure::Kind::kept_columns, 20, 1), 0.1);
  EXPECT_GT(ratio(Cure::Kind::kept_columns, 1, 1), 0.9);
  EXPECT_LT(ratio_of(Cure::Kind::kept_columns,
                     test::outlier_column_matrix(kSize, kSize, kChannel, 1, 5), 100, "gptq"),
            0.05);
}

TEST_F(Cures, OfRotationSpreadASingleLargeWeight) {
  Matrix w = test::gaussian_matrix(kSize, kSize, 5);
  for (std::size_t r = 0; r < kSize; ++r) w(r, (7 * r) % kSize) = 30;  // every group is spoilt
  EXPECT_LT(ratio_of(Cure::Kind::rotation, w, 1), 0.5);
  EXPECT_EQ(action_, "inputs rotated in blocks of 128");
  EXPECT_FALSE(available_);
  EXPECT_NEAR(ratio(Cure::Kind::rotation, 1, 1), 1, 0.1);
  // A loud input under ordinary weights is spread over its block by the rotation, not removed.
  const double loud = ratio(Cure::Kind::rotation, 1, 30);
  EXPECT_GT(loud, 0.5);
  EXPECT_LT(loud, 2);
}

TEST_F(Cures, OfSmoothingGiveALoudInputFinerWeights) {
  EXPECT_LT(ratio(Cure::Kind::smoothing, 0.1F, 100), 0.5);
  EXPECT_EQ(action_.substr(0, 17), "smoothing, alpha ");
  EXPECT_NEAR(ratio(Cure::Kind::smoothing, 1, 1), 1, 1e-3);  // nothing to move
}

TEST_F(Cures, ThatMakeNoSenseAreNotOffered) {
  const Matrix w = test::gaussian_matrix(8, 20, 1);
  Matrix h = test::zero_matrix(20, 20);
  for (std::size_t c = 0; c < 20; ++c) h(c, c) = 1;
  linear_.name = "layer";
  linear_.rows = 8;
  linear_.cols = 20;
  task_.linear = &linear_;
  task_.grid = *parse_grid("int8full:sym:oc:row");
  const auto quantizer = *quant::make_quantizer("rtn");
  const LinearStudy study(task_, *quantizer, w, h, 10, executor_);
  const auto planned = study.planned();
  EXPECT_FALSE((*study.cured(Cure::Kind::bits, *planned)).has_value());  // eight already
  EXPECT_FALSE(
      (*study.cured(Cure::Kind::group, *planned)).has_value());  // a row is shorter than a group
  EXPECT_FALSE((*study.cured(Cure::Kind::rotation, *planned)).has_value());  // 20 = 4 * 5
  EXPECT_TRUE((*study.cured(Cure::Kind::kept_columns, *planned)).has_value());
}

TEST_F(Cures, OfSilentInputsDoNotDivideByZero) {
  const Matrix w = test::gaussian_matrix(16, 64, 1);
  const Matrix h = test::zero_matrix(64, 64);
  linear_.name = "layer";
  linear_.rows = 16;
  linear_.cols = 64;
  task_.linear = &linear_;
  task_.grid = *parse_grid("int4:sym:oc:g32");
  const auto quantizer = *quant::make_quantizer("rtn");
  const LinearStudy study(task_, *quantizer, w, h, 10, executor_);
  const auto planned = study.planned();
  for (const Cure::Kind kind : kCureKinds) {
    const auto cured = study.cured(kind, *planned);
    ASSERT_TRUE(cured.has_value());
    if (!cured->has_value()) continue;
    EXPECT_EQ(*study.loss((*cured)->weight), 0);
    for (const float value : (*cured)->weight.values()) EXPECT_TRUE(std::isfinite(value));
  }
}

}  // namespace
}  // namespace quell::pipeline
