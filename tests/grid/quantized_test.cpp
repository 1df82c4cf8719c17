// SPDX-License-Identifier: Apache-2.0

#include "quell/grid/quantized.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "quell/core/random.hpp"
#include "quell/core/tensor.hpp"
#include "support/compare.hpp"

namespace quell {
namespace {

using Bytes = std::vector<std::uint8_t>;

GridSpec grid_of(std::string_view word) {
  return *parse_grid(word);
}

// The refusal of a tensor, or an empty string.
std::string refusal(std::string_view word, std::size_t rows, std::size_t cols, Bytes codes,
                    GroupParameters parameters, ErrorCode code) {
  const auto tensor =
      QuantizedTensor::create(grid_of(word), rows, cols, std::move(codes), std::move(parameters));
  if (tensor.has_value()) return {};
  EXPECT_EQ(tensor.error().code, code) << tensor.error().message;
  return tensor.error().message;
}

TEST(QuantizedTensor, DequantizesAHandComputedSymmetricMatrix) {
  // Two rows of five 4-bit codes in groups of two: the last group of a row has one element, and a
  // row ends in the middle of a byte.
  const Bytes codes = {0x80, 0x9F, 0x0C, 0x78, 0x1E, 0x08};
  const GroupParameters parameters{2, 3, {0.5f, 2.0f, -1.0f, 1.0f, 0.25f, 4.0f}, {}};
  const auto tensor = QuantizedTensor::create(grid_of("int4:sym:oc:g2"), 2, 5, codes, parameters);
  ASSERT_TRUE(tensor.has_value());
  EXPECT_EQ(tensor->row_bytes(), 3u);
  Bytes row(5);
  tensor->unpack_row(0, row);
  EXPECT_EQ(row, (Bytes{0, 8, 15, 9, 12}));
  std::vector<float> values(5);
  tensor->dequantize_row(0, values);
  EXPECT_EQ(values, (std::vector<float>{-4, 0, 14, 2, -4}));
  tensor->dequantize_row(1, values);
  EXPECT_EQ(values, (std::vector<float>{0, -1, 1.5f, -1.75f, 0}));
  // 6 bytes of codes and 6 scales of 16 bits, over 10 weights.
  EXPECT_DOUBLE_EQ(tensor->bits_per_weight(), (48 + 96) / 10.0);
}

TEST(QuantizedTensor, DequantizesAHandComputedAsymmetricMatrixPerInputChannel) {
  // Three rows, two columns, groups of two rows.
  const Bytes codes = {0x1B & 0x0F, 0x05, 0x0E};  // 2-bit codes: (3,2) (1,1) (2,3)
  const GroupParameters parameters{2, 2, {1.0f, 0.5f, 2.0f, 0.25f}, {1, 0, 3, 2}};
  const auto tensor = QuantizedTensor::create(grid_of("int2:asym:ic:g2"), 3, 2, codes, parameters);
  ASSERT_TRUE(tensor.has_value());
  Matrix out = *Matrix::zeros(3, 2);
  SerialExecutor executor;
  ASSERT_TRUE(dequantize(*tensor, out.view(), executor).has_value());
  const std::vector<float> expected = {2, 1, 0, 0.5f, -2, 0.25f};
  EXPECT_TRUE(test::same_bits(out.values(), expected));
  // 3 bytes, 4 scales of 16 bits, 4 zeros of 2 bits, over 6 weights.
  EXPECT_DOUBLE_EQ(tensor->bits_per_weight(), (24 + 64 + 8) / 6.0);
}

TEST(QuantizedTensor, DequantizeAgreesWithTheFormulaOnEveryGridAndShape) {
  const Random random(3);
  std::uint64_t next = 0;
  for (const char* word :
       {"int2:sym:oc:g7", "int3:asym:oc:g16", "int4:sym:oc:row", "int4n:asym:ic:g3",
        "int8:sym:ic:row:f32", "int8full:asym:oc:g1000:bf16", "int3:sym:ic:g5"}) {
    const GridSpec grid = grid_of(word);
    // 2,500 columns need more than one internal chunk.
    for (const auto& [rows, cols] :
         {std::pair<std::size_t, std::size_t>{1, 1}, {5, 9}, {3, 2500}}) {
      const GroupLayout layout = group_layout(grid, rows, cols);
      GroupParameters parameters{layout.rows, layout.cols, {}, {}};
      const CodeRange range = code_range(grid);
      for (std::size_t i = 0; i < layout.rows * layout.cols; ++i) {
        const auto numerator = static_cast<float>(1 + random.below(next++, 255));
        parameters.scales.push_back(numerator / 64);
        if (!grid.symmetric) {
          parameters.zeros.push_back(
              static_cast<std::uint8_t>(random.below(next++, range.highest + 1u)));
        }
      }
      Bytes codes(rows * cols), packed(rows * packed_size(cols, bits(grid.format)));
      for (auto& code : codes) {
        code = static_cast<std::uint8_t>(range.lowest +
                                         random.below(next++, range.highest - range.lowest + 1u));
      }
      const std::size_t row_bytes = packed_size(cols, bits(grid.format));
      for (std::size_t r = 0; r < rows; ++r) {
        pack_codes(std::span(codes).subspan(r * cols, cols), bits(grid.format),
                   std::span(packed).subspan(r * row_bytes, row_bytes));
      }
      const auto tensor = QuantizedTensor::create(grid, rows, cols, packed, parameters);
      ASSERT_TRUE(tensor.has_value()) << word;
      std::vector<float> values(cols);
      for (std::size_t r = 0; r < rows; ++r) {
        tensor->dequantize_row(r, values);
        for (std::size_t c = 0; c < cols; ++c) {
          // The group by the picture in spec.hpp, not by GroupLayout.
          const std::size_t run = grid.per == Channel::output ? cols : rows;
          const std::size_t group = grid.group == 0 ? run : std::size_t{grid.group};
          const std::size_t index = grid.per == Channel::output
                                        ? r * ((cols + group - 1) / group) + c / group
                                        : r / group * cols + c;
          const int zero = grid.symmetric ? 1 << (bits(grid.format) - 1) : parameters.zeros[index];
          const float expected =
              static_cast<float>(codes[r * cols + c] - zero) * parameters.scales[index];
          ASSERT_EQ(values[c], expected) << word << " at " << r << ", " << c;
        }
      }
    }
  }
}

TEST(QuantizedTensor, RefusesWrongSizesWithBothNumbers) {
  const GroupParameters good{1, 1, {1.0f}, {}};
  const auto shape = ErrorCode::shape;
  EXPECT_NE(refusal("int4", 1, 3, Bytes(3), good, shape).find("3 bytes, expected 1 rows of 2"),
            std::string::npos);
  EXPECT_NE(refusal("int4", 1, 3, Bytes(2), {1, 2, {1.0f, 1.0f}, {}}, shape)
                .find("scales [1, 2] of 2 elements, expected [1, 1]"),
            std::string::npos);
  EXPECT_NE(refusal("int4", 1, 3, Bytes(2), {1, 1, {}, {}}, shape).find("of 0 elements"),
            std::string::npos);
  EXPECT_NE(refusal("int4:asym", 1, 3, Bytes(2), good, shape).find("0 zeros, expected 1"),
            std::string::npos);
  EXPECT_NE(refusal("int4", 1, 3, Bytes(2), {1, 1, {1.0f}, {8}}, shape).find("1 zeros, expected 0"),
            std::string::npos);
  EXPECT_NE(refusal("int4", 0, 3, {}, {0, 1, {}, {}}, shape).find("no elements"),
            std::string::npos);
  // Sizes whose product does not fit are refused before anything is allocated.
  EXPECT_NE(refusal("int8", SIZE_MAX, SIZE_MAX, {}, {SIZE_MAX, 1, {}, {}}, shape), "");
}

TEST(QuantizedTensor, RefusesScalesThatBreakTheGrid) {
  const auto with_scale = [](std::string_view word, float scale) {
    return refusal(word, 1, 2, Bytes(2, 8), {1, 1, {scale}, {}}, ErrorCode::numeric);
  };
  EXPECT_NE(with_scale("int8", 0.0f).find("scale [0, 0] is 0;"), std::string::npos);
  EXPECT_NE(with_scale("int8", std::numeric_limits<float>::infinity()), "");
  EXPECT_NE(with_scale("int8", std::numeric_limits<float>::quiet_NaN()), "");
  EXPECT_NE(with_scale("int8", 0.1f).find("exact in f16"), std::string::npos);
  EXPECT_NE(with_scale("int8:sym:oc:row:bf16", 1.0f + 0x1p-10f), "");
  EXPECT_NE(with_scale("int8", -1.0f).find("positive on this grid"), std::string::npos);
  EXPECT_EQ(with_scale("int8full", -1.0f), "");
  EXPECT_EQ(with_scale("int8:sym:oc:row:f32", 0.1f), "");
  EXPECT_EQ(with_scale("int8", 0x1p-24f), "");  // the smallest f16 subnormal
}

TEST(QuantizedTensor, RefusesCodesOutsideTheFormat) {
  const GroupParameters good{1, 1, {1.0f}, {}};
  // -128 in the narrow 8-bit format, -8 in the narrow 4-bit one.
  EXPECT_NE(refusal("int8", 1, 3, {1, 0, 255}, good, ErrorCode::numeric)
                .find("element [0, 1] is -128, outside [-127, 127]"),
            std::string::npos);
  EXPECT_NE(refusal("int4n", 1, 3, {0xF1, 0x00}, good, ErrorCode::numeric)
                .find("element [0, 2] is -8, outside [-7, 7]"),
            std::string::npos);
  EXPECT_EQ(refusal("int8full", 1, 3, {1, 0, 255}, good, ErrorCode::numeric), "");
  EXPECT_NE(refusal("int2:asym", 1, 3, {0}, {1, 1, {1.0f}, {4}}, ErrorCode::numeric)
                .find("zero [0, 0] is 4, above the highest code 3"),
            std::string::npos);
}

TEST(QuantizedTensor, ClearsTheBitsAfterTheLastCodeOfARow) {
  const auto tensor = QuantizedTensor::create(grid_of("int4"), 2, 3, {0x11, 0xF1, 0x22, 0xE2},
                                              {2, 1, {1.0f, 1.0f}, {}});
  ASSERT_TRUE(tensor.has_value());
  EXPECT_EQ(Bytes(tensor->packed_codes().begin(), tensor->packed_codes().end()),
            (Bytes{0x11, 0x01, 0x22, 0x02}));
}

TEST(QuantizedTensor, DequantizeRefusesADestinationOfAnotherShape) {
  const auto tensor = QuantizedTensor::create(grid_of("int8"), 1, 2, {1, 2}, {1, 1, {1.0f}, {}});
  Matrix out = *Matrix::zeros(2, 1);
  SerialExecutor executor;
  const Status status = dequantize(*tensor, out.view(), executor);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::shape);
}

}  // namespace
}  // namespace quell
