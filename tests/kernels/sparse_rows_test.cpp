// SPDX-License-Identifier: Apache-2.0

#include "quell/kernels/sparse_rows.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace quell::kernels {
namespace {

using Words = std::vector<std::uint32_t>;
using Floats = std::vector<float>;

TEST(SparseRows, ProductHasKnownValues) {
  // W = [0 2 0; 0 0 0; -1 0 0.5]
  const Words start{0, 1, 1, 3}, columns{1, 0, 2};
  const Floats values{2, -1, 0.5F};
  const auto w = SparseRows::of(3, start, columns, values);
  ASSERT_TRUE(w);
  EXPECT_EQ(w->rows(), 3u);
  SerialExecutor serial;
  Context context(serial);
  for (const std::size_t rows : {1, 2, 3, 4, 5, 16, 17, 20, 40}) {
    Floats x(rows * 3), y(rows * 3);
    for (std::size_t t = 0; t < rows; ++t) {
      x[3 * t] = static_cast<float>(t);
      x[3 * t + 1] = 10;
      x[3 * t + 2] = 8;
      y[3 * t] = y[3 * t + 1] = y[3 * t + 2] = 100;
    }
    ASSERT_TRUE(add_sparse_product({x.data(), rows, 3}, *w, {y.data(), rows, 3}, context));
    for (std::size_t t = 0; t < rows; ++t) {
      EXPECT_EQ(y[3 * t], 120) << rows << ", " << t;
      EXPECT_EQ(y[3 * t + 1], 100) << rows << ", " << t;
      EXPECT_EQ(y[3 * t + 2], 104 - static_cast<float>(t)) << rows << ", " << t;
    }
  }
}

TEST(SparseRows, ColumnsThatAreNotKeptAreNotMultiplied) {
  const Words start{0, 1}, columns{0};
  const Floats values{3};
  const auto w = SparseRows::of(2, start, columns, values);
  ASSERT_TRUE(w);
  SerialExecutor serial;
  Context context(serial);
  for (const std::size_t rows : {1, 5}) {
    Floats x, y(rows, 1.0F);
    for (std::size_t t = 0; t < rows; ++t) {
      x.push_back(2);
      x.push_back(std::numeric_limits<float>::infinity());
    }
    ASSERT_TRUE(add_sparse_product({x.data(), rows, 2}, *w, {y.data(), rows, 1}, context));
    EXPECT_EQ(y, Floats(rows, 7.0F));
  }
}

TEST(SparseRows, NothingIsANeutralSummand) {
  const Words start{0, 0, 0};
  const auto w = SparseRows::of(4, start, {}, {});
  ASSERT_TRUE(w);
  SerialExecutor serial;
  Context context(serial);
  Floats x(20, 1.0F), y(10, -0.0F);
  ASSERT_TRUE(add_sparse_product({x.data(), 5, 4}, *w, {y.data(), 5, 2}, context));
  EXPECT_TRUE(std::signbit(y[9]));
  ASSERT_TRUE(add_sparse_product({x.data(), 0, 4}, *w, {y.data(), 0, 2}, context));
  const Words none{0};
  const auto empty = SparseRows::of(4, none, {}, {});
  ASSERT_TRUE(empty);
  EXPECT_EQ(empty->rows(), 0u);
  ASSERT_TRUE(add_sparse_product({x.data(), 5, 4}, *empty, {y.data(), 5, 0, 1}, context));
}

TEST(SparseRows, RefusesWhatDoesNotFitAndSaysWhere) {
  const auto message = [](std::size_t cols, const Words& start, const Words& columns,
                          const Floats& values) {
    const auto made = SparseRows::of(cols, start, columns, values);
    if (made) return std::string("none");
    EXPECT_EQ(made.error().code, ErrorCode::shape);
    return made.error().message;
  };
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_EQ(message(3, {0, 2, 2}, {2, 0}, {1, 1}), "none");
  EXPECT_TRUE(has(message(3, {0, 2}, {0, 3}, {1, 1}), "element 1 is in column 3"));
  EXPECT_TRUE(has(message(3, {0, 2, 1}, {0, 1}, {1, 1}), "row 2 starts at element 1"));
  EXPECT_TRUE(has(message(3, {1, 2}, {0, 1}, {1, 1}), "row 0 starts at element 1"));
  EXPECT_TRUE(has(message(3, {0, 1}, {0, 1}, {1, 1}), "ends at element 1"));
  EXPECT_TRUE(has(message(3, {0, 3}, {0, 1}, {1, 1}), "ends at element 3"));
  EXPECT_TRUE(has(message(3, {0, 2}, {0, 1}, {1}), "2 columns for 1 values"));
  EXPECT_TRUE(has(message(3, {}, {}, {}), "no starts"));

  const Words start{0, 1}, columns{0};
  const Floats values{3};
  const auto w = SparseRows::of(2, start, columns, values);
  ASSERT_TRUE(w);
  SerialExecutor serial;
  Context context(serial);
  Floats x(6), y(6);
  const Status wide = add_sparse_product({x.data(), 2, 3}, *w, {y.data(), 2, 1}, context);
  ASSERT_FALSE(wide);
  EXPECT_EQ(wide.error().code, ErrorCode::shape);
  EXPECT_TRUE(has(wide.error().message, "2 x 3"));
  EXPECT_FALSE(add_sparse_product({x.data(), 2, 2}, *w, {y.data(), 3, 1}, context));
  EXPECT_FALSE(add_sparse_product({x.data(), 2, 2}, *w, {y.data(), 2, 2}, context));
}

}  // namespace
}  // namespace quell::kernels
