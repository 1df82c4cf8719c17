// SPDX-License-Identifier: Apache-2.0

// The products with packed weights where hosts go wrong: nothing to multiply, memory at odd places,
// values at the ends of their range, many threads at once. The names are those of the reliability
// catalogue.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/kernels/gemm.hpp"
#include "quell/kernels/isa.hpp"
#include "support/matrices.hpp"
#include "support/quantized.hpp"
#include "support/same_bits.hpp"

namespace quell::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Product {
  const char* grid;  // or f32, f16, bf16
  Activations activations;
};
constexpr Product kProducts[] = {
    {"f32", Activations::f32},
    {"f16", Activations::f32},
    {"bf16", Activations::f32},
    {"int4:sym:oc:g32", Activations::f32},
    {"nf4:sym:oc:g32", Activations::f32},
    {"int8:asym:ic:g32", Activations::f32},
    {"int4:sym:oc:g32", Activations::int8},
    {"int4:asym:oc:row", Activations::int8},
    {"int8:sym:oc:row", Activations::int8},
    {"int4:sym:ic:g32", Activations::int8},
    {"int4:sym:oc:g32:u4", Activations::int8},
    {"iq4:sym:oc:g32", Activations::int8},
    {"int4:sym:oc:g32", Activations::bf16},
};

std::string name_of(const Product& product) {
  return std::string(product.grid) + (product.activations == Activations::int8   ? " int8"
                                      : product.activations == Activations::bf16 ? " bf16"
                                                                                 : " f32");
}

PackedWeights packed(const Product& product, std::size_t oc, std::size_t ic) {
  SerialExecutor executor;
  const auto grid = parse_grid(product.grid);
  const auto finished = [](Result<PackedWeights> result) {
    if (!result) panic(result.error().message.c_str());
    return *std::move(result);
  };
  if (grid) {
    return finished(pack(test::random_quantized(*grid, oc, ic, 5), product.activations, executor));
  }
  std::vector<float> weight(oc * ic);
  test::Numbers numbers(3);
  for (float& value : weight) value = numbers.bell();
  const DType type = std::strcmp(product.grid, "f16") == 0    ? DType::f16
                     : std::strcmp(product.grid, "bf16") == 0 ? DType::bf16
                                                              : DType::f32;
  return finished(pack({weight.data(), oc, ic}, type, executor));
}

std::vector<float> multiplied(MatrixView<const float> x, const PackedWeights& weight) {
  SerialExecutor executor;
  Context context(executor);
  std::vector<float> y(x.rows() * weight.rows(), -77.0F);
  const Status done = gemm(x, weight, {y.data(), x.rows(), weight.rows()}, context);
  if (!done) panic(done.error().message.c_str());
  return y;
}

TEST(K01, NothingToMultiplyIsNoError) {
  SerialExecutor executor;
  Context context(executor);
  for (const Product& product : kProducts) {
    const PackedWeights weight = packed(product, 40, 64);
    float untouched = 5;
    EXPECT_TRUE(gemm({nullptr, 0, 64}, weight, {&untouched, 0, 40}, context)) << name_of(product);
    EXPECT_EQ(untouched, 5);
  }
  // Without output channels, without input channels, and without both.
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    const float none[4] = {};
    auto of_none = pack({none, 0, 4}, type, executor);
    ASSERT_TRUE(of_none) << of_none.error().message;
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, y[6] = {9, 9, 9, 9, 9, 9};
    EXPECT_TRUE(gemm({x, 2, 4}, *of_none, {y, 2, 0}, context));
    EXPECT_EQ(y[0], 9);
    auto of_no_depth = pack({none, 3, 0}, type, executor);
    ASSERT_TRUE(of_no_depth) << of_no_depth.error().message;
    EXPECT_TRUE(gemm({x, 2, 0}, *of_no_depth, {y, 2, 3}, context));
    for (const float value : y) EXPECT_EQ(value, 0);
    auto nothing = pack({none, 0, 0}, type, executor);
    ASSERT_TRUE(nothing) << nothing.error().message;
    EXPECT_TRUE(gemm({x, 0, 0}, *nothing, {y, 0, 0}, context));
  }
}

