// SPDX-License-Identifier: Apache-2.0
#pragma once

// Outliers that a model has by design of its training and not by the accident of one layer: values
// of activations thousands of times the ordinary ones (massive activations), and channels of the
// residual stream that lead in layer after layer (systematic channels).
//
// Sources of the rules: An, Zhao, Yu, Tang, Wang, "Systematic Outliers in Large Language Models"
// (ICLR 2025); Sun, Chen, Kolter, Liu, "Massive Activations in Large Language Models" (2024). The
// default is our own: the median is not lifted by the very values that are looked for, as the mean
// is, and a bound on the absolute value depends on the scale of a model.

#include <algorithm>
#include <cstddef>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "quell/stats/channels.hpp"

namespace quell::stats {

/// When one activation of a sequence is massive, against all magnitudes of the sequence at the same
/// place of the model.
struct MassiveRule {
  std::string_view name = "median";
  double times = 1000;   // of the median or mean magnitude, strictly more
  bool of_mean = false;  // else of the median
  double at_least = 0;   // and strictly more than this

  bool holds(double magnitude, double mean_abs, double median_abs) const noexcept {
    return magnitude > times * (of_mean ? mean_abs : median_abs) && magnitude > at_least;
  }
};
/// The published rules, by the name of what they come from.
inline constexpr MassiveRule kMassiveRules[] = {
    {}, {"systematic-outliers", 1000, true, 0}, {"massive-activations", 1000, false, 100}};

/// A channel is systematic if in at least `share` of the layers it is among the `rank` largest
/// channel maxima and at least `ratio` times the median channel maximum.
struct SystematicRule {
  double share = 0.75;
  std::size_t rank = 4;
  double ratio = 3;
};

struct SystematicChannel {
  std::size_t channel = 0;
  std::size_t layers = 0;      // in which it holds
  std::size_t leads = 0;       // in which it is the largest, by whatever ratio
  std::vector<double> ratios;  // of every layer, to the median channel maximum
};

/// `maxima[l][c]` is the largest |x| of channel c at layer l; all layers have the same channels.
/// Found channels come by descending mean ratio. A single layer shows nothing systematic.
inline std::vector<SystematicChannel> find_systematic_channels(
    std::span<const std::vector<double>> maxima, const SystematicRule& rule = {});

// ------------------------------------------------------------------ definitions

inline std::vector<SystematicChannel> find_systematic_channels(
    std::span<const std::vector<double>> maxima, const SystematicRule& rule) {
  std::vector<SystematicChannel> found;
  if (maxima.size() < 2 || maxima.front().empty()) return found;
  const std::size_t channels = maxima.front().size();
  std::vector<SystematicChannel> all(channels);
  for (std::size_t c = 0; c < channels; ++c) all[c].channel = c;
  for (const std::vector<double>& layer : maxima) {
    const double middle = median(layer);
    std::vector<double> sorted = layer;
    const std::size_t rank = std::min(rule.rank, channels);
    std::partial_sort(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(rank),
                      sorted.end(), std::greater<>());
    for (std::size_t c = 0; c < channels; ++c) {
      const double ratio = middle > 0 ? layer[c] / middle : 0;
      all[c].ratios.push_back(ratio);
      if (layer[c] == sorted[0] && middle > 0) ++all[c].leads;
      if (layer[c] >= sorted[rank - 1] && ratio >= rule.ratio) ++all[c].layers;
    }
  }
  const double least = rule.share * static_cast<double>(maxima.size());
  for (SystematicChannel& channel : all) {
    if (static_cast<double>(channel.layers) >= least) found.push_back(std::move(channel));
  }
  const auto total = [](const SystematicChannel& channel) {
    double sum = 0;
    for (const double ratio : channel.ratios) sum += ratio;
    return sum;
  };
  std::stable_sort(
      found.begin(), found.end(),
      [&](const SystematicChannel& a, const SystematicChannel& b) { return total(a) > total(b); });
  return found;
}

}  // namespace quell::stats
