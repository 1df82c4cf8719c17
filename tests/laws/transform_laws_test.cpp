// SPDX-License-Identifier: Apache-2.0

// What every registered transform must keep, on every architecture: the function of the float model
// above all. A transform is tested by being listed.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/running.hpp"
#include "quell/engine/embeddings.hpp"
#include "quell/pipeline/quantize.hpp"
#include "quell/quant/transform.hpp"
#include "support/golden_model.hpp"
#include "support/shared.hpp"

namespace quell::quant {
namespace {

using model::Site;

// Statistics of one site, as calibration has them.
struct Seen {
  Matrix64 moment;
  std::vector<double> mean_magnitudes;
  std::vector<float> max_magnitudes;
  double tokens = 0;
};

class Watching final : public engine::Tap {
 public:
  Status input(std::uint32_t layer, Site site, MatrixView<const float> x) override {
    Seen& seen = sites[{layer, site}];
    if (seen.moment.size() == 0) {
      QUELL_TRY(zeros, Matrix64::zeros(x.cols(), x.cols()));
      seen.moment = std::move(zeros);
      seen.mean_magnitudes.assign(x.cols(), 0);
      seen.max_magnitudes.assign(x.cols(), 0);
    }
    for (std::size_t t = 0; t < x.rows(); ++t) {
      for (std::size_t i = 0; i < x.cols(); ++i) {
        const auto value = static_cast<double>(x(t, i));
        seen.mean_magnitudes[i] += std::abs(value);
        seen.max_magnitudes[i] = std::max(seen.max_magnitudes[i], std::abs(x(t, i)));
        for (std::size_t j = 0; j < x.cols(); ++j) {
          seen.moment(i, j) += value * static_cast<double>(x(t, j));
        }
      }
    }
    seen.tokens += static_cast<double>(x.rows());
    return ok();
  }
  std::map<std::pair<std::uint32_t, Site>, Seen> sites;
};

/// Logits, or the hidden states of an encoder.
Result<Matrix> outputs(const model::Model& model, std::span<const std::int32_t> ids,
                       engine::Tap* tap = nullptr) {
  SerialExecutor serial;
  QUELL_TRY(engine, engine::Engine::create(model, serial));
  const auto length = static_cast<std::uint32_t>(ids.size());
  QUELL_TRY(x, Matrix::uninitialized(ids.size(), model.config().hidden));
  QUELL_TRY(engine.embed(ids, {&length, 1}, x.view()));
  for (std::uint32_t layer = 0; layer < model.config().layers; ++layer) {
    QUELL_TRY(weights, engine.load_block(layer));
    QUELL_TRY(engine.run_block(weights, {&length, 1}, x.view(), tap));
  }
  if (!model.has_head()) return x;
  QUELL_TRY(out, Matrix::uninitialized(ids.size(), model.config().vocabulary));
  QUELL_TRY(engine.logits(x.view(), out.view()));
  return out;
}

GridSpec grid() {
  return *parse_grid("int4:sym:oc:g8:f32");
}

/// Everything that the transform does to the model, with statistics of `ids`. Returns the factors.
Result<std::vector<float>> apply(const Transform& transform, const model::Model& model,
                                 std::span<const std::int32_t> ids,
                                 const std::shared_ptr<model::Edits>& edits) {
  SerialExecutor serial;
  std::vector<float> all;
  QUELL_TRY(transform.check(model));
  QUELL_TRY(transform.edit_model(model, *edits, serial));
  const model::Model edited = model.edited(edits);
  Watching seen;
  QUELL_TRY(outputs(edited, ids, &seen));
  for (const auto& [key, statistics] : seen.sites) {
    const auto& [layer, site] = key;
    QUELL_TRY(moment, Matrix::uninitialized(statistics.moment.rows(), statistics.moment.cols()));
    for (std::size_t i = 0; i < moment.size(); ++i) {
      moment.values()[i] = static_cast<float>(statistics.moment.values()[i] / statistics.tokens);
    }
    std::vector<double> means = statistics.mean_magnitudes;
    for (double& mean : means) mean /= statistics.tokens;
    SiteProblem problem{edited, layer, site, {}, moment.view(), means, statistics.max_magnitudes};
    for (const model::Linear* linear : linears_at(model.blocks()[layer], site)) {
      problem.linears.push_back({linear, grid(), ScaleMethod::absmax});
    }
    QUELL_TRY(factors, transform.scale_site(problem, serial));
    if (factors.empty()) continue;
    all.insert(all.end(), factors.begin(), factors.end());
    QUELL_TRY(apply_scaling(edited, layer, site, factors, *edits));
  }
  return all;
}

double relative_difference(const Matrix& a, const Matrix& b) {
  return static_cast<double>(test::largest_difference(a.values(), b.values())) /
         static_cast<double>(test::largest(a.values()));
}

std::string name_of(const ::testing::TestParamInfo<std::string>& info) {
  return info.param;
}

std::vector<std::string> all_names() {
  std::vector<std::string> names;
  for (const TransformEntry& entry : transforms()) names.emplace_back(entry.name);
  return names;
}

struct Golden {
  std::string name;
  test::GoldenModel files;
  model::Model model;
};

class TransformLaws : public ::testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Transform> made() const { return find_transform(GetParam())->make({}); }

