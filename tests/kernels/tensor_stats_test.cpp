// SPDX-License-Identifier: Apache-2.0

#include "quell/kernels/tensor_stats.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "quell/core/half.hpp"
#include "quell/kernels/isa.hpp"
#include "support/same_bits.hpp"

namespace quell::kernels {
namespace {

using test::Numbers;
using test::same_bits;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

void expect_equal(const PowerSums& found, const PowerSums& expected, std::size_t index = 0) {
  EXPECT_EQ(found.count, expected.count) << index;
  EXPECT_EQ(found.nonfinite, expected.nonfinite) << index;
  EXPECT_TRUE(same_bits(found.sum, expected.sum)) << index;
  EXPECT_TRUE(same_bits(found.sum2, expected.sum2)) << index;
  EXPECT_TRUE(same_bits(found.sum3, expected.sum3)) << index;
  EXPECT_TRUE(same_bits(found.sum4, expected.sum4)) << index;
  EXPECT_TRUE(same_bits(found.sum_abs, expected.sum_abs)) << index;
  EXPECT_EQ(found.max_abs, expected.max_abs) << index;
  EXPECT_EQ(found.argmax_abs, expected.argmax_abs) << index;
}

class Sums : public testing::Test {
 protected:
  SerialExecutor serial_;
  Context context_{serial_};
};

TEST_F(Sums, OfOneToFourAreKnown) {
  const std::vector<float> x = {1, -2, 3, -4};
  const PowerSums sums = power_sums({x.data(), 2, 2}, context_);
  expect_equal(sums, {4, 0, -2, 30, -44, 354, 10, 4, 3});
  std::vector<PowerSums> rows(2), cols(2);
  row_sums({x.data(), 2, 2}, rows, context_);
  expect_equal(rows[0], {2, 0, -1, 5, -7, 17, 3, 2, 1});
  expect_equal(rows[1], {2, 0, -1, 25, -37, 337, 7, 4, 1});
  column_sums({x.data(), 2, 2}, cols, context_);
  expect_equal(cols[0], {2, 0, 4, 10, 28, 82, 4, 3, 1});
  expect_equal(cols[1], {2, 0, -6, 20, -72, 272, 6, 4, 1});
}

TEST_F(Sums, LeaveOutWhatIsNotFinite) {
  const std::vector<float> x = {kNaN, 2, kInfinity, -kInfinity, -2, 0};
  const PowerSums sums = power_sums({x.data(), 1, 6}, context_);
  expect_equal(sums, {3, 3, 0, 8, 0, 32, 4, 2, 1});  // the first of the two twos
  const std::vector<float> none(20, kNaN);
  expect_equal(power_sums({none.data(), 4, 5}, context_), {0, 20, 0, 0, 0, 0, 0, 0, 0});
  std::vector<PowerSums> cols(6);
  column_sums({x.data(), 1, 6}, cols, context_);
  expect_equal(cols[0], {0, 1, 0, 0, 0, 0, 0, 0, 0});
  expect_equal(cols[4], {1, 0, -2, 4, -8, 16, 2, 2, 0});
}

TEST_F(Sums, FindTheFirstLargestEvenAmongZeros) {
  const std::vector<float> x = {kNaN, 0.0f, -0.0f};
  EXPECT_EQ(power_sums({x.data(), 1, 3}, context_).argmax_abs, 1u);
  std::vector<float> many(10000, 1.0f);
  many[4500] = -7.0f;
  many[9000] = 7.0f;
  EXPECT_EQ(power_sums({many.data(), 1, many.size()}, context_).argmax_abs, 4500u);
  EXPECT_EQ(power_sums({many.data(), 100, 100}, context_).argmax_abs, 4500u);
  std::vector<PowerSums> column(1);
  column_sums({many.data(), many.size(), 1}, column, context_);
  EXPECT_EQ(column[0].argmax_abs, 4500u);
}

TEST_F(Sums, OfNothingAreZero) {
  expect_equal(power_sums({}, context_), {});
  std::vector<PowerSums> three(3, PowerSums{1, 1, 1, 1, 1, 1, 1, 1, 1});
  row_sums({nullptr, 3, 0}, three, context_);
  for (const PowerSums& sums : three) expect_equal(sums, {});
  three.assign(3, PowerSums{1, 1, 1, 1, 1, 1, 1, 1, 1});
  column_sums({nullptr, 0, 3}, three, context_);
  for (const PowerSums& sums : three) expect_equal(sums, {});
}

TEST_F(Sums, AgreeWithLongDouble) {
  const std::size_t rows = 37, cols = 9001;  // rows of three chunks, the last ragged
  std::vector<float> x(rows * cols);
  Numbers numbers(1);
  numbers.fill(x);
  x[123456] = 4e4f;  // an outlier that owns the fourth power
  const auto check = [](const PowerSums& found, const std::vector<float>& values) {
    long double sum = 0, sum2 = 0, sum3 = 0, sum4 = 0, abs = 0, abs3 = 0;
    for (const float value : values) {
      const long double d = value;
      sum += d;
      sum2 += d * d;
      sum3 += d * d * d;
      sum4 += d * d * d * d;
      abs += std::fabs(d);
      abs3 += std::fabs(d * d * d);
    }
    // A lane adds 256 terms of a chunk, chunks are added one by one: fewer than 600 roundings of
    // 2^-53 of the sum of magnitudes.
    const double bound = 600 * 0x1p-53;
    EXPECT_NEAR(found.sum, static_cast<double>(sum), bound * static_cast<double>(abs));
    EXPECT_NEAR(found.sum2, static_cast<double>(sum2), bound * static_cast<double>(sum2));
    EXPECT_NEAR(found.sum3, static_cast<double>(sum3), bound * static_cast<double>(abs3));
    EXPECT_NEAR(found.sum4, static_cast<double>(sum4), bound * static_cast<double>(sum4));
    EXPECT_NEAR(found.sum_abs, static_cast<double>(abs), bound * static_cast<double>(abs));
  };
  const PowerSums all = power_sums({x.data(), rows, cols}, context_);
  check(all, x);
  EXPECT_EQ(all.argmax_abs, 123456u);
  std::vector<PowerSums> per_row(rows), per_col(cols);
  row_sums({x.data(), rows, cols}, per_row, context_);
  for (std::size_t r = 0; r < rows; ++r) {
    check(per_row[r], {x.begin() + static_cast<std::ptrdiff_t>(r * cols),
                       x.begin() + static_cast<std::ptrdiff_t>((r + 1) * cols)});
  }
  column_sums({x.data(), rows, cols}, per_col, context_);
  for (std::size_t c = 0; c < cols; c += 111) {
    std::vector<float> column;
    for (std::size_t r = 0; r < rows; ++r) column.push_back(x[r * cols + c]);
    check(per_col[c], column);
  }
}

TEST_F(Sums, DoNotDependOnStridesThreadsOrInstructionSet) {
  const std::size_t rows = 411, cols = 1300, stride = 1307;  // two tasks of 64 chunks
  std::vector<float> wide(rows * stride, 99.0f), tight;
  Numbers numbers(2);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < cols; ++c) {
      wide[r * stride + c] = numbers.bell();
      tight.push_back(wide[r * stride + c]);
    }
  }
  tight[7] = wide[7] = kNaN;
  const MatrixView<const float> strided(wide.data(), rows, cols, stride);
  const MatrixView<const float> contiguous(tight.data(), rows, cols);
  const PowerSums expected = power_sums(contiguous, context_);
  std::vector<PowerSums> expected_rows(rows), expected_cols(cols);
  row_sums(contiguous, expected_rows, context_);
  column_sums(contiguous, expected_cols, context_);
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    set_isa_cap(isa);
    for (const unsigned threads : {1u, 2u, 3u}) {
      const auto executor = make_openmp_executor(threads);
      Context context(*executor);
      expect_equal(power_sums(strided, context), expected);
      std::vector<PowerSums> found_rows(rows), found_cols(cols);
      row_sums(strided, found_rows, context);
      column_sums(strided, found_cols, context);
      for (std::size_t r = 0; r < rows; ++r) expect_equal(found_rows[r], expected_rows[r], r);
      for (std::size_t c = 0; c < cols; ++c) expect_equal(found_cols[c], expected_cols[c], c);
    }
  }
  clear_isa_cap();
}

