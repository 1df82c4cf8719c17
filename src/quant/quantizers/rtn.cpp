// SPDX-License-Identifier: Apache-2.0

// Rounding to nearest: the scales are the whole method.

#include <algorithm>
#include <numeric>
#include <vector>

#include "quant/problem.hpp"
#include "quell/quant/methods.hpp"

namespace quell::quant {
namespace {

/// Squared error over squared weights, row sums in index order.
double squared_objective(MatrixView<const float> weight, const QuantizedTensor& tensor,
                         Executor& executor) {
  std::vector<double> error(weight.rows()), size(weight.rows());
  executor.run(weight.rows(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
    std::vector<float> values(weight.cols());
    for (std::size_t r = begin; r < end; ++r) {
      const auto row = weight.row(r);
      tensor.dequantize_row(r, values);
      for (std::size_t k = 0; k < values.size(); ++k) {
        const double w = static_cast<double>(row[k]);
        const double e = w - static_cast<double>(values[k]);
        error[r] += e * e;
        size[r] += w * w;
      }
    }
  });
  double errors = 0, sizes = 0;
  for (std::size_t r = 0; r < error.size(); ++r) {
    errors += error[r];
    sizes += size[r];
  }
  return sizes > 0 ? errors / sizes : 0.0;
}

class Rtn final : public Quantizer {
 public:
  explicit Rtn(RtnOptions options) : options_(options) {}
  std::string_view name() const override { return options_.importance ? "importance" : "rtn"; }
  Needs needs() const override {
    return options_.importance ? Needs::second_moment : Needs::weights_only;
  }

  Result<Quantized> quantize(const LayerProblem& layer, Executor& executor) const override {
    QUELL_TRY(check_problem(layer, options_.importance, executor));
    if (layer.second_moment.empty()) {
      QUELL_TRY(tensor, round_layer(layer, {}, executor));
      Quantized result(std::move(tensor));
      result.objective = squared_objective(layer.weight, result.tensor, executor);
      result.objective_rtn = result.objective;
      return result;
    }
    const MomentProfile profile = profile_moment(layer.second_moment);
    QUELL_TRY(tensor, round_layer(layer, profile.importance, executor));
    Quantized result(std::move(tensor));
    result.dead_inputs = profile.dead.size();
    QUELL_TRY(objective, moment_objective(layer, profile, result.tensor, executor));
    result.objective = objective;
    result.objective_rtn = objective;
    return result;
  }

 private:
  static Result<double> moment_objective(const LayerProblem& layer, const MomentProfile& profile,
                                         const QuantizedTensor& tensor, Executor& executor) {
    constexpr std::size_t kRows = 512;  // of W at a time
    const MomentLoss loss(layer.second_moment, profile.unit);
    linalg::Context context(executor);
    const std::size_t rows = layer.weight.rows();
    QUELL_TRY(errors, Matrix::uninitialized(std::min(kRows, rows), layer.weight.cols()));
    std::vector<double> losses(rows);
    for (std::size_t first = 0; first < rows; first += kRows) {
      const std::size_t count = std::min(kRows, rows - first);
      const auto part = errors.view().rows_from(0, count);
      loss.gather(layer.weight, &tensor, first, 1, part, executor);
      QUELL_TRY(loss.judge(part, {losses.data() + first, count}, context));
    }
    QUELL_TRY(size, loss.zero_loss(layer.weight, context));
    const double error = std::accumulate(losses.begin(), losses.end(), 0.0);
    return size > 0 ? error / size : 0.0;
  }

  RtnOptions options_;
};

}  // namespace

std::unique_ptr<Quantizer> rtn(RtnOptions options) {
  return std::make_unique<Rtn>(options);
}

}  // namespace quell::quant
