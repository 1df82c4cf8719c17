// SPDX-License-Identifier: Apache-2.0

// Coordinate descent and the target for drifted inputs.

#include "quant/descent.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "quant/drift.hpp"
#include "quant/problems.hpp"

namespace quell::quant {
namespace {

using test::signed_codes;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

LayerProblem problem(const Matrix& w, const Matrix& h, const GridSpec& grid) {
  LayerProblem layer;
  layer.name = "layer";
  layer.weight = w.view();
  layer.second_moment = h.view();
  layer.grid = grid;
  return layer;
}

Descended descended(const LayerProblem& layer, const QuantizedTensor& start, unsigned rounds) {
  SerialExecutor serial;
  auto result = descend(layer, profile_moment(layer.second_moment), start, rounds, serial);
  if (!result) {
    ADD_FAILURE() << result.error().message;
    std::abort();
  }
  return *std::move(result);
}

QuantizedTensor rounded(const LayerProblem& layer) {
  SerialExecutor serial;
  auto result = round_layer(layer, {}, serial);
  if (!result) {
    ADD_FAILURE() << result.error().message;
    std::abort();
  }
  return *std::move(result);
}

TEST(Descent, OfTheTwoColumnExampleRoundsTheFirstUp) {
  Matrix w = *Matrix::uninitialized(1, 2), h = *Matrix::uninitialized(2, 2);
  w(0, 0) = w(0, 1) = 0.4F;
  h(0, 0) = h(1, 1) = 2;
  h(0, 1) = h(1, 0) = 1;
  const GroupParameters given = test::uniform_parameters(test::integer_grid(), 1, 2, 1.0F);
  LayerProblem layer = problem(w, h, test::integer_grid());
  layer.given = &given;
  const QuantizedTensor start = rounded(layer);
  ASSERT_EQ(signed_codes(start), (std::vector<int>{0, 0}));
  const Descended result = descended(layer, start, 1);
  EXPECT_EQ(signed_codes(result.tensor), (std::vector<int>{1, 0}));
  EXPECT_EQ(result.codes, 1U);
  EXPECT_EQ(result.scales, 0U);
  EXPECT_NEAR(test::loss(w.view(), test::values_of(result.tensor).view(), h.view()), 0.56, 1e-6);
}

TEST(Descent, ScaleOfARowIsItsLeastSquares) {
  // Codes 1 and 2 of 1.1 and 2.0 with independent inputs of weight 1 and 3:
  // s = (1.1 + 3 * 2 * 2.0) / (1 + 3 * 4) = 13.1 / 13.
  Matrix w = *Matrix::uninitialized(1, 2), h = *Matrix::zeros(2, 2);
  w(0, 0) = 1.1F;
  w(0, 1) = 2.0F;
  h(0, 0) = 1;
  h(1, 1) = 3;
  LayerProblem layer = problem(w, h, test::integer_grid());
  const GroupParameters ones = test::uniform_parameters(test::integer_grid(), 1, 2, 1.0F);
  layer.given = &ones;
  const QuantizedTensor start = rounded(layer);
  layer.given = nullptr;
  const Descended result = descended(layer, start, 3);
  EXPECT_EQ(signed_codes(result.tensor), (std::vector<int>{1, 2}));
  EXPECT_NEAR(result.tensor.parameters().scales[0], 13.1 / 13, 1e-6);
}

TEST(Descent, NeverRaisesTheLossOnAnyGrid) {
  const Matrix w = test::gaussian_matrix(37, 300, 3);
  const Matrix h = test::second_moment(test::layer_inputs(500, 300));
  for (const char* word :
       {"int4:sym:oc:g32", "int3:asym:oc:g48:bf16", "int2:sym:oc:row:f32", "nf4:sym:oc:g64",
        "iq4:sym:oc:g32", "int4:sym:oc:g20:f32:u4", "int4:sym:ic:g16", "int4:asym:ic:row",
        "int3:sym:oc:g200", "int8:sym:oc:g128"}) {
    LayerProblem layer = problem(w, h, *parse_grid(word));
    QuantizedTensor tensor = rounded(layer);
    double before = test::loss(w.view(), test::values_of(tensor).view(), h.view());
    const double start = before;
    for (int round = 0; round < 6; ++round) {
      Descended next = descended(layer, tensor, 1);
      const double after = test::loss(w.view(), test::values_of(next.tensor).view(), h.view());
      double gains = 0;
      for (const double gain : next.gains) gains += gain;
      const double unit = static_cast<double>(profile_moment(h.view()).unit);
      EXPECT_NEAR(before - after, gains / unit, 1e-4 * (before - after) + 1e-6 * before) << word;
      // In double from scratch; single moves are decided in float32, and those that gain less than
      // its noise are not made.
      ASSERT_LE(after, before * (1 + 1e-9)) << word << " round " << round;
      before = after;
      tensor = std::move(next.tensor);
      if (next.codes + next.scales == 0) break;
    }
    // Rounding with absmax scales leaves much to be found.
    EXPECT_LT(before, 0.8 * start) << word;
  }
}

TEST(Descent, OfIndependentInputsIsRounding) {
  const Matrix w = test::gaussian_matrix(9, 130, 5);
  Matrix h = *Matrix::zeros(130, 130);
  for (std::size_t k = 0; k < 130; ++k) h(k, k) = 0.1F + static_cast<float>(k % 7);
  LayerProblem layer = problem(w, h, *parse_grid("int4:sym:oc:g32:f32"));
  const QuantizedTensor start = rounded(layer);
  const GroupParameters scales = start.parameters();
  layer.given = &scales;
  const Descended result = descended(layer, start, 4);
  EXPECT_EQ(result.codes + result.scales, 0U);
}

TEST(Descent, LeavesGivenScalesAndDeadInputsAlone) {
  const Matrix w = test::gaussian_matrix(12, 96, 8);
  Matrix x = test::layer_inputs(200, 96);
  for (std::size_t t = 0; t < x.rows(); ++t) x(t, 17) = 0;
  const Matrix h = test::second_moment(x);
  LayerProblem layer = problem(w, h, *parse_grid("int4:sym:oc:g32"));
  const QuantizedTensor start = rounded(layer);
  const GroupParameters given = start.parameters();
  layer.given = &given;
  const Descended result = descended(layer, start, 4);
  EXPECT_GT(result.codes, 0U);
  EXPECT_EQ(result.tensor.parameters().scales, given.scales);
  const std::vector<int> before = signed_codes(start), after = signed_codes(result.tensor);
  for (std::size_t r = 0; r < 12; ++r) EXPECT_EQ(after[r * 96 + 17], before[r * 96 + 17]);
}

TEST(Descent, DoesNotDependOnTheUnitOfTheMoment) {
  const Matrix w = test::gaussian_matrix(20, 140, 4);
  const Matrix h = test::second_moment(test::layer_inputs(300, 140));
  for (const char* word : {"int4:sym:oc:g32", "int4:sym:oc:row", "int4:sym:ic:g32"}) {
    std::vector<std::vector<int>> codes;
    for (const float unit : {1.0F, 0x1p90F, 0x1p-90F}) {
      Matrix scaled = *Matrix::uninitialized(140, 140);
      for (std::size_t i = 0; i < h.size(); ++i) scaled.data()[i] = h.data()[i] * unit;
      LayerProblem layer = problem(w, scaled, *parse_grid(word));
      codes.push_back(signed_codes(descended(layer, rounded(layer), 2).tensor));
    }
    EXPECT_EQ(codes[0], codes[1]) << word;
    EXPECT_EQ(codes[0], codes[2]) << word;
  }
}

// ------------------------------------------------------------------ drift

TEST(DriftTarget, OfOneInputIsTheRatioOfItsSizes) {
  // x_original = 1.5 x: D = 0.5 h, so W' = 1.5 W.
  Matrix w = *Matrix::uninitialized(2, 1), h = *Matrix::uninitialized(1, 1);
  w(0, 0) = 2;
  w(1, 0) = -1;
  h(0, 0) = 4;
  Matrix d = *Matrix::uninitialized(1, 1);
  d(0, 0) = 2;
  LayerProblem layer = problem(w, h, test::integer_grid());
  layer.drift = d.view();
  SerialExecutor serial;
  const auto target = drift_target(layer, profile_moment(h.view()), 1, 0, serial);
  ASSERT_TRUE(target) << target.error().message;
  EXPECT_FLOAT_EQ((*target)(0, 0), 3);
  EXPECT_FLOAT_EQ((*target)(1, 0), -1.5F);
}

TEST(DriftTarget, SolvesTheNormalEquations) {
  constexpr std::size_t kInputs = 70, kRows = 11;
  const Matrix w = test::gaussian_matrix(kRows, kInputs, 3);
  const Matrix x = test::layer_inputs(400, kInputs);
  const Matrix h = test::second_moment(x);
  const Matrix noise = test::gaussian_matrix(400, kInputs, 9);
  Matrix d = *Matrix::uninitialized(kInputs, kInputs);
  for (std::size_t i = 0; i < kInputs; ++i) {
    for (std::size_t j = 0; j < kInputs; ++j) {
      double sum = 0;
      for (std::size_t t = 0; t < 400; ++t) {
        sum += 0.3 * static_cast<double>(noise(t, i)) * static_cast<double>(x(t, j));
      }
      d(i, j) = static_cast<float>(sum / 400);
    }
  }
  LayerProblem layer = problem(w, h, test::integer_grid());
  layer.drift = d.view();
  const MomentProfile profile = profile_moment(h.view());
  SerialExecutor serial;
  const double strength = 0.5, share = 0.03;
  const auto target = drift_target(layer, profile, strength, share, serial);
  ASSERT_TRUE(target) << target.error().message;
  const double ridge = share * profile.mean / static_cast<double>(profile.unit);
  for (std::size_t r = 0; r < kRows; ++r) {
    for (std::size_t j = 0; j < kInputs; ++j) {
      // (W' - W) (H + ridge) = strength W D.
      double left = 0, right = 0, size = 0;
      for (std::size_t k = 0; k < kInputs; ++k) {
        const double moved = static_cast<double>((*target)(r, k)) - static_cast<double>(w(r, k));
        const double moment = static_cast<double>(h(k, j)) + (k == j ? ridge : 0.0);
        left += moved * moment;
        right += strength * static_cast<double>(w(r, k)) * static_cast<double>(d(k, j));
        size += (std::fabs(moved) + std::fabs(static_cast<double>(w(r, k)))) * std::fabs(moment);
      }
      // W' carries the rounding of W, 2^-24 of it; the factor of a matrix with condition about
      // 1 / share * 900 its own.
      EXPECT_NEAR(left, right, 1e-5 * size) << r << ", " << j;
    }
  }
}

TEST(DriftTarget, WithoutDriftIsTheWeightAndBalancedIsRefinedFeedback) {
  const Matrix w = test::gaussian_matrix(16, 64, 6);
  const Matrix h = test::second_moment(test::layer_inputs(300, 64));
  const Matrix none = *Matrix::zeros(64, 64);
  LayerProblem layer = problem(w, h, *parse_grid("int4:sym:oc:g32"));
  layer.scale = ScaleMethod::search;
  layer.drift = none.view();
  const Quantized with = test::solve(*balanced(), layer);
  layer.drift = {};
  const Quantized without = test::solve(*balanced(), layer);
  const Quantized refined = test::solve(*gptq(BalancedOptions{}.feedback), layer);
  const Quantized plain = test::solve(*gptq(), layer);
  EXPECT_EQ(signed_codes(with.tensor), signed_codes(without.tensor));
  EXPECT_EQ(signed_codes(without.tensor), signed_codes(refined.tensor));
  EXPECT_EQ(with.tensor.parameters().scales, refined.tensor.parameters().scales);
  EXPECT_LT(refined.objective, plain.objective);
  EXPECT_EQ(with.fallback, "");
}

// Of the output, the drift is W D already where nothing but the inputs drifted.
TEST(DriftTarget, OfTheOutputIsThatOfTheInputsTimesTheWeight) {
  const Matrix w = test::gaussian_matrix(16, 64, 6);
  const Matrix h = test::second_moment(test::layer_inputs(300, 64));
  const Matrix d = test::gaussian_matrix(64, 64, 7);
  Matrix output = *Matrix::zeros(16, 64);
  for (std::size_t r = 0; r < 16; ++r) {
    for (std::size_t j = 0; j < 64; ++j) {
      double sum = 0;
      for (std::size_t k = 0; k < 64; ++k) {
        sum += static_cast<double>(w(r, k)) * static_cast<double>(d(k, j));
      }
      output(r, j) = static_cast<float>(sum);
    }
  }
  LayerProblem layer = problem(w, h, *parse_grid("int4:sym:oc:g32"));
  SerialExecutor serial;
  const MomentProfile profile = profile_moment(h.view());
  layer.drift = d.view();
  const auto expected = drift_target(layer, profile, 0.75, 0.03, serial);
  layer.drift = output.view();
  layer.drift_of_output = true;
  const auto found = drift_target(layer, profile, 0.75, 0.03, serial);
  ASSERT_TRUE(expected && found);
  float largest = 0;
  for (const float value : expected->values()) largest = std::max(largest, std::fabs(value));
  for (std::size_t i = 0; i < found->size(); ++i) {
    // Sums of 64 products rounded in float32, and what two solves make of that.
    ASSERT_NEAR(found->data()[i], expected->data()[i], 1e-5F * largest) << i;
  }
  layer.drift = d.view();
  const auto refused = drift_target(layer, profile, 0.75, 0.03, serial);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("64 x 64, expected 16 x 64"), std::string::npos)
      << refused.error().message;
}

TEST(DriftTarget, IsWhatBalancedQuantizes) {
  const Matrix w = test::gaussian_matrix(16, 64, 6);
  const Matrix h = test::second_moment(test::layer_inputs(300, 64));
  Matrix d = *Matrix::uninitialized(64, 64);
  // Inputs that lost a fifth, and more where they follow their neighbour.
  for (std::size_t i = 0; i < 64; ++i) {
    for (std::size_t j = 0; j < 64; ++j) d(i, j) = 0.2F * h(i, j) + 0.1F * h((i + 1) % 64, j);
  }
  LayerProblem layer = problem(w, h, *parse_grid("int4:sym:oc:g32"));
  layer.scale = ScaleMethod::search;
  layer.drift = d.view();
  SerialExecutor serial;
  const auto target =
      drift_target(layer, profile_moment(h.view()), BalancedOptions{}.drift, 0.03, serial);
  ASSERT_TRUE(target) << target.error().message;
  const Quantized found = test::solve(*balanced(), layer);
  LayerProblem moved = layer;
  moved.weight = target->view();
  moved.drift = {};
  const Quantized expected = test::solve(*gptq(BalancedOptions{}.feedback), moved);
  EXPECT_EQ(signed_codes(found.tensor), signed_codes(expected.tensor));
  EXPECT_EQ(found.tensor.parameters().scales, expected.tensor.parameters().scales);
  EXPECT_EQ(found.objective, expected.objective);
  // And not what the weight itself would have become.
  layer.drift = {};
  EXPECT_NE(signed_codes(found.tensor), signed_codes(test::solve(*balanced(), layer).tensor));
}

TEST(DriftTarget, OfDamagedStatisticsIsRefusedByPlace) {
  const Matrix w = test::gaussian_matrix(4, 8, 6);
  const Matrix h = test::second_moment(test::layer_inputs(100, 8));
  Matrix d = *Matrix::zeros(8, 8);
  d(3, 5) = kNaN;
  LayerProblem layer = problem(w, h, *parse_grid("int4:sym:oc:g32"));
  layer.drift = d.view();
  SerialExecutor serial;
  const auto bad = drift_target(layer, profile_moment(h.view()), 0.5, 0.03, serial);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, ErrorCode::numeric);
  EXPECT_NE(bad.error().message.find("element [3, 5]"), std::string::npos) << bad.error().message;
  const Quantized without = test::solve(*balanced(), layer);
  EXPECT_EQ(without.fallback, "no drift correction: " + bad.error().message);
  const Matrix small = *Matrix::zeros(7, 7);
  layer.drift = small.view();
  const auto wrong = balanced()->quantize(layer, serial);
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code, ErrorCode::shape);
  EXPECT_NE(wrong.error().message.find("7 x 7, expected 8 x 8"), std::string::npos);
}

}  // namespace
}  // namespace quell::quant