  /// All stored models, and one whose head reads a stream that no norm has centred.
  template <typename Visit>
  void on_each_model(const Visit& visit) {
    std::vector<std::string> names(std::begin(test::kGoldenModels), std::end(test::kGoldenModels));
    names.insert(names.end(), std::begin(test::kGoldenEncoders), std::end(test::kGoldenEncoders));
    names.emplace_back("opt_without_final_norm");
    for (const std::string& name : names) {
      SCOPED_TRACE(name);
      const bool changed = name == "opt_without_final_norm";
      test::GoldenModel files = test::read_golden(changed ? "opt" : name);
      if (changed) {
        files.config.set("_remove_final_layer_norm", true);
        files.remove("model.decoder.final_layer_norm.weight");
        files.remove("model.decoder.final_layer_norm.bias");
      }
      files.write(scratch_.path() / name);
      auto model = model::Model::load(scratch_.path() / name);
      ASSERT_TRUE(model) << model.error().message;
      ASSERT_NO_FATAL_FAILURE(visit(Golden{name, std::move(files), *std::move(model)}));
    }
  }

  const test::TemporaryFolder scratch_;
};

TEST_P(TransformLaws, KeepTheFloatFunctionOrRefuseWithTheReason) {
  std::size_t accepted = 0;
  on_each_model([&](const Golden& golden) {
    const model::Model& model = golden.model;
    const std::vector<std::int32_t>& ids = golden.files.ids;
    const auto before = outputs(model, ids);
    ASSERT_TRUE(before);
    const auto edits = std::make_shared<model::Edits>();
    const auto factors = apply(*made(), model, ids, edits);
    if (!factors) {
      ASSERT_EQ(factors.error().code, ErrorCode::unsupported) << factors.error().message;
      ASSERT_GT(factors.error().message.size(), 40u);
      return;
    }
    ++accepted;
    for (const float factor : *factors) {
      ASSERT_TRUE(std::isfinite(factor));
      ASSERT_GT(factor, 0.0F);
    }
    const auto after = outputs(model.edited(edits), ids);
    ASSERT_TRUE(after) << after.error().message;
    ASSERT_LE(relative_difference(*before, *after), 1e-4);
  });
  EXPECT_GE(accepted, 6u);
}

TEST_P(TransformLaws, KeepTheFloatFunctionOfRealModels) {
  for (const char* name : {"tiny1m", "minilm-l6"}) {
    SCOPED_TRACE(name);
    const auto path = test::shared_path(std::string("models/") + name);
    if (!path) GTEST_SKIP() << "no shared models";
    const auto model = model::Model::load(*path);
    ASSERT_TRUE(model) << model.error().message;
    std::vector<std::int32_t> ids(24);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      ids[i] = static_cast<std::int32_t>((i * 37 + 101) % model->config().vocabulary);
    }
    const auto before = outputs(*model, ids);
    ASSERT_TRUE(before);
    const auto edits = std::make_shared<model::Edits>();
    const auto factors = apply(*made(), *model, ids, edits);
    if (!factors) {
      ASSERT_EQ(factors.error().code, ErrorCode::unsupported) << factors.error().message;
      continue;
    }
    const auto after = outputs(model->edited(edits), ids);
    ASSERT_TRUE(after) << after.error().message;
    ASSERT_LE(relative_difference(*before, *after), 1e-4);
  }
}

// What the main job writes is read back and run: its layers are rounded to 8 bits, in groups of 8
// with float32 scales, so weights are off by 1/254 of the largest of 8 at most and outputs by less
// than a percent or two; a norm, bias, embedding or kept layer that is not written as edited is off
// by its own size.
TEST_P(TransformLaws, KeepTheFunctionInWhatIsWritten) {
  SerialExecutor serial;
  std::size_t accepted = 0;
  on_each_model([&](const Golden& golden) {
    const model::Model& model = golden.model;
    const std::vector<std::int32_t>& ids = golden.files.ids;
    calib::Corpus corpus;
    corpus.ids = ids;
    corpus.lengths = {static_cast<std::uint32_t>(ids.size())};
    pipeline::Recipe recipe;
    recipe.method = GetParam() + "+rtn";
    recipe.bits = 8;
    recipe.group = 8;
    recipe.scale_type = ScaleType::f32;
    recipe.to = "quell";
    // Of every block one layer that makes, and one that reads, stays as it is.
    recipe.ignore = {model.blocks()[0].down.name, model.blocks()[1].qkv.back().name};
    const auto plan = pipeline::make_plan(
        model, recipe, {true, true, true, corpus.ids.size(), corpus.ids.size()}, serial);
    if (!plan) {
      ASSERT_EQ(plan.error().code, ErrorCode::unsupported) << plan.error().message;
      return;
    }
    ++accepted;
    pipeline::QuantizeOptions options;
    options.output = scratch_.path() / (golden.name + "-out");
    options.corpus = &corpus;
    pipeline::Observer observer;
    const auto done = pipeline::quantize(model, recipe, *plan, options, serial, observer);
    ASSERT_TRUE(done) << done.error().message;
    const auto written = model::Model::load(options.output);
    ASSERT_TRUE(written) << written.error().message;
    const auto before = outputs(model, ids), after = outputs(*written, ids);
    ASSERT_TRUE(before && after);
    ASSERT_LE(relative_difference(*before, *after), 0.03);
    ASSERT_GT(relative_difference(*before, *after), 0);
  });
  EXPECT_GE(accepted, 6u);
}

INSTANTIATE_TEST_SUITE_P(All, TransformLaws, ::testing::ValuesIn(all_names()), name_of);

}  // namespace
}  // namespace quell::quant
