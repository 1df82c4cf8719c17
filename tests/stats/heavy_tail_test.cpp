// SPDX-License-Identifier: Apache-2.0

#include "quell/stats/heavy_tail.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "quell/core/random.hpp"

namespace quell::stats {
namespace {

using Values = std::vector<double>;

const double kInf = std::numeric_limits<double>::infinity();

/// Singular values whose squares are those given.
Values roots(Values eigenvalues) {
  for (double& x : eigenvalues) x = std::sqrt(x);
  return eigenvalues;
}

/// Eigenvalues of density (alpha - 1) x^-alpha above 1, by inversion.
Values pareto(std::size_t n, double alpha, std::uint64_t seed) {
  Values x(n);
  // A stream for each exponent: from the same numbers all would be wrong in the same way.
  const Random random(seed, static_cast<std::uint64_t>(1000 * alpha));
  for (std::size_t i = 0; i < n; ++i) x[i] = std::pow(1 - random.uniform(i), -1 / (alpha - 1));
  return x;
}

TEST(HillAlpha, OfPowersOfTwoByHand) {
  // i = 2, n = 2: 1 + 2 / ln 2.
  EXPECT_NEAR(hill_alpha(roots({1, 2, 4, 8})), 3.885390, 1e-6);
  EXPECT_NEAR(hill_alpha(roots({8, 1, 4, 2})), 1 + 2 / std::log(2.0), 1e-13);
  // Five: i = 2, n = 3, x_min = 4: ln 1 + ln 2 + ln 4.
  EXPECT_NEAR(hill_alpha(roots({1, 2, 4, 8, 16})), 1 + 3 / (3 * std::log(2.0)), 1e-13);
}

TEST(HillAlpha, DropsWhatIsNoSpectrum) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Values clean = roots({1, 2, 4, 8});
  Values dirty = clean;
  for (const double x : {0.0, 1e-13, nan, kInf, -3.0}) dirty.push_back(x);
  EXPECT_EQ(hill_alpha(dirty), hill_alpha(clean));
  EXPECT_EQ(fit_tail(dirty).alpha, fit_tail(clean).alpha);
}

TEST(HillAlpha, DoesNotDependOnTheScale) {
  const Values values = roots(pareto(500, 3, 50));
  for (const double scale : {1e-300, 1e-6, 1e250}) {
    Values scaled = values;
    for (double& x : scaled) x *= scale;
    EXPECT_NEAR(hill_alpha(scaled), hill_alpha(values), 1e-9) << scale;
    EXPECT_NEAR(fit_tail(scaled).alpha, fit_tail(values).alpha, 1e-9) << scale;
    EXPECT_EQ(fit_tail(scaled).tail, fit_tail(values).tail) << scale;
  }
}

TEST(HillAlpha, OfATailWithoutSpreadIsInfinite) {
  for (const Values& values : {Values{3}, Values(7, 0.25), Values{1, 2, 2}}) {
    EXPECT_EQ(hill_alpha(values), kInf);
  }
  EXPECT_EQ(hill_alpha({}), 0);
  EXPECT_EQ(hill_alpha(Values(4, 0.0)), 0);
}

TEST(HillAlpha, OfParetoSamplesIsWithinItsStandardError) {
  // The upper half above its smallest value is again a Pareto sample, so z is nearly standard
  // normal: over 400 samples 68.3 % lie within one standard error, up to five deviations of a
  // binomial share, 0.116, and the skewness of 1 / Gamma(n), of order 1 / sqrt(n); none beyond 5.
  constexpr std::size_t kCount = 2000;
  for (const double alpha : {1.5, 2.0, 3.0, 6.0}) {
    int within = 0;
    double sum = 0, squares = 0;
    constexpr int kSamples = 400;
    for (int sample = 0; sample < kSamples; ++sample) {
      const double found =
          hill_alpha(roots(pareto(kCount, alpha, static_cast<std::uint64_t>(100 + sample))));
      const double z = (found - alpha) / ((alpha - 1) / std::sqrt(kCount / 2.0));
      EXPECT_LT(std::fabs(z), 5) << alpha << " sample " << sample;
      within += std::fabs(z) < 1 ? 1 : 0;
      sum += z;
      squares += z * z;
    }
    EXPECT_NEAR(within / static_cast<double>(kSamples), 0.683, 0.116 + 0.03) << alpha;
    // Mean 0 up to 5 / sqrt(400), and the bias of 2 / sqrt(n) from x_min and from 1 / Gamma.
    EXPECT_NEAR(sum / kSamples, 0, 0.25 + 2 / std::sqrt(kCount / 2.0)) << alpha;
    EXPECT_NEAR(squares / kSamples, 1, 5 * std::sqrt(2.0 / kSamples) + 0.02) << alpha;
  }
}

/// Everything tried, without the recurrence and without leaving early.
TailFit slow_fit(Values singular_values) {
  std::sort(singular_values.begin(), singular_values.end());
  TailFit best;
  best.distance = kInf;
  for (std::size_t i = 0; i + 1 < singular_values.size(); ++i) {
    if (i > 0 && singular_values[i] == singular_values[i - 1]) continue;
    const double n = static_cast<double>(singular_values.size() - i);
    double sum = 0;
    for (std::size_t j = i; j < singular_values.size(); ++j) {
      sum += 2 * std::log(singular_values[j] / singular_values[i]);
    }
    if (!(sum > 0)) continue;
    const double alpha = 1 + n / sum;
    double distance = 0;
    for (std::size_t j = i; j < singular_values.size(); ++j) {
      const double fitted = 1 - std::pow(singular_values[j] / singular_values[i], -2 * (alpha - 1));
      const double k = static_cast<double>(j - i);
      distance = std::max({distance, fitted - k / n, (k + 1) / n - fitted});
    }
    if (distance < best.distance) {
      best = {alpha, singular_values[i] * singular_values[i], distance, (alpha - 1) / std::sqrt(n),
              singular_values.size() - i};
    }
  }
  return best;
}

TEST(TailFit, EqualsTheSearchWithoutShortcuts) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const std::size_t n = 2 + seed * 5;
    Values values = roots(pareto(n, 2.5, seed));
    if (seed % 3 == 0) {
      for (double& x : values) x = std::ceil(x * 4) / 4;  // many equal ones
    }
    const TailFit expected = slow_fit(values);
    const TailFit found = fit_tail(values);
    if (!std::isfinite(expected.distance)) continue;  // all equal
    EXPECT_NEAR(found.distance, expected.distance, 1e-12) << seed;
    EXPECT_NEAR(found.alpha, expected.alpha, 1e-9 * expected.alpha) << seed;
    EXPECT_DOUBLE_EQ(found.x_min, expected.x_min) << seed;
    EXPECT_EQ(found.tail, expected.tail) << seed;
    EXPECT_NEAR(found.standard_error, expected.standard_error, 1e-9 * expected.standard_error);
  }
}

