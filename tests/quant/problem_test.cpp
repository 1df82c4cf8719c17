// SPDX-License-Identifier: Apache-2.0

// What every method refuses, by the words of its message.

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "quant/problem.hpp"
#include "quant/problems.hpp"

namespace quell::quant {
namespace {

struct Parts {
  Matrix w = test::gaussian_matrix(6, 80);
  Matrix h = test::second_moment(test::layer_inputs(200, 80));
};

Error refusal(const Parts& parts, ErrorCode code) {
  LayerProblem layer;
  layer.name = "model.layers.3.mlp.down_proj";
  layer.weight = parts.w.view();
  layer.second_moment = parts.h.view();
  layer.grid = *parse_grid("int4:sym:oc:g32");
  SerialExecutor serial;
  for (const auto& method : {rtn(), gptq()}) {
    auto result = method->quantize(layer, serial);
    EXPECT_FALSE(result) << method->name();
    if (result) return {};
    EXPECT_EQ(result.error().code, code) << result.error().message;
    EXPECT_EQ(result.error().tensor, layer.name);
    EXPECT_NE(result.error().message.find(layer.name), std::string::npos);
  }
  return rtn()->quantize(layer, serial).error();
}

TEST(LayerCheck, NamesTheWeightThatIsNotFinite) {
  Parts parts;
  parts.w(4, 71) = std::numeric_limits<float>::quiet_NaN();
  parts.w(5, 2) = std::numeric_limits<float>::infinity();
  EXPECT_NE(refusal(parts, ErrorCode::numeric).message.find("element [4, 71] of the weight is NaN"),
            std::string::npos);
  parts.w(2, 0) = -std::numeric_limits<float>::infinity();
  EXPECT_NE(
      refusal(parts, ErrorCode::numeric).message.find("element [2, 0] of the weight is -infinity"),
      std::string::npos);
}

TEST(LayerCheck, NamesTheMomentThatIsNotFinite) {
  Parts parts;
  parts.h(7, 9) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(refusal(parts, ErrorCode::numeric).message.find("element [7, 9] of the second moment"),
            std::string::npos);
}

TEST(LayerCheck, RefusesAnAsymmetricMoment) {
  Parts parts;
  parts.h(70, 69) *= 1.00001F;  // neighbours correlate: not small beside the diagonal
  const Error error = refusal(parts, ErrorCode::numeric);
  EXPECT_NE(error.message.find("not symmetric: element [70, 69]"), std::string::npos)
      << error.message;
}

TEST(LayerCheck, AllowsRoundingInTheMoment) {
  Parts parts;
  for (std::size_t i = 0; i < 80; ++i) {
    for (std::size_t j = 0; j < i; ++j) parts.h(i, j) *= 1 + 0x1p-22F;  // 2.4e-7
  }
  LayerProblem layer;
  layer.weight = parts.w.view();
  layer.second_moment = parts.h.view();
  SerialExecutor serial;
  EXPECT_TRUE(check_problem(layer, true, serial));
}

TEST(LayerCheck, RefusesANegativeDiagonal) {
  Parts parts;
  parts.h(3, 3) = -1;
  EXPECT_NE(refusal(parts, ErrorCode::numeric).message.find("element [3, 3]"), std::string::npos);
}

TEST(LayerCheck, RefusesSizesThatDisagree) {
  Parts parts;
  parts.h = test::zero_matrix(79, 79);
  EXPECT_NE(refusal(parts, ErrorCode::shape).message.find("79 x 79, expected 80 x 80"),
            std::string::npos);
  parts.w = Matrix();
  refusal(parts, ErrorCode::shape);
}

TEST(LayerCheck, GptqNeedsAMoment) {
  const Matrix w = test::gaussian_matrix(4, 8);
  LayerProblem layer;
  layer.name = "layer";
  layer.weight = w.view();
  SerialExecutor serial;
  const auto result = gptq()->quantize(layer, serial);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::missing);
}

TEST(PanelRows, CoverRowsInEqualShares) {
  EXPECT_EQ(panel_rows(4096, 256, 16, 2), 256U);
  EXPECT_EQ(panel_rows(4096, 256, 16, 3), 240U);  // 18 panels of at most 240
  EXPECT_EQ(panel_rows(300, 256, 16, 2), 160U);
  EXPECT_EQ(panel_rows(10, 256, 16, 8), 64U);      // never below a quarter
  EXPECT_EQ(panel_rows(1000, 256, 100, 1), 300U);  // a multiple of the step
}

}  // namespace
}  // namespace quell::quant
