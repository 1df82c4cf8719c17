// SPDX-License-Identifier: Apache-2.0

#include "quell/stats/kurtosis.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "quell/core/random.hpp"

namespace quell::stats {
namespace {

using Floats = std::vector<float>;

Moments moments_of(const Floats& values) {
  Moments m;
  m.add(std::span<const float>(values));
  return m;
}

MatrixView<const float> view(const Floats& x, std::size_t rows) {
  return {x.data(), rows, rows > 0 ? x.size() / rows : 0};
}

Floats one_hot(std::size_t n, float value) {
  Floats x(n, 0.0f);
  x[n / 3] = value;
  return x;
}

TEST(QuantizableTransformersKurtosis, OfPublishedCases) {
  // s^2 = 4/3, so 1 / (16/9 + 1e-6).
  EXPECT_NEAR(kurtosis_quantizable_transformers(moments_of({1, -1, 1, -1})), 0.5625 - 3.164e-7,
              1e-10);
  // Mean 1: m_4 = (7 + 7^4) / 8 = 301, s^2 = 56 / 7 = 8.
  EXPECT_NEAR(kurtosis_quantizable_transformers(moments_of({0, 0, 0, 0, 0, 0, 0, 8})),
              301 / (64 + 1e-6), 1e-12);
  EXPECT_NEAR(kurtosis_quantizable_transformers(moments_of(one_hot(768, 100))), 764.008, 1e-3);
  EXPECT_NEAR(moments_of(one_hot(768, 100)).kurtosis(), 766.001, 1e-3);
}

TEST(QuantizableTransformersKurtosis, IsPulledToZeroByItsEpsilon) {
  const Moments small = moments_of({0.01f, -0.01f, 0.01f, -0.01f});
  EXPECT_NEAR(small.kurtosis(), 1, 1e-12);
  EXPECT_NEAR(kurtosis_quantizable_transformers(small), 1e-8 / (16e-8 / 9 + 1e-6), 1e-8);
}

TEST(OspKurtosis, OfPublishedCases) {
  EXPECT_NEAR(excess_kurtosis_osp_script(moments_of(one_hot(768, 100))), 765, 1e-9);
  // mean x^4 = 88.5, s^4 = 25/9.
  EXPECT_NEAR(excess_kurtosis_osp_script(moments_of({1, 2, 3, 4})), 28.86, 1e-12);
  // m_4 = 41/16.
  EXPECT_NEAR(excess_kurtosis_osp_centred(moments_of({1, 2, 3, 4})), 41.0 / 16 * 9 / 25 - 3, 1e-13);
  EXPECT_DOUBLE_EQ(moments_of({1, 2, 3, 4}).kurtosis(), 1.64);
  EXPECT_DOUBLE_EQ(moments_of({1, 2, 3, 4}).excess_kurtosis(), -1.36);
}

TEST(OspKurtosis, IsClampedInTheScriptOnly) {
  const Moments two_points = moments_of({1, -1, 1, -1});
  EXPECT_EQ(excess_kurtosis_osp_script(two_points), 0);
  EXPECT_NEAR(excess_kurtosis_osp_centred(two_points), 0.5625 - 3, 1e-15);
}

TEST(OspKurtosis, OfTheScriptMistakesAnOffsetForAnOutlier) {
  Floats values(4096);
  Random(41).fill_normal(values);
  for (float& x : values) x += 100;
  const Moments m = moments_of(values);
  EXPECT_GT(excess_kurtosis_osp_script(m), 0.9e8);
  EXPECT_NEAR(excess_kurtosis_osp_centred(m), 0, 5 * std::sqrt(24.0 / 4096));
}

TEST(OspKurtosis, OfNormalRowsIsAMeanOfPositiveParts) {
  constexpr std::size_t kRows = 500, kCols = 2048;
  Floats x(kRows * kCols);
  Random(42).fill_normal(x);
  KurtosisMeans means;
  means.add_rows(view(x, kRows));
  const double deviation = std::sqrt(24.0 / kCols);  // of the excess kurtosis of one row
  const double error = deviation / std::sqrt(static_cast<double>(kRows));
  EXPECT_NEAR(means.excess_kurtosis(), 0, 5 * error + 6.0 / kCols);  // bias -6 / (n + 1)
  EXPECT_NEAR(means.excess_kurtosis_osp_centred(), 0, 5 * error + 9.0 / kCols);
  // Positive part of a normal variable: deviation / sqrt(2 pi), 0.043; its own deviation is 0.584
  // of the row's. A mean that is not removed, and skewness, add terms of the order of 10 / n.
  EXPECT_NEAR(means.excess_kurtosis_osp_script(), deviation / 2.50663, 5 * error + 10.0 / kCols);
}

struct Definitions {
  double transformers, osp_script, osp_centred;
};
// The formulas, in long double, two passes.
Definitions defined(const Floats& values) {
  const long double n = static_cast<long double>(values.size());
  long double mean = 0, m2 = 0, m4 = 0, raw4 = 0;
  for (const float x : values) mean += static_cast<long double>(x) / n;
  for (const float v : values) {
    const long double x = static_cast<long double>(v), d = x - mean;
    m2 += d * d;
    m4 += d * d * d * d / n;
    raw4 += x * x * x * x / n;
  }
  const long double s4 = m2 * m2 / ((n - 1) * (n - 1));
  return {static_cast<double>(m4 / (s4 + 1e-6L)), std::max(0.0, static_cast<double>(raw4 / s4 - 3)),
          static_cast<double>(m4 / s4 - 3)};
}

TEST(Kurtosis, OfEveryConventionAgreesWithItsFormula) {
  const Random random(43);
  for (const std::size_t n : {2u, 3u, 17u, 768u, 10000u}) {
    for (const double offset : {0.0, -0.5, 30.0}) {
      for (const double scale : {1.0, 1e-18, 1e15}) {
        Floats values(n);
        for (std::size_t i = 0; i < n; ++i) {
          const double z = random.normal(i);
          values[i] = static_cast<float>(scale * (offset + z * (1 + 0.4 * z)));  // skewed
        }
        const Definitions d = defined(values);
        const Moments m = moments_of(values);
        // Moments are within 1e-12 of their scale; an offset of k deviations costs nothing, as no
        // term of the raw moment is larger than the moment itself by more than a small factor.
        const auto near = [&](double value, double expected) {
          EXPECT_NEAR(value, expected, 1e-11 * (std::fabs(expected) + 3))
              << n << " " << offset << " " << scale;
        };
        near(kurtosis_quantizable_transformers(m), d.transformers);
        near(excess_kurtosis_osp_script(m), d.osp_script);
        near(excess_kurtosis_osp_centred(m), d.osp_centred);
      }
    }
  }
}

TEST(Kurtosis, WithoutSpreadOrValuesIsZeroInEveryConvention) {
  for (const Floats& values : {Floats{}, Floats{5}, Floats(9, 0.0f), Floats(5000, -0.1f)}) {
    const Moments m = moments_of(values);
    EXPECT_EQ(kurtosis_quantizable_transformers(m), 0);
    EXPECT_EQ(excess_kurtosis_osp_script(m), 0);
    EXPECT_EQ(excess_kurtosis_osp_centred(m), 0);
  }
}

TEST(Kurtosis, HoldsAtTheEndsOfFloat) {
  const float huge = std::numeric_limits<float>::max();
  const float tiny = std::numeric_limits<float>::denorm_min();
  for (const float x : {huge, tiny}) {
    const Moments m = moments_of({x, -x, x, -x});
    EXPECT_NEAR(m.kurtosis(), 1, 1e-12);
    EXPECT_NEAR(excess_kurtosis_osp_centred(m), 0.5625 - 3, 1e-12);
    EXPECT_EQ(excess_kurtosis_osp_script(m), 0);
  }
  EXPECT_NEAR(kurtosis_quantizable_transformers(moments_of({huge, -huge, huge, -huge})), 0.5625,
              1e-12);
  EXPECT_NEAR(kurtosis_quantizable_transformers(moments_of({tiny, -tiny})), 0, 1e-100);
}

TEST(Kurtosis, OfLargeSamplesIsThatOfTheDistribution) {
  constexpr std::size_t kCount = 1 << 18;
  const Random random(44);
  Floats uniform(kCount), normal(kCount), laplace(kCount), two(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    uniform[i] = static_cast<float>(2 * random.uniform(i) - 1);
    normal[i] = static_cast<float>(random.normal(i + (1ull << 30)));
    // Difference of two exponentials.
    const double u = 1 - random.uniform(2 * i + (1ull << 40));
    const double v = 1 - random.uniform(2 * i + 1 + (1ull << 40));
    laplace[i] = static_cast<float>(std::log(u) - std::log(v));
    two[i] = i % 2 == 0 ? 3.0f : -3.0f;
  }
  // Variance of the sample kurtosis b of a symmetric distribution, times n, with standardised
  // moments: mu_8 - 4 b mu_6 + 4 b^3 - b^2. Uniform: 9 - 7.2 * 27/7 + 23.328 - 3.24 = 1.317; normal
  // 24; Laplace: 2520 - 24 * 90 + 864 - 36 = 1188. Five deviations.
  const auto bound = [](double variance) { return 5 * std::sqrt(variance / kCount); };
  EXPECT_NEAR(moments_of(uniform).kurtosis(), 1.8, bound(1.317));
  EXPECT_NEAR(moments_of(normal).kurtosis(), 3, bound(24));
  EXPECT_NEAR(moments_of(laplace).kurtosis(), 6, bound(1188));
  EXPECT_NEAR(moments_of(two).kurtosis(), 1, 1e-12);
  // For many values the conventions agree up to their constant, and the offset of the mean.
  const Moments m = moments_of(laplace);
  EXPECT_NEAR(kurtosis_quantizable_transformers(m), m.kurtosis(), 1e-4);
  EXPECT_NEAR(excess_kurtosis_osp_centred(m), m.excess_kurtosis(), 1e-4);
  EXPECT_NEAR(excess_kurtosis_osp_script(m), m.excess_kurtosis(), 0.1);
}

TEST(KurtosisMeans, OfRowsAndOfASequenceDiffer) {
  const Floats x = {1, -1, 1, -1, 0, 0, 0, 8};  // [2, 4]
  KurtosisMeans rows, sequence;
  rows.add_rows(view(x, 2));
  sequence.add_sequence(view(x, 2));
  EXPECT_EQ(rows.samples(), 2u);
  EXPECT_EQ(sequence.samples(), 1u);
  EXPECT_DOUBLE_EQ(rows.inf_norm(), 4.5);
  EXPECT_DOUBLE_EQ(sequence.inf_norm(), 8);
  // Second row: mean 2, m_4 = (3 * 16 + 1296) / 4 = 336, s^2 = 16, m_2 = 12.
  EXPECT_NEAR(rows.kurtosis(), (1 + 336.0 / 144) / 2, 1e-13);
  EXPECT_NEAR(rows.excess_kurtosis(), (1 + 336.0 / 144) / 2 - 3, 1e-13);
  EXPECT_NEAR(rows.kurtosis_quantizable_transformers(),
              (1 / (16.0 / 9 + 1e-6) + 336 / (256 + 1e-6)) / 2, 1e-13);
  EXPECT_NEAR(rows.excess_kurtosis_osp_script(), 1.0 / 2, 1e-13);  // 0 and 1024 / 256 - 3
  EXPECT_NEAR(rows.excess_kurtosis_osp_centred(), (0.5625 + 336.0 / 256) / 2 - 3, 1e-13);
  EXPECT_NEAR(sequence.kurtosis_quantizable_transformers(), defined(x).transformers, 1e-12);
  EXPECT_NEAR(sequence.excess_kurtosis_osp_script(), defined(x).osp_script, 1e-12);
}

TEST(KurtosisMeans, FollowTheStride) {
  const Floats x = {1, -1, 9, 1, -1, 9};
  KurtosisMeans means;
  means.add_sequence(MatrixView<const float>(x.data(), 2, 2, 3));
  EXPECT_EQ(means.inf_norm(), 1);
  EXPECT_DOUBLE_EQ(means.kurtosis(), 1);
}

TEST(KurtosisMeans, LeaveDamagedSamplesOutAndCountThem) {
  Floats x = {1, -1, 1, -1, 0, 0, 0, 8};
  x[5] = std::numeric_limits<float>::quiet_NaN();
  KurtosisMeans means;
  means.add_rows(view(x, 2));
  EXPECT_EQ(means.samples(), 1u);
  EXPECT_EQ(means.skipped(), 1u);
  EXPECT_EQ(means.inf_norm(), 1);
  EXPECT_DOUBLE_EQ(means.kurtosis(), 1);
  x[0] = -std::numeric_limits<float>::infinity();
  KurtosisMeans none;
  none.add_rows(view(x, 2));
  none.add_sequence(view(x, 2));
  EXPECT_EQ(none.samples(), 0u);
  EXPECT_EQ(none.skipped(), 3u);
  EXPECT_EQ(none.kurtosis(), 0);
}

TEST(KurtosisMeans, DoNotCountEmptySamples) {
  KurtosisMeans means;
  means.add_rows({});
  means.add_sequence({});
  means.add_rows(MatrixView<const float>(nullptr, 7, 0));
  EXPECT_EQ(means.samples(), 0u);
  EXPECT_EQ(means.inf_norm(), 0);
}

TEST(KurtosisMeans, MergeEqualsOnePass) {
  constexpr std::size_t kRows = 60;
  Floats x(kRows * 128);
  Random(45).fill_normal(x);
  for (std::size_t t = 0; t < kRows; t += 7) x[t * 128 + 5] = 50;
  KurtosisMeans whole;
  whole.add_rows(view(x, kRows));
  for (const std::size_t cut : {0u, 1u, 31u, 60u}) {
    KurtosisMeans first, second;
    first.add_rows(view(x, kRows).rows_from(0, cut));
    second.add_rows(view(x, kRows).rows_from(cut, kRows - cut));
    second.merge(first);
    EXPECT_EQ(second.samples(), kRows);
    const auto near = [&](double a, double b) { EXPECT_NEAR(a, b, 1e-12 * std::fabs(b)) << cut; };
    near(second.inf_norm(), whole.inf_norm());
    near(second.kurtosis(), whole.kurtosis());
    near(second.excess_kurtosis(), whole.excess_kurtosis());
    near(second.kurtosis_quantizable_transformers(), whole.kurtosis_quantizable_transformers());
    near(second.excess_kurtosis_osp_script(), whole.excess_kurtosis_osp_script());
    near(second.excess_kurtosis_osp_centred(), whole.excess_kurtosis_osp_centred());
  }
}

}  // namespace
}  // namespace quell::stats
