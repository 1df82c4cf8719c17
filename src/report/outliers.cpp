// SPDX-License-Identifier: Apache-2.0

// What the outlier report says, in the order in which people ask: is there a problem, where does it
// begin, which channels and tokens carry it, what do the weights look like.

#include "quell/report/outliers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "quell/version.hpp"
#include "report/glance.hpp"
#include "report/modules.hpp"
#include "report/pictures.hpp"
#include "report/sensitivity.hpp"
#include "report/svg.hpp"
#include "report/what_if.hpp"

namespace quell::report {
namespace {

using pipeline::ChannelOutlier;
using pipeline::OutlierReport;
using pipeline::TensorOutliers;
using TextOf = std::function<std::string(std::int32_t)>;

std::string count_of(std::size_t n, const char* one, const char* many) {
  return n == 0 ? fmt::format("no {}", one) : fmt::format("{} {}", n, n == 1 ? one : many);
}

std::string quoted(const std::string& text) {
  return "\"" + text + "\"";
}

std::string number(double value) {
  return short_number(value);
}

std::string verdict(const OutlierReport& report) {
  std::size_t marked = 0, broken = 0;
  for (const TensorOutliers& weight : report.weights) {
    marked += weight.has_outliers() ? 1 : 0;
    broken += weight.nonfinite != 0 ? 1 : 0;
  }
  std::string weights = marked == 0 ? "no weight matrix stands out"
                                    : fmt::format("{} of {} weight matrices have outliers", marked,
                                                  report.weights.size());
  if (broken != 0) weights += fmt::format(", {} with values that are not finite", broken);
  if (report.tokens == 0) return weights + "; activations need text";
  std::size_t systematic = 0, sinks = 0;
  for (const ChannelOutlier& channel : report.channels) {
    systematic += channel.kind == ChannelOutlier::Kind::systematic ? 1 : 0;
  }
  for (const pipeline::AttentionSink& sink : report.sinks) sinks += sink.head ? 0 : 1;
  return fmt::format("{}, {}, {}; {}",
                     count_of(report.massive.size(), "massive activation", "massive activations"),
                     count_of(systematic, "systematic channel", "systematic channels"),
                     count_of(sinks, "attention sink", "attention sinks"), weights);
}

Table massive_table(const OutlierReport& report, const TextOf& text_of) {
  Table table;
  table.columns = {{"place"}, {"channel", true},  {"value", true},    {"x median", true},
                   {"token"}, {"position", true}, {"sequences", true}};
  for (const pipeline::MassiveActivation& hit : report.massive) {
    table.rows.push_back({hit.place, std::to_string(hit.channel),
                          number(static_cast<double>(hit.value)), number(hit.ratio_to_median),
                          quoted(text_of(hit.token)), std::to_string(hit.position),
                          fmt::format("{} of {}", hit.sequences, report.sequences)});
  }
  table.short_rows = 12;
  return table;
}

Section life_section(const OutlierReport& report, const TextOf& text_of) {
  Section section{"Where the largest value of the residual stream comes from", {}};
  Table table;
  table.columns = {{"layer", true},
                   {"event"},
                   {"channel", true},
                   {"before", true},
                   {"after", true},
                   {"token"},
                   {"neuron", true},
                   {"its value", true, /*long_form=*/true},
                   {"its weight", true, /*long_form=*/true},
                   {"its share", true}};
  for (const pipeline::LifeCycleEvent& event : report.life_cycle) {
    table.rows.push_back(
        {std::to_string(event.layer), std::string(to_string(event.kind)),
         std::to_string(event.channel), number(static_cast<double>(event.before)),
         number(static_cast<double>(event.after)),
         fmt::format("{} at {}", quoted(text_of(event.token)), event.position),
         std::to_string(event.neuron), number(static_cast<double>(event.neuron_value)),
         number(static_cast<double>(event.weight)), fmt::format("{:.0f} %", 100 * event.share)});
  }
  section.blocks.push_back(std::move(table));
  return section;
}

Table channel_table(const OutlierReport& report, const TextOf& text_of) {
  Table table;
  table.columns = {{"channel"},     {"of"},           {"least", true},
                   {"most", true},  {"layers", true}, {"leads in", true},
                   {"strongest at"}};
  for (const ChannelOutlier& outlier : report.channels) {
    const bool neuron = outlier.kind == ChannelOutlier::Kind::neuron;
    const auto& ratios = outlier.channel.ratios;
    const auto [least, most] = std::minmax_element(ratios.begin(), ratios.end());
    table.rows.push_back(
        {fmt::format("{} {}", neuron ? "neuron" : "channel", outlier.channel.channel),
         outlier.place, number(*least), number(*most),
         fmt::format("{} of {}", outlier.channel.layers, ratios.size()),
         neuron ? "-" : std::to_string(outlier.channel.leads),
         fmt::format("layer {}, {} at {}", outlier.layer, quoted(text_of(outlier.token)),
                     outlier.position)});
  }
  table.short_rows = 12;
  return table;
}

Section channels_section(const OutlierReport& report, const TextOf& text_of) {
  Section section{"Channels that lead", {}};
  section.blocks.push_back(Paragraph{
      "Largest magnitude of a channel over that of the median channel. Systematic: among the four "
      "largest and three times the median in three quarters of the layers. Neuron: ten times the "
      "median neuron of its MLP."});
  section.blocks.push_back(channel_table(report, text_of));
  LinePlot plot;
  plot.title = "Systematic channels through the layers";
  plot.x_name = "layer";
  plot.y_name = "times the median channel";
  plot.logarithmic = true;
  plot.level = 3;
  plot.level_name = "systematic from here";
  for (const ChannelOutlier& outlier : report.channels) {
    if (outlier.kind != ChannelOutlier::Kind::systematic || plot.lines.size() == 6) continue;
    plot.places = layer_names(outlier.channel.ratios.size());
    plot.lines.push_back(
        {fmt::format("channel {}", outlier.channel.channel), outlier.channel.ratios});
  }
  if (!plot.lines.empty()) section.blocks.push_back(std::move(plot));
  return section;
}

/// Heads that rest their attention on nothing, the most idle first.
void add_idle_heads(const OutlierReport& report, Section& section) {
  std::vector<const pipeline::HeadActivity*> order;
  std::size_t idle = 0;
  for (const pipeline::HeadActivity& head : report.heads) {
    order.push_back(&head);
    idle += head.idle ? 1 : 0;
  }
  if (order.empty()) return;
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return a->idle_mass > b->idle_mass; });
  section.blocks.push_back(Paragraph{fmt::format(
      "Heads that do nothing most of the time, since half of their attention or more rests on keys "
      "whose values have at most half the mean norm: {} of {}.",
      idle == 0 ? std::string("none") : std::to_string(idle), order.size())});
  Table table;
  table.title = "Heads by attention on small values";
  table.columns = {{"layer", true},
                   {"head", true},
                   {"on small values", true},
                   {"on the first token", true},
                   {"its value / mean", true}};
  table.short_rows = std::min<std::size_t>(idle, 4);
  for (const pipeline::HeadActivity* head : order) {
    table.rows.push_back({std::to_string(head->layer), std::to_string(head->head),
                          fmt::format("{:.1f} %", 100 * head->idle_mass),
                          fmt::format("{:.1f} %", 100 * head->first_token_mass),
                          number(head->first_value_ratio)});
  }
  section.blocks.push_back(std::move(table));
}