TEST_F(Sums, OfLongColumnsAreFoldedInChunks) {
  std::vector<float> x(2 * 4096 + 5, 1.0f);
  x[8000] = 3.0f;
  std::vector<PowerSums> sums(1);
  column_sums({x.data(), x.size(), 1}, sums, context_);
  EXPECT_EQ(sums[0].sum, static_cast<double>(x.size()) + 2);
  EXPECT_EQ(sums[0].argmax_abs, 8000u);
}

TEST_F(Sums, OfTheLargestFloatsDoNotOverflow) {
  const std::vector<float> x(100, std::numeric_limits<float>::max());
  const PowerSums sums = power_sums({x.data(), 10, 10}, context_);
  EXPECT_TRUE(std::isfinite(sums.sum4));
  EXPECT_EQ(sums.count, 100u);
}

// ------------------------------------------------------------------ both directions at once

struct Both {
  std::vector<PowerSums> rows, columns;
};

/// In bands of `band` rows; both as floats and, where the values are such, as bfloat16.
template <typename T>
Both line_sums(MatrixView<const T> x, std::size_t band) {
  Both sums{std::vector<PowerSums>(x.rows()), std::vector<PowerSums>(x.cols())};
  LineSums lines(x.cols());
  for (std::size_t first = 0; first < x.rows(); first += LineSums::kRows) {
    const std::size_t end = std::min(first + LineSums::kRows, x.rows());
    lines.clear();
    for (std::size_t r = first; r < end; r += band) {
      const std::size_t count = std::min(band, end - r);
      lines.add(x.rows_from(r, count), std::span(sums.rows).subspan(r, count));
    }
    const std::size_t half = x.cols() / 2;
    lines.merge_into(std::span(sums.columns).first(half), 0);
    lines.merge_into(std::span(sums.columns).subspan(half), half);
  }
  return sums;
}

