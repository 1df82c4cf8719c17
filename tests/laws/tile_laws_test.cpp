// SPDX-License-Identifier: Apache-2.0

// The laws of tensor_stats' tiles: every entry of the table adds tiles with the bits of the
// scalar entry, on all edges of size, from memory between guard pages.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/tensor_stats/contract.hpp"
#include "quell/core/half.hpp"
#include "support/guarded.hpp"
#include "support/same_bits.hpp"

namespace quell::kernels {
namespace {

using tensor_stats::kLanes;
using tensor_stats::kStrip;
using tensor_stats::kTileCols;
using tensor_stats::kTileRows;
using tensor_stats::kTileStrips;
using tensor_stats::RowLanes;
using tensor_stats::StripColumns;
using tensor_stats::TileScale;
using tensor_stats::TileView;
using test::Edge;
using test::Guarded;
using test::Numbers;

constexpr std::size_t kCols[] = {32, 64, 96, 128, 224, 256};
enum class Values { bell, tiny, huge, zeros, ties };
constexpr Values kValues[] = {Values::bell, Values::tiny, Values::huge, Values::zeros,
                              Values::ties};

float draw(Values values, Numbers& numbers) {
  switch (values) {
    case Values::bell:
      return numbers.bell();
    case Values::tiny:  // subnormal
      return numbers.bell() * 1e-39F;
    case Values::huge:
      return numbers.uniform() * tensor_stats::kLargest;
    case Values::zeros:
      return numbers.uniform() < 0 ? -0.0F : 0.0F;
    case Values::ties:
      return numbers.uniform() < 0 ? -1.5F : 1.5F;
  }
  return 0;
}

/// Everything that adding a tile changes.
struct Sums {
  RowLanes lanes[kTileRows] = {};
  StripColumns columns[kTileStrips] = {};
  std::vector<std::uint32_t> counts = std::vector<std::uint32_t>(0x10000);
  unsigned left_out = 0;
};

bool equal(const double* a, const double* b, std::size_t n) {
  return std::memcmp(a, b, n * sizeof(double)) == 0;
}
float largest(const RowLanes& lanes) {
  return *std::max_element(lanes.max_abs, lanes.max_abs + kLanes);
}

void expect_equal(const Sums& a, const Sums& b, const std::string& what) {
  EXPECT_EQ(a.left_out, b.left_out) << what;
  EXPECT_EQ(a.counts, b.counts) << what;
  for (std::size_t r = 0; r < kTileRows; ++r) {
    EXPECT_TRUE(equal(a.lanes[r].sum_abs, b.lanes[r].sum_abs, kLanes)) << what << " row " << r;
    EXPECT_EQ(largest(a.lanes[r]), largest(b.lanes[r])) << what << " row " << r;
  }
  for (std::size_t s = 0; s < kTileStrips; ++s) {
    // Sums and maxima: everything is in order and without padding between.
    EXPECT_EQ(std::memcmp(&a.columns[s], &b.columns[s], sizeof(StripColumns)), 0)
        << what << " strip " << s;
  }
}

class Tiles : public testing::TestWithParam<const tensor_stats::Entry*> {};
INSTANTIATE_TEST_SUITE_P(tensor_stats, Tiles,
                         testing::ValuesIn(tensor_stats::table().begin(),
                                           tensor_stats::table().end()),
                         [](const auto& entry) {
                           return std::string(to_string(entry.param->isa));
                         });

TEST_P(Tiles, GiveTheBitsOfTheSpecification) {
  const tensor_stats::Entry& entry = *GetParam();
  if (!has(entry.isa)) GTEST_SKIP() << "this machine has no " << to_string(entry.isa);
  const tensor_stats::Entry& reference = scalar::tensor_stats_entry;
  for (const std::size_t cols : kCols) {
    for (const std::size_t rows : {1, 2, 15, 16}) {
      for (const Values values : kValues) {
        const std::size_t stride = cols + rows % 3;
        const std::size_t size = (rows - 1) * stride + cols;
        Numbers numbers(cols * 16 + rows);
        for (const bool bf16 : {false, true}) {
          const std::string what = std::to_string(rows) + " x " + std::to_string(cols) +
                                   " values " + std::to_string(static_cast<int>(values)) +
                                   (bf16 ? " bf16" : " f32");
          Guarded<float> floats(size, rows % 2 == 0 ? Edge::front : Edge::back);
          Guarded<std::uint16_t> words(size, rows % 2 == 0 ? Edge::front : Edge::back);
          for (std::size_t i = 0; i < size; ++i) {
            // A quarter is cut off so that no bfloat16 rounds to infinity.
            floats[i] = draw(values, numbers) * 0.75F;
            words[i] = float_to_bf16(floats[i]);
          }
          const auto run = [&](const tensor_stats::Entry& with) {
            auto sums = std::make_unique<Sums>();
            if (bf16) {
              for (const bool count : {false, true}) {
                sums->left_out = with.tile_bf16({words.data(), stride, rows, cols}, sums->columns,
                                                sums->lanes, count ? sums->counts.data() : nullptr);
              }
              return sums;
            }
            const TileScale scale = {0.25, 4, 0.5, 2};
            for (const TileScale* by : {&scale, static_cast<const TileScale*>(nullptr)}) {
              sums->left_out = with.tile_f32({floats.data(), stride, rows, cols}, by, sums->columns,
                                             sums->lanes);
            }
            return sums;
          };
          const auto found = run(entry), expected = run(reference);
          expect_equal(*found, *expected, what);
          EXPECT_EQ(found->left_out, values == Values::tiny ? (1U << (cols / kStrip)) - 1 : 0)
              << what;
        }
      }
    }
  }
}

TEST_P(Tiles, LeaveOutStripsWithLargeValuesAndWithThoseThatAreNotFinite) {
  const tensor_stats::Entry& entry = *GetParam();
  if (!has(entry.isa)) GTEST_SKIP() << "this machine has no " << to_string(entry.isa);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  // 2^20 itself is taken; what follows it in bfloat16, and more, is not.
  const float values[] = {kInfinity, -kInfinity, kNaN, -kNaN, 0x1.02p20F, -3e38F, 0x1p20F};
  for (const std::size_t cols : {32, 96, 256}) {
    for (std::size_t at = 0; at < 16 * cols; at += 1 + at / 7) {
      const float planted = values[at % 7];
      std::vector<float> floats(16 * cols, -3.0F);
      std::vector<std::uint16_t> words(16 * cols, float_to_bf16(-3.0F));
      floats[at] = planted;
      words[at] = float_to_bf16(planted);
      const std::size_t row = at / cols, strip = at % cols / kStrip;
      const bool taken = planted == 0x1p20F;
      for (const bool bf16 : {false, true}) {
        Sums sums;
        const unsigned left_out =
            bf16 ? entry.tile_bf16({words.data(), cols, 16, cols}, sums.columns, sums.lanes,
                                   sums.counts.data())
                 : entry.tile_f32({floats.data(), cols, 16, cols}, nullptr, sums.columns,
                                  sums.lanes);
        ASSERT_EQ(left_out, taken ? 0 : 1U << strip) << at << " of " << cols << " bf16 " << bf16;
        for (std::size_t r = 0; r < 16; ++r) {
          double sum = 0;
          for (const double lane : sums.lanes[r].sum_abs) sum += lane;
          const auto others = static_cast<double>(taken ? cols : cols - kStrip);
          EXPECT_EQ(sum, 3 * others + (taken && r == row ? 0x1p20 - 3 : 0)) << r;
          const float most = others == 0 ? 0.0F : 3.0F;
          EXPECT_EQ(largest(sums.lanes[r]), taken && r == row ? planted : most) << r;
        }
        for (std::size_t c = 0; c < cols; ++c) {
          const StripColumns& columns = sums.columns[c / kStrip];
          const bool there = taken || c / kStrip != strip, here = taken && c == at % cols;
          EXPECT_EQ(columns.sum_abs[c % kStrip], there ? 48 + (here ? 0x1p20 - 3 : 0) : 0) << c;
          EXPECT_EQ(columns.max_abs[c % kStrip], here ? planted : (there ? 3.0F : 0.0F)) << c;
        }
        EXPECT_EQ(sums.counts[float_to_bf16(-3.0F)], bf16 ? 16 * cols - 1 : 0);
      }
    }
  }
}

TEST(Tiles, AreSummedAsTheContractSays) {
  // One row by hand: 1, -2 and 3 in the columns 0, 1 and 31; every power weighs differently.
  float x[kTileCols] = {1, -2};
  x[31] = 3;
  const auto& entry = scalar::tensor_stats_entry;
  Sums sums;
  const TileScale scale = {2, 10, 100, 1000};
  EXPECT_EQ(entry.tile_f32({x, kTileCols, 1, 32}, &scale, sums.columns, sums.lanes), 0U);
  EXPECT_EQ(sums.lanes[0].sum_abs[0], 6);
  EXPECT_EQ(sums.lanes[0].sum_abs[15], 6);
  EXPECT_EQ(sums.columns[0].sum[1], -4);
  EXPECT_EQ(sums.columns[0].sum2[1], 40);
  EXPECT_EQ(sums.columns[0].sum3[1], -800);
  EXPECT_EQ(sums.columns[0].sum4[31], 81000);
  EXPECT_EQ(sums.columns[0].sum_abs[1], 4);
  EXPECT_EQ(sums.columns[0].max_abs[1], 0);
  EXPECT_EQ(entry.tile_f32({x, kTileCols, 1, 32}, nullptr, sums.columns, sums.lanes), 0U);
  EXPECT_EQ(sums.columns[0].sum[1], -6);
  EXPECT_EQ(sums.columns[0].max_abs[1], 2);
  EXPECT_EQ(largest(sums.lanes[0]), 3);
}

}  // namespace
}  // namespace quell::kernels
