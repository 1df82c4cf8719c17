// SPDX-License-Identifier: Apache-2.0

// What quantized layers multiply in place of their inputs: by hand, against the kernels that round,
// and in models whose modules ask for it.

#include "quell/engine/input_form.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "quell/grid/scale.hpp"
#include "quell/kernels/gemm.hpp"
#include "quell/kernels/quantize_rows.hpp"
#include "support/compare.hpp"
#include "support/matrices.hpp"

namespace quell::engine {
namespace {

Matrix formed(const InputForm& form, const Matrix& x) {
  SerialExecutor serial;
  kernels::Context context(serial);
  Matrix copy = *Matrix::uninitialized(x.rows(), x.cols());
  std::copy(x.values().begin(), x.values().end(), copy.values().begin());
  const Status done = form.apply(copy.view(), context);
  EXPECT_TRUE(done) << done.error().message;
  return copy;
}

InputForm rounded(unsigned bits, std::size_t group = 0, std::vector<std::uint32_t> kept = {}) {
  InputForm form;
  form.bits = bits;
  form.group = group;
  form.kept = std::move(kept);
  return form;
}

// The tokens of LLM.int8's example, whose third channel is the outlier: scales are 1 / 127 and
// 2 / 127, codes 64 -127 0 32 and 95 48 0 -127 (63.5 goes to the even 64).
TEST(InputForm, RoundsByHandWithoutTheKeptChannel) {
  Matrix x = *Matrix::zeros(2, 4);
  const float values[] = {0.5F, -1, 8, 0.25F, 1.5F, 0.75F, -7, -2};
  std::copy(std::begin(values), std::end(values), x.values().begin());
  const Matrix y = formed(rounded(8, 0, {2}), x);
  const int codes[] = {64, -127, 0, 32, 95, 48, 0, -127};
  for (std::size_t t = 0; t < 2; ++t) {
    const float scale = static_cast<float>(t + 1) / 127.0F;
    for (std::size_t c = 0; c < 4; ++c) {
      const float expected = c == 2 ? x(t, c) : static_cast<float>(codes[4 * t + c]) * scale;
      EXPECT_EQ(y(t, c), expected) << t << " " << c;
    }
  }
}

TEST(InputForm, FourBitsHaveFifteenLevels) {
  Matrix x = *Matrix::zeros(1, 6);
  const float values[] = {14, 1, -3, 0.9F, 7, -14};  // scale 2: codes 7, 0.5, -1.5, 0.45, 3.5, -7
  std::copy(std::begin(values), std::end(values), x.values().begin());
  const Matrix whole = formed(rounded(4), x);
  const float expected[] = {14, 0, -4, 0, 8, -14};
  for (std::size_t c = 0; c < 6; ++c) EXPECT_EQ(whole(0, c), expected[c]) << c;
  // Groups of four: of the second, 7 and -14, the scale is the same, so its values are.
  const Matrix groups = formed(rounded(4, 4), x);
  for (std::size_t c = 0; c < 6; ++c) EXPECT_EQ(groups(0, c), expected[c]) << c;
  // Groups of two have scales 2, 3 / 7 and 2.
  const Matrix pairs = formed(rounded(4, 2), x);
  EXPECT_EQ(pairs(0, 2), -7.0F * (3.0F / 7.0F));
  EXPECT_EQ(pairs(0, 3), 2.0F * (3.0F / 7.0F));
}

TEST(InputForm, OfEightBitsIsWhatTheKernelRounds) {
  SerialExecutor serial;
  std::vector<test::NamedMatrix> cases = test::ordinary_matrices(9, 131);
  cases.push_back({"subnormal", test::subnormal_matrix(9, 131)});
  cases.push_back({"huge", test::gaussian_matrix(9, 131, 3, 1e37F)});
  cases.push_back({"tiny", test::gaussian_matrix(9, 131, 3, 1e-33F)});
  for (const test::NamedMatrix& each : cases) {
    SCOPED_TRACE(each.name);
    std::vector<std::int8_t> codes(each.matrix.size());
    std::vector<float> scales(each.matrix.rows());
    ASSERT_TRUE(kernels::quantize_rows(each.matrix.view(), {codes.data(), 9, 131}, scales, serial));
    const Matrix y = formed(rounded(8), each.matrix);
    for (std::size_t i = 0; i < y.size(); ++i) {
      ASSERT_EQ(y.data()[i], static_cast<float>(codes[i]) * scales[i / 131]) << i;
    }
  }
}

TEST(InputForm, ATokenThatIsNotFiniteBecomesNothingElse) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), INFINITY, -INFINITY}) {
    Matrix x = test::gaussian_matrix(3, 20);
    x(1, 7) = bad;
    for (const unsigned bits : {4u, 8u}) {
      const Matrix y = formed(rounded(bits), x);
      for (std::size_t c = 0; c < 20; ++c) {
        EXPECT_TRUE(std::isfinite(y(0, c)) && std::isfinite(y(2, c)));
        EXPECT_TRUE(std::isnan(y(1, c)));
      }
    }
  }
  EXPECT_TRUE(test::same_bits(formed(rounded(8), test::zero_matrix(2, 5)).values(),
                              test::zero_matrix(2, 5).values()));
}