Section attention_section(const OutlierReport& report, const TextOf& text_of) {
  Section section{"Attention sinks", {}};
  Table table;
  table.columns = {{"layer", true}, {"token"},          {"position", true},
                   {"mass", true},  {"strongest head"}, {"sequences", true}};
  for (const pipeline::AttentionSink& sink : report.sinks) {
    if (sink.head) continue;
    const auto& first = report.first_token_mass[sink.layer];
    table.rows.push_back({std::to_string(sink.layer), quoted(text_of(sink.token)),
                          std::to_string(sink.position), fmt::format("{:.1f} %", 100 * sink.mass),
                          sink.position == 0
                              ? fmt::format("{}: {:.1f} %", first.head, 100 * first.largest_head)
                              : "-",
                          std::to_string(sink.sequences)});
  }
  table.short_rows = 12;
  section.blocks.push_back(Paragraph{
      table.rows.empty()
          ? "No key gets a tenth of the attention."
          : "Keys that get a tenth of the attention or more, mean over heads and over queries at "
            "least 16 tokens later."});
  if (!table.rows.empty()) section.blocks.push_back(std::move(table));
  LinePlot plot;
  plot.title = "Attention on the first token";
  plot.x_name = "layer";
  plot.y_name = "percent";
  plot.level = 10;
  plot.level_name = "sink from here";
  plot.lines = {{"mean over heads", {}}, {"strongest head", {}}};
  for (const pipeline::FirstTokenMass& mass : report.first_token_mass) {
    plot.lines[0].values.push_back(100 * mass.mean);
    plot.lines[1].values.push_back(100 * mass.largest_head);
  }
  plot.places = layer_names(report.first_token_mass.size());
  section.blocks.push_back(std::move(plot));
  add_idle_heads(report, section);
  return section;
}

