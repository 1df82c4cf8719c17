// SPDX-License-Identifier: Apache-2.0

// The engine under attention rules: the formulas in double, the cache, threads, what a tap is told,
// and rules that do not fit the model.

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "engine/attention.hpp"
#include "engine/running.hpp"
#include "quell/core/random.hpp"
#include "quell/kernels/isa.hpp"
#include "support/compare.hpp"
#include "support/golden_model.hpp"

namespace quell {
namespace {

using attention::AttentionRule;
using engine::Engine;

std::vector<float> some(std::size_t count, std::uint64_t seed, float scale = 1) {
  std::vector<float> values(count);
  Random(seed).fill_normal(values);
  for (float& value : values) value *= scale;
  return values;
}

/// One rule of every kind, sized for a model.
std::vector<std::pair<std::string, AttentionRule>> rules_for(std::size_t heads,
                                                             std::size_t head_dim,
                                                             std::size_t hidden) {
  const attention::BiasKeySoftmax bias{some(heads * head_dim, 4, 0.5f), some(heads * head_dim, 5)};
  attention::BiasKeySoftmax added = bias;
  added.rescales = false;
  using attention::Gate;
  const Gate slice{Gate::Reads::slice, some(hidden, 6, 0.3f), some(heads, 7), 1};
  const Gate all{Gate::Reads::all, some(heads * hidden, 8, 0.1f), some(heads, 9), 2};
  return {{"clipped", {attention::ClippedSoftmax{1.05f, -0.05f}, {}}},
          {"sink", {attention::SinkSoftmax{some(heads, 3)}, {}}},
          {"bias", {bias, {}}},
          {"added", {added, {}}},
          {"sigmoid", {attention::SigmoidWeights{}, {}}},
          {"gate", {attention::Softmax{}, slice}},
          {"gated bias", {bias, all}}};
}

/// Attention of one sequence as the formulas say, in double: [T, heads * head_dim].
std::vector<double> reference(const AttentionRule& rule, const engine::AttentionShape& shape,
                              const Matrix& q, const Matrix& k, const Matrix& v,
                              const Matrix& gates) {
  const std::size_t T = q.rows(), d = shape.head_dim;
  std::vector<double> out(q.size());
  const auto scored = [&](double product) {
    const double score = static_cast<double>(shape.scale) * product;
    const auto cap = static_cast<double>(shape.softcap);
    return cap > 0 ? cap * std::tanh(score / cap) : score;
  };
  for (std::size_t h = 0; h < shape.heads; ++h) {
    const std::size_t kv = h * shape.kv_heads / shape.heads;
    for (std::size_t t = 0; t < T; ++t) {
      const std::size_t last = shape.causal ? t + 1 : T;
      const std::size_t first = shape.window != 0 && last > shape.window ? last - shape.window : 0;
      std::vector<double> weights;
      double z = 0;
      for (std::size_t j = first; j < last; ++j) {
        double product = 0;
        for (std::size_t i = 0; i < d; ++i) {
          product += static_cast<double>(q(t, h * d + i)) * static_cast<double>(k(j, kv * d + i));
        }
        weights.push_back(scored(product));
        z += std::exp(weights.back());
      }
      double p0 = 0;
      const auto* bias = std::get_if<attention::BiasKeySoftmax>(&rule.weighting);
      const auto* sink = std::get_if<attention::SinkSoftmax>(&rule.weighting);
      const auto* clipped = std::get_if<attention::ClippedSoftmax>(&rule.weighting);
      if (bias != nullptr) {
        double product = 0;
        for (std::size_t i = 0; i < d; ++i) {
          product +=
              static_cast<double>(q(t, h * d + i)) * static_cast<double>(bias->keys[h * d + i]);
        }
        const double e = std::exp(scored(product));
        p0 = e / (e + z);
      }
      if (sink != nullptr) {
        const double e = std::exp(static_cast<double>(sink->logits[h]));
        p0 = e / (e + z);
      }
      for (double& w : weights) {
        const double p = std::exp(w) / z;
        if (std::holds_alternative<attention::SigmoidWeights>(rule.weighting)) {
          w = 1 / (1 + static_cast<double>(last - first) * std::exp(-w));
        } else if (clipped != nullptr) {
          const double zeta = static_cast<double>(clipped->zeta);
          const double gamma = static_cast<double>(clipped->gamma);
          w = std::min(1.0, std::max(0.0, (zeta - gamma) * p + gamma));
        } else {
          w = sink != nullptr || (bias != nullptr && bias->rescales) ? (1 - p0) * p : p;
        }
      }
      for (std::size_t i = 0; i < d; ++i) {
        double sum = bias != nullptr ? p0 * static_cast<double>(bias->values[h * d + i]) : 0;
        for (std::size_t j = first; j < last; ++j) {
          sum += weights[j - first] * static_cast<double>(v(j, kv * d + i));
        }
        out[t * q.cols() + h * d + i] = sum * (rule.gate ? static_cast<double>(gates(t, h)) : 1.0);
      }
    }
  }
  return out;
}

Matrix random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed, float scale = 1) {
  Matrix m = *Matrix::uninitialized(rows, cols);
  Random(seed).fill_normal(m.values());
  for (float& value : m.values()) value *= scale;
  return m;
}

TEST(AttentionRules, EqualTheirFormulas) {
  constexpr std::size_t kTokens = 150;  // two tiles of queries
  engine::AttentionShape shape;
  shape.heads = 4;
  shape.kv_heads = 2;
  shape.head_dim = 8;
  shape.scale = 0.35f;
  const Matrix q = random_matrix(kTokens, 32, 11), k = random_matrix(kTokens, 16, 12),
               v = random_matrix(kTokens, 16, 13);
  Matrix gates = random_matrix(kTokens, 4, 14);
  for (auto [name, rule] : rules_for(4, 8, 32)) {
    for (const auto& [causal, window, softcap] :
         {std::tuple{true, 0, 0.0f}, {true, 9, 0.0f}, {false, 0, 0.0f}, {true, 0, 2.0f}}) {
      shape.causal = causal;
      shape.window = static_cast<std::size_t>(window);
      shape.softcap = softcap;
      shape.weighting = &rule.weighting;
      SerialExecutor serial;
      engine::Attention attention(serial);
      Matrix out = *Matrix::uninitialized(kTokens, 32);
      engine::AttentionItem item{q.view(), k.view(), v.view(), out.view()};
      if (rule.gate) item.gates = gates.view();
      ASSERT_TRUE(attention.run({&item, 1}, shape).has_value());
      const auto expected = reference(rule, shape, q, k, v, gates);
      double worst = 0;
      for (std::size_t i = 0; i < expected.size(); ++i) {
        worst = std::max(worst, std::fabs(static_cast<double>(out.data()[i]) - expected[i]));
      }
      // Scores reach some 10, so their rounding moves a weight by 10 * 2^-24 of itself; sums of
      // 150 products of values up to 4 and the clip's stretch leave a few 1e-6.
      EXPECT_LT(worst, 2e-5) << name << (causal ? ", causal" : "") << ", window " << window
                             << ", softcap " << softcap;
    }
  }
}

/// A golden model on disk, opened.
struct Opened {
  Opened(const char* name, Executor& executor, kernels::CacheKind cache = kernels::CacheKind::f32) {
    const test::GoldenModel golden = test::read_golden(name);
    ids = golden.ids;
    golden.write(folder.path());
    auto loaded = model::Model::load(folder.path());
    EXPECT_TRUE(loaded.has_value());
    model = std::make_unique<model::Model>(*std::move(loaded));
    engine::EngineOptions options;
    options.cache = cache;
    engine = std::make_unique<Engine>(*Engine::create(*model, executor, options));
  }
  Matrix states(std::uint32_t length) {
    auto x = engine::hidden_states(*engine, std::span(ids).first(length), {&length, 1});
    EXPECT_TRUE(x.has_value());
    return *std::move(x);
  }
  std::vector<std::pair<std::string, AttentionRule>> rules() const {
    const auto& config = model->config();
    return rules_for(config.heads, config.head_dim, config.hidden);
  }
  test::TemporaryFolder folder;
  std::vector<std::int32_t> ids;
  std::unique_ptr<model::Model> model;
  std::unique_ptr<Engine> engine;
};

class EveryKind : public ::testing::TestWithParam<const char*> {};
class EveryDecoder : public EveryKind {};

TEST_P(EveryKind, RulesThatChangeNothingChangeNoBit) {
  SerialExecutor serial;
  Opened opened(GetParam(), serial);
  const Matrix plain = opened.states(17);
  const auto& config = opened.model->config();
  const attention::Gate open{attention::Gate::Reads::all,
                             std::vector<float>(std::size_t{config.heads} * config.hidden),
                             std::vector<float>(config.heads), 2};
  for (const AttentionRule& rule :
       {AttentionRule{}, AttentionRule{attention::ClippedSoftmax{1, 0}, {}},
        AttentionRule{attention::Softmax{}, open}}) {
    ASSERT_TRUE(opened.engine->set_attention({rule}).has_value());
    EXPECT_TRUE(test::same_bits(opened.states(17).values(), plain.values()));
  }
}

TEST_P(EveryKind, ThreadsAndInstructionSetsGiveTheSameBits) {
  SerialExecutor serial;
  Opened first(GetParam(), serial);
  const Matrix plain = first.states(17);
  const auto two = make_openmp_executor(2), three = make_openmp_executor(3);
  Opened second(GetParam(), *two), third(GetParam(), *three);
  for (const auto& [name, rule] : first.rules()) {
    for (Opened* each : {&first, &second, &third}) {
      ASSERT_TRUE(each->engine->set_attention({rule}).has_value()) << name;
    }
    const Matrix expected = first.states(17);
    EXPECT_FALSE(test::same_bits(expected.values(), plain.values())) << name << " does nothing";
    for (const kernels::Isa cap : {kernels::Isa::scalar, kernels::Isa::avx2}) {
      kernels::set_isa_cap(cap);
      for (Opened* each : {&first, &second, &third}) {
        EXPECT_TRUE(test::same_bits(each->states(17).values(), expected.values()))
            << name << ", " << kernels::to_string(cap);
      }
      kernels::clear_isa_cap();
    }
  }
}

/// What the first block reads, and what its attention gives.
class FirstBlock final : public engine::Tap {
 public:
  Status input(std::uint32_t layer, model::Site site, MatrixView<const float> x) override {
    if (layer != 0) return ok();
    std::vector<float>& to = site == model::Site::qkv_in ? read : attended;
    if (site != model::Site::qkv_in && site != model::Site::o_in) return ok();
    for (std::size_t t = 0; t < x.rows(); ++t) {
      to.insert(to.end(), x.row(t).begin(), x.row(t).end());
    }
    return ok();
  }
  std::vector<float> read, attended;
};

TEST_P(EveryKind, GatesMultiplyHeadsByWhatTheBlockReads) {
  SerialExecutor serial;
  Opened opened(GetParam(), serial);
  const std::size_t heads = opened.model->config().heads;
  const std::size_t hidden = opened.model->config().hidden;
  const std::size_t head_dim = opened.model->config().head_dim;
  for (const auto& [name, rule] : opened.rules()) {
    if (name != "gate" && name != "gated bias") continue;
    const std::uint32_t length = 17;
    FirstBlock plain, gated;
    for (FirstBlock* tap : {&plain, &gated}) {
      AttentionRule each = rule;
      if (tap == &plain) each.gate.reset();
      ASSERT_TRUE(opened.engine->set_attention({each}).has_value());
      ASSERT_TRUE(engine::hidden_states(*opened.engine, std::span(opened.ids).first(length),
                                        {&length, 1}, nullptr, tap)
                      .has_value());
    }
    ASSERT_EQ(gated.attended.size(), length * heads * head_dim);
    for (std::size_t t = 0; t < length; ++t) {
      const auto x = std::span<const float>(plain.read).subspan(t * hidden, hidden);
      for (std::size_t h = 0; h < heads; ++h) {
        const float factor = attention::gate_factor(*rule.gate, h, x, kernels::exp);
        for (std::size_t i = 0; i < head_dim; ++i) {
          const std::size_t at = (t * heads + h) * head_dim + i;
          ASSERT_EQ(gated.attended[at], plain.attended[at] * factor) << name << ", token " << t;
        }
      }
    }
  }
}

// Few tokens are multiplied with the cache as it is, many with what is read from it.
TEST_P(EveryDecoder, CacheEqualsTheWholePass) {
  using kernels::CacheKind;
  const std::pair<CacheKind, std::vector<std::uint32_t>> kSteps[] = {
      {CacheKind::f32, {6, 1, 1, 2, 7}},
      {CacheKind::f32, {9, 8}},
      {CacheKind::f16, {3, 12, 1, 1}},
      {CacheKind::int8, {9, 1, 7}},
      {CacheKind::int4, {9, 1, 7}}};
  SerialExecutor serial;
  for (const auto& [kind, steps] : kSteps) {
    Opened opened(GetParam(), serial, kind);
    const auto& config = opened.model->config();
    for (const auto& [name, rule] : opened.rules()) {
      ASSERT_TRUE(opened.engine->set_attention({rule}).has_value());
      const Matrix whole = opened.states(17);
      auto cache = engine::Cache::create(config, 17, kind);
      std::size_t at = 0;
      for (const std::uint32_t step : steps) {
        Matrix x = *Matrix::uninitialized(step, config.hidden);
        ASSERT_TRUE(opened.engine
                        ->embed(std::span(opened.ids).subspan(at, step), {&step, 1}, x.view(),
                                cache->length())
                        .has_value());
        for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
          auto block = opened.engine->load_block(layer);
          ASSERT_TRUE(opened.engine->run_block(*block, *cache, x.view()).has_value());
        }
        opened.engine->advance(*cache, step);
        const auto expected = whole.values().subspan(at * config.hidden, x.size());
        const std::string where = std::string(kernels::to_string(kind)) + ", " + name +
                                  ", tokens from " + std::to_string(at);
        at += step;
        if (kind == CacheKind::f32 || kind == CacheKind::f16) {
          // Products of any number of rows give the same bits, and so do the rules, row by row.
          EXPECT_TRUE(test::same_bits(x.values(), expected)) << where;
          continue;
        }
        // Scales leave the sums in one of the two: the last bits differ, and where they do, a value
        // of the next block may be rounded to the next code, a step of 1/127 of the largest.
        float largest = 0;
        for (const float value : expected) largest = std::max(largest, std::fabs(value));
        EXPECT_LE(test::largest_difference(x.values(), expected), largest / 127) << where;
      }
    }
  }
}

