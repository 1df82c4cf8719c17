// SPDX-License-Identifier: Apache-2.0
#include "quant/transforms/scales.hpp"

#include <algorithm>
#include <cmath>

namespace quell::quant {
namespace {

constexpr double kSmallestMaximum = 1e-5;  // of the published programs
constexpr double kSmallestFactor = 1e-4;

}  // namespace

Status expect_scalable(const model::Model& model, std::string_view transform) {
  for (std::uint32_t layer = 0; layer < model.blocks().size(); ++layer) {
    for (const model::Site site : model::kSites) {
      if (refuse_scaling(model, layer, site).empty()) return ok();
    }
  }
  return Error{ErrorCode::unsupported,
               std::string(transform) + " needs to know which norm feeds which matrix; " +
                   model.folder().string() + " was opened for its weights alone",
               model.folder().string(),
               {}};
}

template <typename T>
Result<std::vector<double>> free_values(const SiteProblem& problem, std::span<const T> values,
                                        Ties ties, std::string_view what) {
  const std::size_t channels =
      linears_at(problem.model.blocks()[problem.layer], problem.site).front()->cols;
  const std::string where =
      "block " + std::to_string(problem.layer) + ", " + std::string(to_string(problem.site)) + ": ";
  if (values.size() != channels) {
    return Error{ErrorCode::numeric, where + std::string(what) + " of " +
                                         std::to_string(values.size()) + " channels, expected " +
                                         std::to_string(channels)};
  }
  std::vector<double> out(free_channels(problem.model, problem.layer, problem.site));
  const double copies = static_cast<double>(channels) / static_cast<double>(out.size());
  for (std::size_t j = 0; j < channels; ++j) {
    const auto value = static_cast<double>(values[j]);
    if (!std::isfinite(value) || value < 0) {
      return Error{ErrorCode::numeric, where + std::string(what) + " of channel " +
                                           std::to_string(j) + " is " + std::to_string(value) +
                                           ", expected a finite number, 0 or more"};
    }
    double& slot = out[free_channel(problem.model.config(), problem.site, j)];
    slot = ties == Ties::mean ? slot + value / copies : std::max(slot, value);
  }
  return out;
}

template Result<std::vector<double>> free_values(const SiteProblem&, std::span<const float>, Ties,
                                                 std::string_view);
template Result<std::vector<double>> free_values(const SiteProblem&, std::span<const double>, Ties,
                                                 std::string_view);

std::vector<float> smooth_factors(std::span<const double> max_x, std::span<const double> max_w,
                                  double alpha) {
  std::vector<float> factors(max_x.size());
  for (std::size_t j = 0; j < factors.size(); ++j) {
    if (max_x[j] < kSmallestMaximum && max_w[j] < kSmallestMaximum) {
      factors[j] = 1;
      continue;
    }
    const double x = std::max(max_x[j], kSmallestMaximum);
    const double w = std::max(max_w[j], kSmallestMaximum);
    factors[j] =
        static_cast<float>(std::max(std::pow(x, alpha) / std::pow(w, 1 - alpha), kSmallestMaximum));
  }
  return factors;
}

std::vector<float> awq_factors(std::span<const double> a, std::span<const double> w, double alpha) {
  std::vector<double> factors(a.size());
  for (std::size_t j = 0; j < factors.size(); ++j) {
    double s = std::pow(a[j], alpha);
    if (!w.empty()) s /= std::pow(w[j], 1 - alpha) + kSmallestFactor;
    factors[j] = std::max(s, kSmallestFactor);
  }
  const auto [low, high] = std::minmax_element(factors.begin(), factors.end());
  const double middle = factors.empty() ? 1.0 : std::sqrt(*low * *high);
  std::vector<float> out(factors.size());
  for (std::size_t j = 0; j < out.size(); ++j) {
    const double s = factors[j] / middle;
    out[j] = std::isfinite(s) ? static_cast<float>(s) : 1.0f;
  }
  return out;
}

}  // namespace quell::quant