std::vector<std::string> names_of(const std::vector<TensorOutliers>& tensors) {
  std::vector<std::string> names;
  for (const TensorOutliers& tensor : tensors) names.push_back(tensor.name);
  return names;
}

/// max / median of every place and layer.
HeatStrip severity_strip(const std::vector<TensorOutliers>& tensors, const PlaceAxis& axis,
                         const char* title, double high) {
  HeatStrip strip = axis.strip(title, "times the median", 5, high);
  for (const TensorOutliers& tensor : tensors) {
    axis.set(strip, tensor.name, tensor.max_to_median());
  }
  return strip;
}

Section weights_section(const OutlierReport& report, const PlaceAxis& axis) {
  Section section{"Weights", {}};
  if (!axis.empty()) {
    section.blocks.push_back(severity_strip(
        report.weights, axis, "Largest weight over the median, by linear layer", 200));
  }
  std::vector<const TensorOutliers*> order;
  for (const TensorOutliers& weight : report.weights) order.push_back(&weight);
  std::stable_sort(order.begin(), order.end(),
                   [](const TensorOutliers* a, const TensorOutliers* b) {
                     const auto rank = [](const TensorOutliers& weight) {
                       return weight.nonfinite != 0 ? 2 : weight.has_outliers() ? 1 : 0;
                     };
                     if (rank(*a) != rank(*b)) return rank(*a) > rank(*b);
                     return a->excess_kurtosis > b->excess_kurtosis;
                   });
  Table table;
  table.title = "Weight matrices, damaged ones and those with outliers first, then by their tails";
  table.columns = {{"module"}, {"kurtosis", true}, {"max", true}, {"x median", true}, {"outliers"}};
  table.short_rows = 5;
  for (const TensorOutliers* weight : order) {
    std::string marked;
    const auto add = [&](std::size_t n, const char* one, const char* many) {
      if (n != 0) marked += (marked.empty() ? "" : ", ") + count_of(n, one, many);
    };
    add(weight->marked.elements.size(), "element", "elements");
    add(weight->marked.rows.size(), "row", "rows");
    add(weight->marked.columns.size(), "column", "columns");
    if (weight->stands_out) marked += marked.empty() ? "stands out" : ", stands out";
    add(static_cast<std::size_t>(weight->nonfinite), "value not finite", "values not finite");
    table.rows.push_back({weight->name, number(weight->excess_kurtosis),
                          number(static_cast<double>(weight->absmax)),
                          number(weight->max_to_median()), marked.empty() ? "-" : marked});
  }
  section.blocks.push_back(std::move(table));
  return section;
}

Section blocks_section(const OutlierReport& report) {
  Section section{"Where the outliers weigh", {}, /*long_form=*/true};
  section.blocks.push_back(Paragraph{
      "Share of a block's weights whose magnitude times the root of its input's energy is more "
      "than "
      "13 times the mean of the block, and how often layerwise sampling (OwLore) would pick the "
      "block."});
  Table table;
  table.columns = {{"layer", true}, {"outliers, percent", true}, {"sampling probability", true}};
  for (const pipeline::BlockOutliers& block : report.blocks) {
    table.rows.push_back({std::to_string(block.layer), number(block.outlier_ratio),
                          fmt::format("{:.4f}", block.sampling_probability)});
  }
  section.blocks.push_back(std::move(table));
  return section;
}

