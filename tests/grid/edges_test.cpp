// SPDX-License-Identifier: Apache-2.0

// What breaks grids: values that are not finite (W01), zeros (W02), constants (W03), what vanishes
// or overflows in the scale type (W04, W06), one huge element (W05), ties and range ends (W07),
// ranges that exclude zero (W08), shapes that do not fit the group (W10). The ids are those of the
// reliability plan.

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

using Floats = std::vector<float>;

GridSpec grid_of(std::string_view word) {
  return *parse_grid(word);
}

constexpr ScaleMethod kMethods[] = {ScaleMethod::absmax, ScaleMethod::minmax, ScaleMethod::search};

std::vector<GridSpec> all_grids(std::uint32_t group) {
  std::vector<GridSpec> grids;
  for (const FormatInfo& format : kFormats) {
    for (const bool symmetric : {true, false}) {
      for (const Channel per : {Channel::output, Channel::input}) {
        for (const ScaleType type : {ScaleType::f16, ScaleType::bf16, ScaleType::f32}) {
          const GridSpec grid{format.format, symmetric, per, group, type};
          if (check_grid(grid).has_value()) grids.push_back(grid);
        }
      }
    }
  }
  return grids;
}

Result<QuantizedTensor> quantized(MatrixView<const float> weight, const GridSpec& grid,
                                  ScaleMethod method) {
  SerialExecutor executor;
  QUELL_TRY(parameters, choose_scales(weight, grid, method, {}, executor));
  return quantize_to_grid(weight, grid, std::move(parameters), executor);
}

// Half of the widest gap between neighbouring values, in units of the scale.
float half_gap(const GridSpec& grid) {
  const CodeRange range = code_range(grid);
  float widest = 0;
  for (int code = range.lowest; code < range.highest; ++code) {
    widest =
        std::max(widest, code_level(grid.format, code + 1, 0) - code_level(grid.format, code, 0));
  }
  return widest / 2;
}

Matrix values_of(const QuantizedTensor& tensor) {
  Matrix out = *Matrix::uninitialized(tensor.rows(), tensor.cols());
  for (std::size_t r = 0; r < tensor.rows(); ++r) tensor.dequantize_row(r, out.row(r));
  return out;
}

TEST(GridEdges, W01NonFiniteElementsAreNamedWithTheirPlace) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    // In a row that fills a strip only partly, and not the first of its group.
    Matrix weight = test::gaussian_matrix(19, 10);
    weight(17, 4) = bad;
    weight(18, 0) = bad;
    for (const GridSpec& grid : all_grids(4)) {
      for (const ScaleMethod method : kMethods) {
        const auto result = quantized(weight.view(), grid, method);
        ASSERT_FALSE(result.has_value());
        ASSERT_EQ(result.error().code, ErrorCode::numeric);
        ASSERT_NE(result.error().message.find("row 17, column 4"), std::string::npos)
            << result.error().message;
        ASSERT_NE(result.error().message.find("2 elements"), std::string::npos);
      }
      // Also where the scales were chosen from something else.
      SerialExecutor executor;
      const Matrix clean = test::gaussian_matrix(19, 10);
      auto given = choose_scales(clean.view(), grid, ScaleMethod::absmax, {}, executor);
      EXPECT_FALSE(quantize_to_grid(weight.view(), grid, *given, executor).has_value());
    }
  }
}

