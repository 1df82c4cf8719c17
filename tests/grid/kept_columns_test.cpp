// SPDX-License-Identifier: Apache-2.0

// Input channels kept in f16 beside the codes.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "quell/core/half.hpp"
#include "quell/grid/scale.hpp"
#include "support/compare.hpp"
#include "support/matrices.hpp"

namespace quell {
namespace {

using Columns = std::vector<std::uint32_t>;

GridSpec grid_of(std::string_view word) {
  return *parse_grid(word);
}

Result<QuantizedTensor> keeping(const Matrix& weight, std::string_view word,
                                const Columns& columns) {
  SerialExecutor executor;
  return quantize_keeping(weight.view(), grid_of(word), ScaleMethod::absmax, {}, columns, executor);
}

Matrix values_of(const QuantizedTensor& tensor) {
  Matrix out = *Matrix::uninitialized(tensor.rows(), tensor.cols());
  for (std::size_t r = 0; r < tensor.rows(); ++r) tensor.dequantize_row(r, out.row(r));
  return out;
}

TEST(KeptColumns, ComeBackInF16AndSpoilNoGroup) {
  Matrix weight = test::gaussian_matrix(9, 40, 3);
  Matrix quiet = test::gaussian_matrix(9, 40, 3);
  for (std::size_t r = 0; r < 9; ++r) {
    weight(r, 7) *= 300;
    weight(r, 39) *= 100;
    quiet(r, 7) = quiet(r, 39) = 0;
  }
  SerialExecutor executor;
  for (const char* word : {"int4:sym:oc:g16", "int4:asym:oc:row", "int8:sym:ic:g4", "nf4:sym:oc:g8",
                           "int3:sym:oc:g16:f32:u4"}) {
    const auto tensor = keeping(weight, word, {7, 39});
    ASSERT_TRUE(tensor.has_value()) << tensor.error().message;
    const Matrix out = values_of(*tensor);
    const auto without = keeping(quiet, word, {});
    const Matrix expected = values_of(*without);
    for (std::size_t r = 0; r < 9; ++r) {
      for (std::size_t c = 0; c < 40; ++c) {
        const bool kept = c == 7 || c == 39;
        ASSERT_EQ(out(r, c), kept ? f16_to_float(float_to_f16(weight(r, c))) : expected(r, c))
            << word << " at " << r << ", " << c;
      }
    }
    // Two columns of 9 values of 16 bits, and two numbers of 32.
    EXPECT_DOUBLE_EQ((tensor->bits_per_weight() - without->bits_per_weight()) * 360,
                     2 * (9 * 16 + 32));
  }
}

TEST(KeptColumns, AreCheckedWhenATensorTakesThem) {
  // Codes of two rows on int4; column 1 means zero in both, column 2 in the first row only.
  const auto with = [](KeptColumns kept) {
    auto tensor = QuantizedTensor::create(grid_of("int4"), 2, 3, {0x89, 0x08, 0x8A, 0x09},
                                          {2, 1, {1.0f, 1.0f}, {}});
    EXPECT_TRUE(tensor.has_value()) << tensor.error().message;
    auto result = (*std::move(tensor)).keeping(std::move(kept));
    return result.has_value() ? std::string() : result.error().message;
  };
  const std::uint16_t one = float_to_f16(1);
  EXPECT_EQ(with({{1}, {one, one}}), "");
  EXPECT_EQ(with({}), "");
  EXPECT_NE(with({{1}, {one}}).find("1 values, expected 1 for each row"), std::string::npos);
  EXPECT_NE(with({{3}, {one, one}}).find("is 3; columns ascend and are below 3"),
            std::string::npos);
  EXPECT_NE(with({{1, 1}, {one, one, one, one}}).find("column 1 of the list is 1"),
            std::string::npos);
  EXPECT_NE(with({{2, 1}, {one, one, one, one}}), "");
  EXPECT_NE(with({{2}, {one, one}}).find("element [1, 2] is 9, which does not mean zero"),
            std::string::npos);
  for (const std::uint16_t bad :
       {std::uint16_t{0x7C00}, std::uint16_t{0xFC00}, std::uint16_t{0x7E00}}) {
    EXPECT_NE(with({{1}, {one, bad}}).find("element [1, 1] is not a finite f16"),
              std::string::npos);
  }
}

TEST(KeptColumns, AreRefusedWhereTheyCannotBe) {
  Matrix weight = test::gaussian_matrix(3, 8, 3);
  EXPECT_EQ(keeping(weight, "iq4:sym:oc:g4", {1}).error().code, ErrorCode::usage);
  EXPECT_EQ(keeping(weight, "int4", {8}).error().code, ErrorCode::shape);
  EXPECT_EQ(keeping(weight, "int4", {4, 2}).error().code, ErrorCode::shape);
  weight(1, 2) = 70000;  // above the largest f16
  EXPECT_EQ(keeping(weight, "int4", {2}).error().code, ErrorCode::numeric);
  weight(1, 2) = NAN;
  EXPECT_EQ(keeping(weight, "int4", {2}).error().code, ErrorCode::numeric);
}

}  // namespace
}  // namespace quell
