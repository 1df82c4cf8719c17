// SPDX-License-Identifier: Apache-2.0

#include "quell/kernels/elementwise.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "support/guarded.hpp"
#include "support/same_bits.hpp"

namespace quell::kernels {
namespace {

using test::Guarded;
using test::Numbers;
using test::same_bits;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

float exp_of(float x) {
  float y = 0;
  exp({&x, 1}, {&y, 1});
  return y;
}

class Elementwise : public testing::Test {
 protected:
  float activated(Activation kind, float x) {
    activate(kind, {&x, 1, 1}, context_);
    return x;
  }
  SerialExecutor serial_;
  Context context_{serial_};
};

TEST(Exp, HasKnownValues) {
  EXPECT_EQ(exp_of(0.0f), 1.0f);
  EXPECT_EQ(exp_of(-0.0f), 1.0f);
  EXPECT_FLOAT_EQ(exp_of(1.0f), 2.71828183f);
  EXPECT_FLOAT_EQ(exp_of(-1.0f), 0.36787944f);
}

TEST(Exp, OverflowsToInfinityAndUnderflowsToZero) {
  EXPECT_EQ(exp_of(kInfinity), kInfinity);
  EXPECT_EQ(exp_of(88.73f), kInfinity);
  EXPECT_TRUE(std::isfinite(exp_of(88.72f)));
  EXPECT_EQ(exp_of(-kInfinity), 0.0f);
  EXPECT_EQ(exp_of(-1e30f), 0.0f);
  EXPECT_TRUE(std::isnan(exp_of(kNaN)));
  EXPECT_GT(exp_of(-103.0f), 0.0f);  // subnormal
  EXPECT_LT(exp_of(-103.0f), std::numeric_limits<float>::min());
}

TEST(Exp, StaysWithinItsErrorOverTheWholeRange) {
  std::vector<float> x;
  for (float value = -104.5f; value < 89.5f; value += 0.000731f) x.push_back(value);
  std::vector<float> y(x.size());
  exp(x, y);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(double{x[i]});
    if (exact > double{std::numeric_limits<float>::max()}) {
      ASSERT_GE(y[i], std::numeric_limits<float>::max()) << x[i];
    } else if (exact >= double{std::numeric_limits<float>::min()}) {
      ASSERT_LE(std::fabs(double{y[i]} - exact), 2e-7 * exact) << x[i];
    } else {
      // Below the normal range: one unit of the subnormals.
      ASSERT_LE(std::fabs(double{y[i]} - exact), 0x1p-149) << x[i];
    }
  }
}

TEST(Exp, OfTinyArgumentsIsOne) {
  for (int exponent = -149; exponent < -26; ++exponent) {
    ASSERT_EQ(exp_of(std::ldexp(1.0f, exponent)), 1.0f);
    ASSERT_EQ(exp_of(-std::ldexp(1.0f, exponent)), 1.0f);
  }
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

TEST_F(Elementwise, ActivationsFollowTheirFormulas) {
  const std::vector<std::pair<Activation, std::function<double(double)>>> formulas = {
      {Activation::relu, [](double x) { return x > 0 ? x : 0; }},
      {Activation::silu, [](double x) { return x * sigmoid(x); }},
      {Activation::gelu, [](double x) { return x * 0.5 * std::erfc(-x / std::sqrt(2.0)); }},
      {Activation::gelu_tanh,
       [](double x) {
         // 0.5 x (1 + tanh u) = x sigmoid(2 u), u = sqrt(2/pi) (x + 0.044715 x^3)
         return x * sigmoid(2 * std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x));
       }},
      {Activation::quick_gelu, [](double x) { return x * sigmoid(1.702 * x); }}};
  for (const auto& [kind, formula] : formulas) {
    for (float x = -12.0f; x < 12.0f; x += 0.00231f) {
      const double exact = formula(double{x});
      // Relative to the result: a few roundings, and in the argument of exp a rounding that is
      // magnified by the argument, at most some 60 here (gelu_tanh at -12 underflows to 1e-50).
      const double bound = 6e-7 * std::fabs(exact) * (1 + std::fabs(double{x}) * 2) + 1e-44;
      ASSERT_LE(std::fabs(double{activated(kind, x)} - exact), bound)
          << "activation " << static_cast<int>(kind) << " of " << x;
    }
  }
}

TEST_F(Elementwise, ActivationsBehaveAtTheExtremes) {
  for (const Activation kind : {Activation::relu, Activation::silu, Activation::gelu,
                                Activation::gelu_tanh, Activation::quick_gelu}) {
    EXPECT_EQ(activated(kind, 0.0f), 0.0f);
    EXPECT_EQ(activated(kind, 1e30f), 1e30f);
    EXPECT_EQ(activated(kind, -1e30f), 0.0f);
    EXPECT_EQ(activated(kind, -200.0f), 0.0f);
    EXPECT_EQ(activated(kind, kInfinity), kInfinity);
    EXPECT_TRUE(std::isnan(activated(kind, kNaN)));
  }
}

TEST_F(Elementwise, GatedActivationMultiplies) {
  std::vector<float> gate = {1, -2, 3, 0}, up = {2, 5, kNaN, 7};
  activate_and_multiply(Activation::relu, {gate.data(), 2, 2}, {up.data(), 2, 2}, context_);
  EXPECT_EQ(gate[0], 2.0f);
  EXPECT_EQ(gate[1], 0.0f);
  EXPECT_TRUE(std::isnan(gate[2]));
  EXPECT_EQ(gate[3], 0.0f);
}

TEST_F(Elementwise, RmsNormByHand) {
  const std::vector<float> x = {3, 4, 0, 0}, weight = {1, 2, 1, 1};
  std::vector<float> y(4);
  rms_norm({x.data(), 1, 4}, weight, 0.0f, {y.data(), 1, 4}, context_);  // mean square 25/4
  EXPECT_FLOAT_EQ(y[0], 1.2f);
  EXPECT_FLOAT_EQ(y[1], 3.2f);
  EXPECT_EQ(y[2], 0.0f);
}

TEST_F(Elementwise, NormsAgreeWithDoubleOnRowsWithAnOutlier) {
  const std::size_t h = 777;
  std::vector<float> x(3 * h), weight(h), bias(h), y(3 * h);
  Numbers numbers(5);
  numbers.fill(x);
  numbers.fill(weight);
  numbers.fill(bias);
  x[h + 13] = 3000.0f;  // a massive activation
  rms_norm({x.data(), 3, h}, weight, 1e-6f, {y.data(), 3, h}, context_);
  for (std::size_t t = 0; t < 3; ++t) {
    double squares = 0;
    for (std::size_t i = 0; i < h; ++i) squares += double{x[t * h + i]} * double{x[t * h + i]};
    const double inverse = 1 / std::sqrt(squares / static_cast<double>(h) + 1e-6);
    for (std::size_t i = 0; i < h; ++i) {
      const double exact = double{x[t * h + i]} * inverse * double{weight[i]};
      // 49 additions in a lane, then 4 levels, halved by the root; 5 roundings more: below 40 u.
      ASSERT_LE(std::fabs(double{y[t * h + i]} - exact), 40 * 0x1p-24 * std::fabs(exact));
    }
  }
  layer_norm({x.data(), 3, h}, weight, bias, 1e-6f, {y.data(), 3, h}, context_);
  for (std::size_t t = 0; t < 3; ++t) {
    double sum = 0, squares = 0, largest = 0;
    for (std::size_t i = 0; i < h; ++i) {
      sum += double{x[t * h + i]};
      largest = std::fmax(largest, std::fabs(double{x[t * h + i]}));
    }
    const double mean = sum / static_cast<double>(h);
    for (std::size_t i = 0; i < h; ++i) {
      squares += (double{x[t * h + i]} - mean) * (double{x[t * h + i]} - mean);
    }
    const double inverse = 1 / std::sqrt(squares / static_cast<double>(h) + 1e-6);
    for (std::size_t i = 0; i < h; ++i) {
      const double exact =
          (double{x[t * h + i]} - mean) * inverse * double{weight[i]} + double{bias[i]};
      // The mean is off by 60 u of the mean magnitude, which is at most the largest.
      const double bound = 60 * 0x1p-24 *
                           (std::fabs(exact) + std::fabs(double{bias[i]}) +
                            std::fabs(double{weight[i]}) * inverse * largest);
      ASSERT_LE(std::fabs(double{y[t * h + i]} - exact), bound);
    }
  }
}

TEST_F(Elementwise, NormsWorkInPlaceAndWithoutWeights) {
  std::vector<float> x = {1, 2, 3, 4};
  layer_norm({x.data(), 1, 4}, {}, {}, 0.0f, {x.data(), 1, 4}, context_);
  EXPECT_FLOAT_EQ(x[0], -1.34164079f);
  EXPECT_FLOAT_EQ(x[3], 1.34164079f);
  std::vector<float> constant(5, 2.0f);
  layer_norm({constant.data(), 1, 5}, {}, {}, 1e-5f, {constant.data(), 1, 5}, context_);
  for (const float value : constant) EXPECT_EQ(value, 0.0f);
}

// ------------------------------------------------------------------ softmax

std::vector<float> softmax(std::vector<float> scores, std::size_t rows, AttentionWindow window,
                           float scale = 1.0f, float softcap = 0.0f) {
  const std::size_t cols = scores.size() / rows;
  attention_softmax({scores.data(), rows, cols}, scale, softcap, window);
  return scores;
}

TEST(AttentionSoftmax, OfEqualScoresIsUniformOverWhatIsSeen) {
  const auto p = softmax(std::vector<float>(9, 5.0f), 3, {});
  const std::vector<float> expected = {1, 0, 0, 0.5f, 0.5f, 0, 1 / 3.0f, 1 / 3.0f, 1 / 3.0f};
  for (std::size_t i = 0; i < 9; ++i) EXPECT_FLOAT_EQ(p[i], expected[i]) << i;
}

TEST(AttentionSoftmax, NeverReadsWhatIsMasked) {
  std::vector<float> scores(4 * 6, kNaN);
  for (std::size_t r = 0; r < 4; ++r) {
    // Row r sits at position 2 + r and sees the last two: columns 1 + r and 2 + r.
    scores[r * 6 + 1 + r] = 0.0f;
    scores[r * 6 + 2 + r] = std::log(3.0f);
  }
  const auto p = softmax(scores, 4, {.offset = 2, .window = 2});
  for (std::size_t r = 0; r < 4; ++r) {
    for (std::size_t c = 0; c < 6; ++c) {
      if (c == 1 + r) {
        EXPECT_FLOAT_EQ(p[r * 6 + c], 0.25f);
      } else if (c == 2 + r) {
        EXPECT_FLOAT_EQ(p[r * 6 + c], 0.75f);
      } else {
        EXPECT_EQ(p[r * 6 + c], 0.0f);
      }
    }
  }
}

TEST(AttentionSoftmax, DecodesOneRowAgainstTheWholeCache) {
  const auto p = softmax(std::vector<float>(7, 1.0f), 1, {.offset = 6});
  for (const float value : p) EXPECT_FLOAT_EQ(value, 1 / 7.0f);
}

TEST(AttentionSoftmax, WithoutMaskSeesEverything) {
  const auto p = softmax(std::vector<float>(8, 1.0f), 2, {.causal = false});
  for (const float value : p) EXPECT_EQ(value, 0.25f);
}

TEST(AttentionSoftmax, OfAnEmptyRangeIsZero) {
  // Position 9 with a window of 2 sees columns 8 and 9, and there are only 4.
  EXPECT_EQ(softmax(std::vector<float>(4, kNaN), 1, {.offset = 9, .window = 2}),
            std::vector<float>(4, 0.0f));
  EXPECT_TRUE(softmax({}, 1, {}).empty());
}

TEST(AttentionSoftmax, RowsAddUpToOneAndAgreeWithDouble) {
  const std::size_t n = 1000;
  std::vector<float> scores(n);
  Numbers numbers(6);
  numbers.fill(scores, 20.0f);
  for (const float softcap : {0.0f, 50.0f}) {
    const float scale = 0.25f;
    const auto p = softmax(scores, 1, {.causal = false}, scale, softcap);
    std::vector<double> v(n);
    double max = -1e300, sum = 0, total = 0;
    for (std::size_t i = 0; i < n; ++i) {
      v[i] = double{scores[i]} * double{scale};
      if (softcap > 0) v[i] = double{softcap} * std::tanh(v[i] / double{softcap});
      max = std::fmax(max, v[i]);
    }
    for (const double value : v) sum += std::exp(value - max);
    for (std::size_t i = 0; i < n; ++i) {
      const double exact = std::exp(v[i] - max) / sum;
      // The argument of exp is rounded at magnitudes up to 50: 50 u; the rest is below 100 u.
      ASSERT_LE(std::fabs(double{p[i]} - exact), 200 * 0x1p-24 * exact + 1e-44) << i;
      total += double{p[i]};
    }
    EXPECT_NEAR(total, 1.0, 1e-5);
  }
}

TEST(AttentionSoftmax, ShiftsHugeScoresIntoRange) {
  const auto p = softmax({1e30f, 1e30f, -1e30f}, 1, {.causal = false});
  EXPECT_EQ(p, (std::vector<float>{0.5f, 0.5f, 0.0f}));
  const auto masked = softmax({-kInfinity, 0.0f}, 1, {.causal = false});
  EXPECT_EQ(masked, (std::vector<float>{0.0f, 1.0f}));
}

TEST(AttentionSoftmax, SpreadsASeenNaNOverItsRow) {
  const auto p = softmax({kNaN, 0.0f, 1.0f, 2.0f}, 2, {.causal = false});
  EXPECT_TRUE(std::isnan(p[0]) && std::isnan(p[1]));
  EXPECT_FALSE(std::isnan(p[2]));
}

TEST(AttentionSoftmax, SoftcapIsAccurateForSmallScores) {
  // 50 tanh(s / 50) for s = 0.01 differs from s by 1e-10: a cancelling formula would lose it all.
  const auto p = softmax({0.01f, 0.0f}, 1, {.causal = false}, 1.0f, 50.0f);
  EXPECT_NEAR(double{p[0]} - double{p[1]}, std::tanh(0.005), 1e-7);
}

// ------------------------------------------------------------------ the rest

TEST_F(Elementwise, RotationByARightAngleSwapsHalves) {
  std::vector<float> x = {1, 2, 3, 4, 9,
                          5, 6, 7, 8, 9};  // two heads of 5, the last of each is left
  const std::vector<float> cosine = {0, 0}, sine = {1, 1};
  rotate({x.data(), 1, 10}, 2, 5, {cosine.data(), 1, 2}, {sine.data(), 1, 2}, context_);
  EXPECT_EQ(x, (std::vector<float>{-3, -4, 1, 2, 9, -7, -8, 5, 6, 9}));
}

TEST_F(Elementwise, RotationKeepsLengths) {
  const std::size_t t = 5, heads = 3, half = 33;
  std::vector<float> x(t * heads * 2 * half), cosine(t * half), sine(t * half);
  Numbers numbers(7);
  numbers.fill(x);
  for (std::size_t i = 0; i < t * half; ++i) {
    cosine[i] = std::cos(static_cast<float>(i));
    sine[i] = std::sin(static_cast<float>(i));
  }
  const std::vector<float> before = x;
  rotate({x.data(), t, heads * 2 * half}, heads, 2 * half, {cosine.data(), t, half},
         {sine.data(), t, half}, context_);
  for (std::size_t row = 0; row < t * heads; ++row) {
    for (std::size_t i = 0; i < half; ++i) {
      const std::size_t at = row * 2 * half + i;
      EXPECT_NEAR(std::hypot(x[at], x[at + half]), std::hypot(before[at], before[at + half]), 2e-6);
    }
  }
}

TEST_F(Elementwise, AddsMatricesAndBiasesInStridedViews) {
  std::vector<float> x = {1, 2, -9, 3, 4, -9}, y = {10, 20, 30, 40};
  add({x.data(), 2, 2, 3}, {y.data(), 2, 2}, context_);
  EXPECT_EQ(x, (std::vector<float>{11, 22, -9, 33, 44, -9}));
  add_bias({x.data(), 2, 2, 3}, std::vector<float>{1, 2}, context_);
  EXPECT_EQ(x, (std::vector<float>{12, 24, -9, 34, 46, -9}));
}

TEST(LogSumExp, HasKnownValuesAndSurvivesExtremes) {
  EXPECT_DOUBLE_EQ(log_sum_exp(std::vector<float>{0.0f}), 0.0);
  EXPECT_NEAR(log_sum_exp(std::vector<float>(1000, 1.0f)), 1.0 + std::log(1000.0), 1e-7);
  EXPECT_NEAR(log_sum_exp(std::vector<float>{1e30f, 0.0f}), 1e30, 1e23);
  EXPECT_EQ(log_sum_exp(std::vector<float>{-kInfinity, 3.0f}), 3.0);
  EXPECT_EQ(log_sum_exp({}), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(log_sum_exp(std::vector<float>(3, -kInfinity)),
            -std::numeric_limits<double>::infinity());
}

TEST(LogSumExp, AgreesWithDoubleOnAVocabulary) {
  std::vector<float> logits(32003);
  Numbers numbers(8);
  numbers.fill(logits, 4.0f);
  double max = -1e300, sum = 0;
  for (const float value : logits) max = std::fmax(max, double{value});
  for (const float value : logits) sum += std::exp(double{value} - max);
  // Every term within 2e-7 and a rounding of its argument (20 u): the logarithm within 2e-6.
  EXPECT_NEAR(log_sum_exp(logits), max + std::log(sum), 2e-6);
}

TEST(ElementwiseBits, AreEqualForAnyNumberOfThreads) {
  const std::size_t t = 70, h = 1000;
  std::vector<float> input(t * h), weight(h), first;
  Numbers numbers(9);
  numbers.fill(input);
  numbers.fill(weight);
  for (const unsigned threads : {1u, 2u, 3u}) {
    const auto executor = make_openmp_executor(threads);
    Context context(*executor);
    std::vector<float> x = input;
    const MatrixView<float> view(x.data(), t, h);
    rms_norm(view, weight, 1e-5f, view, context);
    activate(Activation::silu, view, context);
    add_bias(view, weight, context);
    layer_norm(view, weight, weight, 1e-5f, view, context);
    if (first.empty()) first = x;
    EXPECT_TRUE(same_bits(x, first)) << threads << " threads";
  }
}

}  // namespace
}  // namespace quell::kernels
