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
using tensor_stats::kTileCols;
using tensor_stats::kTileRows;
using tensor_stats::RowLanes;
using tensor_stats::TileColumns;
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
  RowLanes lanes[kTileRows];
  TileColumns columns;
  float floats[kTileRows * kTileCols];
  std::uint16_t words[kTileRows * kTileCols];
  std::vector<std::uint32_t> counts = std::vector<std::uint32_t>(0x10000);
  unsigned left_out = 0;
  float most = -1;
};

std::unique_ptr<Sums> fresh() {
  auto sums = std::make_unique<Sums>();
  std::fill(sums->columns.max_abs, sums->columns.max_abs + kTileCols, -1.0F);
  return sums;
}

bool equal(const double* a, const double* b, std::size_t n) {
  return std::memcmp(a, b, n * sizeof(double)) == 0;
}

void expect_equal(const Sums& a, const Sums& b, std::size_t rows, std::size_t cols,
                  const std::string& what) {
  EXPECT_EQ(a.left_out, b.left_out) << what;
  EXPECT_EQ(a.most, b.most) << what;
  EXPECT_EQ(a.counts, b.counts) << what;
  for (std::size_t r = 0; r < rows; ++r) {
    const RowLanes &x = a.lanes[r], &y = b.lanes[r];
    EXPECT_TRUE(equal(x.sum_abs, y.sum_abs, kLanes)) << what << " row " << r;
    EXPECT_EQ(*std::max_element(x.max_abs, x.max_abs + kLanes),
              *std::max_element(y.max_abs, y.max_abs + kLanes))
        << what << " row " << r;
  }
  const TileColumns &x = a.columns, &y = b.columns;
  EXPECT_TRUE(equal(x.sum, y.sum, cols) && equal(x.sum2, y.sum2, cols) &&
              equal(x.sum3, y.sum3, cols) && equal(x.sum4, y.sum4, cols) &&
              equal(x.sum_abs, y.sum_abs, cols))
      << what;
  for (std::size_t c = 0; c < cols; ++c) {
    EXPECT_EQ(x.max_abs[c], y.max_abs[c]) << what << " column " << c;
    EXPECT_EQ(x.argmax[c], y.argmax[c]) << what << " column " << c;
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
        const auto found = fresh(), expected = fresh();
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
          const auto run = [&](const tensor_stats::Entry& with, Sums& sums) {
            if (bf16) {
              sums.left_out = with.rows_bf16({words.data(), stride, rows, cols}, 1, sums.words,
                                             sums.lanes, &sums.most);
              for (const bool count : {false, true}) {
                with.columns_bf16({sums.words, kTileCols, rows, cols}, 16, &sums.columns, {},
                                  count ? sums.counts.data() : nullptr);
              }
              return;
            }
            sums.left_out = with.rows_f32({floats.data(), stride, rows, cols}, 0.25, sums.floats,
                                          sums.lanes, &sums.most);
            with.columns_f32({sums.floats, kTileCols, rows, cols}, {0.25, 4, 0.5, 2}, 0,
                             &sums.columns, {});
          };
          run(entry, *found);
          run(reference, *expected);
          expect_equal(*found, *expected, rows, cols, what);
        }
      }
    }
  }
}

TEST_P(Tiles, LeaveOutRowsWithLargeValuesAndWithThoseThatAreNotFinite) {
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
      const unsigned expected = planted == 0x1p20F ? 0 : 1U << (at / cols);
      for (const bool bf16 : {false, true}) {
        const auto sums = fresh();
        const unsigned left_out = bf16 ? entry.rows_bf16({words.data(), cols, 16, cols}, 1,
                                                         sums->words, sums->lanes, &sums->most)
                                       : entry.rows_f32({floats.data(), cols, 16, cols}, 1,
                                                        sums->floats, sums->lanes, &sums->most);
        ASSERT_EQ(left_out, expected) << at << " of " << cols << (bf16 ? " bf16" : " f32");
        EXPECT_EQ(sums->most, expected == 0 ? 0x1p20F : 3.0F);
        for (std::size_t r = 0; r < 16; ++r) {
          double sum = 0;
          for (const double lane : sums->lanes[r].sum_abs) sum += lane;
          double row_sum = 3.0 * static_cast<double>(cols);
          if (r == at / cols) row_sum = expected != 0 ? 0 : row_sum - 3 + 0x1p20;
          EXPECT_EQ(sum, row_sum) << r;
        }
      }
    }
  }
}

TEST(Tiles, AreSummedAsTheContractSays) {
  // One row by hand: 1, -2 and 3 in the columns 0, 1 and 31; every power weighs differently.
  float x[kTileCols] = {1, -2};
  x[31] = 3;
  const auto sums = fresh();
  const auto& entry = scalar::tensor_stats_entry;
  ASSERT_EQ(entry.rows_f32({x, kTileCols, 1, 32}, 2, sums->floats, sums->lanes, &sums->most), 0U);
  entry.columns_f32({sums->floats, kTileCols, 1, 32}, {1, 10, 100, 1000}, 7, &sums->columns, {});
  EXPECT_EQ(sums->most, 3);
  EXPECT_EQ(sums->lanes[0].sum_abs[0], 6);
  EXPECT_EQ(sums->lanes[0].sum_abs[15], 6);
  EXPECT_EQ(sums->columns.sum[1], -2);
  EXPECT_EQ(sums->columns.sum2[1], 40);
  EXPECT_EQ(sums->columns.sum3[1], -800);
  EXPECT_EQ(sums->columns.sum4[31], 81000);
  EXPECT_EQ(sums->columns.sum_abs[1], 2);
  EXPECT_EQ(sums->columns.max_abs[1], 2);
  EXPECT_EQ(sums->columns.argmax[1], 7U);
}

}  // namespace
}  // namespace quell::kernels
