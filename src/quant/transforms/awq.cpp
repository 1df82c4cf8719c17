// SPDX-License-Identifier: Apache-2.0

// awq: candidates for the factors of a site, each judged by the loss tr(E H E^T) that rounding on
// the grid to come would have, E = Q(W S) S^-1 - W. With H no forward pass is needed, and for o and
// down the loss is that of the block's own output. The loss of a row costs as much as a row of a
// forward pass over IC tokens; 256 rows of a site tell candidates apart, and 20 candidates cost as
// much as 5,000 tokens more would.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "quant/problem.hpp"
#include "quant/transforms/scales.hpp"
#include "quell/quant/transform.hpp"

namespace quell::quant {
namespace {

constexpr std::size_t kRows = 256;    // judged, of all linears of a site
constexpr std::size_t kSearched = 3;  // candidates that are judged with searched scales

struct Candidate {
  std::vector<float> factors;
  double loss = std::numeric_limits<double>::infinity();
};

// Some rows of one linear, evenly spread.
struct Sample {
  const PlannedLinear* planned;
  Matrix weight;  // [rows, IC]
};

// Every row's share of the largest weight of its group, averaged over rows, for each input.
void add_shares(const Sample& sample, std::vector<double>& shares) {
  const std::size_t inputs = sample.weight.cols();
  const std::size_t group = sample.planned->grid.group == 0
                                ? inputs
                                : std::min<std::size_t>(sample.planned->grid.group, inputs);
  for (std::size_t r = 0; r < sample.weight.rows(); ++r) {
    const auto row = sample.weight.row(r);
    for (std::size_t begin = 0; begin < inputs; begin += group) {
      const std::size_t end = std::min(begin + group, inputs);
      float largest = 0;
      for (std::size_t j = begin; j < end; ++j) largest = std::max(largest, std::abs(row[j]));
      if (largest == 0) continue;
      for (std::size_t j = begin; j < end; ++j) {
        shares[j] += static_cast<double>(std::abs(row[j]) / largest);
      }
    }
  }
}

class Awq final : public Transform {
 public:
  explicit Awq(AwqOptions options) : options_(options) {}
  std::string_view name() const override { return "awq"; }
  Status check(const model::Model& model) const override { return expect_scalable(model, name()); }

  Result<std::vector<float>> scale_site(const SiteProblem& problem,
                                        Executor& executor) const override {
    if (!refuse_scaling(problem.model, problem.layer, problem.site).empty()) {
      return std::vector<float>();
    }
    QUELL_TRY(a, free_values(problem, problem.mean_magnitudes, Ties::mean, "mean magnitude"));
    QUELL_TRY(samples, sample_rows(problem, executor));
    if (samples.empty()) return std::vector<float>();
    const std::size_t inputs = samples.front().weight.cols();
    std::size_t rows = 0;
    for (const Sample& sample : samples) {
      LayerProblem layer = layer_problem(problem, sample, sample.weight.view());
      QUELL_TRY(check_problem(layer, true, executor));
      rows += sample.weight.rows();
    }
    const MomentProfile profile = profile_moment(problem.second_moment);
    if (profile.live.empty()) return std::vector<float>();

    std::vector<double> shares(inputs);
    for (const Sample& sample : samples) add_shares(sample, shares);
    for (double& share : shares) share /= static_cast<double>(rows);
    QUELL_TRY(w, free_values(problem, std::span<const double>(shares), Ties::largest,
                             "share of the group"));

    std::vector<Candidate> candidates;
    candidates.push_back({std::vector<float>(a.size(), 1.0f)});
    for (unsigned step = 0; step < options_.steps; ++step) {
      const double alpha = static_cast<double>(step) / options_.steps;
      if (step != 0) candidates.push_back({awq_factors(a, {}, alpha)});
      candidates.push_back({awq_factors(a, w, alpha)});
    }
    // Searching scales costs ten times as much as the rest: plain ones choose who is worth it. What
    // stays as it is always is.
    linalg::Context context(executor);
    const auto by_loss = [](const Candidate& x, const Candidate& y) { return x.loss < y.loss; };
    for (Candidate& candidate : candidates) {
      QUELL_TRY(loss, judge(problem, samples, candidate.factors, profile, false, context));
      candidate.loss = std::isfinite(loss) ? loss : HUGE_VAL;
    }
    const bool searched = std::any_of(samples.begin(), samples.end(), [](const Sample& sample) {
      return sample.planned->scale == ScaleMethod::search;
    });
    if (searched) {
      std::stable_sort(candidates.begin() + 1, candidates.end(), by_loss);
      candidates.resize(std::min(candidates.size(), 1 + kSearched));
      for (Candidate& candidate : candidates) {
        QUELL_TRY(loss, judge(problem, samples, candidate.factors, profile, true, context));
        candidate.loss = std::isfinite(loss) ? loss : HUGE_VAL;
      }
    }
    Candidate& best = *std::min_element(candidates.begin(), candidates.end(), by_loss);
    if (!std::isfinite(best.loss)) {
      return Error{ErrorCode::numeric, "block " + std::to_string(problem.layer) + ", " +
                                           std::string(to_string(problem.site)) +
                                           ": no factors have a finite loss"};
    }
    return std::move(best.factors);
  }

