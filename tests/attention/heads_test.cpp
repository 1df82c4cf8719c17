// SPDX-License-Identifier: Apache-2.0

// Heads that rest their attention on values near zero.

#include "quell/attention/heads.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "quell/attention/rule.hpp"

namespace quell::attention {
namespace {

TEST(Heads, IdleMassIsWhatRestsOnSmallValues) {
  // Mean norm 1: keys 0 and 2 are small, key 2 at exactly half.
  const std::vector<double> norms = {0.1, 1.4, 0.5, 2}, mass = {5, 2, 1, 2};
  HeadMeter meter;
  meter.add(mass, norms, 10, 10);
  EXPECT_DOUBLE_EQ(meter.activity().idle_mass, 0.6);
  EXPECT_DOUBLE_EQ(meter.activity().first_token_mass, 0.5);
  EXPECT_DOUBLE_EQ(meter.activity().first_value_ratio, 0.1);
  EXPECT_TRUE(is_idle(meter.activity()));
}

TEST(Heads, SequencesCountByTheirQueries) {
  HeadMeter meter;
  meter.add(std::vector<double>{3, 0}, std::vector<double>{0, 1}, 3, 3);
  meter.add(std::vector<double>{0, 9}, std::vector<double>{1, 1}, 9, 3);
  EXPECT_DOUBLE_EQ(meter.activity().idle_mass, 0.25);
  EXPECT_DOUBLE_EQ(meter.activity().first_token_mass, 0.5) << "six queries see position 0";
  EXPECT_DOUBLE_EQ(meter.activity().first_value_ratio, 0.5) << "0 and 1";
  EXPECT_FALSE(is_idle(meter.activity()));
}

TEST(Heads, ValuesOfZeroAreSmall) {
  HeadMeter meter;
  meter.add(std::vector<double>{1, 3}, std::vector<double>{0, 0}, 4, 4);
  EXPECT_DOUBLE_EQ(meter.activity().idle_mass, 1);
  EXPECT_DOUBLE_EQ(meter.activity().first_value_ratio, 0);
}

TEST(Heads, OfNothingAreNotIdle) {
  HeadMeter meter;
  meter.add({}, {}, 0, 0);
  meter.add(std::vector<double>{1}, std::vector<double>{1}, 0, 0);
  EXPECT_TRUE(meter.empty());
  EXPECT_EQ(meter.activity().idle_mass, 0);
  EXPECT_FALSE(is_idle(meter.activity()));
}

TEST(Heads, NormsAreThoseOfTheKeyHead) {
  const std::vector<float> values = {3, 4, 0, 1, 0, 0, 5, 12};  // [2, 2 heads * 2]
  const MatrixView<const float> view(values.data(), 2, 4);
  EXPECT_EQ(value_norms(view, 0, 2), (std::vector<double>{5, 0}));
  EXPECT_EQ(value_norms(view, 1, 2), (std::vector<double>{1, 13}));
}

// y = S y~ with S = sigmoid(log Z_N - log Z_O), and the idle mass is 1 - S.
TEST(Heads, KeysOfZeroValueAreAGate) {
  const std::vector<float> scores = {4, 0.5f, -1, 3, 0.25f}, values = {0, 2, -1, 0, 3};
  double z_none = 0, z_other = 0, attended = 0;
  std::vector<double> norms;
  for (std::size_t j = 0; j < scores.size(); ++j) {
    const double e = std::exp(static_cast<double>(scores[j]));
    (values[j] == 0 ? z_none : z_other) += e;
    attended += e * static_cast<double>(values[j]);
    norms.push_back(std::fabs(static_cast<double>(values[j])));
  }
  const double s = 1 / (1 + std::exp(std::log(z_none) - std::log(z_other)));
  std::vector<float> row = scores;
  weigh(Softmax{}, 0, 0, row);
  double y = 0;
  std::vector<double> mass;
  for (std::size_t j = 0; j < row.size(); ++j) {
    y += static_cast<double>(row[j]) * static_cast<double>(values[j]);
    mass.push_back(static_cast<double>(row[j]));
  }
  // Five weights of float32: errors of some 2^-24.
  EXPECT_NEAR(y, s * attended / z_other, 1e-6);
  HeadMeter meter;
  meter.add(mass, norms, 1, 1);
  EXPECT_NEAR(meter.activity().idle_mass, 1 - s, 1e-6);
}

}  // namespace
}  // namespace quell::attention