TEST(GridEdges, W02AllZeroGroupsHaveScaleOneOrNoneAndComeBackAsZeros) {
  Matrix weight = test::gaussian_matrix(12, 12);
  for (std::size_t i = 0; i < 12; ++i) weight(3, i) = weight(i, 5) = 0;
  for (std::size_t r = 0; r < 4; ++r) {
    for (std::size_t c = 0; c < 4; ++c) weight(r, c) = r % 2 == 0 ? 0.0f : -0.0f;
  }
  for (const GridSpec& grid : all_grids(4)) {
    for (const ScaleMethod method : kMethods) {
      const auto result = quantized(weight.view(), grid, method);
      ASSERT_TRUE(result.has_value()) << result.error().message;
      const Matrix out = values_of(*result);
      const GroupLayout layout = group_layout(grid, 12, 12);
      // iq4 has no zero but a scale of 0.
      const float expected = grid.format == Format::iq4 ? 0.0f : 1.0f;
      EXPECT_EQ(result->parameters().scales[0], expected) << to_string(grid);
      for (std::size_t r = 0; r < 12; ++r) {
        for (std::size_t c = 0; c < 12; ++c) {
          if (weight(r, c) != 0) continue;
          // In a group of more than zeros, iq4 has no nearer value than its level 1.
          const float scale = result->parameters().scales[layout.index(r, c)];
          const float nearest = has_zero(grid.format) ? 0.0f : std::fabs(scale);
          ASSERT_EQ(std::fabs(out(r, c)), nearest) << to_string(grid);
        }
      }
      const auto zeros = quantized(test::zero_matrix(3, 9).view(), grid, method);
      ASSERT_TRUE(zeros.has_value());
      for (const float scale : zeros->parameters().scales) ASSERT_EQ(scale, expected);
    }
  }
}

TEST(GridEdges, W03ConstantGroupsAreExactOrWithinHalfAStep) {
  for (const float value : {0.37f, -2.5f, 1.0f, -1.0f}) {
    const Matrix weight = test::constant_matrix(5, 11, value);
    for (const GridSpec& grid : all_grids(4)) {
      for (const ScaleMethod method : kMethods) {
        const auto result = quantized(weight.view(), grid, method);
        ASSERT_TRUE(result.has_value()) << result.error().message;
        const Matrix out = values_of(*result);
        for (std::size_t i = 0; i < out.size(); ++i) {
          const float scale = std::fabs(result->parameters().scales[0]);
          const float miss = std::fabs(out.data()[i] - value);
          // Half a step, and the rounding of the scale over the top code: 2^-8 of 255 steps at
          // most.
          ASSERT_LE(miss, scale * half_gap(grid) * 1.0002f + std::fabs(value) * 0x1p-8f)
              << to_string(grid) << " " << value;
          if (!grid.symmetric || method == ScaleMethod::search ||
              info(grid.format).codebook != nullptr) {
            // One code alone is met up to the rounding of the scale, and the absmax scales of
            // codebooks put the extreme on a level.
            ASSERT_LE(miss, std::fabs(value) * 0x1p-8f) << to_string(grid) << " " << value;
          }
        }
      }
    }
  }
}

TEST(GridEdges, W04ValuesThatVanishInF16AreRefusedWithTheTypesThatHoldThem) {
  const Matrix weight = test::constant_matrix(2, 3, 1e-9f);
  for (const ScaleMethod method : kMethods) {
    const auto refused = quantized(weight.view(), grid_of("int8:sym:oc:row"), method);
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::numeric);
    EXPECT_EQ(
        refused.error().message,
        "grid int8:sym:oc:row: group 0 of output channel 0 spans 0 to 9.99999972e-10 and needs "
        "the scale 7.87401553e-12, which underflows f16; use bf16 or f32 scales");
    for (const char* word : {"int8:sym:oc:row:bf16", "int8:sym:oc:row:f32"}) {
      const auto held = quantized(weight.view(), grid_of(word), method);
      ASSERT_TRUE(held.has_value());
      EXPECT_LE(test::relative_l2(values_of(*held).view(), weight.view()), 0x1p-8) << word;
    }
  }
  // A scale that is subnormal in its type but not zero is a scale.
  const auto subnormal = quantized(test::constant_matrix(1, 2, 0x1p-15f).view(),
                                   grid_of("int8:sym:oc:row"), ScaleMethod::absmax);
  ASSERT_TRUE(subnormal.has_value());
  EXPECT_EQ(subnormal->parameters().scales[0], 0x1p-22f);  // 2^-15 / 127, in steps of 2^-24
}

TEST(GridEdges, W04SubnormalWeightsWorkWithScalesOfFloatRange) {
  const Matrix weight = test::subnormal_matrix(20, 33);
  for (const char* word : {"int8:sym:oc:row:f32", "int4:sym:oc:g8:f32", "int4:asym:ic:row:f32",
                           "int8:asym:oc:row:f32"}) {
    for (const ScaleMethod method : kMethods) {
      const auto result = quantized(weight.view(), grid_of(word), method);
      ASSERT_TRUE(result.has_value()) << result.error().message;
      EXPECT_LE(test::relative_l2(values_of(*result).view(), weight.view()), 0.25) << word;
    }
  }
}

