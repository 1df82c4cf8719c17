// SPDX-License-Identifier: Apache-2.0

// Statistics of weights and activations, tensor by tensor. Medians are exact, by selection.

#include "quell/pipeline/outliers.hpp"

#include <algorithm>
#include <cmath>

#include "quell/engine/engine.hpp"
#include "quell/kernels/tensor_stats.hpp"

namespace quell::pipeline {
namespace {

// Element floor(n / 2) of the magnitudes, the finite ones.
float median_magnitude(MatrixView<const float> x) {
  std::vector<float> magnitudes;
  magnitudes.reserve(x.size());
  for (std::size_t r = 0; r < x.rows(); ++r) {
    for (const float value : x.row(r)) {
      if (std::isfinite(value)) magnitudes.push_back(std::abs(value));
    }
  }
  if (magnitudes.empty()) return 0;
  const auto middle = magnitudes.begin() + static_cast<std::ptrdiff_t>(magnitudes.size() / 2);
  std::nth_element(magnitudes.begin(), middle, magnitudes.end());
  return *middle;
}

// Central fourth moment over squared variance, minus 3, from power sums about zero. Sums are in
// double and activations have means far below their deviation, so the subtraction is harmless.
double excess_kurtosis(const kernels::PowerSums& sums) {
  if (sums.count == 0) return 0;
  const auto n = static_cast<double>(sums.count);
  const double mean = sums.sum / n;
  const double m2 = sums.sum2 / n - mean * mean;
  const double m4 = sums.sum4 / n - 4 * mean * sums.sum3 / n + 6 * mean * mean * sums.sum2 / n -
                    3 * mean * mean * mean * mean;
  return m2 > 0 ? m4 / (m2 * m2) - 3 : 0;
}

class OutlierTap final : public engine::Tap {
 public:
  OutlierTap(Executor& executor, std::vector<TensorOutliers>& out)
      : executor_(executor), out_(out) {}

  Status input(std::uint32_t layer, model::Site site, MatrixView<const float> x) override {
    return add("layers." + std::to_string(layer) + "." + std::string(to_string(site)), x);
  }
  Status residual(std::int32_t layer, MatrixView<const float> x) override {
    return add(layer < 0 ? "embedding" : "layers." + std::to_string(layer) + ".residual", x);
  }

 private:
  Status add(std::string name, MatrixView<const float> x) {
    QUELL_TRY(outliers, measure(x, executor_));
    outliers.name = std::move(name);
    outliers.kind = TensorOutliers::Kind::activation;
    out_.push_back(std::move(outliers));
    return ok();
  }

  Executor& executor_;
  std::vector<TensorOutliers>& out_;
};

}  // namespace

io::Json TensorOutliers::to_json() const {
  io::Json json = io::Json::object();
  json.set("name", name);
  json.set("kind", kind == Kind::weight ? "weight" : "activation");
  json.set("shape",
           io::Json::array({static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(cols)}));
  json.set("excess_kurtosis", excess_kurtosis);
  json.set("max_to_mean", max_to_mean());
  json.set("max_to_median", max_to_median());
  json.set("median", static_cast<double>(median_abs));
  json.set("channel_ratio", channel_ratio);
  json.set("argmax_channel", static_cast<std::uint64_t>(argmax_col));
  json.set("argmax_token", kind == Kind::activation
                               ? io::Json(static_cast<std::uint64_t>(argmax_row))
                               : io::Json());
  json.set("absmax", static_cast<double>(absmax));
  json.set("nonfinite", nonfinite);
  return json;
}

Result<TensorOutliers> measure(MatrixView<const float> x, Executor& executor) {
  kernels::Context context(executor);
  TensorOutliers outliers;
  outliers.rows = x.rows();
  outliers.cols = x.cols();
  const kernels::PowerSums sums = kernels::power_sums(x, context);
  outliers.excess_kurtosis = excess_kurtosis(sums);
  outliers.absmax = sums.max_abs;
  outliers.mean_abs = sums.count == 0 ? 0 : sums.sum_abs / static_cast<double>(sums.count);
  outliers.median_abs = median_magnitude(x);
  outliers.nonfinite = sums.nonfinite;
  if (x.cols() != 0) {
    outliers.argmax_row = static_cast<std::size_t>(sums.argmax_abs / x.cols());
    outliers.argmax_col = static_cast<std::size_t>(sums.argmax_abs % x.cols());
    std::vector<kernels::PowerSums> columns(x.cols());
    kernels::column_sums(x, columns, context);
    std::vector<float> maxima;
    for (const kernels::PowerSums& column : columns) maxima.push_back(column.max_abs);
    const float largest = *std::max_element(maxima.begin(), maxima.end());
    const auto middle = maxima.begin() + static_cast<std::ptrdiff_t>(maxima.size() / 2);
    std::nth_element(maxima.begin(), middle, maxima.end());
    outliers.channel_ratio =
        *middle > 0 ? static_cast<double>(largest) / static_cast<double>(*middle) : 0;
  }
  return outliers;
}

Result<std::vector<TensorOutliers>> measure_weights(const model::Model& model, Executor& executor,
                                                    Observer& observer) {
  std::vector<TensorOutliers> result;
  double done = 0;
  for (const model::Block& block : model.blocks()) {
    observer.progress({"weights", done++, static_cast<double>(model.blocks().size()), 0});
    for (const model::Site site : model::kSites) {
      for (const model::Linear* linear : linears_at(block, site)) {
        QUELL_TRY(weight, model.weight(*linear, executor, true));
        QUELL_TRY(outliers, measure(weight.view(), executor));
        outliers.name = linear->name;
        result.push_back(std::move(outliers));
      }
    }
  }
  return result;
}

Result<std::vector<TensorOutliers>> measure_activations(const model::Model& model,
                                                        const calib::Corpus& corpus,
                                                        Executor& executor, Observer& observer) {
  std::vector<TensorOutliers> result;
  OutlierTap tap(executor, result);
  const calib::Chunk chunk = calib::chunks(corpus).front();
  QUELL_TRY(engine, engine::Engine::create(model, executor));
  QUELL_TRY(x, Matrix::uninitialized(chunk.tokens, model.config().hidden));
  const std::span<const std::uint32_t> lengths(corpus.lengths.data(), chunk.sequences);
  QUELL_TRY(engine.embed(std::span(corpus.ids).first(chunk.tokens), lengths, x.view()));
  QUELL_TRY(tap.residual(-1, x.view()));
  for (std::uint32_t layer = 0; layer < model.blocks().size(); ++layer) {
    observer.progress(
        {"activations", static_cast<double>(layer), static_cast<double>(model.blocks().size()), 0});
    QUELL_TRY(weights, engine.load_block(layer));
    QUELL_TRY(engine.run_block(weights, lengths, x.view(), &tap));
  }
  return result;
}

}  // namespace quell::pipeline
