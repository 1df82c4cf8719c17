// SPDX-License-Identifier: Apache-2.0

// What every registered split must keep: its parts add up, its budget holds, and hostile numbers
// are errors. A split is tested by being listed; what outlier_columns alone promises stands below.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "quell/quant/methods.hpp"
#include "quell/quant/registry.hpp"
#include "support/compare.hpp"
#include "support/matrices.hpp"

namespace quell::quant {
namespace {

constexpr std::size_t kRows = 11, kInputs = 37;

std::vector<double> some_peaks() {
  std::vector<double> peaks(kInputs);
  for (std::size_t c = 0; c < kInputs; ++c) peaks[c] = Random(3).uniform(c);
  return peaks;
}

/// rest + kept, as floats.
Matrix sum_of(const Parts& parts) {
  Matrix sum = *Matrix::uninitialized(parts.rest.rows(), parts.rest.cols());
  std::copy(parts.rest.values().begin(), parts.rest.values().end(), sum.values().begin());
  const std::size_t count = parts.kept.columns.size();
  for (std::size_t r = 0; r < sum.rows(); ++r) {
    for (std::size_t k = 0; k < count; ++k) {
      sum(r, parts.kept.columns[k]) += f16_to_float(parts.kept.values[r * count + k]);
    }
  }
  return sum;
}

TEST(SplitLaws, PartsAddUpToTheBitsOfTheWeightWithinTheBudget) {
  const std::vector<double> peaks = some_peaks();
  std::vector<test::NamedMatrix> cases = test::ordinary_matrices(kRows, kInputs);
  cases.push_back({"subnormal", test::subnormal_matrix(kRows, kInputs)});
  Matrix negative_zero = test::constant_matrix(kRows, kInputs, -0.0F);
  cases.push_back({"negative_zero", std::move(negative_zero)});
  for (const SplitMethod& method : splits()) {
    for (const test::NamedMatrix& each : cases) {
      for (const std::size_t budget : {std::size_t{0}, std::size_t{1}, std::size_t{5}, kInputs}) {
        SCOPED_TRACE(std::string(method.name) + " " + each.name + " " + std::to_string(budget));
        const auto parts = method.make()->split({"layer", each.matrix.view(), peaks, budget});
        ASSERT_TRUE(parts.has_value()) << parts.error().message;
        EXPECT_LE(parts->kept.columns.size(), budget);
        EXPECT_EQ(parts->kept.values.size(), kRows * parts->kept.columns.size());
        EXPECT_TRUE(test::same_bits(sum_of(*parts).values(), each.matrix.values()));
      }
    }
  }
}

TEST(SplitLaws, NumbersThatAreNotFiniteAreErrorsThatNameTheLayer) {
  const Matrix w = test::gaussian_matrix(kRows, kInputs);
  for (const SplitMethod& method : splits()) {
    const std::unique_ptr<Split> split = method.make();
    EXPECT_EQ(split->name(), method.name);
    for (const double bad : {std::nan(""), HUGE_VAL, -1.0}) {
      std::vector<double> peaks = some_peaks();
      peaks[5] = bad;
      const auto parts = split->split({"layer7", w.view(), peaks, 2});
      ASSERT_FALSE(parts.has_value());
      EXPECT_EQ(parts.error().code, ErrorCode::numeric);
      EXPECT_NE(parts.error().message.find("layer7"), std::string::npos);
      EXPECT_NE(parts.error().message.find("channel 5"), std::string::npos);
    }
    // Statistics that are missing, and a budget beyond the weight.
    const std::vector<double> none, peaks = some_peaks();
    EXPECT_EQ(split->split({"l", w.view(), none, 2}).error().code, ErrorCode::shape);
    EXPECT_EQ(split->split({"l", w.view(), peaks, kInputs + 1}).error().code, ErrorCode::shape);
  }
}

TEST(OutlierColumns, KeepsThoseWithTheLargestPeaksAndOfEqualOnesTheFirst) {
  const Matrix w = test::gaussian_matrix(2, 5);
  const std::vector<double> peaks = {1, 4, 0, 4, 9};
  const auto kept = [&](std::size_t budget) {
    return outlier_columns()->split({"l", w.view(), peaks, budget})->kept.columns;
  };
  EXPECT_EQ(kept(1), (std::vector<std::uint32_t>{4}));
  EXPECT_EQ(kept(2), (std::vector<std::uint32_t>{1, 4}));
  EXPECT_EQ(kept(4), (std::vector<std::uint32_t>{0, 1, 3, 4}));
}

TEST(OutlierColumns, RefusesWeightsBeyondF16) {
  Matrix w = test::gaussian_matrix(2, 5);
  w(1, 3) = 65536;
  const std::vector<double> peaks = {0, 0, 0, 1, 0};
  const auto parts = outlier_columns()->split({"layer", w.view(), peaks, 1});
  ASSERT_FALSE(parts.has_value());
  EXPECT_EQ(parts.error().code, ErrorCode::numeric);
  EXPECT_NE(parts.error().message.find("[1, 3]"), std::string::npos) << parts.error().message;
  EXPECT_NE(parts.error().message.find("65536"), std::string::npos) << parts.error().message;
  // Where its column is not kept, it is none of the split's business.
  const std::vector<double> others = {1, 0, 0, 0, 0};
  EXPECT_TRUE(outlier_columns()->split({"layer", w.view(), others, 1}).has_value());
}

}  // namespace
}  // namespace quell::quant