/// `near`: the largest magnitude of the tiles; what is far below it may vanish from the powers.
void expect_close(const PowerSums& found, const PowerSums& expected, float near,
                  std::size_t index) {
  // Runs in float are off by 18 roundings of 2^-24 at most, 1.1e-6, all additions of doubles by
  // 2,000 of 2^-53, together less than 2e-6; and powers of subnormal floats.
  const double bound = 2e-6, m = static_cast<double>(near);
  const double lost = static_cast<double>(expected.count) * 0x1p-70;
  const double most = static_cast<double>(expected.max_abs);
  EXPECT_EQ(found.count, expected.count) << index;
  EXPECT_EQ(found.nonfinite, expected.nonfinite) << index;
  EXPECT_NEAR(found.sum, expected.sum, bound * expected.sum_abs + lost * m) << index;
  EXPECT_NEAR(found.sum2, expected.sum2, bound * expected.sum2 + lost * m * m) << index;
  EXPECT_NEAR(found.sum3, expected.sum3, bound * expected.sum2 * most + lost * m * m * m) << index;
  EXPECT_NEAR(found.sum4, expected.sum4, bound * expected.sum4 + lost * m * m * m * m) << index;
  EXPECT_NEAR(found.sum_abs, expected.sum_abs, bound * expected.sum_abs + lost * m) << index;
  EXPECT_EQ(found.max_abs, expected.max_abs) << index;
  EXPECT_EQ(found.argmax_abs, 0u) << index;
}
void expect_close_row(const PowerSums& found, const PowerSums& expected, float near,
                      std::size_t index) {
  EXPECT_EQ(found.count, expected.count) << index;
  EXPECT_EQ(found.nonfinite, expected.nonfinite) << index;
  EXPECT_EQ(found.max_abs, expected.max_abs) << index;
  const double lost = static_cast<double>(expected.count) * 0x1p-70 * static_cast<double>(near);
  EXPECT_NEAR(found.sum_abs, expected.sum_abs, 2e-6 * expected.sum_abs + lost) << index;
}

void expect_same(const Both& found, const Both& expected) {
  for (std::size_t r = 0; r < expected.rows.size(); ++r) {
    expect_equal(found.rows[r], expected.rows[r], r);
  }
  for (std::size_t c = 0; c < expected.columns.size(); ++c) {
    expect_equal(found.columns[c], expected.columns[c], c);
  }
}

TEST_F(Sums, OfLinesCountWordsBeside) {
  // Whole tiles and a ragged one.
  const std::size_t rows = 35, cols = 2 * 256 + 100, stride = cols + 3;
  std::vector<std::uint16_t> words(rows * stride);
  Numbers numbers(7);
  for (std::uint16_t& word : words) word = float_to_bf16(numbers.bell());
  words[300] = 0x7F80;
  words[20 * stride + 611] = 0xFFFF;
  const MatrixView<const std::uint16_t> x(words.data(), rows, cols, stride);
  std::vector<std::uint32_t> expected(0x10000, 5);
  for (std::size_t r = 0; r < rows; ++r) {
    for (const std::uint16_t word : x.row(r)) ++expected[word];
  }
  const Both plain = line_sums(x, rows);
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    set_isa_cap(isa);
    std::vector<std::uint32_t> counts(0x10000, 5);
    Both found{std::vector<PowerSums>(rows), std::vector<PowerSums>(cols)};
    LineSums lines(cols);
    lines.add(x, found.rows, counts);
    lines.merge_into(found.columns, 0);
    EXPECT_EQ(counts, expected);
    expect_same(found, plain);
  }
  clear_isa_cap();
}

