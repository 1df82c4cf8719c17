// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "quant/half_quadratic.hpp"
#include "quant/problems.hpp"

namespace quell::quant {
namespace {

using test::solve;

// The paper's own form: real zeros, the scale stays.
constexpr HalfQuadratic kPaper = {.scale = false, .storable = false};

double mean_absolute_error(const Matrix& w, const QuantizedTensor& tensor) {
  const Matrix q = test::values_of(tensor);
  double sum = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    sum += std::abs(static_cast<double>(w.data()[i]) - static_cast<double>(q.data()[i]));
  }
  return sum / static_cast<double>(w.size());
}

TEST(HalfQuadratic, ShrinkTakesMoreFromSmallErrors) {
  EXPECT_EQ(shrink(0, shrink_threshold({}), {}), 0);
  EXPECT_EQ(shrink(0.17, shrink_threshold({}), {}), 0);  // the threshold is 10^(-1/1.3) = 0.1701
  EXPECT_NEAR(shrink(0.18, shrink_threshold({}), {}), 0.01273, 1e-5);
  EXPECT_NEAR(shrink(0.5, shrink_threshold({}), {}), 0.37689, 1e-5);
  EXPECT_NEAR(shrink(1.0, shrink_threshold({}), {}), 0.9, 1e-12);
  EXPECT_EQ(shrink(-0.5, shrink_threshold({}), {}), -shrink(0.5, shrink_threshold({}), {}));
}

TEST(HalfQuadratic, KeepsTheStartWhereARoundIsWorse) {
  // 2 bits, min-max scale 1.2 and the real zero 0.8333: one round of the paper raises the error.
  const std::vector<float> w = {-1, -.2F, .1F, .3F, .9F, 2.6F, -.7F, .5F};
  const GridSpec grid = *parse_grid("int2:asym:oc:row:f32");
  GroupFit start;
  start.scale = 1.2F;
  start.zero = 1 / 1.2F;
  start.error = mean_error(grid, w, start, kPaper);
  EXPECT_NEAR(start.error, 0.21250, 1e-5);
  const GroupFit next = half_quadratic_round(grid, w, start, 1, kPaper);
  EXPECT_NEAR(next.zero, 0.82997, 1e-5);
  EXPECT_NEAR(next.error, 0.21351, 1e-5);
  const GroupFit best = half_quadratic(grid, w, start, 1, kPaper);
  EXPECT_EQ(best.zero, start.zero);
  EXPECT_EQ(best.error, start.error);
}

TEST(HalfQuadratic, WithoutLargeErrorsTheZeroIsThatOfLeastSquares) {
  // Errors below the threshold shrink to nothing: the zero is the mean of q - w / scale.
  const std::vector<float> w = {0.02F, 0.11F, 0.23F, 0.31F};
  const GridSpec grid = *parse_grid("int2:asym:oc:row:f32");
  GroupFit start;
  start.scale = 0.1F;
  const GroupFit next = half_quadratic_round(grid, w, start, 1, kPaper);
  EXPECT_NEAR(next.zero, ((0 - .2) + (1 - 1.1) + (2 - 2.3) + (3 - 3.1)) / 4, 1e-6);
}

TEST(HalfQuadratic, RoundsNeverEndWorseThanTheyStart) {
  for (const char* word : {"int2:asym:oc:g32", "int3:asym:oc:g32", "int4:asym:ic:g32",
                           "int3:sym:oc:g32", "nf4:sym:oc:g32", "iq4:sym:ic:g32"}) {
    for (const ScaleMethod scale : {ScaleMethod::minmax, ScaleMethod::search}) {
      SCOPED_TRACE(word);
      const Matrix w = test::student_matrix(64, 96, 4, 2);
      LayerProblem layer;
      layer.name = "layer";
      layer.weight = w.view();
      layer.grid = *parse_grid(word);
      layer.scale = scale;
      const Quantized moved = solve(*hqq(), layer), plain = solve(*rtn(), layer);
      EXPECT_LT(mean_absolute_error(w, moved.tensor), mean_absolute_error(w, plain.tensor));
      EXPECT_EQ(moved.objective_rtn, plain.objective);
    }
  }
}

TEST(Hqq, OutliersCostLessThanTheyCostRounding) {
  // Groups of 64 with one weight of 8: at 3 bits the range is spent on it, and the others, which
  // are many, gain most by giving up a part of it.
  Matrix w = test::gaussian_matrix(32, 128, 6);
  for (std::size_t r = 0; r < 32; ++r) w(r, r) = w(r, r + 64) = 8;
  LayerProblem layer;
  layer.name = "layer";
  layer.weight = w.view();
  layer.grid = *parse_grid("int3:asym:oc:g64");
  layer.scale = ScaleMethod::minmax;
  const double moved = mean_absolute_error(w, solve(*hqq(), layer).tensor);
  EXPECT_LT(moved, 0.85 * mean_absolute_error(w, solve(*rtn(), layer).tensor));
}

TEST(Hqq, ConstantGroupsAreReconstructed) {
  for (const float value : {0.3F, -0.3F, 1e-6F}) {
    Matrix w = *Matrix::uninitialized(2, 64);
    std::fill(w.values().begin(), w.values().end(), value);
    LayerProblem layer;
    layer.name = "layer";
    layer.weight = w.view();
    layer.grid = *parse_grid("int4:asym:oc:g32:f32");
    const Matrix q = test::values_of(solve(*hqq(), layer).tensor);
    for (const float x : q.values()) EXPECT_NEAR(x, value, 1e-4F * std::abs(value));
  }
}

TEST(Hqq, KeepsRoundingWhereInputsSaySo) {
  // All energy in the channel that holds the outliers: what hqq gives up is all that counts.
  Matrix w = test::gaussian_matrix(32, 64, 6);
  for (std::size_t r = 0; r < 32; ++r) w(r, 3) = 8;
  Matrix h = *Matrix::uninitialized(64, 64);
  for (float& value : h.values()) value = 0;
  for (std::size_t k = 0; k < 64; ++k) h(k, k) = k == 3 ? 1.0F : 1e-6F;
  LayerProblem layer;
  layer.name = "layer";
  layer.weight = w.view();
  layer.second_moment = h.view();
  layer.grid = *parse_grid("int3:asym:oc:g64");
  layer.scale = ScaleMethod::minmax;
  const Quantized result = solve(*hqq(), layer);
  EXPECT_EQ(result.objective, result.objective_rtn);
  EXPECT_NE(result.fallback.find("rounding"), std::string::npos);
}

TEST(Hqq, TwoLevelScalesStayAsTheyWereChosen) {
  const Matrix w = test::gaussian_matrix(8, 64, 6);
  LayerProblem layer;
  layer.name = "layer";
  layer.weight = w.view();
  layer.grid = *parse_grid("int4:sym:oc:g32:f32:u4");
  const Quantized result = solve(*hqq(), layer);
  EXPECT_EQ(result.tensor.parameters().scales, solve(*rtn(), layer).tensor.parameters().scales);
  EXPECT_NE(result.fallback, "");
}

}  // namespace
}  // namespace quell::quant
