// SPDX-License-Identifier: Apache-2.0

#include "quell/grid/scale.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "support/compare.hpp"
#include "support/matrices.hpp"

namespace quell {
namespace {

using Bytes = std::vector<std::uint8_t>;
using Floats = std::vector<float>;

GridSpec grid_of(std::string_view word) {
  return *parse_grid(word);
}

struct Row {
  GroupParameters parameters;
  Bytes codes;
  Floats values;
};

// One row quantized with scales chosen by `method`.
Row quantize_row(std::string_view word, const Floats& row, ScaleMethod method) {
  SerialExecutor executor;
  const MatrixView<const float> weight(row.data(), 1, row.size());
  const GridSpec grid = grid_of(word);
  auto parameters = choose_scales(weight, grid, method, {}, executor);
  EXPECT_TRUE(parameters.has_value()) << parameters.error().message;
  auto tensor = quantize_to_grid(weight, grid, *parameters, executor);
  EXPECT_TRUE(tensor.has_value()) << tensor.error().message;
  Row result{*parameters, Bytes(row.size()), Floats(row.size())};
  tensor->unpack_row(0, result.codes);
  tensor->dequantize_row(0, result.values);
  return result;
}

TEST(AbsmaxScale, SpreadsTheMaximumOverHalfTheSteps) {
  // 1 / 7.5; +1 is clipped to 7 steps, -0.5 lies at -3.75.
  const Row row = quantize_row("int4:sym:oc:row:f32", {1.0f, -0.5f}, ScaleMethod::absmax);
  EXPECT_EQ(row.parameters.scales, Floats{1.0f / 7.5f});
  EXPECT_EQ(row.codes, (Bytes{15, 4}));
  EXPECT_FLOAT_EQ(row.values[0], 0.9333333f);
  EXPECT_FLOAT_EQ(row.values[1], -0.5333333f);
}

TEST(AbsmaxScale, UsesTheDivisorOfEachFormat) {
  const std::pair<const char*, float> cases[] = {{"int2", 1.5f},   {"int3", 3.5f},
                                                 {"int4", 7.5f},   {"int4n", 7.0f},
                                                 {"int8", 127.0f}, {"int8full", 127.5f}};
  for (const auto& [format, divisor] : cases) {
    const Row row =
        quantize_row(std::string(format) + ":sym:oc:row:f32", {0.25f, -0.75f}, ScaleMethod::absmax);
    EXPECT_EQ(row.parameters.scales[0], 0.75f / divisor) << format;
  }
}

TEST(AbsmaxScale, IsRoundedToItsTypeBeforeCodesAreChosen) {
  const Row half = quantize_row("int8:sym:oc:row", {1.0f, 0.3f}, ScaleMethod::absmax);
  EXPECT_EQ(half.parameters.scales[0], f16_to_float(float_to_f16(1.0f / 127)));
  const Row brain = quantize_row("int8:sym:oc:row:bf16", {1.0f, 0.3f}, ScaleMethod::absmax);
  EXPECT_EQ(brain.parameters.scales[0], bf16_to_float(float_to_bf16(1.0f / 127)));
  for (const Row& row : {half, brain}) {
    const float steps = 0.3f / row.parameters.scales[0];
    EXPECT_EQ(row.codes[1], 128 + static_cast<int>(std::nearbyint(steps)));
  }
}

TEST(MinmaxScale, SpansTheRangeWithZeroInside) {
  // lo = -1, hi = 2: scale 3 / 15 = 0.2, zero = 5.
  const Row row =
      quantize_row("int4:asym:oc:row:f32", {-1.0f, 2.0f, 0.0f, 0.5f}, ScaleMethod::minmax);
  EXPECT_EQ(row.parameters.scales, Floats{0.2f});
  EXPECT_EQ(row.parameters.zeros, Bytes{5});
  EXPECT_EQ(row.codes, (Bytes{0, 15, 5, 7}));  // 0.5 / 0.2 = 2.5 goes to 2
  EXPECT_EQ(row.values[2], 0.0f);
}

TEST(MinmaxScale, KeepsZeroInARangeThatExcludesIt) {
  const Row positive = quantize_row("int4:asym:oc:row:f32", {3.0f, 1.5f}, ScaleMethod::minmax);
  EXPECT_EQ(positive.parameters.zeros, Bytes{0});
  EXPECT_EQ(positive.values[0], 3.0f);
  const Row negative = quantize_row("int4:asym:oc:row:f32", {-3.0f, -1.5f}, ScaleMethod::minmax);
  EXPECT_EQ(negative.parameters.zeros, Bytes{15});
  EXPECT_EQ(negative.values[0], -3.0f);
}

TEST(Rounding, TiesGoToTheEvenCode) {
  // Scale 1 by an absmax of 127; the ties below are exact.
  const Row row = quantize_row("int8", {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f},
                               ScaleMethod::absmax);
  EXPECT_EQ(row.values, (Floats{127, 0, 2, 2, 0, -2, -2, 126}));
}

TEST(Rounding, DividesInsteadOfMultiplyingByAReciprocal) {
  // The true quotient by any scale; a product with 1 / scale differs from it in about a tenth of
  // the cases, and at ties that changes codes.
  const Matrix weight = test::gaussian_matrix(8, 512, 9);
  SerialExecutor executor;
  const GridSpec grid = grid_of("int4:sym:oc:g64:f32");
  const auto parameters = choose_scales(weight.view(), grid, ScaleMethod::absmax, {}, executor);
  const auto tensor = quantize_to_grid(weight.view(), grid, *parameters, executor);
  Bytes codes(512);
  for (std::size_t r = 0; r < 8; ++r) {
    tensor->unpack_row(r, codes);
    for (std::size_t c = 0; c < 512; ++c) {
      const float scale = parameters->scales[r * 8 + c / 64];
      const float steps = std::nearbyint(weight(r, c) / scale);
      ASSERT_EQ(codes[c], static_cast<int>(std::fmin(std::fmax(steps, -8.0f), 7.0f)) + 8);
    }
  }
}

TEST(Rounding, StripsGiveTheCodesOfWholeMatrices) {
  const Matrix weight = test::student_matrix(16, 100, 4, 5);
  SerialExecutor executor;
  for (const char* word : {"int4:sym:oc:row", "int3:asym:oc:row", "int8:sym:oc:row:f32",
                           "nf4:sym:oc:row", "iq4:sym:oc:row:f32"}) {
    const GridSpec grid = grid_of(word);
    const auto parameters = choose_scales(weight.view(), grid, ScaleMethod::search, {}, executor);
    const auto tensor = quantize_to_grid(weight.view(), grid, *parameters, executor);
    Floats strip(100 * kStripLanes), values(100 * kStripLanes);
    for (std::size_t r = 0; r < 16; ++r) {
      for (std::size_t c = 0; c < 100; ++c) strip[c * 16 + r] = weight(r, c);
    }
    Bytes zeros = parameters->zeros;
    if (grid.symmetric) zeros.assign(16, symmetric_zero(grid.format));
    Bytes codes(100 * kStripLanes);
    round_strip(grid, strip.data(), 100, parameters->scales.data(), zeros.data(), codes.data(),
                values.data());
    Bytes row(100);
    Floats row_values(100);
    for (std::size_t r = 0; r < 16; ++r) {
      tensor->unpack_row(r, row);
      tensor->dequantize_row(r, row_values);
      for (std::size_t c = 0; c < 100; ++c) {
        ASSERT_EQ(codes[c * 16 + r], row[c]) << word;
        ASSERT_EQ(values[c * 16 + r], row_values[c]) << word;
      }
    }
  }
}

TEST(Groups, RaggedEndsHaveTheirOwnScales) {
  // Five elements in groups of two; each group has its own maximum.
  const Row row = quantize_row("int4n:sym:oc:g2:f32", {7, 1, 14, -2, 21}, ScaleMethod::absmax);
  EXPECT_EQ(row.parameters.rows, 1u);
  EXPECT_EQ(row.parameters.cols, 3u);
  EXPECT_EQ(row.parameters.scales, (Floats{1, 2, 3}));
  EXPECT_EQ(row.values, (Floats{7, 1, 14, -2, 21}));
}

TEST(Groups, PerInputChannelIsPerOutputChannelOfTheTranspose) {
  const Matrix weight = test::gaussian_matrix(37, 21, 8);
  Matrix transposed = *Matrix::zeros(21, 37);
  for (std::size_t r = 0; r < 37; ++r) {
    for (std::size_t c = 0; c < 21; ++c) transposed(c, r) = weight(r, c);
  }
  SerialExecutor executor;
  for (const char* rest : {"g8", "g16:f32", "row"}) {
    for (const char* start : {"int4:sym:", "int3:asym:", "iq4:sym:"}) {
      for (const ScaleMethod method :
           {ScaleMethod::absmax, ScaleMethod::minmax, ScaleMethod::search}) {
        const GridSpec per_input = grid_of(std::string(start) + "ic:" + rest);
        const GridSpec per_output = grid_of(std::string(start) + "oc:" + rest);
        const auto a = choose_scales(weight.view(), per_input, method, {}, executor);
        const auto b = choose_scales(transposed.view(), per_output, method, {}, executor);
        const auto qa = quantize_to_grid(weight.view(), per_input, *a, executor);
        const auto qb = quantize_to_grid(transposed.view(), per_output, *b, executor);
        Floats va(21), vb(37);
        for (std::size_t r = 0; r < 37; ++r) {
          qa->dequantize_row(r, va);
          for (std::size_t c = 0; c < 21; ++c) {
            qb->dequantize_row(c, vb);
            ASSERT_EQ(va[c], vb[r]) << start << rest;
          }
        }
      }
    }
  }
}

TEST(Groups, ViewsWithGapsGiveTheSameAsCopies) {
  const Matrix wide = test::gaussian_matrix(20, 50, 4);
  const MatrixView<const float> part = wide.view().block(2, 5, 17, 33);
  Matrix copy = *Matrix::zeros(17, 33);
  for (std::size_t r = 0; r < 17; ++r) {
    for (std::size_t c = 0; c < 33; ++c) copy(r, c) = part(r, c);
  }
  SerialExecutor executor;
  for (const char* word : {"int4:sym:oc:g8", "int4:asym:ic:g8"}) {
    const GridSpec grid = grid_of(word);
    const auto a = choose_scales(part, grid, ScaleMethod::search, {}, executor);
    const auto b = choose_scales(copy.view(), grid, ScaleMethod::search, {}, executor);
    EXPECT_EQ(a->scales, b->scales);
    const auto qa = quantize_to_grid(part, grid, *a, executor);
    const auto qb = quantize_to_grid(copy.view(), grid, *b, executor);
    EXPECT_TRUE(std::equal(qa->packed_codes().begin(), qa->packed_codes().end(),
                           qb->packed_codes().begin(), qb->packed_codes().end()));
  }
}

TEST(ChooseScales, RefusesImportanceOfAnotherLengthOrSign) {
  const Matrix weight = test::gaussian_matrix(2, 4);
  SerialExecutor executor;
  const auto refused = [&](const Floats& importance) {
    const auto result =
        choose_scales(weight.view(), GridSpec{}, ScaleMethod::search, importance, executor);
    return result.has_value() ? std::string() : result.error().message;
  };
  EXPECT_NE(refused({1, 1, 1}).find("3 elements, the weight has 4"), std::string::npos);
  EXPECT_NE(refused({1, 1, -1, 1}).find("input channel 2 is -1"), std::string::npos);
  EXPECT_NE(refused({1, NAN, 1, 1}).find("input channel 1"), std::string::npos);
  EXPECT_EQ(refused({0, 0, 0, 0}), "");
}

}  // namespace
}  // namespace quell