Section activations_section(const OutlierReport& report) {
  Section section{"Activations", {}};
  const std::vector<std::string> names = names_of(report.activations);
  const PlaceAxis axis(names);
  if (!axis.empty()) {
    section.blocks.push_back(severity_strip(
        report.activations, axis, "Largest activation over the median, by place and layer", 1000));
  }
  Table table;
  table.title = "Every measured tensor";
  table.short_rows = 0;
  table.columns = {
      {"tensor"},         {"max", true},           {"median", true},      {"x median", true},
      {"kurtosis", true}, {"channel ratio", true}, {"first token", true}, {"other tokens", true}};
  for (const TensorOutliers& tensor : report.activations) {
    table.rows.push_back({tensor.name, number(static_cast<double>(tensor.absmax)),
                          number(tensor.median_abs), number(tensor.max_to_median()),
                          number(tensor.excess_kurtosis), number(tensor.channel_ratio),
                          number(static_cast<double>(tensor.first_token_absmax)),
                          number(static_cast<double>(tensor.rest_absmax))});
  }
  section.blocks.push_back(std::move(table));
  return section;
}

Section meanings() {
  Section section{"What the words mean", {}, /*long_form=*/true};
  section.blocks.push_back(Facts{{
      {"max, median", "largest magnitude of a tensor, and the one in the middle"},
      {"kurtosis",
       "excess kurtosis: 0 for a normal distribution, -1.2 for a uniform one, tens and "
       "more where few values carry the tail"},
      {"channel ratio", "largest magnitude of the largest channel over that of the median channel"},
      {"massive",
       "more than 1,000 times the median magnitude of its sequence at that place, unless "
       "another rule was asked for"},
      {"element, row, column",
       "of a weight: an element five times above everything ordinary; a "
       "line whose median is four times that of the median line"},
      {"stands out",
       "its largest weight over the mean of its line is four times that of the median "
       "module"},
  }});
  return section;
}

}  // namespace

Document outlier_document(const OutlierInputs& inputs) {
  const OutlierReport& report = *inputs.found;
  const TextOf& text_of = inputs.text_of;
  Document document;
  document.title = "Outliers of " + inputs.name;
  document.verdict = verdict(report);
  if (inputs.sensitivity != nullptr) {
    document.verdict += "; " + damage_clause(*inputs.sensitivity);
  }
  if (inputs.model != nullptr) {
    const model::ModelConfig& config = inputs.model->config();
    document.facts.lines.emplace_back(
        "Model", fmt::format("{}, {}, hidden {}, {} parameters", config.architecture,
                             count_of(config.layers, "layer", "layers"), config.hidden,
                             inputs.model->parameters()));
  }
  if (report.tokens != 0) {
    document.facts.lines.emplace_back(
        "Text", fmt::format("{} tokens in {}", report.tokens,
                            count_of(report.sequences, "sequence", "sequences")));
  }
  document.glance = glance_of(inputs);
  const std::vector<std::string> names = names_of(report.weights);
  const PlaceAxis axis(names);
  std::vector<Section>& sections = document.sections;
  std::vector<Section> explanations;
  if (!report.massive.empty()) {
    sections.push_back({"Massive activations", {massive_table(report, text_of)}});
  }
  if (inputs.sensitivity != nullptr) {
    for (Section& section : sensitivity_sections(*inputs.sensitivity, axis)) {
      (section.long_form ? explanations : sections).push_back(std::move(section));
    }
  }
  if (!report.life_cycle.empty()) sections.push_back(life_section(report, text_of));
  if (!report.channels.empty()) sections.push_back(channels_section(report, text_of));
  if (!report.first_token_mass.empty()) sections.push_back(attention_section(report, text_of));
  if (report.what_if) sections.push_back(what_if_section(*report.what_if));
  if (!report.activations.empty()) sections.push_back(activations_section(report));
  sections.push_back(weights_section(report, axis));
  sections.push_back(range_section(report));
  if (report.tokens != 0) {
    const std::size_t vocabulary =
        inputs.model == nullptr ? 0 : std::size_t{inputs.model->config().vocabulary};
    sections.push_back(coverage_section(report, inputs.distinct_tokens, vocabulary));
  }
  if (!report.blocks.empty()) sections.push_back(blocks_section(report));
  for (Section& section : page_sections(report, inputs.sensitivity)) {
    sections.push_back(std::move(section));
  }
  explanations.push_back(meanings());
  for (Section& section : explanations) sections.push_back(std::move(section));
  document.provenance.lines.emplace_back("Made by", "quell " QUELL_VERSION);
  if (inputs.model != nullptr) {
    document.provenance.lines.emplace_back("Model folder", inputs.model->folder().string());
  }
  for (const auto& line : inputs.provenance.lines) document.provenance.lines.push_back(line);
  return document;
}

}  // namespace quell::report
