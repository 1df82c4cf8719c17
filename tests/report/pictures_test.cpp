// SPDX-License-Identifier: Apache-2.0

// Pictures lose no outlier when they get smaller, and stand on the same places.

#include "report/pictures.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "quell/stats/quantile.hpp"

namespace quell::report {
namespace {

stats::LogHistogram histogram(const std::vector<float>& values) {
  stats::QuantileSketch sketch;
  sketch.add(values);
  return stats::LogHistogram(sketch);
}

double total(const Histogram::Curve& curve) {
  return std::accumulate(curve.counts.begin(), curve.counts.end(), 0.0);
}

TEST(PlaceAxis, PutsModulesOfALayerIntoItsColumn) {
  const std::vector<std::string> names = {"model.layers.2.mlp.down_proj", "lm_head",
                                          "model.layers.10.mlp.down_proj",
                                          "model.layers.2.self_attn.q_proj", "x.3"};
  const PlaceAxis axis(names);
  HeatStrip strip = axis.strip("title", "unit", 1, 10);
  EXPECT_EQ(strip.rows, (std::vector<std::string>{"mlp.down_proj", "self_attn.q_proj"}));
  EXPECT_EQ(strip.columns, (std::vector<std::string>{"2", "10"})) << "by number, not by letter";
  axis.set(strip, names[2], 7);
  axis.set(strip, "lm_head", 8);
  axis.set(strip, "model.layers.3.mlp.down_proj", 9);
  EXPECT_EQ(strip.values[0][1], 7);
  EXPECT_TRUE(std::isnan(strip.values[0][0]) && std::isnan(strip.values[1][0]) &&
              std::isnan(strip.values[1][1]));
  EXPECT_TRUE(PlaceAxis(std::vector<std::string>{"lm_head"}).empty());
}

TEST(HistogramOf, LaysCurvesOverTheSameBins) {
  const stats::LogHistogram a = histogram({1, 1, 1.5f, 64});
  const stats::LogHistogram b = histogram({0.25f, 1});
  const std::pair<std::string, const stats::LogHistogram*> curves[] = {{"before", &a},
                                                                       {"after", &b}};
  const Histogram picture = histogram_of("", "|w|", curves, 1000);
  ASSERT_EQ(picture.curves.size(), 2U);
  ASSERT_EQ(picture.edges.size(), picture.curves[0].counts.size() + 1);
  EXPECT_NEAR(picture.edges.front(), 0.25, 1e-12);
  // 0.25 to 64 are 8 octaves of 4 bins and the bin of 64 itself.
  EXPECT_EQ(picture.curves[0].counts.size(), 33U);
  EXPECT_EQ(picture.curves[1].counts.size(), 33U);
  EXPECT_EQ(picture.curves[0].counts[8], 2);  // 1 is two octaves above 0.25
  EXPECT_EQ(picture.curves[1].counts[8], 1);
  EXPECT_EQ(picture.curves[0].counts.back(), 1);
}

TEST(HistogramOf, KeepsEveryValueInFewerBins) {
  std::vector<float> values;
  for (int power = -60; power <= 60; ++power) values.push_back(std::ldexp(1.0f, power));
  const stats::LogHistogram full = histogram(values);
  const std::pair<std::string, const stats::LogHistogram*> curve = {"", &full};
  const Histogram picture = histogram_of("", "", {&curve, 1}, 40);
  ASSERT_EQ(picture.curves.size(), 1U);
  EXPECT_LE(picture.curves[0].counts.size(), 40U);
  EXPECT_GT(picture.curves[0].counts.size(), 10U);
  EXPECT_EQ(total(picture.curves[0]), 121);
  EXPECT_LE(picture.edges.front(), std::ldexp(1.0, -60));
  EXPECT_GT(picture.edges.back(), std::ldexp(1.0, 60));
  EXPECT_TRUE(std::is_sorted(picture.edges.begin(), picture.edges.end()));
}

TEST(HistogramOf, OfNothingIsNothing) {
  const stats::LogHistogram none, zeros = histogram({0, 0});
  const std::pair<std::string, const stats::LogHistogram*> curves[] = {{"a", &none}, {"b", &zeros}};
  EXPECT_TRUE(histogram_of("", "", curves, 40).curves.empty());
  EXPECT_TRUE(histogram_of("", "", {}, 40).curves.empty());
}

TEST(ProfileOf, KeepsTheLargestOfEveryRun) {
  std::vector<double> values(4099, 1);
  values[4098] = 50;
  values[1000] = 9;
  values[7] = std::nan("");
  const std::pair<std::string, std::span<const double>> curve = {"", values};
  const Profile profile = profile_of("", "", {&curve, 1}, 256);
  ASSERT_EQ(profile.curves.size(), 1U);
  EXPECT_EQ(profile.channels, 4099U);
  EXPECT_EQ(profile.run, 17U);  // ceil(4099 / 256)
  const auto& points = profile.curves[0].by_channel;
  ASSERT_EQ(points.size(), 242U);  // ceil(4099 / 17)
  EXPECT_EQ(points.back(), 50);
  EXPECT_EQ(points[1000 / 17], 9);
  EXPECT_EQ(points[0], 1) << "a missing value hides no other";
  const auto& sorted = profile.curves[0].sorted;
  ASSERT_EQ(sorted.size(), points.size());
  EXPECT_EQ(sorted[0], 50);
  EXPECT_TRUE(std::is_sorted(sorted.rbegin(), sorted.rend()));
}

TEST(ProfileOf, LeavesFewChannelsAsTheyAre) {
  const std::vector<double> before = {3, 1, 2}, none;
  const std::pair<std::string, std::span<const double>> curves[] = {{"before", before},
                                                                    {"after", none}};
  const Profile profile = profile_of("", "", curves, 256);
  ASSERT_EQ(profile.curves.size(), 1U);
  EXPECT_EQ(profile.run, 1U);
  EXPECT_EQ(profile.curves[0].by_channel, before);
  EXPECT_EQ(profile.curves[0].sorted, (std::vector<double>{3, 2, 1}));
  EXPECT_TRUE(profile_of("", "", {}, 256).curves.empty());
}

}  // namespace
}  // namespace quell::report