TEST(K03, FloatsAtAnyPlaceAndRowsFarApartGiveTheSameBits) {
  constexpr std::size_t kOc = 37, kIc = 67, kTokens = 5;
  test::Numbers numbers(1);
  std::vector<float> x(kTokens * kIc);
  for (float& value : x) value = numbers.bell();
  for (const Product& product : kProducts) {
    const PackedWeights weight = packed(product, kOc, kIc);
    const std::vector<float> expected = multiplied({x.data(), kTokens, kIc}, weight);
    SerialExecutor executor;
    Context context(executor);
    for (std::size_t offset = 0; offset < 16; ++offset) {
      const std::size_t x_stride = kIc + offset % 5, y_stride = kOc + offset % 7;
      alignas(64) static float memory[2][2048];
      float* from = memory[0] + offset;
      float* to = memory[1] + (offset * 5) % 16;
      std::fill_n(memory[1], 2048, -77.0F);
      for (std::size_t t = 0; t < kTokens; ++t) {
        std::copy_n(x.data() + t * kIc, kIc, from + t * x_stride);
      }
      ASSERT_TRUE(
          gemm({from, kTokens, kIc, x_stride}, weight, {to, kTokens, kOc, y_stride}, context));
      for (std::size_t t = 0; t < kTokens; ++t) {
        ASSERT_TRUE(test::same_bits(std::span<const float>(to + t * y_stride, kOc),
                                    std::span<const float>(expected.data() + t * kOc, kOc)))
            << name_of(product) << " offset " << offset << " token " << t;
        for (std::size_t i = kOc; i < y_stride; ++i) ASSERT_EQ(to[t * y_stride + i], -77.0F);
      }
    }
  }
}

TEST(K05, ABadActivationSpoilsItsTokenAndNoOther) {
  constexpr std::size_t kOc = 33, kIc = 64;
  test::Numbers numbers(2);
  std::vector<float> x(3 * kIc);
  for (float& value : x) value = numbers.bell();
  for (const Product& product : kProducts) {
    const PackedWeights weight = packed(product, kOc, kIc);
    const std::vector<float> good = multiplied({x.data(), 3, kIc}, weight);
    for (const float bad : {kNaN, kInfinity, -kInfinity}) {
      std::vector<float> spoiled = x;
      spoiled[kIc + 11] = bad;
      const std::vector<float> y = multiplied({spoiled.data(), 3, kIc}, weight);
      for (std::size_t o = 0; o < kOc; ++o) {
        ASSERT_FALSE(std::isfinite(y[kOc + o])) << name_of(product) << " " << bad;
        ASSERT_EQ(y[o], good[o]) << name_of(product);
        ASSERT_EQ(y[2 * kOc + o], good[2 * kOc + o]) << name_of(product);
      }
    }
  }
}

/// The same product in double, from the weight that a unit vector a channel shows.
TEST(K05, ExtremesOfActivationsStayWithinTheirRounding) {
  constexpr std::size_t kOc = 33, kIc = 64;
  for (const Product& product : kProducts) {
    if (product.activations != Activations::f32) continue;
    const PackedWeights weight = packed(product, kOc, kIc);
    std::vector<float> unit(kIc * kIc);
    for (std::size_t i = 0; i < kIc; ++i) unit[i * kIc + i] = 1;
    const std::vector<float> columns = multiplied({unit.data(), kIc, kIc}, weight);
    test::Numbers numbers(4);
    for (const float size : {0.0F, -0.0F, 1e-40F, 65504.0F, 1e5F, 1e30F}) {
      std::vector<float> x(kIc);
      for (std::size_t i = 0; i < kIc; ++i) x[i] = i % 3 == 0 ? -size : size;
      const std::vector<float> y = multiplied({x.data(), 1, kIc}, weight);
      for (std::size_t o = 0; o < kOc; ++o) {
        double exact = 0, magnitudes = 0;
        for (std::size_t i = 0; i < kIc; ++i) {
          const double term = static_cast<double>(x[i]) * static_cast<double>(columns[i * kOc + o]);
          exact += term;
          magnitudes += std::fabs(term);
        }
        // A rounding for each product and sum, and twice as much for scales taken at another
        // place. A subnormal x times the scale of its channel is off by half the smallest number,
        // before it is multiplied with a code of up to 255.
        const double bound = 3.0 * kIc * 0x1p-24 * magnitudes + 256.0 * kIc * 0x1p-150;
        ASSERT_NEAR(static_cast<double>(y[o]), exact, bound) << name_of(product) << " " << size;
      }
    }
  }
}

