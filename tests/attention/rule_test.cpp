// SPDX-License-Identifier: Apache-2.0

// The identities between the rules, thresholds of the clip, masked keys, and numbers that would
// break careless arithmetic. Tolerance of the identities: weights are float32 with a handful of
// roundings each (2^-24 = 6e-8), so 1e-6 of the output leaves an order of magnitude.

#include "quell/attention/rule.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "quell/core/random.hpp"
#include "support/compare.hpp"

namespace quell::attention {
namespace {

constexpr std::size_t kKeys = 37, kHeadDim = 8;
constexpr float kMasked = -std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> some(std::size_t count, std::uint64_t seed, float scale = 1) {
  std::vector<float> values(count);
  Random(seed).fill_normal(values);
  for (float& value : values) value *= scale;
  return values;
}

std::vector<float> weights_of(const Weighting& rule, std::vector<float> scores,
                              float extra_score = 0, float* p0 = nullptr) {
  const float mass = weigh(rule, 0, extra_score, scores);
  if (p0 != nullptr) *p0 = mass;
  return scores;
}

/// sum_j weights[j] values[j], [head_dim], in double.
std::vector<double> attend(const std::vector<float>& weights, const std::vector<float>& values) {
  std::vector<double> out(kHeadDim);
  for (std::size_t j = 0; j < weights.size(); ++j) {
    for (std::size_t i = 0; i < kHeadDim; ++i) {
      out[i] += static_cast<double>(weights[j]) * static_cast<double>(values[j * kHeadDim + i]);
    }
  }
  return out;
}

/// Softmax and attention in double, without any of the code under test.
std::vector<double> reference(const std::vector<float>& scores, const std::vector<float>& values) {
  std::vector<double> out(kHeadDim);
  double sum = 0;
  for (const float s : scores) sum += std::exp(static_cast<double>(s));
  for (std::size_t j = 0; j < scores.size(); ++j) {
    const double p = std::exp(static_cast<double>(scores[j])) / sum;
    for (std::size_t i = 0; i < kHeadDim; ++i) {
      out[i] += p * static_cast<double>(values[j * kHeadDim + i]);
    }
  }
  return out;
}

void expect_close(const std::vector<double>& a, const std::vector<double>& b,
                  double tolerance = 1e-6) {
  ASSERT_EQ(a.size(), b.size());
  double norm = 0, error = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    norm += b[i] * b[i];
    error += (a[i] - b[i]) * (a[i] - b[i]);
  }
  EXPECT_LE(std::sqrt(error), tolerance * std::sqrt(norm));
}

struct Case {
  std::vector<float> scores = some(kKeys, 1, 2), values = some(kKeys * kHeadDim, 2);
  std::vector<float> bias_value = some(kHeadDim, 3);
  float extra = 1.7f;  // score of the bias key
  BiasKeySoftmax bias(bool rescales) const {
    return {std::vector<float>(kHeadDim), bias_value, rescales};
  }
};

TEST(Rule, PlainIsSoftmax) {
  const Case c;
  expect_close(attend(weights_of(Softmax{}, c.scores), c.values), reference(c.scores, c.values));
}

TEST(Rule, RescaledBiasKeyIsOneSoftmaxOverAllKeys) {
  const Case c;
  for (const float extra : {-3.0f, 0.0f, 1.7f, 6.0f}) {
    auto scores = c.scores;
    auto values = c.values;
    scores.insert(scores.begin(), extra);
    values.insert(values.begin(), c.bias_value.begin(), c.bias_value.end());
    float p0 = 0;
    auto d = attend(weights_of(c.bias(true), c.scores, extra, &p0), c.values);
    for (std::size_t i = 0; i < kHeadDim; ++i) {
      d[i] += static_cast<double>(p0) * static_cast<double>(c.bias_value[i]);
    }
    expect_close(d, reference(scores, values));
  }
}

TEST(Rule, VariantsDifferAsTheirFormulasSay) {
  const Case c;
  const auto a = attend(weights_of(Softmax{}, c.scores), c.values);
  float p_c = 0, p_d = 0;
  const auto weights_c = weights_of(c.bias(false), c.scores, c.extra, &p_c);
  const auto weights_d = weights_of(c.bias(true), c.scores, c.extra, &p_d);
  EXPECT_EQ(p_c, p_d);
  const double p0 = static_cast<double>(p_c);
  EXPECT_GT(p0, 0.01);
  EXPECT_LT(p0, 0.9);
  expect_close(attend(weights_c, c.values), a);  // and so c = a + p0 v'
  std::vector<double> scaled, difference, expected;
  for (std::size_t i = 0; i < kHeadDim; ++i) {
    scaled.push_back((1 - p0) * a[i]);
    expected.push_back(-p0 * a[i]);
    difference.push_back(attend(weights_d, c.values)[i] - attend(weights_c, c.values)[i]);
  }
  expect_close(attend(weights_d, c.values), scaled);  // d = (1 - p0) a + p0 v'
  expect_close(difference, expected, 1e-5);           // a difference of equal parts: a digit less
}

TEST(Rule, SoftmaxOffByOneIsABiasKeyOfZeros) {
  const Case c;
  float p_g = 0, p_d = 0;
  const auto g = weights_of(SinkSoftmax{{0}}, c.scores, 0, &p_g);
  const BiasKeySoftmax zeros{std::vector<float>(kHeadDim), std::vector<float>(kHeadDim), true};
  EXPECT_TRUE(test::same_bits(g, weights_of(zeros, c.scores, 0, &p_d)));
  EXPECT_EQ(p_g, p_d);
  double z = 0, sum = 0;
  for (const float s : c.scores) z += std::exp(static_cast<double>(s));
  for (std::size_t j = 0; j < kKeys; ++j) {
    sum += static_cast<double>(g[j]);
    const double expected = std::exp(static_cast<double>(c.scores[j])) / (1 + z);
    EXPECT_NEAR(static_cast<double>(g[j]), expected, 1e-6 * expected);
  }
  EXPECT_NEAR(sum + 1 / (1 + z), 1, 1e-6);
}

TEST(Rule, EachHeadHasItsOwnSink) {
  const SinkSoftmax sink{{-50, 0, 50}};
  std::vector<float> row[3];
  float p0[3];
  for (std::size_t h = 0; h < 3; ++h) {
    row[h] = {0, 0};
    p0[h] = weigh(sink, h, 0, row[h]);
  }
  EXPECT_FLOAT_EQ(row[0][0], 0.5f);
  EXPECT_LT(p0[0], 1e-20f);
  EXPECT_FLOAT_EQ(row[1][1], 1.0f / 3);
  EXPECT_FLOAT_EQ(p0[1], 1.0f / 3);
  EXPECT_LT(row[2][0], 1e-20f);
  EXPECT_GT(row[2][0], 0.0f) << "e^-50 is a float32";
  EXPECT_FLOAT_EQ(p0[2], 1.0f);
}

TEST(Rule, SigmoidsKnowOnlyTheNumberOfKeys) {
  for (const float s : {-20.0f, -1.5f, 0.0f, 0.3f, 30.0f}) {
    const double expected = 1 / (1 + std::exp(-static_cast<double>(s)));
    const auto one = weights_of(SigmoidWeights{}, {s});
    EXPECT_NEAR(static_cast<double>(one[0]), expected, 1e-6 * expected) << s;
  }
  // sigmoid(s - ln 3); nothing sums to one.
  const auto three = weights_of(SigmoidWeights{}, {2, 2, 2});
  for (const float w : three) {
    EXPECT_NEAR(static_cast<double>(w), 1 / (1 + std::exp(-2.0 + std::log(3.0))), 1e-7);
  }
  // Masked keys are no keys, and a stated length replaces the count.
  const auto masked = weights_of(SigmoidWeights{}, {2, kMasked, 2, kMasked, 2});
  EXPECT_EQ(masked, (std::vector<float>{three[0], 0, three[0], 0, three[0]}));
  EXPECT_EQ(weights_of(SigmoidWeights{3}, {2})[0], three[0]);
  // More keys than are done at a time.
  const auto many = weights_of(SigmoidWeights{}, std::vector<float>(130, 0.5f));
  EXPECT_TRUE(std::all_of(many.begin(), many.end(), [&](float w) { return w == many[0]; }));
}

TEST(Clip, OfNothingIsPlainBitForBit) {
  const Case c;
  EXPECT_TRUE(
      test::same_bits(weights_of(ClippedSoftmax{1, 0}, c.scores), weights_of(Softmax{}, c.scores)));
}

TEST(Clip, TurnsAUniformRowIntoNothing) {
  for (const std::uint32_t length : {4u, 37u, 128u, 2048u}) {
    const std::vector<float> uniform(length, 0.25f);
    // y = (1 + a / T) / T - a / T <= 0 from a = T / (T - 1) on; at a = 1 each weight is 1 / T^2.
    for (const float alpha :
         {2.0f, 4.0f, 1.001f * static_cast<float>(length) / static_cast<float>(length - 1)}) {
      const auto row = weights_of(ClippedSoftmax::by_length(alpha, length), uniform);
      EXPECT_TRUE(std::all_of(row.begin(), row.end(), [](float w) { return w == 0; }))
          << length << " keys, alpha " << alpha << ": " << row[0];
    }
    const double t = length;
    const auto one = weights_of(ClippedSoftmax::by_length(1, length), uniform);
    // The weight is what is left of 1 / T: it carries the rounding of that, half an ulp or two.
    EXPECT_NEAR(static_cast<double>(one[0]), 1 / (t * t), 2 * 0x1p-24 / t);
  }
}

TEST(Clip, LeavesEarlyUniformRowsOfADecoder) {
  // Fewer visible keys than T / alpha: every entry is above the threshold.
  const auto row = weights_of(ClippedSoftmax::by_length(2, 128), std::vector<float>(32, 1));
  EXPECT_GT(*std::min_element(row.begin(), row.end()), 0.0f);
}

TEST(Clip, HasItsThresholdsWhereTheFormulaPutsThem) {
  const ClippedSoftmax rule{1.5f, -0.25f};
  // Zero up to 0.25 / 1.75 = 1/7, one from 1.25 / 1.75 = 5/7 on.
  std::vector<float> p = {0, 0.14f, 1.0f / 7 + 1e-6f, 0.5f, 5.0f / 7 - 1e-6f, 0.72f, 1};
  clip(rule, p);
  EXPECT_EQ(p[0], 0.0f);
  EXPECT_EQ(p[1], 0.0f);
  EXPECT_GT(p[2], 0.0f);
  EXPECT_LT(p[2], 1e-5f);
  EXPECT_FLOAT_EQ(p[3], 0.625f);
  EXPECT_LT(p[4], 1.0f);
  EXPECT_GT(p[4], 0.99999f);
  EXPECT_EQ(p[5], 1.0f);
  EXPECT_EQ(p[6], 1.0f);
}

/// Every rule, with a sink, a bias and so on that do something.
std::vector<std::pair<std::string, Weighting>> every_rule() {
  const Case c;
  return {{"softmax", Softmax{}},        {"clipped", ClippedSoftmax{1.1f, -0.02f}},
          {"sink", SinkSoftmax{{0.5f}}}, {"bias", c.bias(true)},
          {"added bias", c.bias(false)}, {"sigmoid", SigmoidWeights{}}};
}

TEST(Rule, MaskedKeysAreAsIfTheyWereNotThere) {
  const Case c;
  for (const auto& [name, rule] : every_rule()) {
    std::vector<float> masked, places;
    for (std::size_t j = 0; j < kKeys; ++j) {
      masked.push_back(j % 3 == 1 ? kMasked : c.scores[j]);
      if (j % 3 != 1) places.push_back(c.scores[j]);
    }
    float p0 = 0, p1 = 0;
    const auto found = weights_of(rule, masked, c.extra, &p0);
    const auto expected = weights_of(rule, places, c.extra, &p1);
    EXPECT_EQ(p0, p1) << name;
    std::size_t at = 0;
    for (std::size_t j = 0; j < kKeys; ++j) {
      EXPECT_EQ(found[j], j % 3 == 1 ? 0.0f : expected[at++]) << name << ", key " << j;
    }
  }
}

TEST(Rule, FullyMaskedRowGivesZeros) {
  for (const auto& [name, rule] : every_rule()) {
    float p0 = 0;
    const auto row = weights_of(rule, std::vector<float>(5, kMasked), 1, &p0);
    EXPECT_EQ(row, std::vector<float>(5)) << name;
    const bool extra = name == "sink" || name == "bias" || name == "added bias";
    EXPECT_EQ(p0, extra ? 1.0f : 0.0f) << name;
    EXPECT_TRUE(weights_of(rule, {}).empty()) << name;
  }
}

TEST(Rule, HugeScoresOverflowNothing) {
  for (const auto& [name, rule] : every_rule()) {
    for (const float extra : {-3e38f, -300.0f, 300.0f, 3e38f}) {
      for (const float top : {-1e30f, -500.0f, 500.0f, 1e30f}) {
        float p0 = 0;
        const auto row = weights_of(rule, {top, top - 1, 0}, extra, &p0);
        EXPECT_TRUE(std::isfinite(p0) && p0 >= 0 && p0 <= 1) << name << " " << extra << " " << top;
        for (const float w : row) {
          EXPECT_TRUE(std::isfinite(w) && w >= 0 && w <= 1) << name << " " << extra << " " << top;
        }
      }
    }
  }
  // Added only, an overwhelming extra key takes nothing from the others.
  const Case c;
  float p0 = 0;
  const auto row = weights_of(c.bias(false), {1, 1}, 1000, &p0);
  EXPECT_EQ(p0, 1.0f);
  EXPECT_EQ(row, (std::vector<float>{0.5f, 0.5f}));
}

TEST(Rule, NanIsNotHidden) {
  for (const auto& [name, rule] : every_rule()) {
    EXPECT_TRUE(std::isnan(weights_of(rule, {0, kNan, 1})[1])) << name;
    EXPECT_TRUE(std::isnan(weights_of(rule, {kNan})[0])) << name;
  }
}

TEST(Gate, OfZerosAndFactorTwoIsOne) {
  const Gate gate{Gate::Reads::all, std::vector<float>(2 * 8), {0, 0}, 2};
  EXPECT_EQ(gate_factor(gate, 1, some(8, 9)), 1.0f);
}

TEST(Gate, ReadsItsSliceOrEverything) {
  const std::vector<float> x = {1, 2, 3, 4};
  const Gate slice{Gate::Reads::slice, {1, -1, 0.5f, 0.25f}, {0, -1}, 1};
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  EXPECT_NEAR(static_cast<double>(gate_factor(slice, 0, x)), sigmoid(1 - 2), 1e-7);
  EXPECT_NEAR(static_cast<double>(gate_factor(slice, 1, x)), sigmoid(1.5 + 1 - 1), 1e-7);
  const Gate all{Gate::Reads::all, {1, 0, 0, -1, 0.1f, 0.1f, 0.1f, 0.1f}, {0, 0.5f}, 3};
  EXPECT_NEAR(static_cast<double>(gate_factor(all, 0, x)), 3 * sigmoid(-3), 1e-6);
  EXPECT_NEAR(static_cast<double>(gate_factor(all, 1, x)), 3 * sigmoid(1.5), 1e-6);
  // Beyond what e^x can hold.
  const Gate steep{Gate::Reads::all, {1000, 0, 0, 0, -1000, 0, 0, 0}, {0, 0}, 1};
  EXPECT_EQ(gate_factor(steep, 0, x), 1.0f);
  EXPECT_EQ(gate_factor(steep, 1, x), 0.0f);
}

std::string error_of(const AttentionRule& rule) {
  const Status done = check(rule, {2, 3, 6});
  return done ? "" : done.error().message;
}

TEST(Check, NamesTheNumberFoundAndExpected) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(error_of({ClippedSoftmax{0.5f, 0}, {}}),
            "attention rule: zeta is 0.5, expected a finite number of at least 1");
  EXPECT_EQ(error_of({ClippedSoftmax{1, 0.25f}, {}}),
            "attention rule: gamma is 0.25, expected a finite number of at most 0");
  EXPECT_NE(error_of({ClippedSoftmax{kNan, 0}, {}}), "");
  EXPECT_NE(error_of({ClippedSoftmax{infinity, 0}, {}}), "");
  EXPECT_NE(error_of({ClippedSoftmax{1, kNan}, {}}), "");
  EXPECT_NE(error_of({ClippedSoftmax{1, -infinity}, {}}), "");
  EXPECT_NE(error_of({ClippedSoftmax{3e38f, -3e38f}, {}}), "");
  EXPECT_EQ(error_of({SinkSoftmax{{1}}, {}}),
            "attention rule: sink logits has 1 values, expected 2");
  EXPECT_EQ(error_of({SinkSoftmax{{1, infinity}}, {}}),
            "attention rule: sink logits[1] is inf, expected a finite number");
  EXPECT_EQ(error_of({BiasKeySoftmax{std::vector<float>(6), std::vector<float>(5)}, {}}),
            "attention rule: bias values has 5 values, expected 6");
  EXPECT_EQ(error_of({Softmax{}, Gate{Gate::Reads::slice, std::vector<float>(12), {0, 0}}}),
            "attention rule: gate weight has 12 values, expected 6");
  EXPECT_EQ(error_of({Softmax{}, Gate{Gate::Reads::all, std::vector<float>(12), {0, 0}, 0}}),
            "attention rule: the factor of the gate is 0, expected a finite number above 0");
  EXPECT_NE(error_of({Softmax{}, Gate{Gate::Reads::all, std::vector<float>(12), {0}}}), "");
  EXPECT_FALSE(
      check({Softmax{}, Gate{Gate::Reads::slice, std::vector<float>(7), {0, 0}}}, {2, 3, 7}));
}

TEST(Check, AcceptsWhatFits) {
  const BiasKeySoftmax bias{std::vector<float>(6), std::vector<float>(6)};
  for (const Weighting& weighting :
       std::vector<Weighting>{Softmax{}, ClippedSoftmax{1, 0}, ClippedSoftmax::by_length(4, 128),
                              SinkSoftmax{{0, -3}}, bias, SigmoidWeights{}}) {
    EXPECT_EQ(error_of({weighting, Gate{Gate::Reads::slice, std::vector<float>(6), {0, 0}}}), "");
    EXPECT_EQ(error_of({weighting, Gate{Gate::Reads::all, std::vector<float>(12), {0, 0}, 2}}), "");
  }
}

}  // namespace
}  // namespace quell::attention
