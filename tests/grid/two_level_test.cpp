// SPDX-License-Identifier: Apache-2.0

// Two-level scales: the word, the rule of the encoder against numbers worked out by hand, what the
// tensor refuses, edges.

#include "quell/grid/two_level.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "quell/grid/scale.hpp"
#include "support/compare.hpp"
#include "support/matrices.hpp"

namespace quell {
namespace {

using Bytes = std::vector<std::uint8_t>;
using Floats = std::vector<float>;

GridSpec grid_of(std::string_view word) {
  auto grid = parse_grid(word);
  EXPECT_TRUE(grid.has_value()) << word;
  return grid.has_value() ? *grid : GridSpec{};
}

Result<QuantizedTensor> quantized(MatrixView<const float> weight, std::string_view word,
                                  ScaleMethod method = ScaleMethod::absmax) {
  SerialExecutor executor;
  QUELL_TRY(parameters, choose_scales(weight, grid_of(word), method, {}, executor));
  return quantize_to_grid(weight, grid_of(word), std::move(parameters), executor);
}

double relative_error(const Matrix& weight, std::string_view word, ScaleMethod method) {
  const auto tensor = quantized(weight.view(), word, method);
  EXPECT_TRUE(tensor.has_value()) << tensor.error().message;
  SerialExecutor executor;
  Matrix out = *Matrix::uninitialized(weight.rows(), weight.cols());
  EXPECT_TRUE(dequantize(*tensor, out.view(), executor).has_value());
  return test::squared_difference(weight.view(), out.view()) / test::squared_norm(weight.view());
}

TEST(TwoLevelWord, FollowsTheScaleTypeOrStandsForF16) {
  const GridSpec grid{.group = 32, .two_level = true};
  EXPECT_EQ(grid_of("int4:sym:oc:g32:u4"), grid);
  EXPECT_EQ(grid_of("int4:sym:oc:g32:f16:u4"), grid);
  EXPECT_EQ(to_string(grid), "int4:sym:oc:g32:u4");
  for (const char* word :
       {"int4n:sym:ic:g32:f32:u4", "int2:sym:oc:row:bf16:u4", "int3:sym:oc:g8:u4"}) {
    EXPECT_EQ(to_string(grid_of(word)), word);
  }
}

TEST(TwoLevelWord, IsRefusedWhereProductsLeaveInt8) {
  for (const char* word : {"int8:sym:oc:g32:u4", "int8full:sym:oc:g32:u4", "nf4:sym:oc:g32:u4",
                           "iq4:sym:oc:g32:u4", "int4:asym:oc:g32:u4"}) {
    const auto grid = parse_grid(word);
    ASSERT_FALSE(grid.has_value()) << word;
    EXPECT_EQ(grid.error().code, ErrorCode::usage);
    EXPECT_NE(grid.error().message.find("two-level"), std::string::npos) << grid.error().message;
  }
  for (const char* word : {"int4:sym:oc:g32:u4:u4", "int4:sym:oc:g32:u4:f16", "int4:sym:oc:g32:u5",
                           "int4:sym:oc:g32:f16:f16", "int4:sym:oc:u4"}) {
    EXPECT_FALSE(parse_grid(word).has_value()) << word;
  }
  for (const FormatInfo& format : kFormats) {
    if (!check_grid({.format = format.format, .two_level = true}).has_value()) continue;
    EXPECT_GE(format.lowest * kHighestGroupInteger, -127) << format.name;
    EXPECT_LE(format.highest * kHighestGroupInteger, 127) << format.name;
  }
}

TEST(TwoLevelScales, AreTheLargestOverFifteenTimesRoundedIntegers) {
  // Absmax scales of int4n are 30, 14, 0.5, 1.2 times 1 / 7 of the group's extreme over 7: with
  // extremes 210, 98, 3.5, 8.4 and -0 they are 30, 14, 0.5, 1.2 and none. The row scale is 2.
  const Floats x = {210, 1, -98, 7, 3.5f, 0, 8.4f, -8.4f, 0, -0.0f};
  const auto tensor =
      quantized(MatrixView<const float>(x.data(), 1, x.size()), "int4n:sym:oc:g2:u4");
  ASSERT_TRUE(tensor.has_value()) << tensor.error().message;
  const GroupParameters& p = tensor->parameters();
  EXPECT_EQ(p.row_scales, Floats{2});
  EXPECT_EQ(p.integers, (Bytes{15, 7, 1, 1, 1}));
  EXPECT_EQ(p.scales, (Floats{30, 14, 2, 2, 2}));
  Floats values(x.size());
  tensor->dequantize_row(0, values);
  // Codes are chosen for the products: 3.5 is 1.75 steps of 2, 8.4 is 4.2.
  EXPECT_EQ(values, (Floats{210, 0, -98, 0, 4, 0, 8, -8, 0, 0}));
  // Codes of 4 bits, five integers of 4, one scale of 16, over ten weights.
  EXPECT_DOUBLE_EQ(tensor->bits_per_weight(), (40 + 20 + 16) / 10.0);
}

TEST(TwoLevelScales, BelongToTheRunsOfGroupsPerInputChannel) {
  // Two runs of two output channels: each has a row of the array of scales, over three inputs.
  const Floats x = {105, 7, 0, 0, -49, 14, 1.05f, 0, 0, 0, 0, -0.07f};
  const auto tensor = quantized(MatrixView<const float>(x.data(), 4, 3), "int4n:sym:ic:g2:f32:u4");
  ASSERT_TRUE(tensor.has_value()) << tensor.error().message;
  const GroupParameters& p = tensor->parameters();
  ASSERT_EQ(p.rows, 2u);
  EXPECT_FLOAT_EQ(p.row_scales[0], 1.0f);
  EXPECT_FLOAT_EQ(p.row_scales[1], 0.01f);
  EXPECT_EQ(p.integers, (Bytes{15, 7, 2, 15, 1, 1}));
}

TEST(TwoLevelScales, CostLittleOnGaussianValues) {
  const Matrix weight = test::gaussian_matrix(256, 2048, 17);
  // Narrow codes: scales are positive on one level too. Measured 1.018 and 1.067; absmax scales of
  // int4, which clip, even gain.
  const auto ratio = [&](const std::string& word, ScaleMethod method) {
    return relative_error(weight, word + ":f32:u4", method) /
           relative_error(weight, word + ":f32", method);
  };
  EXPECT_LE(ratio("int4n:sym:oc:g32", ScaleMethod::absmax), 1.03);
  EXPECT_LE(ratio("int4n:sym:oc:g32", ScaleMethod::search), 1.08);
  EXPECT_LE(ratio("int4:sym:oc:g32", ScaleMethod::absmax), 1.0);
}

TEST(TwoLevelScales, OfZeroRowsAreOne) {
  const auto tensor = quantized(test::zero_matrix(3, 8).view(), "int4:sym:oc:g4:u4");
  ASSERT_TRUE(tensor.has_value());
  EXPECT_EQ(tensor->parameters().row_scales, (Floats{1, 1, 1}));
  EXPECT_EQ(tensor->parameters().integers, Bytes(6, 1));
  Floats values(8);
  tensor->dequantize_row(2, values);
  EXPECT_EQ(values, Floats(8, 0.0f));
}

TEST(TwoLevelScales, ThatTheirTypeCannotHoldAreRefused) {
  const auto refusal = [](float value, std::string_view word) {
    const auto tensor = quantized(test::constant_matrix(2, 8, value).view(), word);
    return tensor.has_value() ? std::string() : tensor.error().message;
  };
  EXPECT_NE(refusal(1e-7f, "int4:sym:oc:g4:u4").find("use bf16 or f32 scales"), std::string::npos);
  EXPECT_NE(refusal(1e8f, "int4:sym:oc:g4:u4").find("row scale 0 needs the value 888888.875"),
            std::string::npos)
      << refusal(1e8f, "int4:sym:oc:g4:u4");
  EXPECT_EQ(refusal(1e-7f, "int4:sym:oc:g4:f32:u4"), "");
  EXPECT_EQ(refusal(std::numeric_limits<float>::max(), "int4:sym:oc:g4:f32:u4"), "");
}

TEST(QuantizedTensor, ChecksTheTwoLevels) {
  const GridSpec grid = grid_of("int4:sym:oc:g2:u4");
  const GroupParameters good{1, 2, {1.5f, 7.5f}, {}, {0.5f}, {3, 15}};
  const auto refusal = [&](const GroupParameters& parameters) {
    const auto tensor = QuantizedTensor::create(grid, 1, 4, {0x89, 0x8A}, parameters);
    return tensor.has_value() ? std::string() : tensor.error().message;
  };
  EXPECT_EQ(refusal(good), "");
  GroupParameters bad = good;
  bad.integers = {0, 15};
  EXPECT_NE(refusal(bad).find("integer of group [0, 0] is 0, expected 1 to 15"), std::string::npos);
  bad.integers = {3, 16};
  EXPECT_NE(refusal(bad).find("integer of group [0, 1] is 16"), std::string::npos);
  bad.integers = {3};
  EXPECT_NE(refusal(bad).find("1 row scales and 1 integers, expected 1 and 2"), std::string::npos);
  bad = good;
  bad.scales[1] = 7;
  EXPECT_NE(refusal(bad).find("scale [0, 1] is 7, expected"), std::string::npos);
  for (const float scale : {0.0f, -0.5f, 0.1f, INFINITY, NAN}) {
    bad = good;
    bad.row_scales = {scale};
    EXPECT_NE(refusal(bad).find("row scale 0 is"), std::string::npos) << scale;
  }
  bad = good;
  bad.row_scales.clear();
  EXPECT_NE(refusal(bad).find("0 row scales"), std::string::npos);
  // And none on a grid of one level.
  EXPECT_FALSE(
      QuantizedTensor::create(grid_of("int4:sym:oc:g2"), 1, 4, {0x89, 0x8A}, good).has_value());
}

}  // namespace
}  // namespace quell