TEST(K05, EqualActivationsRoundToTheirLargestCode) {
  // All of a token are c: each code is 127 and the scale c / 127, so y is c times the row's sum,
  // up to the roundings of scale, sums of groups and y.
  constexpr std::size_t kOc = 40, kIc = 128;
  for (const float c : {1.0F, -3.0F, 65504.0F, 1e5F, 1e-30F}) {
    for (const char* grid : {"int4:sym:oc:g32", "int8:sym:oc:row"}) {
      const QuantizedTensor weight = test::random_quantized(*parse_grid(grid), kOc, kIc, 9);
      SerialExecutor executor;
      auto form = pack(weight, Activations::int8, executor);
      ASSERT_TRUE(form);
      const std::vector<float> x(kIc, c);
      const std::vector<float> y = multiplied({x.data(), 1, kIc}, *form);
      std::vector<float> row(kIc);
      for (std::size_t o = 0; o < kOc; ++o) {
        weight.dequantize_row(o, row);
        double sum = 0, magnitudes = 0;
        for (const float value : row) {
          sum += static_cast<double>(value);
          magnitudes += std::fabs(static_cast<double>(value));
        }
        const double exact = static_cast<double>(c) * sum;
        ASSERT_NEAR(static_cast<double>(y[o]), exact,
                    std::fabs(static_cast<double>(c)) * magnitudes * 8 * 0x1p-24)
            << grid << " " << c;
      }
    }
  }
}

TEST(K05, TheLargestSumsThatFitDoNotSaturate) {
  // Every code -128 and every activation -127, or codes of 255 with a zero of 0, over the longest
  // row that is taken: 255 * 127 * 66,000 is 2^31 less half a percent.
  constexpr std::size_t kIc = 66'000;
  SerialExecutor executor;
  struct Case {
    const char* grid;
    std::uint8_t code, zero;
    int value;
  };
  for (const Case& each :
       {Case{"int8full:sym:oc:row", 0, 0, -128}, Case{"int8:asym:oc:row", 255, 0, 255},
        Case{"int8:asym:oc:row", 0, 255, -255}}) {
    const GridSpec grid = *parse_grid(each.grid);
    const auto of = [&](std::size_t ic) {
      GroupParameters parameters;
      parameters.rows = parameters.cols = 1;
      parameters.scales = {1.0F};
      if (!grid.symmetric) parameters.zeros = {each.zero};
      auto weight = QuantizedTensor::create(grid, 1, ic, std::vector<std::uint8_t>(ic, each.code),
                                            std::move(parameters));
      if (!weight) panic(weight.error().message.c_str());
      return pack(*weight, Activations::int8, executor);
    };
    const auto longest = of(kIc);
    ASSERT_TRUE(longest) << longest.error().message;
    EXPECT_EQ(multiplied(test::constant_matrix(3, kIc, -127.0F).view(), *longest),
              std::vector<float>(3, static_cast<float>(-127.0 * each.value * kIc)))
        << each.grid;
    const auto longer = of(kIc + 4);
    ASSERT_FALSE(longer);
    EXPECT_NE(longer.error().message.find("exceed 32 bits"), std::string::npos);
  }
}

TEST(K09, ManyHostThreadsShareWeights) {
  constexpr std::size_t kOc = 70, kIc = 130, kThreads = 8;
  test::Numbers numbers(7);
  std::vector<float> x(20 * kIc);
  for (float& value : x) value = numbers.bell();
  for (const Product& product : kProducts) {
    const PackedWeights weight = packed(product, kOc, kIc);
    std::vector<std::vector<float>> expected;
    for (std::size_t tokens = 1; tokens <= kThreads; ++tokens) {
      expected.push_back(multiplied({x.data(), tokens, kIc}, weight));
    }
    std::vector<int> wrong(kThreads);
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        for (std::size_t again = 0; again < 10; ++again) {
          const std::size_t tokens = 1 + (i + again) % kThreads;
          const std::vector<float> y = multiplied({x.data(), tokens, kIc}, weight);
          if (!test::same_bits(std::span<const float>(y),
                               std::span<const float>(expected[tokens - 1]))) {
            ++wrong[i];
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const int count : wrong) EXPECT_EQ(count, 0) << name_of(product);
  }
}

TEST(K10, PackingTwiceGivesTheSameBytes) {
  for (const Product& product : kProducts) {
    const PackedWeights once = packed(product, 45, 96), twice = packed(product, 45, 96);
    ASSERT_EQ(once.bytes(), twice.bytes()) << name_of(product);
    EXPECT_EQ(std::memcmp(once.memory().data(), twice.memory().data(), once.bytes()), 0)
        << name_of(product);
  }
}

}  // namespace
}  // namespace quell::kernels