// Heads over fewer key heads, a window, learned positions with biases, norms that come last.
constexpr const char* kDecoders[] = {"llama_bias", "mistral_window", "gpt2", "opt_350m"};
const auto name_of = [](const auto& one) { return std::string(one.param); };
INSTANTIATE_TEST_SUITE_P(AttentionRules, EveryKind, ::testing::ValuesIn(kDecoders), name_of);
INSTANTIATE_TEST_SUITE_P(Encoder, EveryKind, ::testing::Values("bert"), name_of);
INSTANTIATE_TEST_SUITE_P(AttentionRules, EveryDecoder, ::testing::ValuesIn(kDecoders), name_of);

TEST(AttentionRules, EveryBlockMayHaveItsOwn) {
  SerialExecutor serial;
  Opened opened("llama", serial);
  const Matrix plain = opened.states(17);
  const AttentionRule sigmoid{attention::SigmoidWeights{}, {}};
  ASSERT_TRUE(opened.engine->set_attention({sigmoid, {}}).has_value());
  const Matrix first = opened.states(17);
  ASSERT_TRUE(opened.engine->set_attention({{}, sigmoid}).has_value());
  const Matrix second = opened.states(17);
  EXPECT_GT(test::largest_difference(first.values(), second.values()), 1e-3f);
  ASSERT_TRUE(opened.engine->set_attention({{}, {}}).has_value());
  EXPECT_TRUE(test::same_bits(opened.states(17).values(), plain.values()));
}

