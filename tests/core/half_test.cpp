// SPDX-License-Identifier: Apache-2.0

#include "quell/core/half.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/compare.hpp"

namespace quell {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

// The value of a code by the definition of its type, with ldexp instead of bit moves.
struct Layout {
  int exponent_bits;
  int fraction_bits;
  int bias;
};
double finite_value(std::uint32_t code, Layout layout) {
  const std::uint32_t fraction = code & ((1u << layout.fraction_bits) - 1);
  const std::uint32_t exponent =
      (code >> layout.fraction_bits) & ((1u << layout.exponent_bits) - 1);
  const bool negative = (code >> (layout.fraction_bits + layout.exponent_bits) & 1) != 0;
  const double one = exponent == 0 ? 0 : 1 << layout.fraction_bits;
  const int power = std::max<int>(static_cast<int>(exponent), 1) - layout.bias;
  const double magnitude = std::ldexp(one + fraction, power - layout.fraction_bits);
  return negative ? -magnitude : magnitude;
}

void expect_value(float found, double expected, std::uint32_t code) {
  ASSERT_EQ(static_cast<double>(found), expected) << "code " << code;
  ASSERT_EQ(std::signbit(found), std::signbit(expected)) << "code " << code;
}

TEST(Half, DecodesEveryF16) {
  for (std::uint32_t code = 0; code < 65536; ++code) {
    const float found = f16_to_float(static_cast<std::uint16_t>(code));
    if ((code & 0x7C00) != 0x7C00) {
      expect_value(found, finite_value(code, {5, 10, 15}), code);
    } else if ((code & 0x3FF) == 0) {
      ASSERT_EQ(found, (code & 0x8000) != 0 ? -kInfinity : kInfinity);
    } else {
      ASSERT_TRUE(std::isnan(found)) << code;
    }
  }
}

TEST(Half, DecodesEveryBf16) {
  for (std::uint32_t code = 0; code < 65536; ++code) {
    const float found = bf16_to_float(static_cast<std::uint16_t>(code));
    if ((code & 0x7F80) != 0x7F80) {
      expect_value(found, finite_value(code, {8, 7, 127}), code);
    } else if ((code & 0x7F) == 0) {
      ASSERT_EQ(found, (code & 0x8000) != 0 ? -kInfinity : kInfinity);
    } else {
      ASSERT_TRUE(std::isnan(found)) << code;
    }
  }
}

TEST(Half, DecodesEveryEightBitFloat) {
  for (std::uint32_t code = 0; code < 256; ++code) {
    const auto byte = static_cast<std::uint8_t>(code);
    if ((code & 0x7F) == 0x7F) {
      ASSERT_TRUE(std::isnan(f8_e4m3_to_float(byte)));
    } else {
      expect_value(f8_e4m3_to_float(byte), finite_value(code, {4, 3, 7}), code);
    }
    if ((code & 0x7F) > 0x7C) {
      ASSERT_TRUE(std::isnan(f8_e5m2_to_float(byte)));
    } else if ((code & 0x7F) == 0x7C) {
      ASSERT_EQ(f8_e5m2_to_float(byte), code == 0x7C ? kInfinity : -kInfinity);
    } else {
      expect_value(f8_e5m2_to_float(byte), finite_value(code, {5, 2, 15}), code);
    }
    if (code == 0x80) {
      ASSERT_TRUE(std::isnan(f8_e4m3fnuz_to_float(byte)));
      ASSERT_TRUE(std::isnan(f8_e5m2fnuz_to_float(byte)));
    } else {
      expect_value(f8_e4m3fnuz_to_float(byte), finite_value(code, {4, 3, 8}), code);
      expect_value(f8_e5m2fnuz_to_float(byte), finite_value(code, {5, 2, 16}), code);
    }
    if (code == 0xFF) {
      ASSERT_TRUE(std::isnan(f8_e8m0_to_float(byte)));
    } else {
      expect_value(f8_e8m0_to_float(byte), std::ldexp(1.0, static_cast<int>(code) - 127), code);
    }
  }
}

TEST(Half, DecodesEverySixAndFourBitFloat) {
  for (std::uint32_t code = 0; code < 64; ++code) {
    const auto byte = static_cast<std::uint8_t>(code);
    expect_value(f6_e2m3_to_float(byte), finite_value(code, {2, 3, 1}), code);
    expect_value(f6_e3m2_to_float(byte), finite_value(code, {3, 2, 3}), code);
  }
  const float values[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (std::uint8_t code = 0; code < 8; ++code) {
    EXPECT_EQ(f4_to_float(code), values[code]);
    EXPECT_EQ(f4_to_float(code | 8), -values[code]);
    EXPECT_EQ(f4_to_float(code | 0xF0), values[code]);  // the upper nibble is ignored
  }
}

TEST(Half, LargestAndSmallestValuesAreThoseOfTheStandards) {
  EXPECT_EQ(f16_to_float(0x7BFF), 65504.0f);
  EXPECT_EQ(f16_to_float(0x0001), 0x1p-24f);
  EXPECT_EQ(f8_e4m3_to_float(0x7E), 448.0f);
  EXPECT_EQ(f8_e4m3_to_float(0x01), 0x1p-9f);
  EXPECT_EQ(f8_e5m2_to_float(0x7B), 57344.0f);
  EXPECT_EQ(f8_e5m2_to_float(0x01), 0x1p-16f);
  EXPECT_EQ(f8_e4m3fnuz_to_float(0x7F), 240.0f);
  EXPECT_EQ(f8_e5m2fnuz_to_float(0x7F), 57344.0f);
  EXPECT_EQ(f6_e2m3_to_float(0x1F), 7.5f);
  EXPECT_EQ(f6_e3m2_to_float(0x1F), 28.0f);
}

// Between two neighbours a < b of a type: up to the midpoint goes to a, beyond it to b, and the
// midpoint itself to the even code. With all neighbours this fixes the conversion of every float in
// range.
template <typename Decode, typename Encode>
void check_rounding_boundaries(std::uint32_t largest_code, std::uint32_t sign_bit, Decode decode,
                               Encode encode) {
  for (std::uint32_t code = 0; code <= largest_code; ++code) {
    const float a = decode(code);
    ASSERT_EQ(encode(a), code);
    ASSERT_EQ(encode(-a), code | sign_bit);
    if (code == largest_code) break;
    const float b = decode(code + 1);
    const float middle = static_cast<float>((static_cast<double>(a) + static_cast<double>(b)) / 2);
    const std::uint32_t even = code % 2 == 0 ? code : code + 1;
    ASSERT_EQ(encode(middle), even) << code;
    ASSERT_EQ(encode(-middle), even | sign_bit) << code;
    ASSERT_EQ(encode(std::nextafterf(middle, 0.0f)), code) << code;
    ASSERT_EQ(encode(std::nextafterf(middle, kInfinity)), code + 1) << code;
    ASSERT_EQ(encode(std::nextafterf(a, kInfinity)), code) << code;
    ASSERT_EQ(encode(std::nextafterf(b, 0.0f)), code + 1) << code;
  }
}

TEST(Half, RoundsToNearestEvenBetweenAllNeighbours) {
  check_rounding_boundaries(
      0x7BFF, 0x8000, [](std::uint32_t c) { return f16_to_float(static_cast<std::uint16_t>(c)); },
      [](float x) { return std::uint32_t{float_to_f16(x)}; });
  check_rounding_boundaries(
      0x7E, 0x80, [](std::uint32_t c) { return f8_e4m3_to_float(static_cast<std::uint8_t>(c)); },
      [](float x) { return std::uint32_t{float_to_f8_e4m3(x)}; });
  check_rounding_boundaries(
      0x7B, 0x80, [](std::uint32_t c) { return f8_e5m2_to_float(static_cast<std::uint8_t>(c)); },
      [](float x) { return std::uint32_t{float_to_f8_e5m2(x)}; });
  check_rounding_boundaries(
      0x7F7F, 0x8000, [](std::uint32_t c) { return bf16_to_float(static_cast<std::uint16_t>(c)); },
      [](float x) { return std::uint32_t{float_to_bf16(x)}; });
}

TEST(Half, OverflowGoesToInfinityWhereThereIsOneAndSaturatesWhereThereIsNone) {
  EXPECT_EQ(float_to_f16(65519.996f), 0x7BFF);  // just below 65504 + half a step
  EXPECT_EQ(float_to_f16(65520.0f), 0x7C00);
  EXPECT_EQ(float_to_f16(-1e30f), 0xFC00);
  EXPECT_EQ(float_to_f16(kInfinity), 0x7C00);
  EXPECT_EQ(float_to_bf16(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_EQ(float_to_bf16(-kInfinity), 0xFF80);
  EXPECT_EQ(float_to_f8_e5m2(61439.996f), 0x7B);
  EXPECT_EQ(float_to_f8_e5m2(61440.0f), 0x7C);
  EXPECT_EQ(float_to_f8_e5m2(-1e30f), 0xFC);
  EXPECT_EQ(float_to_f8_e4m3(464.0f), 0x7E);
  EXPECT_EQ(float_to_f8_e4m3(470.0f), 0x7E);
  EXPECT_EQ(float_to_f8_e4m3(-1e30f), 0xFE);
  EXPECT_EQ(float_to_f8_e4m3(kInfinity), 0x7E);
}

TEST(Half, NanStaysNan) {
  // A payload in the lowest bits alone must not be cut off to an infinity; nor may a sign be lost.
  for (const std::uint32_t bits : {0x7FC0'0000u, 0x7F80'0001u, 0xFF80'0001u, 0x7FFF'FFFFu}) {
    const float nan = std::bit_cast<float>(bits);
    EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(nan)))) << bits;
    EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(nan)))) << bits;
    EXPECT_TRUE(std::isnan(f8_e4m3_to_float(float_to_f8_e4m3(nan)))) << bits;
    EXPECT_TRUE(std::isnan(f8_e5m2_to_float(float_to_f8_e5m2(nan)))) << bits;
    EXPECT_EQ(float_to_f8_e8m0(nan), 0xFF) << bits;
    EXPECT_EQ(float_to_f16(nan) >> 15, bits >> 31);
  }
}