 private:
  static LayerProblem layer_problem(const SiteProblem& problem, const Sample& sample,
                                    MatrixView<const float> weight) {
    LayerProblem layer;
    layer.name = sample.planned->linear->name;
    layer.weight = weight;
    layer.grid = sample.planned->grid;
    layer.scale = sample.planned->scale;
    layer.second_moment = problem.second_moment;
    return layer;
  }

  // Groups down a column take a factor of the column as they come, so their linears have no say.
  static Result<std::vector<Sample>> sample_rows(const SiteProblem& problem, Executor& executor) {
    std::size_t rows = 0;
    for (const PlannedLinear& planned : problem.linears) {
      if (planned.grid.per == Channel::output) rows += planned.linear->rows;
    }
    const std::size_t stride = (rows + kRows - 1) / kRows;
    std::vector<Sample> samples;
    for (const PlannedLinear& planned : problem.linears) {
      if (planned.grid.per != Channel::output) continue;
      QUELL_TRY(weight, problem.model.weight(*planned.linear, executor));
      const std::size_t count = (weight.rows() + stride - 1) / stride;
      QUELL_TRY(some, Matrix::uninitialized(count, weight.cols()));
      for (std::size_t r = 0; r < count; ++r) {
        const auto row = weight.row(r * stride);
        std::copy(row.begin(), row.end(), some.row(r).begin());
      }
      samples.push_back({&planned, std::move(some)});
    }
    return samples;
  }

  static Result<double> judge(const SiteProblem& problem, const std::vector<Sample>& samples,
                              const std::vector<float>& factors, const MomentProfile& profile,
                              bool searched, linalg::Context& context) {
    const std::size_t inputs = profile.importance.size();
    const MomentLoss loss(problem.second_moment, profile.unit);
    std::vector<float> s(inputs), importance(inputs), back(inputs);
    for (std::size_t j = 0; j < inputs; ++j) {
      s[j] = factors[free_channel(problem.model.config(), problem.site, j)];
      importance[j] = profile.importance[j] / (s[j] * s[j]);
      back[j] = loss.error_scale() / s[j];
    }
    double total = 0;
    for (const Sample& sample : samples) {
      QUELL_TRY(scaled, Matrix::uninitialized(sample.weight.rows(), inputs));
      for (std::size_t r = 0; r < scaled.rows(); ++r) {
        for (std::size_t j = 0; j < inputs; ++j) scaled(r, j) = sample.weight(r, j) * s[j];
      }
      LayerProblem layer = layer_problem(problem, sample, scaled.view());
      if (!searched && layer.scale == ScaleMethod::search) layer.scale = ScaleMethod::minmax;
      QUELL_TRY(rounded, round_layer(layer, importance, context.executor()));
      std::vector<float> row(inputs);
      for (std::size_t r = 0; r < scaled.rows(); ++r) {
        rounded.dequantize_row(r, row);
        for (std::size_t j = 0; j < inputs; ++j) {
          scaled(r, j) = (scaled(r, j) - row[j]) * back[j];
        }
      }
      std::vector<double> losses(scaled.rows());
      QUELL_TRY(loss.judge(scaled.view(), losses, context));
      // Each sampled row stands for `stride` rows of its linear; the stride is one for the site.
      total += std::accumulate(losses.begin(), losses.end(), 0.0);
    }
    return total;
  }

  AwqOptions options_;
};

}  // namespace

std::unique_ptr<Transform> awq(AwqOptions options) {
  return std::make_unique<Awq>(options);
}

}  // namespace quell::quant