TEST(AttentionRules, ThatDoNotFitAreRefused) {
  SerialExecutor serial;
  Opened opened("llama", serial);  // 2 blocks
  const auto refused = [&](std::vector<AttentionRule> rules) {
    const auto done = opened.engine->set_attention(std::move(rules));
    return done ? std::string() : done.error().message;
  };
  EXPECT_EQ(refused({}), "0 attention rules, expected one, or one for each of the 2 blocks");
  EXPECT_EQ(refused({{}, {}, {}}),
            "3 attention rules, expected one, or one for each of the 2 blocks");
  EXPECT_NE(refused({{attention::SinkSoftmax{{0}}, {}}}).find("sink logits has 1 values"),
            std::string::npos);
  EXPECT_NE(refused({{}, {attention::ClippedSoftmax{0, 0}, {}}}).find("zeta is 0"),
            std::string::npos);
}

class MassTap final : public engine::Tap {
 public:
  explicit MassTap(bool wants) : wants_(wants) {}
  Status input(std::uint32_t, model::Site, MatrixView<const float>) override { return ok(); }
  bool wants_attention() const override { return true; }
  bool wants_zeros() const override { return wants_; }
  Status attention(std::uint32_t, const engine::AttentionMass& seen) override {
    for (std::size_t h = 0; h < seen.mass.rows(); ++h) {
      double sum = 0;
      for (std::size_t key = 0; key < seen.mass.cols(); ++key) {
        sum += seen.mass(h, key) + seen.near(h, key);
      }
      sums.push_back(sum);
    }
    rows.push_back(seen.rows);
    zeros.insert(zeros.end(), seen.zeros.begin(), seen.zeros.end());
    return ok();
  }
  std::vector<double> sums;
  std::vector<std::size_t> rows;
  std::vector<engine::AttentionZeros> zeros;

