// SPDX-License-Identifier: Apache-2.0

#include "quell/grid/spec.hpp"

#include <gtest/gtest.h>

#include <string>

namespace quell {
namespace {

GridSpec parsed(std::string_view word) {
  auto grid = parse_grid(word);
  EXPECT_TRUE(grid.has_value()) << word;
  return grid.has_value() ? *grid : GridSpec{};
}

TEST(GridWord, SaysFormatSymmetryDirectionGroupAndScaleType) {
  EXPECT_EQ(to_string(GridSpec{}), "int4:sym:oc:row");
  EXPECT_EQ(to_string(GridSpec{Format::int8, false, Channel::input, 0, ScaleType::f32}),
            "int8:asym:ic:row:f32");
  EXPECT_EQ(to_string(GridSpec{Format::int4n, true, Channel::output, 128, ScaleType::bf16}),
            "int4n:sym:oc:g128:bf16");
}

TEST(GridWord, MayLeavePartsOutFromTheRight) {
  EXPECT_EQ(parsed("int4"), GridSpec{});
  EXPECT_EQ(parsed("int3:asym"), (GridSpec{.format = Format::int3, .symmetric = false}));
  EXPECT_EQ(parsed("int8:sym:ic"), (GridSpec{.format = Format::int8, .per = Channel::input}));
  EXPECT_EQ(parsed("int4:sym:oc:g32"), (GridSpec{.group = 32}));
  EXPECT_EQ(parsed("int4:sym:oc:g32:f16"), (GridSpec{.group = 32}));
}

TEST(GridWord, ParsesBackToTheSameGrid) {
  for (const FormatInfo& format : kFormats) {
    for (const bool symmetric : {true, false}) {
      for (const Channel per : {Channel::output, Channel::input}) {
        for (const std::uint32_t group : {0u, 1u, 128u, 4294967295u}) {
          for (const ScaleType type : {ScaleType::f16, ScaleType::bf16, ScaleType::f32}) {
            const GridSpec grid{format.format, symmetric, per, group, type};
            if (!check_grid(grid).has_value()) continue;
            EXPECT_EQ(parsed(to_string(grid)), grid) << to_string(grid);
          }
        }
      }
    }
  }
}

TEST(GridWord, WrongPartsAreNamedWithTheWordsTheyMayBe) {
  const auto message = [](std::string_view word) {
    const auto grid = parse_grid(word);
    EXPECT_FALSE(grid.has_value()) << word;
    if (grid.has_value()) return std::string();
    EXPECT_EQ(grid.error().code, ErrorCode::usage);
    return grid.error().message;
  };
  EXPECT_EQ(
      message("int5"),
      "grid `int5`: the format `int5` is not one of int2, int3, int4, int4n, int8, int8full, nf4, "
      "iq4");
  EXPECT_NE(message("int4:symmetric").find("`symmetric` is not one of sym, asym"),
            std::string::npos);
  EXPECT_NE(message("int4:sym:row").find("the direction `row`"), std::string::npos);
  for (const char* group : {"128", "g", "g0", "g-1", "g+1", "g01", "g4294967296", "g12x", "G128"}) {
    EXPECT_NE(message(std::string("int4:sym:oc:") + group).find("the group"), std::string::npos);
  }
  EXPECT_NE(message("int4:sym:oc:g128:f64").find("f16, bf16, f32"), std::string::npos);
  EXPECT_NE(message("int4:sym:oc:g128:f16:x").find("follows the last part"), std::string::npos);
  // Empty parts are not left-out parts.
  for (const char* word : {"", ":", "int4:", "int4::oc", "int4:sym:oc:g128:", " int4", "int4 "}) {
    message(word);
  }
}

TEST(Format, CodesOfSymmetricGridsAreTheListedIntegers) {
  const auto range = [](std::string_view word) {
    const CodeRange r = code_range(parsed(word));
    return std::pair<int, int>(r.lowest, r.highest);
  };
  EXPECT_EQ(range("int2"), std::pair(0, 3));
  EXPECT_EQ(range("int3"), std::pair(0, 7));
  EXPECT_EQ(range("int4"), std::pair(0, 15));
  EXPECT_EQ(range("int4n"), std::pair(1, 15));
  EXPECT_EQ(range("int8"), std::pair(1, 255));
  EXPECT_EQ(range("int8full"), std::pair(0, 255));
  EXPECT_EQ(range("int4n:asym"), std::pair(0, 15));
  EXPECT_EQ(range("int8:asym"), std::pair(0, 255));
  EXPECT_EQ(symmetric_zero(Format::int4), 8);
  EXPECT_EQ(symmetric_zero(Format::int8), 128);
}

TEST(GridWord, CodebooksAreSymmetricOnly) {
  EXPECT_EQ(parsed("nf4:sym:ic:g64"),
            (GridSpec{.format = Format::nf4, .per = Channel::input, .group = 64}));
  EXPECT_EQ(to_string(parsed("iq4")), "iq4:sym:oc:row");
  for (const char* word : {"nf4:asym", "iq4:asym:oc:g32"}) {
    const auto grid = parse_grid(word);
    ASSERT_FALSE(grid.has_value());
    EXPECT_EQ(grid.error().code, ErrorCode::usage);
    EXPECT_NE(grid.error().message.find("symmetric only"), std::string::npos);
  }
}

TEST(Format, ScalesMayBeNegativeOnlyWhereTheRangeIsLopsided) {
  for (const char* word : {"int2", "int3", "int4", "int8full", "nf4", "iq4"}) {
    EXPECT_TRUE(allows_negative_scale(parsed(word))) << word;
  }
  for (const char* word : {"int4n", "int8", "int2:asym", "int4:asym", "int8full:asym"}) {
    EXPECT_FALSE(allows_negative_scale(parsed(word))) << word;
  }
}

}  // namespace
}  // namespace quell
