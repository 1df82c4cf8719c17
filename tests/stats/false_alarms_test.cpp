// SPDX-License-Identifier: Apache-2.0

// How often find_outliers sees outliers where there are none: 200 matrices of the sizes of real
// layers, half of them normal and half Student-t with five degrees of freedom, whose tails are
// those of trained weights. Takes minutes.

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdio>

#include "quell/core/random.hpp"
#include "quell/core/tensor.hpp"
#include "quell/stats/outliers.hpp"

namespace quell::stats {
namespace {

/// Student's t by the polar method: u sqrt(n (w^(-2/n) - 1) / w) of a point (u, v) that is uniform
/// in the unit disc, w = u^2 + v^2 (Bailey, "Polar generation of random variates with the
/// t-distribution", Mathematics of Computation 62, 1994).
void fill_student(std::span<float> values, double degrees, std::uint64_t seed) {
  const Random random(seed, 7);
  std::uint64_t at = 0;
  for (float& value : values) {
    double u = 0, w = 0;
    do {
      const std::uint64_t bits = random.bits(at++);
      u = static_cast<double>(bits >> 32) * 0x1p-31 - 1;
      const double v = static_cast<double>(bits & 0xFFFF'FFFFu) * 0x1p-31 - 1;
      w = u * u + v * v;
    } while (w > 1 || w == 0);
    value = static_cast<float>(u * std::sqrt(degrees * (std::pow(w, -2 / degrees) - 1) / w));
  }
}

TEST(FalseAlarms, AreRarerThanOneInAHundredMatrices) {
  constexpr std::array<std::size_t, 2> kShapes[] = {
      {2048, 2048}, {1024, 4096}, {2048, 5632}, {4096, 4096}, {4096, 11008}};
  const auto executor = make_openmp_executor(2);
  unsigned alarms[2] = {}, matrices[2] = {};
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const auto& [rows, cols] = kShapes[seed / 2 % std::size(kShapes)];
    const bool student = seed % 2 == 1;
    Matrix x = *Matrix::uninitialized(rows, cols);
    if (student) {
      fill_student(x.values(), 5, seed);
    } else {
      Random(seed, 3).fill_normal(x.values());
    }
    ++matrices[student];
    alarms[student] += !find_outliers(x.view(), {}, *executor).empty();
  }
  std::printf("false alarms: %u of %u normal matrices, %u of %u Student-t(5): %.1f %%\n", alarms[0],
              matrices[0], alarms[1], matrices[1], (alarms[0] + alarms[1]) / 2.0);
  // Below 1 %. The header derives 0.03 % for Student-t(5), and none for the normal.
  EXPECT_LT(alarms[0] + alarms[1], 2U);
}

TEST(FalseAlarms, AreCountedOnStudentNumbersThatAreSuch) {
  // Five degrees: variance 5 / 3, and P(|t| > 2.5706) = 0.05 (tables of the t-distribution).
  std::vector<float> values(1'000'000);
  fill_student(values, 5, 1);
  double squares = 0;
  std::size_t beyond = 0;
  for (const float value : values) {
    squares += static_cast<double>(value) * static_cast<double>(value);
    beyond += std::fabs(value) > 2.5706F;
  }
  // Deviations of the two: sqrt((9 - 1) * 25 / 9 / 1e6) = 0.005 (kurtosis 9), and 0.0002.
  EXPECT_NEAR(squares / 1e6, 5.0 / 3, 0.025);
  EXPECT_NEAR(static_cast<double>(beyond) / 1e6, 0.05, 0.001);
}

}  // namespace
}  // namespace quell::stats