TEST(GridEdges, W05OneHugeElementDoesNotOverflowTheScaleOrTheSums) {
  Matrix weight = test::gaussian_matrix(4, 64, 3, 1e-3f);
  weight(1, 7) = 1e30f;
  for (const char* word : {"int4:sym:oc:row:f32", "int4:asym:oc:g16:f32", "int8:sym:ic:row:bf16",
                           "int2:asym:ic:row:bf16"}) {
    for (const ScaleMethod method : kMethods) {
      const auto result = quantized(weight.view(), grid_of(word), method);
      ASSERT_TRUE(result.has_value()) << result.error().message;
      const Matrix out = values_of(*result);
      EXPECT_NEAR(static_cast<double>(out(1, 7)) / 1e30, 1, 0.07) << word;
      for (const float value : out.values()) ASSERT_TRUE(std::isfinite(value));
    }
  }
  // Both ends of float at once: the range itself does not fit in a float.
  Matrix extreme = test::gaussian_matrix(1, 8);
  extreme(0, 0) = std::numeric_limits<float>::max();
  extreme(0, 1) = std::numeric_limits<float>::lowest();
  for (const char* word :
       {"int4:sym:oc:row:f32", "int4:asym:oc:row:f32", "int8:asym:oc:row:bf16"}) {
    for (const ScaleMethod method : kMethods) {
      const auto result = quantized(extreme.view(), grid_of(word), method);
      ASSERT_TRUE(result.has_value()) << result.error().message;
      for (const float scale : result->parameters().scales) ASSERT_TRUE(std::isfinite(scale));
    }
  }
}

TEST(GridEdges, W06ScalesAboveTheTypeAreRefused) {
  const Matrix weight = test::constant_matrix(2, 3, -1e7f);
  for (const ScaleMethod method : kMethods) {
    for (const char* word : {"int4:sym:oc:row", "int4:asym:ic:row"}) {
      const auto refused = quantized(weight.view(), grid_of(word), method);
      ASSERT_FALSE(refused.has_value());
      EXPECT_EQ(refused.error().code, ErrorCode::numeric);
      EXPECT_NE(refused.error().message.find("overflows f16; use bf16 or f32 scales"),
                std::string::npos)
          << refused.error().message;
    }
    EXPECT_TRUE(quantized(weight.view(), grid_of("int4:sym:oc:row:f32"), method).has_value());
  }
  // The largest f16 is still a scale; half a step above it is not.
  const auto largest = quantized(test::constant_matrix(1, 1, 65504.0f * 127).view(),
                                 grid_of("int8"), ScaleMethod::absmax);
  ASSERT_TRUE(largest.has_value());
  EXPECT_EQ(largest->parameters().scales[0], 65504.0f);
  EXPECT_FALSE(quantized(test::constant_matrix(1, 1, 65520.0f * 127).view(), grid_of("int8"),
                         ScaleMethod::absmax)
                   .has_value());
}

TEST(GridEdges, W07CodesStayInRangeAtTheEndsAndNegativeZeroIsZero) {
  // Values at the ends of the range and half a step beyond them, with a given scale of 1.
  SerialExecutor executor;
  for (const FormatInfo& format : kFormats) {
    if (format.codebook != nullptr) continue;
    const Floats x = {static_cast<float>(format.highest) + 0.5f,
                      static_cast<float>(format.highest) + 0.4375f,
                      static_cast<float>(format.highest),
                      static_cast<float>(format.lowest) - 0.5f,
                      static_cast<float>(format.lowest) - 0.4375f,
                      static_cast<float>(format.lowest),
                      1e30f,
                      -1e30f,
                      -0.0f,
                      0.5f,
                      -0.5f};
    const GridSpec grid{format.format, true, Channel::output, 0, ScaleType::f32};
    const MatrixView<const float> weight(x.data(), 1, x.size());
    const auto tensor = quantize_to_grid(weight, grid, {1, 1, {1.0f}, {}}, executor);
    ASSERT_TRUE(tensor.has_value());
    const Matrix out = values_of(*tensor);
    const auto high = static_cast<float>(format.highest);
    const auto low = static_cast<float>(format.lowest);
    EXPECT_TRUE(test::within_ulps(out.values(),
                                  Floats{high, high, high, low, low, low, high, low, 0, 0, 0}, 0));
  }
}

