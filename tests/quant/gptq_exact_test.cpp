// SPDX-License-Identifier: Apache-2.0

// Known answers: examples small enough to be computed by hand.

#include <gtest/gtest.h>

#include <vector>

#include "quant/problems.hpp"

namespace quell::quant {
namespace {

using test::signed_codes;
using test::solve;

/// One row on the integer grid, without damping.
Quantized solve_row(std::vector<float> w, std::vector<float> h, GptqOptions options) {
  const std::size_t n = w.size();
  const GroupParameters given = test::uniform_parameters(test::integer_grid(), 1, n, 1.0F);
  LayerProblem layer;
  layer.name = "row";
  layer.weight = {w.data(), 1, n};
  layer.second_moment = {h.data(), n, n};
  layer.grid = test::integer_grid();
  layer.given = &given;
  options.damping = 0;
  return solve(*gptq(options), layer);
}

double absolute_loss(const Quantized& result, const std::vector<float>& w,
                     const std::vector<float>& h) {
  return result.objective * test::loss({w.data(), 1, w.size()}, {}, {h.data(), w.size(), w.size()});
}

TEST(Gptq, TwoColumnExampleRoundsTheSecondUp) {
  const std::vector<float> w = {0.4F, 0.4F}, h = {2, 1, 1, 2};
  const Quantized result = solve_row(w, h, {.guard = false});
  EXPECT_EQ(signed_codes(result.tensor), (std::vector<int>{0, 1}));
  EXPECT_NEAR(absolute_loss(result, w, h), 0.56, 1e-6);
  EXPECT_NEAR(result.objective_rtn * 0.96, 0.96, 1e-6);  // zero is what rounding gives
  EXPECT_EQ(result.damping, 0);
  EXPECT_EQ(result.fallback, "");
}

TEST(Gptq, ThreeColumnExampleBeatsRounding) {
  const std::vector<float> w = {0.3F, 0.45F, -0.4F}, h = {4, 2, 1, 2, 3, 1, 1, 1, 2};
  const Quantized result = solve_row(w, h, {.guard = false});
  EXPECT_EQ(signed_codes(result.tensor), (std::vector<int>{0, 1, -1}));
  // The sum over the sweep and the loss from scratch.
  EXPECT_NEAR(absolute_loss(result, w, h), 1.0275, 2e-6);
  const Matrix q = test::values_of(result.tensor);
  EXPECT_NEAR(test::loss({w.data(), 1, 3}, q.view(), {h.data(), 3, 3}), 1.0275, 1e-6);
}

TEST(Gptq, GuardKeepsRoundingWhereItIsBetter) {
  const std::vector<float> w = {-0.1F, -0.3F, -0.8F}, h = {9, 2, 1, 2, 3, 4, 1, 4, 6};
  const Quantized plain = solve_row(w, h, {.guard = false});
  EXPECT_EQ(signed_codes(plain.tensor), (std::vector<int>{0, -1, 0}));
  EXPECT_NEAR(absolute_loss(plain, w, h), 0.80, 2e-6);
  EXPECT_EQ(plain.guarded_rows, 0U);
  const Quantized guarded = solve_row(w, h, {.guard = true});
  EXPECT_EQ(signed_codes(guarded.tensor), (std::vector<int>{0, 0, -1}));
  EXPECT_NEAR(absolute_loss(guarded, w, h), 0.20, 2e-6);
  EXPECT_EQ(guarded.guarded_rows, 1U);
  EXPECT_EQ(guarded.objective, guarded.objective_rtn);
}

TEST(Gptq, TwoColumnsAreNeverWorseThanRounding) {
  const Random random(5);
  for (std::uint64_t i = 0; i < 500; ++i) {
    const auto a = static_cast<float>(0.5 + random.uniform(8 * i));
    const auto b = static_cast<float>(0.5 + random.uniform(8 * i + 1));
    const auto c =
        static_cast<float>((2 * random.uniform(8 * i + 2) - 1) * 0.95) * std::sqrt(a * b);
    const std::vector<float> w = {static_cast<float>(4 * random.uniform(8 * i + 3) - 2),
                                  static_cast<float>(4 * random.uniform(8 * i + 4) - 2)};
    const Quantized result = solve_row(w, {a, c, c, b}, {.guard = false});
    ASSERT_LE(result.objective, result.objective_rtn * (1 + 1e-5)) << i;
  }
}

TEST(Gptq, OnDiagonalMomentsEqualsRtn) {
  constexpr std::size_t kRows = 20, kInputs = 150;
  const Matrix w = test::student_matrix(kRows, kInputs, 4);
  Matrix h = test::zero_matrix(kInputs, kInputs);
  for (std::size_t k = 0; k < kInputs; ++k) h(k, k) = 0.1F + static_cast<float>((k * 37) % 11);
  for (const bool identity : {true, false}) {
    if (identity) {
      for (std::size_t k = 0; k < kInputs; ++k) h(k, k) = 1;
    }
    for (const char* grid : {"int4:sym:oc:g32", "int4:asym:oc:g32", "int3:sym:ic:g8", "int8:sym"}) {
      LayerProblem layer;
      layer.name = "diagonal";
      layer.weight = w.view();
      layer.second_moment = h.view();
      layer.grid = *parse_grid(grid);
      const Quantized rounded = solve(*rtn(), layer);
      layer.given = &rounded.tensor.parameters();
      for (const bool act_order : {false, true}) {
        const Quantized swept =
            solve(*gptq({.damping = 0, .act_order = act_order, .guard = false}), layer);
        EXPECT_EQ(signed_codes(swept.tensor), signed_codes(rounded.tensor)) << grid;
        EXPECT_EQ(swept.guarded_rows, 0U);
      }
    }
    for (std::size_t k = 0; k < kInputs; ++k) h(k, k) = 0.1F + static_cast<float>((k * 37) % 11);
  }
}

TEST(Gptq, ScalesOfSmallRowsAreKnown) {
  // [1, -0.5] at 4 bits: scale 1 / 7.5; reconstruction [7, -4] * scale.
  const std::vector<float> w = {1.0F, -0.5F, 0.0F, 0.0F}, h = {1, 0, 0, 1};
  LayerProblem layer;
  layer.name = "rows";
  layer.weight = {w.data(), 2, 2};
  layer.second_moment = {h.data(), 2, 2};
  layer.grid = *parse_grid("int4:sym:oc:row:f32");
  for (const auto& method :
       {gptq({.damping = 0}), gptq({.damping = 0, .act_order = true}), rtn()}) {
    const Quantized result = solve(*method, layer);
    const Matrix q = test::values_of(result.tensor);
    EXPECT_NEAR(result.tensor.parameters().scales[0], 0.133333F, 1e-6F);
    EXPECT_NEAR(q(0, 0), 0.933333F, 1e-6F);
    EXPECT_NEAR(q(0, 1), -0.533333F, 1e-6F);
    EXPECT_GT(result.tensor.parameters().scales[1], 0.0F);  // the row of zeros
    EXPECT_EQ(q(1, 0), 0.0F);
    EXPECT_EQ(q(1, 1), 0.0F);
  }
}

TEST(Gptq, HalvesRoundToEven) {
  const std::vector<float> w = {0.5F, 1.5F, 2.5F, -0.5F, -1.5F, -2.5F};
  std::vector<float> h(36);
  for (std::size_t k = 0; k < 6; ++k) h[k * 7] = 1;
  for (const bool act_order : {false, true}) {
    const Quantized result = solve_row(w, h, {.act_order = act_order, .guard = false});
    EXPECT_EQ(signed_codes(result.tensor), (std::vector<int>{0, 2, 2, 0, -2, -2}));
  }
}

}  // namespace
}  // namespace quell::quant