TEST_F(Sums, OfLinesAgreeWithTheSeparateSums) {
  const std::pair<std::size_t, std::size_t> shapes[] = {{1, 1},   {1, 9001},  {1100, 1},
                                                        {17, 33}, {513, 300}, {530, 4099}};
  for (const auto& [rows, cols] : shapes) {
    std::vector<float> x(rows * cols);
    std::vector<std::uint16_t> words(x.size());
    Numbers numbers(rows);
    for (std::size_t i = 0; i < x.size(); ++i) {
      words[i] = float_to_bf16(numbers.bell());
      if (i % 97 == 5) words[i] = float_to_bf16(i % 2 == 0 ? kInfinity : kNaN);
      if (cols > 8 && i % cols == 7) words[i] = float_to_bf16(i / cols < 514 ? kNaN : -0.0f);
      if (rows > 2 && i / cols == 2) words[i] = float_to_bf16(i % cols < 3 ? kNaN : 0.0f);
      x[i] = bf16_to_float(words[i]);
    }
    const MatrixView<const float> floats(x.data(), rows, cols);
    const MatrixView<const std::uint16_t> bf16(words.data(), rows, cols);
    Both expected{std::vector<PowerSums>(rows), std::vector<PowerSums>(cols)};
    row_sums(floats, expected.rows, context_);
    column_sums(floats, expected.columns, context_);
    const Both found = line_sums(floats, 16);
    const float near = 8;  // of a bell
    for (std::size_t r = 0; r < rows; ++r) {
      expect_close_row(found.rows[r], expected.rows[r], near, r);
    }
    for (std::size_t c = 0; c < cols; ++c) {
      expect_close(found.columns[c], expected.columns[c], near, c);
    }
    // The same bits whatever the bands of whole runs, the type and the instruction set.
    for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
      set_isa_cap(isa);
      for (const std::size_t band : {std::size_t{16}, std::size_t{48}, LineSums::kRows}) {
        expect_same(line_sums(floats, band), found);
        expect_same(line_sums(bf16, band), found);
      }
    }
    clear_isa_cap();
  }
}

TEST_F(Sums, OfLinesHoldForValuesOfAnySize) {
  // Whole tiles beside a ragged one; the largest of a tile is far from 1, or far from the others.
  const std::size_t rows = 40, cols = 2 * 256 + 40;
  struct Case {
    float scale, planted;
  };
  const Case cases[] = {{1e-3F, 1e30F},  {1e-3F, std::numeric_limits<float>::max()},
                        {1e-12F, 0},     {1e-38F, 0},
                        {1e-44F, 1e-9F}, {1e37F, kNaN},
                        {1e-9F, kNaN},   {1e-3F, 0x1.02p20F}};
  for (const Case& each : cases) {
    std::vector<float> x(rows * cols);
    std::vector<std::uint16_t> words(x.size());
    Numbers numbers(3);
    for (std::size_t i = 0; i < x.size(); ++i) {
      words[i] = float_to_bf16(numbers.bell() * each.scale);
      if (i == 5 * cols + 300) words[i] = float_to_bf16(each.planted);
      x[i] = bf16_to_float(words[i]);
    }
    const MatrixView<const float> floats(x.data(), rows, cols);
    const MatrixView<const std::uint16_t> bf16(words.data(), rows, cols);
    Both expected{std::vector<PowerSums>(rows), std::vector<PowerSums>(cols)};
    row_sums(floats, expected.rows, context_);
    column_sums(floats, expected.columns, context_);
    const float near = power_sums(floats, context_).max_abs;
    const Both found = line_sums(bf16, rows);
    for (std::size_t r = 0; r < rows; ++r) {
      expect_close_row(found.rows[r], expected.rows[r], near, r);
    }
    for (std::size_t c = 0; c < cols; ++c) {
      expect_close(found.columns[c], expected.columns[c], near, c);
    }
    for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
      set_isa_cap(isa);
      expect_same(line_sums(floats, rows), found);
      expect_same(line_sums(bf16, 16), found);
    }
    clear_isa_cap();
  }
}

}  // namespace
}  // namespace quell::kernels
