// SPDX-License-Identifier: Apache-2.0

// smoothquant: at alpha = 1/2 each channel's largest activation and largest weight become equal.

#include <algorithm>
#include <cmath>

#include "quant/transforms/scales.hpp"
#include "quell/quant/transform.hpp"

namespace quell::quant {
namespace {

class SmoothQuant final : public Transform {
 public:
  explicit SmoothQuant(SmoothQuantOptions options) : options_(options) {}
  std::string_view name() const override { return "smoothquant"; }
  Status check(const model::Model& model) const override { return expect_scalable(model, name()); }

  Result<std::vector<float>> scale_site(const SiteProblem& problem,
                                        Executor& executor) const override {
    if (problem.linears.empty() ||
        !refuse_scaling(problem.model, problem.layer, problem.site).empty()) {
      return std::vector<float>();
    }
    QUELL_TRY(max_x,
              free_values(problem, problem.max_magnitudes, Ties::largest, "largest activation"));
    // Weights kept in float lose nothing, so they have no say.
    std::vector<double> columns(
        linears_at(problem.model.blocks()[problem.layer], problem.site).front()->cols);
    for (const PlannedLinear& planned : problem.linears) {
      QUELL_TRY(weight, problem.model.weight(*planned.linear, executor));
      for (std::size_t r = 0; r < weight.rows(); ++r) {
        const auto row = weight.row(r);
        for (std::size_t j = 0; j < columns.size(); ++j) {
          columns[j] = std::max(columns[j], static_cast<double>(std::abs(row[j])));
        }
      }
    }
    QUELL_TRY(max_w, free_values(problem, std::span<const double>(columns), Ties::largest,
                                 "largest weight"));
    return smooth_factors(max_x, max_w, options_.alpha);
  }

 private:
  SmoothQuantOptions options_;
};

}  // namespace

std::unique_ptr<Transform> smoothquant(SmoothQuantOptions options) {
  return std::make_unique<SmoothQuant>(options);
}

}  // namespace quell::quant