 private:
  bool wants_;
};

TEST(AttentionMass, FarAndNearCountEachQueryOnce) {
  for (const char* name : {"llama", "mistral_window", "bert"}) {
    SerialExecutor serial;
    Opened opened(name, serial);
    MassTap tap(false);
    const std::vector<std::uint32_t> lengths = {30, 9};
    std::vector<std::int32_t> ids(39, 5);
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] += static_cast<std::int32_t>(i);
    ASSERT_TRUE(engine::hidden_states(*opened.engine, ids, lengths, nullptr, &tap).has_value());
    const auto& config = opened.model->config();
    const std::size_t first = config.causal ? 14 : 30, second = config.causal ? 0 : 9;
    ASSERT_EQ(tap.rows.size(), std::size_t{2} * config.layers);
    EXPECT_EQ(tap.rows[0], first) << name;
    EXPECT_EQ(tap.rows[1], second) << name;
    for (std::size_t i = 0; i < tap.sums.size(); ++i) {
      const bool longer = i / config.heads % 2 == 0;
      // Rows of softmax sum to one up to some 2^-24 for each key.
      EXPECT_NEAR(tap.sums[i], static_cast<double>(longer ? first : second), 1e-4) << name;
    }
    EXPECT_TRUE(tap.zeros.empty());
  }
}

TEST(AttentionMass, CountsZerosOfWhatIsVisible) {
  SerialExecutor serial;
  Opened opened("llama", serial);
  const std::uint32_t length = 17;
  const auto counted = [&](const AttentionRule& rule) {
    MassTap tap(true);
    EXPECT_TRUE(opened.engine->set_attention({rule}).has_value());
    EXPECT_TRUE(engine::hidden_states(*opened.engine, std::span(opened.ids).first(length),
                                      {&length, 1}, nullptr, &tap)
                    .has_value());
    return tap.zeros.at(0);
  };
  const auto plain = counted({});
  EXPECT_EQ(plain.visible, 17u * 18 / 2);
  EXPECT_EQ(plain.rows, 17u);
  EXPECT_EQ(plain.zeros, 0u);
  EXPECT_EQ(plain.empty_rows, 0u);
  // Only p = 1 survives, which is the first query's only key.
  const auto harsh = counted({attention::ClippedSoftmax{1, -1000}, {}});
  EXPECT_EQ(harsh.visible, 17u * 18 / 2);
  EXPECT_EQ(harsh.zeros, 17u * 18 / 2 - 1);
  EXPECT_EQ(harsh.empty_rows, 16u);
}

}  // namespace
}  // namespace quell
