// SPDX-License-Identifier: Apache-2.0

#include "report/glance.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "report/svg.hpp"

namespace quell::report {
namespace {

using pipeline::ChannelOutlier;
using pipeline::Cure;
using pipeline::ModuleSensitivity;
using pipeline::OutlierReport;
using pipeline::Sensitivity;
using pipeline::TensorOutliers;
using TextOf = std::function<std::string(std::int32_t)>;

std::string and_more(std::size_t shown, std::size_t all) {
  return all > shown ? fmt::format("; {} more", all - shown) : std::string();
}

std::string massive_line(const OutlierReport& report, const TextOf& text_of) {
  const auto worst = std::max_element(
      report.massive.begin(), report.massive.end(),
      [](const auto& a, const auto& b) { return a.ratio_to_median < b.ratio_to_median; });
  return fmt::format("{}, channel {}: {} at \"{}\", position {}, {} times the median{}",
                     worst->place, worst->channel, short_number(static_cast<double>(worst->value)),
                     text_of(worst->token), worst->position, short_number(worst->ratio_to_median),
                     and_more(1, report.massive.size()));
}

std::string born_line(const pipeline::LifeCycleEvent& event) {
  return fmt::format("layer {}, channel {}: {} to {}, {:.0f} % by neuron {} of its MLP",
                     event.layer, event.channel, short_number(static_cast<double>(event.before)),
                     short_number(static_cast<double>(event.after)), 100 * event.share,
                     event.neuron);
}

/// The channels of the stream; neurons are told by the full form.
std::string channels_line(const OutlierReport& report) {
  constexpr std::size_t kNamed = 6;
  std::string names;
  std::size_t count = 0;
  double most = 0;
  for (const ChannelOutlier& outlier : report.channels) {
    if (outlier.kind != ChannelOutlier::Kind::systematic) continue;
    if (count++ < kNamed) {
      names += (names.empty() ? "" : ", ") + std::to_string(outlier.channel.channel);
    }
    const auto& ratios = outlier.channel.ratios;
    most = std::max(most, *std::max_element(ratios.begin(), ratios.end()));
  }
  if (count == 0) return {};
  if (count > kNamed) names += fmt::format(" and {} more", count - kNamed);
  return fmt::format("{} of the residual stream, up to {} times the median channel", names,
                     short_number(most));
}

std::string sinks_line(const OutlierReport& report, const TextOf& text_of) {
  const pipeline::AttentionSink* worst = nullptr;
  std::size_t count = 0;
  for (const pipeline::AttentionSink& sink : report.sinks) {
    if (sink.head) continue;
    ++count;
    if (worst == nullptr || sink.mass > worst->mass) worst = &sink;
  }
  if (worst == nullptr) return "no key gets a tenth of a layer's attention";
  return fmt::format("layer {}: \"{}\" at position {} gets {:.1f} % of the attention{}",
                     worst->layer, text_of(worst->token), worst->position, 100 * worst->mass,
                     and_more(1, count));
}

std::string weights_line(const OutlierReport& report) {
  const TensorOutliers* worst = nullptr;
  std::size_t marked = 0;
  for (const TensorOutliers& weight : report.weights) {
    marked += weight.has_outliers() ? 1 : 0;
    if (worst == nullptr || std::pair(weight.has_outliers(), weight.max_to_median()) >
                                std::pair(worst->has_outliers(), worst->max_to_median())) {
      worst = &weight;
    }
  }
  if (worst == nullptr) return {};
  return fmt::format("{}: {}, {} times the median, kurtosis {}{}", worst->name,
                     short_number(static_cast<double>(worst->absmax)),
                     short_number(worst->max_to_median()), short_number(worst->excess_kurtosis),
                     and_more(1, marked));
}

std::string range_line(const OutlierReport& report) {
  std::size_t broken = 0, beyond = 0, zero = 0;
  for (const auto* tensors : {&report.weights, &report.activations}) {
    for (const TensorOutliers& tensor : *tensors) {
      broken += tensor.nonfinite != 0 ? 1 : 0;
      beyond += static_cast<double>(tensor.absmax) > 65504 ? 1 : 0;
      zero += tensor.zero_rows + tensor.zero_columns != 0 ? 1 : 0;
    }
  }
  std::vector<std::string> parts;
  if (broken != 0) parts.push_back(fmt::format("{} with values that are not finite", broken));
  if (beyond != 0) parts.push_back(fmt::format("{} beyond what fp16 holds", beyond));
  if (zero != 0) parts.push_back(fmt::format("{} with rows or columns of zeros", zero));
  if (parts.empty()) return "all tensors are finite and within what fp16 holds";
  return fmt::format("of {} tensors: {}", report.weights.size() + report.activations.size(),
                     fmt::join(parts, ", "));
}

std::string worst_line(const Sensitivity& sensitivity) {
  const auto worst = std::max_element(
      sensitivity.modules.begin(), sensitivity.modules.end(),
      [](const ModuleSensitivity& a, const ModuleSensitivity& b) { return a.damage < b.damage; });
  return fmt::format("{} alone: {}; all together {}; sum over all together {}", worst->name,
                     short_number(worst->damage), short_number(sensitivity.together),
                     short_number(sensitivity.sum_ratio()));
}

/// The best thing that can be done today, and what would be the best beside it.
std::string todo_line(const Sensitivity& sensitivity) {
  const auto first = [&](bool available) {
    return std::find_if(sensitivity.cures.begin(), sensitivity.cures.end(),
                        [&](const Cure& cure) { return cure.available == available; });
  };
  const auto told = [&](const Cure& cure) {
    const double megabytes = static_cast<double>(cure.bytes) * 1e-6;
    const std::string what = cure.available
                                 ? fmt::format("--rule {}={}", cure.module, cure.action)
                                 : fmt::format("{} in {} (not yet)", cure.action, cure.module);
    return fmt::format("{}: {} less damage for {}", what, short_number(cure.gain),
                       cure.bytes <= 0 ? "nothing" : short_number(megabytes) + " MB");
  };
  const auto today = first(true), later = first(false);
  if (today != sensitivity.cures.end()) return told(*today);
  if (later != sensitivity.cures.end()) return told(*later);
  return {};
}

std::string what_if_line(const pipeline::WhatIf& what_if) {
  double least = 1, most = 0;
  float before = 0, after = 0;
  for (const pipeline::WhatIfLayer& layer : what_if.layers) {
    least = std::min(least, layer.zeros_after);
    most = std::max(most, layer.zeros_after);
    before = std::max(before, layer.residual_before);
    after = std::max(after, layer.residual_after);
  }
  std::string cost;
  if (what_if.predictions) {
    cost = "KL " + short_number(what_if.predictions->kl_mean);
  } else if (what_if.embeddings) {
    cost = "cosine error " + short_number(what_if.embeddings->cosine_error_mean);
  }
  return fmt::format(
      "clipped to gamma {}: {:.0f} to {:.0f} % zeros by layer, {}, largest of the "
      "stream {} to {}",
      short_number(static_cast<double>(what_if.rule.gamma)), 100 * least, 100 * most, cost,
      short_number(static_cast<double>(before)), short_number(static_cast<double>(after)));
}

}  // namespace

Facts glance_of(const OutlierInputs& inputs) {
  const OutlierReport& report = *inputs.found;
  Facts glance;
  const auto add = [&](const char* label, std::string text) {
    if (!text.empty()) glance.lines.emplace_back(label, std::move(text));
  };
  if (inputs.sensitivity != nullptr && !inputs.sensitivity->modules.empty()) {
    add("Damage", worst_line(*inputs.sensitivity));
    add("Do", todo_line(*inputs.sensitivity));
  }
  if (!report.massive.empty()) add("Massive", massive_line(report, inputs.text_of));
  if (!report.life_cycle.empty()) add("Born", born_line(report.life_cycle.front()));
  add("Channels", channels_line(report));
  if (!report.first_token_mass.empty()) add("Sinks", sinks_line(report, inputs.text_of));
  if (!report.heads.empty()) {
    const auto idle = std::count_if(report.heads.begin(), report.heads.end(),
                                    [](const pipeline::HeadActivity& head) { return head.idle; });
    add("Heads", fmt::format("{} of {} do nothing most of the time", idle, report.heads.size()));
  }
  if (report.what_if) add("What if", what_if_line(*report.what_if));
  add("Weights", weights_line(report));
  add("Range", range_line(report));
  if (!report.excluded.empty()) {
    add("Left out",
        fmt::format("sequence {}, not finite from {} on{}", report.excluded.front().sequence,
                    report.excluded.front().place, and_more(1, report.excluded.size())));
  }
  return glance;
}

}  // namespace quell::report
