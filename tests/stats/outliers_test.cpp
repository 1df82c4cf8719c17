// SPDX-License-Identifier: Apache-2.0

// Planted outliers are found exactly, and matrices without any are left alone.

#include "quell/stats/outliers.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "quell/core/random.hpp"
#include "quell/core/tensor.hpp"
#include "support/matrices.hpp"

namespace quell::stats {
namespace {

using test::gaussian_matrix;

/// Student's t with five degrees of freedom.
Matrix student_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  return test::student_matrix(rows, cols, 5, seed);
}

float largest(const Matrix& x) {
  float most = 0;
  for (const float value : x.values()) most = std::max(most, std::fabs(value));
  return most;
}

struct Planted {
  std::set<std::pair<std::size_t, std::size_t>> elements;
  std::set<std::size_t> rows, columns;
};

Planted found_in(const Matrix& x) {
  SerialExecutor serial;
  const MatrixOutliers found = find_outliers(x.view(), {}, serial);
  Planted result;
  for (const OutlierElement& e : found.elements) result.elements.insert({e.row, e.col});
  for (const OutlierLine& line : found.rows) result.rows.insert(line.index);
  for (const OutlierLine& line : found.columns) result.columns.insert(line.index);
  return result;
}

TEST(FindOutliers, FindsExactlyWhatIsPlantedInTwoHundredMatrices) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const Random draw(seed, 5);
    std::uint64_t at = 0;
    const auto below = [&](std::size_t n) { return static_cast<std::size_t>(draw.bits(at++) % n); };
    const std::size_t rows = 64 + below(200), cols = 64 + below(200);
    Matrix x = seed % 2 == 0 ? gaussian_matrix(rows, cols, seed) : student_matrix(rows, cols, seed);
    const float most = largest(x);
    // From 8 times the largest ordinary value to 400 times, both signs.
    const auto ratio = [&] { return 8.0F * (1 + static_cast<float>(below(50))); };
    Planted planted;
    const std::size_t count = 1 + below(12);
    switch (seed % 3) {
      case 0:
        while (planted.elements.size() < count) planted.elements.insert({below(rows), below(cols)});
        for (const auto& [r, c] : planted.elements) {
          x(r, c) = (below(2) == 0 ? 1.0F : -1.0F) * ratio() * most;
        }
        break;
      case 1:
      case 2: {
        // A whole line is scaled until its largest value is that many times all others.
        const bool by_rows = seed % 3 == 1;
        std::set<std::size_t>& lines = by_rows ? planted.rows : planted.columns;
        while (lines.size() < std::min<std::size_t>(count, 6)) {
          lines.insert(below(by_rows ? rows : cols));
        }
        for (const std::size_t line : lines) {
          const std::size_t length = by_rows ? cols : rows;
          float own = 0;
          for (std::size_t i = 0; i < length; ++i) {
            own = std::max(own, std::fabs(by_rows ? x(line, i) : x(i, line)));
          }
          const float scale = ratio() * most / own;
          for (std::size_t i = 0; i < length; ++i) (by_rows ? x(line, i) : x(i, line)) *= scale;
        }
        break;
      }
    }
    const Planted found = found_in(x);
    EXPECT_EQ(found.elements, planted.elements) << "seed " << seed;
    EXPECT_EQ(found.rows, planted.rows) << "seed " << seed;
    EXPECT_EQ(found.columns, planted.columns) << "seed " << seed;
  }
}

TEST(FindOutliers, LeavesMatricesWithoutOutliersAlone) {
  // The header derives 0.03 % for Student-t(5) and none for the normal; 4 of 200 would be 2 %.
  std::size_t alarms = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    for (const bool student : {false, true}) {
      const std::size_t rows = 192 + seed % 64, cols = 256 + seed % 100;
      const Matrix x =
          student ? student_matrix(rows, cols, seed) : gaussian_matrix(rows, cols, seed);
      const Planted found = found_in(x);
      alarms += !found.elements.empty() || !found.rows.empty() || !found.columns.empty();
    }
  }
  EXPECT_LE(alarms, 1U);
}

TEST(FindOutliers, TellsALineFromAnElementInIt) {
  Matrix x = gaussian_matrix(100, 80, 3);
  for (std::size_t r = 0; r < 100; ++r) x(r, 7) *= 30;
  x(4, 9) = -5000;
  const Planted found = found_in(x);
  EXPECT_EQ(found.columns, (std::set<std::size_t>{7}));
  EXPECT_TRUE(found.rows.empty());
  EXPECT_EQ(found.elements, (std::set<std::pair<std::size_t, std::size_t>>{{4, 9}}));
}

TEST(FindOutliers, IgnoresWhatIsNotFinite) {
  Matrix x = gaussian_matrix(50, 50, 4);
  x(1, 1) = std::numeric_limits<float>::quiet_NaN();
  x(2, 2) = -std::numeric_limits<float>::infinity();
  EXPECT_TRUE(found_in(x).elements.empty());
  x(3, 3) = 1000;
  EXPECT_EQ(found_in(x).elements.size(), 1U);
}

TEST(FindOutliers, SaysNothingOfMatricesThatAreTooSmallOrEmptyOrZero) {
  SerialExecutor serial;
  EXPECT_TRUE(find_outliers({}, {}, serial).empty());
  const Matrix zero = *Matrix::zeros(40, 40);
  EXPECT_TRUE(find_outliers(zero.view(), {}, serial).empty());
  const float two[] = {1, 1000};
  EXPECT_TRUE(find_outliers({two, 1, 2}, {}, serial).empty());
}

TEST(FindOutliers, IsTheSameForAnyNumberOfThreads) {
  Matrix x = student_matrix(300, 200, 9);
  for (std::size_t i = 0; i < 5; ++i) x(60 * i, 11 * i) = 900.0F;  // equal: order by place
  SerialExecutor serial;
  const MatrixOutliers one = find_outliers(x.view(), {}, serial);
  const auto three = make_openmp_executor(3);
  const MatrixOutliers other = find_outliers(x.view(), {}, *three);
  ASSERT_EQ(one.elements.size(), 5U);
  ASSERT_EQ(other.elements.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(one.elements[i].row, 60 * i);
    EXPECT_EQ(other.elements[i].row, 60 * i);
  }
}

}  // namespace
}  // namespace quell::stats
