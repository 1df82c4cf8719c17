// SPDX-License-Identifier: Apache-2.0

// What the outlier report says, in the order in which people ask: is there a problem, where does it
// begin, which channels and tokens carry it, what do the weights look like.

#include "quell/report/outliers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "quell/version.hpp"
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

bool is_marked(const TensorOutliers& weight) {
  return !weight.marked.empty() || weight.stands_out;
}

std::string verdict(const OutlierReport& report) {
  std::size_t marked = 0, broken = 0;
  for (const TensorOutliers& weight : report.weights) {
    marked += is_marked(weight) ? 1 : 0;
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
                   {"written by neuron", true},
                   {"at", true},
                   {"weight", true},
                   {"of the change", true}};
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

std::vector<std::string> layer_names(std::size_t layers) {
  std::vector<std::string> names;
  for (std::size_t l = 0; l < layers; ++l) names.push_back(std::to_string(l));
  return names;
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

/// max / median of every place and layer.
HeatStrip activation_strip(const OutlierReport& report) {
  HeatStrip strip;
  strip.title = "Largest activation over the median, by place and layer";
  strip.unit = "times the median";
  strip.low = 5;
  strip.high = 1000;
  std::map<std::string, std::size_t> rows;
  std::size_t layers = 0;
  const auto cut = [](const std::string& name) { return name.rfind('.'); };
  for (const TensorOutliers& tensor : report.activations) {
    const std::size_t dot = cut(tensor.name);
    if (dot == std::string::npos) continue;
    const std::string place = tensor.name.substr(dot + 1);
    if (rows.emplace(place, strip.rows.size()).second) strip.rows.push_back(place);
    layers += rows[place] == 0 ? 1 : 0;
  }
  strip.columns = layer_names(layers);
  strip.values.assign(strip.rows.size(), std::vector<double>(layers, std::nan("")));
  std::vector<std::size_t> next(strip.rows.size());
  for (const TensorOutliers& tensor : report.activations) {
    const std::size_t dot = cut(tensor.name);
    if (dot == std::string::npos) continue;
    const std::size_t row = rows[tensor.name.substr(dot + 1)];
    if (next[row] < layers) strip.values[row][next[row]++] = tensor.max_to_median();
  }
  return strip;
}

HeatStrip weight_strip(const model::Model& model, const OutlierReport& report) {
  HeatStrip strip;
  strip.title = "Largest weight over the median, by linear layer";
  strip.unit = "times the median";
  strip.low = 5;
  strip.high = 200;
  strip.columns = layer_names(model.blocks().size());
  std::map<std::string, const TensorOutliers*> found;
  for (const TensorOutliers& weight : report.weights) found[weight.name] = &weight;
  std::map<std::string, std::size_t> rows;
  for (std::size_t l = 0; l < model.blocks().size(); ++l) {
    for (const model::Site site : model::kSites) {
      for (const model::Linear* linear : linears_at(model.blocks()[l], site)) {
        // What follows the layer's number: blocks of one model name their layers alike.
        const std::string number = "." + std::to_string(l) + ".";
        const std::size_t at = linear->name.find(number);
        const std::string row =
            at == std::string::npos ? linear->name : linear->name.substr(at + number.size());
        if (rows.emplace(row, strip.rows.size()).second) {
          strip.rows.push_back(row);
          strip.values.emplace_back(strip.columns.size(), std::nan(""));
        }
        const auto tensor = found.find(linear->name);
        if (tensor != found.end()) strip.values[rows[row]][l] = tensor->second->max_to_median();
      }
    }
  }
  return strip;
}

Section weights_section(const model::Model& model, const OutlierReport& report) {
  Section section{"Weights", {}};
  HeatStrip strip = weight_strip(model, report);
  if (!strip.rows.empty()) section.blocks.push_back(std::move(strip));
  std::vector<const TensorOutliers*> order;
  for (const TensorOutliers& weight : report.weights) order.push_back(&weight);
  std::stable_sort(order.begin(), order.end(),
                   [](const TensorOutliers* a, const TensorOutliers* b) {
                     const auto rank = [](const TensorOutliers& weight) {
                       return weight.nonfinite != 0 ? 2 : is_marked(weight) ? 1 : 0;
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
  section.blocks.push_back(activation_strip(report));
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

Document outlier_document(const std::string& name, const model::Model& model,
                          const OutlierReport& report, const TextOf& text_of) {
  const model::ModelConfig& config = model.config();
  Document document;
  document.title = "Outliers of " + name;
  document.verdict = verdict(report);
  document.facts.lines.emplace_back(
      "Model", fmt::format("{}, {} layers, hidden {}, {} parameters", config.architecture,
                           config.layers, config.hidden, model.parameters()));
  if (report.tokens != 0) {
    document.facts.lines.emplace_back(
        "Text", fmt::format("{} tokens in {}", report.tokens,
                            count_of(report.sequences, "sequence", "sequences")));
  }
  if (!report.massive.empty()) {
    document.sections.push_back({"Massive activations", {massive_table(report, text_of)}});
  }
  if (!report.life_cycle.empty()) document.sections.push_back(life_section(report, text_of));
  if (!report.channels.empty()) document.sections.push_back(channels_section(report, text_of));
  if (!report.first_token_mass.empty()) {
    document.sections.push_back(attention_section(report, text_of));
  }
  if (report.what_if) document.sections.push_back(what_if_section(*report.what_if));
  if (!report.activations.empty()) document.sections.push_back(activations_section(report));
  document.sections.push_back(weights_section(model, report));
  if (!report.blocks.empty()) document.sections.push_back(blocks_section(report));
  document.sections.push_back(meanings());
  document.provenance.lines.emplace_back("Made by", "quell " QUELL_VERSION);
  document.provenance.lines.emplace_back("Model folder", model.folder().string());
  return document;
}

}  // namespace quell::report