TEST(Half, EveryHalfNanComesBackAsNan) {
  for (std::uint32_t code = 0x7C01; code <= 0x7FFF; ++code) {
    const std::uint16_t back = float_to_f16(f16_to_float(static_cast<std::uint16_t>(code)));
    ASSERT_EQ(back, code | 0x200u);  // the payload, made quiet
  }
}

TEST(Half, TinyValuesVanishWithTheirSign) {
  EXPECT_EQ(float_to_f16(0x1p-25f), 0x0000);  // the tie between 0 and 2^-24
  EXPECT_EQ(float_to_f16(std::nextafterf(0x1p-25f, 1.0f)), 0x0001);
  EXPECT_EQ(float_to_f16(-std::numeric_limits<float>::denorm_min()), 0x8000);
  EXPECT_EQ(float_to_f8_e4m3(-1e-20f), 0x80);
  EXPECT_EQ(float_to_bf16(std::numeric_limits<float>::denorm_min()), 0x0000);
}

TEST(Half, PowersOfTwoScaleRoundsToTheNearestPower) {
  for (std::uint32_t code = 0; code < 255; ++code) {
    const float value = f8_e8m0_to_float(static_cast<std::uint8_t>(code));
    ASSERT_EQ(float_to_f8_e8m0(value), code);
    ASSERT_EQ(float_to_f8_e8m0(value * 1.25f), code);
    const std::uint32_t up = code == 254 ? 255 : code + 1;
    ASSERT_EQ(float_to_f8_e8m0(value * 1.75f), up) << code;
    ASSERT_EQ(float_to_f8_e8m0(value * 1.5f), code % 2 == 0 ? code : up) << code;
  }
  EXPECT_EQ(float_to_f8_e8m0(0.0f), 0);
  EXPECT_EQ(float_to_f8_e8m0(-0.0f), 0);
  EXPECT_EQ(float_to_f8_e8m0(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(float_to_f8_e8m0(-1.0f), 0xFF);
  EXPECT_EQ(float_to_f8_e8m0(kInfinity), 0xFF);
  EXPECT_EQ(float_to_f8_e8m0(std::numeric_limits<float>::max()), 0xFF);
}

TEST(Half, SpansGiveTheBitsOfSingleConversions) {
  // Odd lengths, so that vector loops have a rest; values over all exponents and NaN.
  std::vector<float> values;
  for (std::uint32_t i = 0; i < 70001; ++i) {
    values.push_back(std::bit_cast<float>(i * 0x9E37'79B9u));
  }
  values.push_back(kNan);
  std::vector<std::uint16_t> half(values.size());
  std::vector<std::uint8_t> byte(values.size());
  float_to_f16(values, half);
  for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(half[i], float_to_f16(values[i]));
  float_to_bf16(values, half);
  for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(half[i], float_to_bf16(values[i]));
  float_to_f8_e4m3(values, byte);
  for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(byte[i], float_to_f8_e4m3(values[i]));
  float_to_f8_e5m2(values, byte);
  for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(byte[i], float_to_f8_e5m2(values[i]));

  std::vector<std::uint16_t> all16(65536);
  for (std::uint32_t i = 0; i < 65536; ++i) all16[i] = static_cast<std::uint16_t>(i);
  std::vector<float> wide(65536);
  f16_to_float(all16, wide);
  for (std::uint32_t i = 0; i < 65536; ++i) {
    ASSERT_EQ(test::ulp_distance(wide[i], f16_to_float(all16[i])), 0u) << i;
  }
  bf16_to_float(all16, wide);
  for (std::uint32_t i = 0; i < 65536; ++i) {
    ASSERT_EQ(test::ulp_distance(wide[i], bf16_to_float(all16[i])), 0u) << i;
  }
  std::vector<std::uint8_t> all8(256);
  for (std::uint32_t i = 0; i < 256; ++i) all8[i] = static_cast<std::uint8_t>(i);
  wide.resize(256);
  const auto check = [&](auto all, auto one) {
    all(all8, wide);
    for (std::uint32_t i = 0; i < 256; ++i) {
      ASSERT_EQ(test::ulp_distance(wide[i], one(all8[i])), 0u) << i;
    }
  };
  using Bytes = std::span<const std::uint8_t>;
  using Floats = std::span<float>;
  check([](Bytes s, Floats d) { f8_e4m3_to_float(s, d); },
        [](std::uint8_t v) { return f8_e4m3_to_float(v); });
  check([](Bytes s, Floats d) { f8_e5m2_to_float(s, d); },
        [](std::uint8_t v) { return f8_e5m2_to_float(v); });
  check([](Bytes s, Floats d) { f8_e4m3fnuz_to_float(s, d); },
        [](std::uint8_t v) { return f8_e4m3fnuz_to_float(v); });
  check([](Bytes s, Floats d) { f8_e5m2fnuz_to_float(s, d); },
        [](std::uint8_t v) { return f8_e5m2fnuz_to_float(v); });
  check([](Bytes s, Floats d) { f8_e8m0_to_float(s, d); },
        [](std::uint8_t v) { return f8_e8m0_to_float(v); });
}

static_assert(float_to_f16(1.0f) == 0x3C00 && f16_to_float(0x3C00) == 1.0f,
              "conversions are usable in constant expressions");

}  // namespace
}  // namespace quell