// With the product of dequantized weights it differs from the integer kernel by float32 sums alone:
// IC additions and as many products, each within 2^-24 of the sum of magnitudes.
TEST(InputForm, GivesTheProductsOfTheIntegerKernels) {
  SerialExecutor serial;
  kernels::Context context(serial);
  constexpr std::size_t kTokens = 5, kRows = 40, kInputs = 96;
  const Matrix w = test::student_matrix(kRows, kInputs, 4);
  const Matrix x = test::outlier_column_matrix(kTokens, kInputs, 17, 60.0F);
  for (const char* word : {"int8:sym:oc:row", "int4:sym:oc:g32", "int4:asym:oc:g32"}) {
    for (const bool keeps : {false, true}) {
      SCOPED_TRACE(std::string(word) + (keeps ? " keeps" : ""));
      const GridSpec grid = *parse_grid(word);
      Matrix rest = *Matrix::uninitialized(kRows, kInputs);
      std::copy(w.values().begin(), w.values().end(), rest.values().begin());
      KeptColumns kept;
      if (keeps) {
        kept.columns = {17};
        for (std::size_t r = 0; r < kRows; ++r) {
          kept.values.push_back(float_to_f16(w(r, 17)));
          rest(r, 17) = 0;
        }
      }
      auto scales = choose_scales(rest.view(), grid, ScaleMethod::absmax, {}, serial);
      auto codes = quantize_to_grid(rest.view(), grid, *std::move(scales), serial);
      auto tensor = std::move(*codes).keeping(kept);
      ASSERT_TRUE(tensor.has_value()) << tensor.error().message;
      const auto packed = kernels::pack(*tensor, kernels::Activations::int8, serial);
      ASSERT_TRUE(packed.has_value()) << packed.error().message;
      Matrix fast = *Matrix::zeros(kTokens, kRows), slow = *Matrix::zeros(kTokens, kRows);
      ASSERT_TRUE(kernels::gemm(x.view(), *packed, fast.view(), context));
      Matrix values = *Matrix::uninitialized(kRows, kInputs);
      ASSERT_TRUE(dequantize(*tensor, values.view(), serial));
      const Matrix input = formed(rounded(8, 0, kept.columns), x);
      const auto floats = kernels::pack(values.view(), serial);
      ASSERT_TRUE(kernels::gemm(input.view(), *floats, slow.view(), context));
      for (std::size_t t = 0; t < kTokens; ++t) {
        for (std::size_t r = 0; r < kRows; ++r) {
          double sizes = 0;
          for (std::size_t c = 0; c < kInputs; ++c) {
            sizes += std::abs(static_cast<double>(input(t, c)) * static_cast<double>(values(r, c)));
          }
          EXPECT_NEAR(static_cast<double>(fast(t, r)), static_cast<double>(slow(t, r)),
                      2 * kInputs * 0x1p-24 * sizes);
        }
      }
    }
  }
}