TEST(GridEdges, W08RangesThatExcludeZeroClampTheZeroPoint) {
  for (const float shift : {5.0f, -5.0f}) {
    Matrix weight = test::gaussian_matrix(6, 40, 2, 0.3f);
    for (float& x : weight.values()) x += shift;
    for (const char* word : {"int4:asym:oc:g8:f32", "int8:asym:oc:row", "int2:asym:ic:row"}) {
      const GridSpec grid = grid_of(word);
      const auto plain = quantized(weight.view(), grid, ScaleMethod::minmax);
      ASSERT_TRUE(plain.has_value());
      const std::uint8_t expected = shift > 0 ? 0 : code_range(grid).highest;
      for (const std::uint8_t zero : plain->parameters().zeros) ASSERT_EQ(zero, expected) << word;
      // The search may spend a code that is never used on another zero, not more error.
      const auto searched = quantized(weight.view(), grid, ScaleMethod::search);
      ASSERT_TRUE(searched.has_value());
      EXPECT_LE(test::relative_l2(values_of(*searched).view(), weight.view()),
                test::relative_l2(values_of(*plain).view(), weight.view()) * 1.00001);
    }
  }
}

TEST(GridEdges, W10ShapesThatDoNotFitTheGroupWork) {
  SerialExecutor executor;
  for (const auto& [rows, cols] :
       {std::pair<std::size_t, std::size_t>{1, 1}, {1, 7}, {7, 1}, {3, 5}, {17, 129}, {16, 8}}) {
    const Matrix weight = test::gaussian_matrix(rows, cols, rows * 100 + cols);
    for (const std::uint32_t group : {0u, 1u, 3u, 128u, 4294967295u}) {
      for (const GridSpec& grid : all_grids(group)) {
        const auto result = quantized(weight.view(), grid, ScaleMethod::absmax);
        ASSERT_TRUE(result.has_value()) << result.error().message;
        const std::size_t run = grid.per == Channel::output ? cols : rows;
        const std::size_t length = group == 0 ? run : std::min<std::size_t>(group, run);
        const std::size_t groups = (run + length - 1) / length;
        EXPECT_EQ(result->parameters().scales.size(),
                  groups * (grid.per == Channel::output ? rows : cols));
        // Half a gap inside the range; at its ends half a step more, for the half-integer divisor
        // or the rounding of the zero, and 255 times the rounding of the scale: 2^-9 of it in bf16,
        // and in f16 2^-25 when it is subnormal.
        const Matrix out = values_of(*result);
        const GroupLayout layout = group_layout(grid, rows, cols);
        for (std::size_t r = 0; r < rows; ++r) {
          for (std::size_t c = 0; c < cols; ++c) {
            const float scale = std::fabs(result->parameters().scales[layout.index(r, c)]);
            // Beyond 113 the upper end of iq4 clips as far as 127.
            const float steps = grid.format == Format::iq4 ? 14.1f : half_gap(grid) + 1.01f;
            ASSERT_LE(std::fabs(out(r, c) - weight(r, c)), scale * steps + 255 * 0x1p-25f)
                << to_string(grid);
          }
        }
      }
    }
  }
}

TEST(GridEdges, EmptyWeightsAreRefused) {
  SerialExecutor executor;
  for (const auto& [rows, cols] : {std::pair<std::size_t, std::size_t>{0, 4}, {4, 0}, {0, 0}}) {
    const Matrix weight = test::zero_matrix(rows, cols);
    const auto refused = choose_scales(MatrixView<const float>(weight.data(), rows, cols),
                                       GridSpec{}, ScaleMethod::absmax, {}, executor);
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::shape);
  }
}

}  // namespace
}  // namespace quell