TEST(TailFit, OfTwoValuesByHand) {
  // x_min = 1, n = 2, alpha = 1 + 2 / ln 4; the fit gives 0 at 1 and 1 - exp(-2) at 4, the steps
  // are 0, 1/2, 1: the largest gap is 1/2.
  const TailFit fit = fit_tail(Values{2, 1});
  EXPECT_DOUBLE_EQ(fit.alpha, 1 + 2 / std::log(4.0));
  EXPECT_EQ(fit.x_min, 1);
  EXPECT_EQ(fit.tail, 2u);
  EXPECT_DOUBLE_EQ(fit.distance, 0.5);
  EXPECT_DOUBLE_EQ(fit.standard_error, (fit.alpha - 1) / std::sqrt(2.0));
}

TEST(TailFit, OfEqualValuesIsOneInfiniteTail) {
  for (const std::size_t n : {1u, 2u, 30u}) {
    const TailFit fit = fit_tail(Values(n, 3.0));
    EXPECT_EQ(fit.alpha, kInf);
    EXPECT_EQ(fit.x_min, 9);
    EXPECT_EQ(fit.distance, 0);
    EXPECT_EQ(fit.tail, n);
  }
  const TailFit none = fit_tail({});
  EXPECT_EQ(none.alpha, 0);
  EXPECT_EQ(none.tail, 0u);
  EXPECT_EQ(fit_tail(Values(3, 0.0)).tail, 0u);
}

TEST(TailFit, OfParetoSamplesFindsTheExponent) {
  for (const double alpha : {1.5, 2.0, 3.0, 6.0}) {
    int within_two = 0;
    constexpr int kSamples = 40;
    for (int sample = 0; sample < kSamples; ++sample) {
      const TailFit fit =
          fit_tail(roots(pareto(1000, alpha, static_cast<std::uint64_t>(900 + sample))));
      EXPECT_DOUBLE_EQ(fit.standard_error,
                       (fit.alpha - 1) / std::sqrt(static_cast<double>(fit.tail)));
      // 1.63 / sqrt(n) is the 1 % point of the distance when nothing is fitted; a fit and the
      // choice of x_min only lower it.
      EXPECT_LT(fit.distance, 1.63 / std::sqrt(static_cast<double>(fit.tail)));
      within_two += std::fabs(fit.alpha - alpha) < 2 * fit.standard_error ? 1 : 0;
    }
    // 95.4 % for a given x_min. Its choice widens the error by an eighth (measured over 300
    // samples): 92.4 %, less four deviations of a binomial share, 0.042.
    EXPECT_GE(within_two, static_cast<int>(kSamples * (0.924 - 4 * 0.042))) << alpha;
  }
}

TEST(TailFit, FindsWhereTheTailBegins) {
  // 500 values evenly spread below 1, and a tail of exponent 3 above 1.
  for (std::uint64_t seed = 60; seed < 70; ++seed) {
    Values values = pareto(1500, 3, seed);
    for (std::size_t i = 0; i < 500; ++i) values.push_back(0.02 + 0.98 * Random(seed).uniform(i));
    const TailFit fit = fit_tail(roots(values));
    EXPECT_GT(fit.x_min, 0.7) << seed;
    EXPECT_LT(fit.x_min, 2.5) << seed;
    EXPECT_NEAR(fit.alpha, 3, 5 * fit.standard_error) << seed;
  }
}

}  // namespace
}  // namespace quell::stats
