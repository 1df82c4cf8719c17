// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <vector>

#include "quant/problems.hpp"

namespace quell::quant {
namespace {

using test::solve;

TEST(Rtn, RoundsToTheNearestCode) {
  const std::vector<float> w = {0.0F, 0.4F, 0.6F, -7.5F, 7.5F, -0.6F};
  LayerProblem layer;
  layer.name = "layer";
  layer.weight = {w.data(), 1, 6};
  layer.grid = *parse_grid("int4:sym:oc:row:f32");
  const Quantized result = solve(*rtn(), layer);
  EXPECT_EQ(result.tensor.parameters().scales[0], 1.0F);
  EXPECT_EQ(test::signed_codes(result.tensor), (std::vector<int>{0, 0, 1, -8, 7, -1}));
  // Squared error over squared weights: (0.16 + 0.16 + 0.25 + 0.25 + 0.16) / (0.16 + 2 * 0.36 +
  // 112.5).
  EXPECT_NEAR(result.objective, 0.98 / 113.38, 1e-6);
  EXPECT_EQ(result.objective, result.objective_rtn);
}

TEST(Rtn, SearchWeighsErrorsByInputEnergy) {
  const Matrix w = test::student_matrix(32, 128, 4);
  const Matrix h = test::second_moment(test::layer_inputs(512, 128));
  LayerProblem layer;
  layer.name = "layer";
  layer.weight = w.view();
  layer.grid = *parse_grid("int3:sym:oc:g64");
  layer.scale = ScaleMethod::search;
  const auto judged = [&](const Quantized& result) {
    double sum = 0;  // sum_k H_kk e_k^2
    const Matrix q = test::values_of(result.tensor);
    for (std::size_t r = 0; r < 32; ++r) {
      for (std::size_t k = 0; k < 128; ++k) {
        const double e = static_cast<double>(w(r, k)) - static_cast<double>(q(r, k));
        sum += static_cast<double>(h(k, k)) * e * e;
      }
    }
    return sum;
  };
  const double blind = judged(solve(*rtn(), layer));
  layer.second_moment = h.view();
  const double weighted = judged(solve(*rtn(), layer));
  EXPECT_LT(weighted, 0.8 * blind);
}

TEST(Rtn, ObjectiveIsThatOfTheMoment) {
  const Matrix w = test::gaussian_matrix(512, 70);
  const Matrix h = test::second_moment(test::layer_inputs(200, 70));
  LayerProblem layer;
  layer.name = "layer";
  layer.weight = w.view();
  layer.second_moment = h.view();
  layer.grid = *parse_grid("int4:sym:oc:g32");
  const Quantized result = solve(*rtn(), layer);
  const Matrix q = test::values_of(result.tensor);
  const double exact =
      test::loss(w.view(), q.view(), h.view()) / test::loss(w.view(), {}, h.view());
  EXPECT_NEAR(result.objective, exact, 1e-5 * exact);
}

TEST(Rtn, ObjectiveOfManyRowsIsEstimatedFromSome) {
  Matrix w = test::student_matrix(1500, 70, 4);
  for (std::size_t k = 0; k < 70; ++k)
    w(700, k) *= 30;  // one row that matters more than 500 others
  const Matrix h = test::second_moment(test::layer_inputs(200, 70));
  LayerProblem layer;
  layer.name = "layer";
  layer.weight = w.view();
  layer.second_moment = h.view();
  layer.grid = *parse_grid("int4:sym:oc:g32");
  const Quantized result = solve(*rtn(), layer);
  const Matrix q = test::values_of(result.tensor);
  const double exact =
      test::loss(w.view(), q.view(), h.view()) / test::loss(w.view(), {}, h.view());
  // That row is not among the judged ones, and how far its inputs correlate is its own affair.
  EXPECT_NEAR(result.objective, exact, 0.1 * exact);
  EXPECT_DOUBLE_EQ(solve(*gptq(), layer).objective_rtn, result.objective);
}

TEST(Rtn, IsExactOnItsOwnGrid) {
  const Matrix w = test::student_matrix(20, 100, 4);
  LayerProblem layer;
  layer.name = "layer";
  layer.weight = w.view();
  layer.grid = *parse_grid("int4:sym:oc:g32");
  const Quantized first = solve(*rtn(), layer);
  const Matrix q = test::values_of(first.tensor);
  layer.weight = q.view();
  layer.given = &first.tensor.parameters();
  const Quantized second = solve(*rtn(), layer);
  EXPECT_EQ(test::signed_codes(second.tensor), test::signed_codes(first.tensor));
  EXPECT_EQ(second.objective, 0);
}

}  // namespace
}  // namespace quell::quant
