// SPDX-License-Identifier: Apache-2.0

// Two outlier results side by side: what is in one and not in the other, then numbers in order of
// how much they differ.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "quell/report/outlier_results.hpp"
#include "report/pictures.hpp"
#include "report/svg.hpp"

namespace quell::report {
namespace {

using pipeline::ChannelOutlier;
using pipeline::OutlierReport;
using pipeline::TensorOutliers;

std::size_t systematic_channels(const OutlierReport& report) {
  return static_cast<std::size_t>(std::count_if(
      report.channels.begin(), report.channels.end(),
      [](const ChannelOutlier& c) { return c.kind == ChannelOutlier::Kind::systematic; }));
}
std::size_t sinks(const OutlierReport& report) {
  return static_cast<std::size_t>(
      std::count_if(report.sinks.begin(), report.sinks.end(),
                    [](const pipeline::AttentionSink& sink) { return !sink.head; }));
}
std::size_t idle_heads(const OutlierReport& report) {
  return static_cast<std::size_t>(
      std::count_if(report.heads.begin(), report.heads.end(),
                    [](const pipeline::HeadActivity& head) { return head.idle; }));
}
std::size_t marked_weights(const OutlierReport& report) {
  return static_cast<std::size_t>(
      std::count_if(report.weights.begin(), report.weights.end(),
                    [](const TensorOutliers& w) { return !w.marked.empty() || w.stands_out; }));
}
/// The largest value over the median of all tensors.
double severity(const std::vector<TensorOutliers>& tensors) {
  double most = std::nan("");
  for (const TensorOutliers& tensor : tensors) most = std::fmax(most, tensor.max_to_median());
  return most;
}

/// How far apart two are, as a factor of 1 or more; 0 where that says nothing.
double factor(double a, double b) {
  if (!(a > 0) || !(b > 0)) return 0;
  return std::max(a, b) / std::min(a, b);
}

struct Pair {
  const TensorOutliers* a = nullptr;
  const TensorOutliers* b = nullptr;
};

/// Tensors by name, in the order of A, then those that only B has.
std::vector<Pair> pairs_of(const std::vector<TensorOutliers>& a,
                           const std::vector<TensorOutliers>& b) {
  std::vector<Pair> pairs;
  std::map<std::string, const TensorOutliers*> others;
  for (const TensorOutliers& tensor : b) others.emplace(tensor.name, &tensor);
  for (const TensorOutliers& tensor : a) {
    const auto found = others.find(tensor.name);
    pairs.push_back({&tensor, found == others.end() ? nullptr : found->second});
    if (found != others.end()) others.erase(found);
  }
  for (const TensorOutliers& tensor : b) {
    const auto found = others.find(tensor.name);
    if (found != others.end() && found->second == &tensor) pairs.push_back({nullptr, &tensor});
  }
  return pairs;
}

std::string change(const char* what, std::size_t a, std::size_t b) {
  return a == b ? std::string() : fmt::format("{} {} -> {}", what, a, b);
}

std::string verdict_of(const OutlierReport& a, const OutlierReport& b) {
  std::string text;
  const auto add = [&](const std::string& part) {
    if (!part.empty()) text += (text.empty() ? "" : ", ") + part;
  };
  const bool activations = a.tokens != 0 && b.tokens != 0;
  if (activations) {
    add(change("massive activations", a.massive.size(), b.massive.size()));
    add(change("systematic channels", systematic_channels(a), systematic_channels(b)));
    add(change("attention sinks", sinks(a), sinks(b)));
    add(change("idle heads", idle_heads(a), idle_heads(b)));
  }
  add(change("weight matrices with outliers", marked_weights(a), marked_weights(b)));
  const auto largest = [&](const char* what, double x, double y) {
    // A tenth is what another text of the same kind changes.
    if (factor(x, y) < 1.1) return;
    add(fmt::format("largest {} {} -> {} times the median", what, short_number(x),
                    short_number(y)));
  };
  if (activations) largest("activation", severity(a.activations), severity(b.activations));
  largest("weight", severity(a.weights), severity(b.weights));
  if (text.empty()) text = "the same outliers in both";
  if (!activations) text += "; activations are not measured in both";
  return "from A to B: " + text;
}

/// Rows of what either has, by a key; the cells of A, then those of B.
template <typename Key>
Table side_by_side(std::vector<Column> columns, const std::map<Key, std::string>& names,
                   const std::map<Key, std::string>& a, const std::map<Key, std::string>& b) {
  Table table;
  table.columns = std::move(columns);
  table.short_rows = 12;
  const auto cell = [](const std::map<Key, std::string>& cells, const Key& key) {
    const auto found = cells.find(key);
    return found == cells.end() ? std::string("-") : found->second;
  };
  for (const auto& [key, name] : names) table.rows.push_back({name, cell(a, key), cell(b, key)});
  return table;
}

Section massive_section(const OutlierResult& a, const OutlierResult& b) {
  using Key = std::tuple<std::int32_t, std::string, std::size_t>;
  std::map<Key, std::string> names, cells_a, cells_b;
  const auto add = [&](const OutlierResult& result, std::map<Key, std::string>& cells) {
    for (const pipeline::MassiveActivation& hit : result.found.massive) {
      const Key key(hit.layer, hit.place, hit.channel);
      names[key] = fmt::format("{}, channel {}", hit.place, hit.channel);
      cells[key] = fmt::format(
          "{} at \"{}\", {} x median", short_number(static_cast<double>(hit.value)),
          result.texts[static_cast<std::size_t>(hit.token)], short_number(hit.ratio_to_median));
    }
  };
  add(a, cells_a);
  add(b, cells_b);
  return {"Massive activations",
          {names.empty()
               ? Block(Paragraph{"None in either."})
               : Block(side_by_side<Key>({{"place"}, {"A"}, {"B"}}, names, cells_a, cells_b))}};
}

Section channels_section(const OutlierReport& a, const OutlierReport& b) {
  using Key = std::tuple<std::string, std::size_t>;
  std::map<Key, std::string> names, cells_a, cells_b;
  const auto add = [&](const OutlierReport& report, std::map<Key, std::string>& cells) {
    for (const ChannelOutlier& outlier : report.channels) {
      const Key key(outlier.place, outlier.channel.channel);
      const auto& ratios = outlier.channel.ratios;
      names[key] = fmt::format("{} {}", outlier.place, outlier.channel.channel);
      cells[key] = fmt::format("{} x median, {} of {} layers",
                               short_number(*std::max_element(ratios.begin(), ratios.end())),
                               outlier.channel.layers, ratios.size());
    }
  };
  add(a, cells_a);
  add(b, cells_b);
  return {"Channels that lead",
          {names.empty()
               ? Block(Paragraph{"None in either."})
               : Block(side_by_side<Key>({{"channel"}, {"A"}, {"B"}}, names, cells_a, cells_b))}};
}

Section attention_section(const OutlierReport& a, const OutlierReport& b) {
  Section section{"Attention on the first token", {}};
  LinePlot plot;
  plot.title = "Mean over heads, by layer";
  plot.x_name = "layer";
  plot.y_name = "percent";
  plot.level = 10;
  plot.level_name = "sink from here";
  const auto add = [&](const char* name, const OutlierReport& report) {
    LinePlot::Line line{name, {}};
    for (const pipeline::FirstTokenMass& mass : report.first_token_mass) {
      line.values.push_back(100 * mass.mean);
    }
    plot.lines.push_back(std::move(line));
  };
  add("A", a);
  add("B", b);
  const std::size_t layers = std::max(a.first_token_mass.size(), b.first_token_mass.size());
  plot.places = layer_names(layers);
  for (LinePlot::Line& line : plot.lines) line.values.resize(layers, std::nan(""));
  section.blocks.push_back(std::move(plot));
  return section;
}

/// Strips of one scale over one axis, then all tensors, the largest difference first.
Section tensors_section(const char* title, const std::vector<TensorOutliers>& a,
                        const std::vector<TensorOutliers>& b) {
  Section section{title, {}};
  const std::vector<Pair> pairs = pairs_of(a, b);
  std::vector<std::string> names;
  double low = HUGE_VAL, high = 0;
  for (const Pair& pair : pairs) {
    names.push_back(pair.a != nullptr ? pair.a->name : pair.b->name);
    for (const TensorOutliers* tensor : {pair.a, pair.b}) {
      if (tensor == nullptr || !(tensor->max_to_median() > 0)) continue;
      low = std::min(low, tensor->max_to_median());
      high = std::max(high, tensor->max_to_median());
    }
  }
  const PlaceAxis axis(names);
  if (!axis.empty() && high > 0) {
    const double bottom = std::max(1.0, std::floor(low)),
                 top = std::max(2 * bottom, std::ceil(high));
    HeatStrip strip_a = axis.strip("A: largest over the median", "times the median", bottom, top);
    HeatStrip strip_b = strip_a;
    strip_b.title = "B: largest over the median";
    for (const TensorOutliers& tensor : a) axis.set(strip_a, tensor.name, tensor.max_to_median());
    for (const TensorOutliers& tensor : b) axis.set(strip_b, tensor.name, tensor.max_to_median());
    section.blocks.push_back(std::move(strip_a));
    section.blocks.push_back(std::move(strip_b));
  }
  std::vector<Pair> order;
  for (const Pair& pair : pairs) order.push_back(pair);
  const auto difference = [](const Pair& pair) {
    // What only one has comes last: models of different depth have many of these.
    if (pair.a == nullptr || pair.b == nullptr) return -1.0;
    return factor(pair.a->max_to_median(), pair.b->max_to_median());
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](const Pair& x, const Pair& y) { return difference(x) > difference(y); });
  Table table;
  table.title = "All tensors, the largest difference first";
  table.short_rows = 8;
  table.columns = {{"tensor"},
                   {"x median A", true},
                   {"x median B", true},
                   {"kurtosis A", true},
                   {"kurtosis B", true},
                   {"max A", true, /*long_form=*/true},
                   {"max B", true, /*long_form=*/true}};
  for (const Pair& pair : order) {
    const auto cell = [](const TensorOutliers* tensor, auto value_of) {
      return tensor == nullptr ? std::string("-") : short_number(value_of(*tensor));
    };
    const auto ratio = [](const TensorOutliers& t) { return t.max_to_median(); };
    const auto kurtosis = [](const TensorOutliers& t) { return t.excess_kurtosis; };
    const auto largest = [](const TensorOutliers& t) { return static_cast<double>(t.absmax); };
    table.rows.push_back({pair.a != nullptr ? pair.a->name : pair.b->name, cell(pair.a, ratio),
                          cell(pair.b, ratio), cell(pair.a, kurtosis), cell(pair.b, kurtosis),
                          cell(pair.a, largest), cell(pair.b, largest)});
  }
  section.blocks.push_back(std::move(table));
  return section;
}

std::string facts_of(const std::string& name, const OutlierReport& report) {
  std::string text = fmt::format("{}: {} weight matrices", name, report.weights.size());
  if (report.tokens != 0) {
    text += fmt::format(", {} tokens in {} sequences", report.tokens, report.sequences);
  }
  return text;
}

}  // namespace

Document outlier_comparison_document(const std::string& name_a, const OutlierResult& a,
                                     const std::string& name_b, const OutlierResult& b) {
  Document document;
  document.title = "Outliers of " + name_a + " and " + name_b;
  document.verdict = verdict_of(a.found, b.found);
  document.facts.lines = {{"A", facts_of(name_a, a.found)}, {"B", facts_of(name_b, b.found)}};
  if (a.found.tokens != 0 && b.found.tokens != 0) {
    document.sections.push_back(massive_section(a, b));
    document.sections.push_back(channels_section(a.found, b.found));
    if (!a.found.first_token_mass.empty() || !b.found.first_token_mass.empty()) {
      document.sections.push_back(attention_section(a.found, b.found));
    }
  }
  if (!a.found.activations.empty() && !b.found.activations.empty()) {
    document.sections.push_back(
        tensors_section("Activations", a.found.activations, b.found.activations));
  }
  document.sections.push_back(tensors_section("Weights", a.found.weights, b.found.weights));
  document.provenance.lines = {{"Measured by", "quell " + a.version + ", " + b.version}};
  return document;
}

}  // namespace quell::report
