// SPDX-License-Identifier: Apache-2.0

// Planted outliers are found exactly, and matrices without any are left alone.

#include "quell/stats/outliers.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "quell/core/half.hpp"
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

// ------------------------------------------------------------------ while rows come by

TEST(LargestElements, AreTheFirstOfAllByMagnitudeAndPlace) {
  const Matrix x = student_matrix(50, 40, 3);
  std::vector<OutlierElement> all;
  for (std::size_t r = 0; r < 50; ++r) {
    // Coarse, so that many are equal.
    for (std::size_t c = 0; c < 40; ++c) all.push_back({r, c, std::round(x(r, c) * 2) / 2});
  }
  std::vector<OutlierElement> expected = all;
  std::sort(expected.begin(), expected.end(), comes_before);
  for (const std::size_t most : {std::size_t{1}, std::size_t{7}, std::size_t{65}}) {
    // Backwards and in two parts.
    LargestElements first(most), second(most);
    for (std::size_t i = all.size(); i-- > 0;) (i % 3 == 0 ? first : second).add(all[i]);
    first.merge(second);
    const std::vector<OutlierElement> found = first.sorted();
    ASSERT_EQ(found.size(), most);
    for (std::size_t i = 0; i < most; ++i) {
      EXPECT_EQ(found[i].row, expected[i].row) << i;
      EXPECT_EQ(found[i].col, expected[i].col) << i;
    }
  }
}

/// Whether it is proved that there are no outlier rows and columns.
std::pair<bool, bool> proved(const Matrix& x, const ScreenLevels& levels) {
  ScreenCounts rows(x.rows()), columns(x.cols());
  // In two bands.
  const std::size_t half = x.rows() / 2;
  for (const auto& [first, count] : {std::pair{std::size_t{0}, half}, {half, x.rows() - half}}) {
    screen(x.view().rows_from(first, count), levels,
           std::span(rows.at_least_low).subspan(first, count),
           std::span(rows.at_most_high).subspan(first, count), columns);
  }
  const auto finite = [&](bool by_rows) {
    return [&x, by_rows](std::size_t line) {
      std::size_t count = 0;
      for (std::size_t i = 0; i < (by_rows ? x.cols() : x.rows()); ++i) {
        count += std::isfinite(by_rows ? x(line, i) : x(i, line));
      }
      return std::uint64_t{count};
    };
  };
  return {rows.prove_ordinary(levels, finite(true)), columns.prove_ordinary(levels, finite(false))};
}

TEST(ScreenCounts, ProveOnlyWhatIsTrue) {
  SerialExecutor serial;
  unsigned proofs = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Matrix x = gaussian_matrix(70, 48, seed);
    const Random draw(seed, 6);
    // Lines of any scale around the limit of four, zeros, and values that are not finite.
    for (std::size_t i = 0; i < seed % 5; ++i) {
      const float scale = 1 + 7 * static_cast<float>(draw.uniform(i));
      if (i % 2 == 0) {
        for (float& value : x.row(draw.below(100 + i, 70))) value *= scale;
      } else {
        const std::size_t c = draw.below(100 + i, 48);
        for (std::size_t r = 0; r < 70; ++r) x(r, c) *= scale;
      }
    }
    for (std::size_t i = 0; i < 48 * (seed % 7); ++i) x.values()[draw.below(200 + i, x.size())] = 0;
    if (seed % 3 == 0) x(5, 5) = std::numeric_limits<float>::quiet_NaN();
    for (const double median : {0.67, 0.3, 2.0, 0.0}) {
      const auto [rows, columns] = proved(x, ScreenLevels(median, 4));
      const MatrixOutliers found = find_outliers(x.view(), {}, serial);
      EXPECT_TRUE(!rows || found.rows.empty()) << "seed " << seed << " median " << median;
      EXPECT_TRUE(!columns || found.columns.empty()) << "seed " << seed << " median " << median;
      proofs += rows && columns;
    }
  }
  EXPECT_GE(proofs, 12U);  // by the right median, where no line was scaled
}

TEST(ScreenCounts, ProveOrdinaryAndZeroMatrices) {
  using Both = std::pair<bool, bool>;
  EXPECT_EQ(proved(gaussian_matrix(64, 64, 1), ScreenLevels(0.6745, 4)), Both(true, true));
  EXPECT_EQ(proved(student_matrix(64, 64, 1), ScreenLevels(0.7267, 4)), Both(true, true));
  EXPECT_EQ(proved(*Matrix::zeros(64, 64), ScreenLevels(0, 4)), Both(true, true));
  EXPECT_EQ(proved(gaussian_matrix(64, 64, 1), ScreenLevels(0, 4)), Both(false, false));
  EXPECT_FALSE(ScreenLevels(1e-39, 4).usable());
  EXPECT_FALSE(ScreenLevels(3e38, 4).usable());
  EXPECT_FALSE(ScreenLevels(1, 1).usable());
}

TEST(ScreenCounts, OfBfloat16AreThoseOfItsValues) {
  const Matrix x = student_matrix(40, 1500, 8);
  std::vector<std::uint16_t> words(x.size());
  float_to_bf16(x.values(), words);
  words[7] = 0x7F80;
  words[8] = 0xFFC1;
  words[9] = 0x8000;
  Matrix values = *Matrix::uninitialized(40, 1500);
  bf16_to_float(words, values.values());
  const ScreenLevels levels(0.7267, 4);
  ScreenCounts rows(40), columns(1500), float_rows(40), float_columns(1500);
  screen(MatrixView<const std::uint16_t>(words.data(), 40, 1500), levels, rows.at_least_low,
         rows.at_most_high, columns);
  screen(std::as_const(values).view(), levels, float_rows.at_least_low, float_rows.at_most_high,
         float_columns);
  EXPECT_EQ(rows.at_least_low, float_rows.at_least_low);
  EXPECT_EQ(rows.at_most_high, float_rows.at_most_high);
  EXPECT_EQ(columns.at_least_low, float_columns.at_least_low);
  EXPECT_EQ(columns.at_most_high, float_columns.at_most_high);
}

}  // namespace
}  // namespace quell::stats
