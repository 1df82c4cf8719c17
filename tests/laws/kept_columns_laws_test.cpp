// SPDX-License-Identifier: Apache-2.0

// Laws of the family kept_columns: every entry gives the bits of the scalar one from memory between
// guard pages; and what kept columns are for, a channel of x that is a thousand times the others,
// costs the others nothing.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/kept_columns/contract.hpp"
#include "quell/core/half.hpp"
#include "quell/core/tensor.hpp"
#include "quell/grid/scale.hpp"
#include "quell/kernels/gemm.hpp"
#include "support/guarded.hpp"
#include "support/same_bits.hpp"

namespace quell::kernels {
namespace {

using test::Edge;
using test::Guarded;
using test::Numbers;
using test::same_bits;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class KeptColumnsEntry : public testing::TestWithParam<const kept_columns::Entry*> {};
INSTANTIATE_TEST_SUITE_P(kept_columns, KeptColumnsEntry,
                         testing::ValuesIn(kept_columns::table().begin(),
                                           kept_columns::table().end()),
                         [](const auto& entry) {
                           return std::string(to_string(entry.param->isa));
                         });

TEST_P(KeptColumnsEntry, GivesTheBitsOfTheSpecification) {
  if (!has(GetParam()->isa)) GTEST_SKIP() << "this machine has no " << to_string(GetParam()->isa);
  Numbers numbers(1);
  for (std::size_t rows = 1; rows <= 40; ++rows) {
    for (const std::size_t kept : {1, 2, 3, 17, 64}) {
      // Lines of 64 bytes keep their alignment at either end of a page.
      const Edge edge = (rows + kept) % 2 == 0 ? Edge::front : Edge::back;
      Guarded<float> x(rows * kept, edge), y(rows * 32, edge), expected(rows * 32, edge);
      Guarded<std::uint16_t> values(kept * 32, edge);
      numbers.fill(x.span(), 1000);
      for (std::uint16_t& value : values) value = float_to_f16(numbers.bell());
      values[values.size() / 2] = 0x0001;                 // the least subnormal
      if (kept == 3) values[values.size() / 3] = 0xFC00;  // -infinity
      if (rows % 5 == 0) x[x.size() / 2] = kInfinity;
      if (rows % 7 == 0) x[x.size() / 3] = -0.0F;
      for (float& value : expected) value = numbers.bell();
      std::copy(expected.begin(), expected.end(), y.begin());
      scalar::kept_columns_entry.add(x.data(), rows, values.data(), kept, expected.data());
      GetParam()->add(x.data(), rows, values.data(), kept, y.data());
      ASSERT_TRUE(same_bits(y.span(), expected.span())) << "rows " << rows << " kept " << kept;
    }
  }
}

TEST(KeptColumnsScalar, IsTheSumOfTheContract) {
  alignas(64) std::uint16_t values[64] = {};
  alignas(64) float y[64] = {};
  values[1] = float_to_f16(2);
  values[32 + 1] = float_to_f16(-0.5F);
  const float x[] = {3, 8, 10, -4};
  y[1] = 100;
  scalar::kept_columns_entry.add(x, 2, values, 2, y);
  EXPECT_EQ(y[1], 102);      // 100 + 3 * 2 - 8 * 0.5
  EXPECT_EQ(y[32 + 1], 22);  // 10 * 2 + 4 * 0.5
  EXPECT_EQ(y[0], 0);
  // Channels ascend and each product is fused: 2^24 takes 1 in only when 2^24 is off again.
  values[1] = values[32 + 1] = float_to_f16(1);
  y[1] = -0x1p24F;
  const float large[] = {0x1p24F, 1};
  scalar::kept_columns_entry.add(large, 1, values, 2, y);
  EXPECT_EQ(y[1], 1);
  const float other[] = {1, 0x1p24F};
  y[1] = -0x1p24F - 2;
  scalar::kept_columns_entry.add(other, 1, values, 2, y);
  EXPECT_EQ(y[1], 0);  // -2^24 - 2 + 1 is halfway, and even is -2^24
}

// With int8 activations each of a token's values moves by at most half a step of its own range. A
// channel a thousand times the others makes that range its own; kept, it leaves the others theirs.
TEST(KeptColumnsProduct, LeavesTheInt8RangeToTheOtherChannels) {
  SerialExecutor executor;
  Context context(executor);
  const std::size_t oc = 70, ic = 256, tokens = 14;
  Matrix weight = *Matrix::uninitialized(oc, ic);
  Matrix x = *Matrix::uninitialized(tokens, ic);
  Matrix y = *Matrix::uninitialized(tokens, oc);
  Numbers numbers(3);
  numbers.fill(weight.values());
  numbers.fill(x.values());
  const std::vector<std::uint32_t> loud = {41, 200};
  for (std::size_t t = 0; t < tokens; ++t) {
    for (const std::uint32_t c : loud) x(t, c) *= 1000;
  }
  for (const char* word :
       {"int4:sym:oc:g32", "int4:asym:oc:g128", "int8:asym:oc:row", "int4:asym:ic:g32"}) {
    double lost = 0, most = 0;  // ratios of errors to what the quiet channels alone may cost
    for (const bool keep : {true, false}) {
      const std::vector<std::uint32_t> columns = keep ? loud : std::vector<std::uint32_t>();
      const auto codes = quantize_keeping(weight.view(), *parse_grid(word), ScaleMethod::absmax, {},
                                          columns, executor);
      ASSERT_TRUE(codes) << codes.error().message;
      const auto packed = pack(*codes, Activations::int8, executor);
      ASSERT_TRUE(packed) << packed.error().message;
      EXPECT_EQ(packed->kernel().find("kept_columns") != std::string::npos, keep);
      ASSERT_TRUE(gemm(x.view(), *packed, y.view(), context));
      const GroupLayout layout = group_layout(codes->grid(), oc, ic);
      const bool scaled = layout.per == Channel::input;
      std::vector<float> row(ic);
      for (std::size_t o = 0; o < oc; ++o) {
        codes->dequantize_row(o, row);
        for (std::size_t t = 0; t < tokens; ++t) {
          double exact = 0, range = 0, moved = 0, magnitudes = 0;
          for (std::size_t c = 0; c < ic; ++c) {
            const double v = static_cast<double>(x(t, c)), w = static_cast<double>(row[c]);
            exact += v * w;
            magnitudes += std::fabs(v * w);
            if (std::count(loud.begin(), loud.end(), c) != 0) continue;
            // Groups down the input channels: what is rounded is x times their scales.
            const double s =
                scaled ? static_cast<double>(codes->parameters().scales[layout.index(o, c)]) : 1;
            range = std::max(range, std::fabs(v) * s);
            moved += std::fabs(w) / s;
          }
          // Half a step, and the roundings of float32: a few for each group and kept column.
          const double bound = 0.5001 * range / 127 * moved + 40 * 0x1p-24 * magnitudes;
          const double ratio = std::fabs(static_cast<double>(y(t, o)) - exact) / bound;
          if (keep) {
            ASSERT_LE(ratio, 1) << word << " " << o << " " << t;
          }
          double& worst = keep ? most : lost;
          worst = std::max(worst, ratio);
        }
      }
    }
    EXPECT_GT(most, 0.01) << word << ": the bound says nothing";
    EXPECT_GT(lost, 10) << word << ": without kept columns the range is lost";
  }
}

// An infinity in a kept channel is multiplied with kept weights and nothing else: with int8
// activations it does not make the token's scale NaN.
TEST(KeptColumnsProduct, ConfinesAnInfinityToItsColumn) {
  SerialExecutor executor;
  Context context(executor);
  Matrix weight = *Matrix::zeros(33, 64);
  for (std::size_t o = 0; o < 33; ++o) {
    weight(o, 1) = 1;
    weight(o, 7) = o % 2 == 0 ? 2.0F : -2.0F;
  }
  const std::vector<std::uint32_t> columns = {7};
  const auto codes = quantize_keeping(weight.view(), *parse_grid("int8:asym:oc:row"),
                                      ScaleMethod::absmax, {}, columns, executor);
  ASSERT_TRUE(codes);
  for (const Activations activations : {Activations::f32, Activations::int8}) {
    const auto packed = pack(*codes, activations, executor);
    ASSERT_TRUE(packed);
    std::vector<float> x(64, 1), y(33);
    x[7] = kInfinity;
    ASSERT_TRUE(gemm({x.data(), 1, 64}, *packed, {y.data(), 1, 33}, context));
    for (std::size_t o = 0; o < 33; ++o) {
      EXPECT_EQ(y[o], o % 2 == 0 ? kInfinity : -kInfinity) << o;
    }
  }
}

}  // namespace
}  // namespace quell::kernels
