// SPDX-License-Identifier: Apache-2.0

// The laws of tensor_stats' tiles: every entry of the table decodes, measures and adds tiles with
// the bits of the scalar entry, on all edges of size, from memory between guard pages.

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
using tensor_stats::Tile;
using tensor_stats::TileColumns;
using test::Edge;
using test::Guarded;
using test::Numbers;

constexpr std::size_t kCols[] = {1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 65, 128, 250, 255, 256};
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
      return numbers.uniform() * std::numeric_limits<float>::max();
    case Values::zeros:
      return numbers.uniform() < 0 ? -0.0F : 0.0F;
    case Values::ties:
      return numbers.uniform() < 0 ? -1.5F : 1.5F;
  }
  return 0;
}

/// Everything that adding a tile changes.
struct Sums {
  Tile tile;
  RowLanes lanes[kTileRows];
  TileColumns columns;
};

std::unique_ptr<Sums> fresh() {
  auto sums = std::make_unique<Sums>();
  std::memset(static_cast<void*>(sums.get()), 0, sizeof(Sums));
  for (RowLanes& lanes : sums->lanes) std::fill(lanes.max_abs, lanes.max_abs + kLanes, -1.0F);
  std::fill(sums->columns.max_abs, sums->columns.max_abs + kTileCols, -1.0F);
  return sums;
}

bool equal(const double* a, const double* b, std::size_t n) {
  return std::memcmp(a, b, n * sizeof(double)) == 0;
}

void expect_equal(const Sums& a, const Sums& b, std::size_t rows, std::size_t cols,
                  const std::string& what) {
  for (std::size_t r = 0; r < rows; ++r) {
    EXPECT_EQ(std::memcmp(a.tile.x[r], b.tile.x[r], cols * sizeof(float)), 0)
        << what << " row " << r;
    const RowLanes &x = a.lanes[r], &y = b.lanes[r];
    EXPECT_TRUE(equal(x.sum_abs, y.sum_abs, kLanes) && equal(x.sum, y.sum, kLanes) &&
                equal(x.sum2, y.sum2, kLanes) && equal(x.sum3, y.sum3, kLanes) &&
                equal(x.sum4, y.sum4, kLanes))
        << what << " row " << r;
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
            const bool finite =
                bf16 ? with.load_bf16(words.data(), stride, rows, cols, &sums.tile, sums.lanes)
                     : with.load_f32(floats.data(), stride, rows, cols, &sums.tile, sums.lanes);
            EXPECT_TRUE(finite) << what;
            with.raise(&sums.tile, cols, bf16 ? 16 : 0, &sums.columns);
            (bf16 ? with.add : with.add_powers)(&sums.tile, rows, cols, sums.lanes, &sums.columns,
                                                {});
          };
          run(entry, *found);
          run(reference, *expected);
          expect_equal(*found, *expected, rows, cols, what);
        }
      }
    }
  }
}

TEST_P(Tiles, ShowEveryValueThatIsNotFinite) {
  const tensor_stats::Entry& entry = *GetParam();
  if (!has(entry.isa)) GTEST_SKIP() << "this machine has no " << to_string(entry.isa);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float bad_values[] = {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN(),
                              -std::numeric_limits<float>::quiet_NaN()};
  for (const std::size_t cols : {1, 16, 33, 256}) {
    for (const std::size_t rows : {1, 16}) {
      for (std::size_t at = 0; at < rows * cols; at += 1 + at / 7) {
        const float bad = bad_values[at % 4];
        std::vector<float> floats(rows * cols, -3.0F);
        std::vector<std::uint16_t> words(rows * cols, float_to_bf16(-3.0F));
        floats[at] = bad;
        words[at] = float_to_bf16(bad);
        const auto sums = fresh();
        EXPECT_FALSE(entry.load_f32(floats.data(), cols, rows, cols, &sums->tile, sums->lanes));
        EXPECT_FALSE(entry.load_bf16(words.data(), cols, rows, cols, &sums->tile, sums->lanes));
        EXPECT_TRUE(test::same_bits(sums->tile.x[at / cols][at % cols], bad));
        EXPECT_EQ(sums->lanes[0].max_abs[0], -1.0F);
      }
    }
  }
}

TEST(Tiles, AreSummedAsTheContractSays) {
  // One row and one column by hand: 1, -2 and 3 in the columns 0, 16 and 1.
  std::vector<float> x(17, 0.0F);
  x[0] = 1;
  x[16] = -2;
  x[1] = 3;
  const auto sums = fresh();
  const auto& entry = scalar::tensor_stats_entry;
  ASSERT_TRUE(entry.load_f32(x.data(), x.size(), 1, x.size(), &sums->tile, sums->lanes));
  entry.raise(&sums->tile, x.size(), 7, &sums->columns);
  entry.add_powers(&sums->tile, 1, x.size(), sums->lanes, &sums->columns, {});
  const RowLanes& row = sums->lanes[0];
  EXPECT_EQ(row.sum[0], -1);
  EXPECT_EQ(row.sum[1], 3);
  EXPECT_EQ(row.sum2[0], 5);
  EXPECT_EQ(row.sum3[0], -7);
  EXPECT_EQ(row.sum4[0], 17);
  EXPECT_EQ(row.sum_abs[0], 3);
  EXPECT_EQ(row.sum4[1], 81);
  EXPECT_EQ(sums->columns.sum3[16], -8);
  EXPECT_EQ(sums->columns.max_abs[16], 2);
  EXPECT_EQ(sums->columns.argmax[16], 7U);
}

}  // namespace
}  // namespace quell::kernels
