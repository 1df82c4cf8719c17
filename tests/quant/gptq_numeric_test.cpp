// SPDX-License-Identifier: Apache-2.0

// Analytic losses, damping and its ladder, degenerate moments, and the precision of the factor.

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "quant/problems.hpp"

namespace quell::quant {
namespace {

using test::signed_codes;
using test::solve;

LayerProblem problem(const Matrix& w, const Matrix& h, const char* grid,
                     ScaleMethod scale = ScaleMethod::absmax) {
  LayerProblem layer;
  layer.name = "layer";
  layer.weight = w.view();
  layer.second_moment = h.view();
  layer.grid = *parse_grid(grid);
  layer.scale = scale;
  return layer;
}

void expect_sound(const Quantized& result) {
  for (const float scale : result.tensor.parameters().scales) {
    ASSERT_TRUE(std::isfinite(scale) && scale != 0);
  }
  EXPECT_TRUE(std::isfinite(result.objective));
  EXPECT_LE(result.objective, result.objective_rtn);
}

TEST(GptqLoss, OfAutoregressiveInputsIsOneMinusRhoSquared) {
  // H_ij = rho^|i-j|: every conditional variance but the last is 1 - rho^2, and on a fine grid
  // errors are uniform whatever the target, so the ratio to rounding tends to 1 - rho^2. 64 rows x
  // 512 inputs are 32,768 errors: a standard deviation of 0.5 %.
  constexpr std::size_t kInputs = 512;
  for (const double rho : {0.7, 0.9}) {
    Matrix h = *Matrix::uninitialized(kInputs, kInputs);
    for (std::size_t i = 0; i < kInputs; ++i) {
      for (std::size_t j = 0; j < kInputs; ++j) {
        const auto distance = static_cast<double>(i > j ? i - j : j - i);
        h(i, j) = static_cast<float>(std::pow(rho, distance));
      }
    }
    const Matrix w = test::gaussian_matrix(64, kInputs);
    LayerProblem layer = problem(w, h, "int8full:sym:oc:row:f32");
    const GroupParameters given = test::uniform_parameters(layer.grid, 64, kInputs, 0.05F);
    layer.given = &given;
    const Quantized result = solve(*gptq({.damping = 0, .guard = false}), layer);
    EXPECT_NEAR(result.objective / result.objective_rtn, 1 - rho * rho, 0.05 * (1 - rho * rho));
    EXPECT_EQ(result.damping, 0);
  }
}

TEST(GptqLoss, IsThatOfTheUndampedMoment) {
  const Matrix w = test::gaussian_matrix(40, 120);
  const Matrix h = test::second_moment(test::layer_inputs(300, 120));
  for (const double damping : {0.0, 0.01, 1.0, 1000.0}) {
    for (const bool guard : {false, true}) {
      const LayerProblem layer = problem(w, h, "int3:sym:oc:g40");
      const Quantized result = solve(*gptq({.damping = damping, .guard = guard}), layer);
      const Matrix q = test::values_of(result.tensor);
      const double exact =
          test::loss(w.view(), q.view(), h.view()) / test::loss(w.view(), {}, h.view());
      EXPECT_NEAR(result.objective, exact, 1e-4 * exact) << damping;
      const Quantized rounded = solve(*rtn(), layer);
      EXPECT_DOUBLE_EQ(result.objective_rtn, rounded.objective);
    }
  }
}

TEST(GptqLoss, IsWellBelowRoundingOnCorrelatedInputs) {
  const Matrix w = test::gaussian_matrix(64, 256);
  const Matrix h = test::second_moment(test::layer_inputs(1024, 256));
  for (const char* grid : {"int4:sym:oc:g64", "int3:asym:oc:g64", "int4:sym:ic:g32"}) {
    for (const bool act_order : {false, true}) {
      for (const ScaleMethod scale : {ScaleMethod::absmax, ScaleMethod::search}) {
        const Quantized result = solve(*gptq({.act_order = act_order}), problem(w, h, grid, scale));
        EXPECT_LT(result.objective, 0.8 * result.objective_rtn) << grid;
      }
    }
  }
}

TEST(GptqDamping, GrowingWithoutBoundTendsToRounding) {
  const Matrix w = test::gaussian_matrix(32, 128);
  const Matrix h = test::second_moment(test::layer_inputs(512, 128));
  LayerProblem layer = problem(w, h, "int4:sym:oc:g32");
  const Quantized rounded = solve(*rtn(), layer);
  layer.given = &rounded.tensor.parameters();
  const Quantized damped = solve(*gptq({.damping = 1e6, .guard = false}), layer);
  EXPECT_EQ(signed_codes(damped.tensor), signed_codes(rounded.tensor));
  EXPECT_EQ(damped.damping, 1e6);
}

TEST(GptqDamping, LetsFewTokensThrough) {
  // 40 tokens for 128 inputs: H has rank 40.
  const Matrix w = test::gaussian_matrix(32, 128);
  const Matrix h = test::second_moment(test::layer_inputs(40, 128));
  for (const ScaleMethod scale : {ScaleMethod::absmax, ScaleMethod::search}) {
    const Quantized result = solve(*gptq({}), problem(w, h, "int4:sym:oc:g32", scale));
    EXPECT_EQ(result.damping, 0.01);
    EXPECT_EQ(result.fallback, "");
    expect_sound(result);
    EXPECT_LT(result.objective, 0.5 * result.objective_rtn);
    const Matrix q = test::values_of(result.tensor);
    const double exact =
        test::loss(w.view(), q.view(), h.view()) / test::loss(w.view(), {}, h.view());
    EXPECT_NEAR(result.objective, exact, 1e-3 * exact);
  }
}

TEST(GptqDamping, ClimbsUntilTheMomentFactors) {
  const Matrix w = test::gaussian_matrix(16, 64);
  const Matrix h = test::second_moment(test::layer_inputs(20, 64));  // rank 20
  const Quantized result = solve(*gptq({.damping = 0}), problem(w, h, "int4:sym:oc:g32"));
  EXPECT_GT(result.damping, 0);
  EXPECT_LE(result.damping, 1.0);
  EXPECT_NE(result.fallback.find("damping raised to"), std::string::npos) << result.fallback;
  EXPECT_NE(result.fallback.find("not positive definite with damping 0"), std::string::npos);
  expect_sound(result);
}

TEST(GptqDamping, EndsInRoundingWhenNothingHelps) {
  // Symmetric with a positive diagonal but an eigenvalue near -31 times it: no moment of anything.
  constexpr std::size_t kInputs = 32;
  const Matrix w = test::gaussian_matrix(8, kInputs);
  Matrix h = test::constant_matrix(kInputs, kInputs, -1.0F);
  for (std::size_t k = 0; k < kInputs; ++k) h(k, k) = 1;
  const LayerProblem layer = problem(w, h, "int4:sym:oc:g32");
  const Quantized result = solve(*gptq({}), layer);
  EXPECT_NE(result.fallback.find("rounding"), std::string::npos) << result.fallback;
  EXPECT_NE(result.fallback.find("0.01, 0.1, 1"), std::string::npos) << result.fallback;
  EXPECT_EQ(signed_codes(result.tensor), signed_codes(solve(*rtn(), layer).tensor));
}

TEST(GptqMoment, MayHaveEqualAndNearlyEqualInputs) {
  const Matrix w = test::gaussian_matrix(16, 96);
  for (const float noise : {0.0F, 1e-8F, 1e-4F}) {
    Matrix x = test::layer_inputs(400, 96);
    const Matrix z = test::gaussian_matrix(400, 96, 9, noise);
    for (std::size_t t = 0; t < 400; ++t) {
      for (std::size_t k = 48; k < 96; ++k) x(t, k) = x(t, k - 48) * (1 + z(t, k));
    }
    const Matrix h = test::second_moment(x);
    for (const double damping : {0.0, 1e-6, 0.01}) {
      for (const bool act_order : {false, true}) {
        const LayerProblem layer = problem(w, h, "int4:sym:oc:g32", ScaleMethod::search);
        expect_sound(solve(*gptq({.damping = damping, .act_order = act_order}), layer));
      }
    }
  }
}

TEST(GptqMoment, MayBeOfAnySize) {
  const Matrix w = test::gaussian_matrix(16, 96);
  const Matrix moment = test::second_moment(test::layer_inputs(50, 96));
  for (const float factor : {1e-30F, 1e30F}) {
    Matrix h = *Matrix::uninitialized(96, 96);
    for (std::size_t i = 0; i < h.size(); ++i) h.data()[i] = moment.data()[i] * factor;
    expect_sound(solve(*gptq({}), problem(w, h, "int4:sym:oc:g32", ScaleMethod::search)));
  }
}

TEST(GptqMoment, MayHaveOneMassiveInput) {
  const Matrix w = test::gaussian_matrix(16, 96);
  Matrix x = test::layer_inputs(400, 96);
  x(0, 50) = 1e6F;  // one token, one channel
  const Matrix h = test::second_moment(x);
  const Quantized result = solve(*gptq({}), problem(w, h, "int4:sym:oc:g32", ScaleMethod::search));
  expect_sound(result);
}

TEST(GptqMoment, OfZerosIsRounding) {
  const Matrix w = test::gaussian_matrix(8, 40);
  const Matrix h = test::zero_matrix(40, 40);
  const LayerProblem layer = problem(w, h, "int4:sym:oc:g32", ScaleMethod::search);
  const Quantized result = solve(*gptq({}), layer);
  EXPECT_EQ(result.dead_inputs, 40U);
  EXPECT_EQ(result.objective, 0);
  EXPECT_NE(result.fallback, "");
  const Quantized rounded = solve(*rtn(), layer);
  EXPECT_EQ(signed_codes(result.tensor), signed_codes(rounded.tensor));
}

TEST(GptqWeight, MayHoldOneHugeElement) {
  Matrix w = test::gaussian_matrix(16, 96, 1, 1e-3F);
  w(3, 40) = 1e30F;
  const Matrix h = test::second_moment(test::layer_inputs(300, 96));
  for (const ScaleMethod scale : {ScaleMethod::absmax, ScaleMethod::search}) {
    const Quantized result = solve(*gptq({}), problem(w, h, "int4:sym:oc:g32:f32", scale));
    expect_sound(result);
  }
  SerialExecutor serial;  // 1e30 / 7.5 is beyond half precision
  const auto refused = gptq({})->quantize(problem(w, h, "int4:sym:oc:g32:f16"), serial);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::numeric);
  EXPECT_NE(refused.error().message.find("layer"), std::string::npos);
}

TEST(GptqFactor, InSinglePrecisionMatchesDouble) {
  // Fraction of codes that differ from a solution in double, and the loss. The fraction of rows
  // that hold a near tie grows with the number of inputs; 0.5 % of the codes is the bound at 4,096.
  constexpr std::size_t kInputs = 512, kRows = 64;
  const Matrix w = test::gaussian_matrix(kRows, kInputs);
  const Matrix h = test::second_moment(test::layer_inputs(1024, kInputs));
  LayerProblem layer = problem(w, h, "int4:sym:oc:g128");
  SerialExecutor serial;
  const GroupParameters given =
      *choose_scales(w.view(), layer.grid, ScaleMethod::absmax, {}, serial);
  layer.given = &given;
  double mean = 0;
  for (std::size_t k = 0; k < kInputs; ++k) mean += static_cast<double>(h(k, k)) / kInputs;
  const auto reference = test::reference_gptq(w.view(), h.view(), 0.01 * mean, layer.grid, given);
  const Quantized result = solve(*gptq({.guard = false}), layer);
  const auto codes = signed_codes(result.tensor);
  std::size_t different = 0;
  Matrix q = *Matrix::uninitialized(kRows, kInputs);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    different += codes[i] != reference.codes[i];
    q.data()[i] = static_cast<float>(reference.codes[i]) * given.scales[i / 128];
  }
  const double exact =
      test::loss(w.view(), q.view(), h.view()) / test::loss(w.view(), {}, h.view());
  RecordProperty("different_codes_per_million",
                 static_cast<int>(different * 1'000'000 / codes.size()));
  EXPECT_LT(static_cast<double>(different), 0.005 * static_cast<double>(codes.size()));
  EXPECT_NEAR(result.objective, exact, 1e-3 * exact);
}

}  // namespace
}  // namespace quell::quant