TEST(Rotation, KeepsProductsAndMoments) {
  SerialExecutor serial;
  kernels::Context context(serial);
  for (const std::size_t channels : {std::size_t{256}, std::size_t{352}, std::size_t{12}}) {
    SCOPED_TRACE(channels);
    const std::size_t block = Rotation::block_of(channels);
    const auto rotation = Rotation::create(channels, block, 7);
    ASSERT_TRUE(rotation.has_value()) << rotation.error().message;
    Matrix x = test::student_matrix(20, channels, 4), w = test::gaussian_matrix(6, channels, 2);
    const auto product = [&](const Matrix& a, const Matrix& b) {
      Matrix y = *Matrix::zeros(a.rows(), b.rows());
      EXPECT_TRUE(kernels::gemm_dense({{a.view()}, {b.view()}, y.view()}, context));
      return y;
    };
    const auto moment = [&](const Matrix& a) {
      Matrix m = *Matrix::zeros(channels, channels);
      EXPECT_TRUE(kernels::gemm_dense({{a.view(), true}, {a.view(), true}, m.view()}, context));
      return m;
    };
    const Matrix before = product(x, w);
    Matrix h = moment(x);
    ASSERT_TRUE(rotation->apply(x.view(), context));
    ASSERT_TRUE(rotation->apply(w.view(), context));
    ASSERT_TRUE(rotation->apply_to_moment(h.view(), true, context));
    // Both ways of float32 sums over up to 352 terms; 1e-5 of the largest is ten times that.
    EXPECT_LT(test::relative_l2(product(x, w).view(), before.view()), 1e-5);
    EXPECT_LT(test::relative_l2(h.view(), moment(x).view()), 1e-5);
    for (std::size_t i = 0; i < channels; ++i) {
      EXPECT_GE(h(i, i), 0.0F);
      for (std::size_t j = 0; j < i; ++j) ASSERT_EQ(h(i, j), h(j, i));
    }
  }
}

TEST(Rotation, SpreadsAnOutlierOverItsBlock) {
  SerialExecutor serial;
  kernels::Context context(serial);
  Matrix x = *Matrix::zeros(1, 256);
  x(0, 130) = 64;
  const auto rotation = Rotation::create(256, Rotation::block_of(256), 0);
  ASSERT_TRUE(rotation->apply(x.view(), context));
  for (std::size_t c = 0; c < 256; ++c) {
    // 64 / sqrt(128), the square root and the quotient rounded.
    EXPECT_NEAR(std::abs(x(0, c)), c < 128 ? 0.0F : 5.656854F, 1e-5F) << c;
  }
}

TEST(Rotation, ChoosesBlocksThatHaveATransform) {
  EXPECT_EQ(Rotation::block_of(4096), 128u);
  EXPECT_EQ(Rotation::block_of(128), 128u);
  EXPECT_EQ(Rotation::block_of(352), 352u);  // 44 * 8
  EXPECT_EQ(Rotation::block_of(344), 344u);  // 172 * 2
  EXPECT_EQ(Rotation::block_of(96), 96u);    // 12 * 8
  EXPECT_EQ(Rotation::block_of(46), 2u);     // 23 * 2
  EXPECT_EQ(Rotation::block_of(23), 1u);
}

TEST(Rotation, RefusesBlocksThatDoNotFit) {
  for (const auto& [channels, block] :
       {std::pair<std::size_t, std::size_t>{100, 8}, {46, 46}, {64, 0}}) {
    const auto rotation = Rotation::create(channels, block, 0);
    ASSERT_FALSE(rotation.has_value());
    EXPECT_EQ(rotation.error().code, ErrorCode::shape);
  }
  SerialExecutor serial;
  kernels::Context context(serial);
  Matrix x = *Matrix::zeros(2, 64);
  const auto rotation = Rotation::create(128, 128, 0);
  EXPECT_FALSE(rotation->apply(x.view(), context));
}

}  // namespace
}  // namespace quell::engine
