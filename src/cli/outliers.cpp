// SPDX-License-Identifier: Apache-2.0

// `quell outliers`: where the outliers of a model are.

#include "quell/pipeline/outliers.hpp"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <map>

#include "cli/command.hpp"
#include "quell/io/printable.hpp"

namespace quell::cli {
namespace {

using pipeline::ChannelOutlier;
using pipeline::OutlierReport;
using pipeline::TensorOutliers;

/// Token text for people: quoted, control characters and foreign bytes escaped.
std::string token_text(const std::string& text) {
  return "\"" + io::printable(text) + "\"";
}

class Outliers final : public Command {
 public:
  std::string_view name() const override { return "outliers"; }
  std::string_view help() const override {
    return "where the outliers are: weights, and with text activations and attention";
  }
  void add_options(CLI::App& app) override {
    app.add_option("MODEL", model_, "model folder")->required();
    add_calibration(app, data_);
    app.add_option("--rule", rule_,
                   "when an activation is massive: median (1000 times the median, the default), "
                   "systematic-outliers, massive-activations");
  }

  Status run() override {
    pipeline::OutlierOptions options;
    const auto rule =
        std::find_if(std::begin(stats::kMassiveRules), std::end(stats::kMassiveRules),
                     [&](const stats::MassiveRule& each) { return each.name == rule_; });
    if (rule == std::end(stats::kMassiveRules)) {
      return Error{ErrorCode::usage,
                   "--rule " + rule_ +
                       " is not known; the rules are median, systematic-outliers and "
                       "massive-activations"};
    }
    options.massive = *rule;
    if (limits.max_memory != 0) options.hidden_limit = limits.max_memory / 4;
    options.spill_folder = std::filesystem::temp_directory_path();
    const std::unique_ptr<Executor> executor = make_openmp_executor(limits.threads);
    const std::unique_ptr<pipeline::Observer> observer = make_observer(limits);
    QUELL_TRY(model, model::Model::load(model_, {limits.allow_links_outside}));
    for (const std::string& warning : model.warnings()) observer->note(warning);

    OutlierReport report;
    QUELL_TRY(weights, pipeline::measure_weights(model, *executor, *observer));
    report.weights = std::move(weights);
    if (data_.given()) {
      QUELL_TRY(corpus, read_corpus(model, data_, false));
      for (const std::string& note : corpus.notes) observer->note(note);
      corpus =
          calib::sample(std::move(corpus), static_cast<std::size_t>(data_.samples), data_.seed);
      QUELL_TRY(
          pipeline::measure_activations(model, corpus, options, report, *executor, *observer));
    }
    const TokenText text(model);
    const auto text_of = [&](std::int32_t id) { return text.of(id); };
    close_progress_line();
    if (limits.json) {
      io::Json json = begin_json("outliers");
      const io::Json found = report.to_json(text_of);
      for (const auto& [key, value] : found.members()) json.set(key, value);
      print_json(std::move(json));
      return ok();
    }
    print(model, report, text_of);
    return ok();
  }

 private:
  using TextOf = std::function<std::string(std::int32_t)>;

  void print(const model::Model& model, const OutlierReport& report, const TextOf& text_of) const {
    fmt::print("Model       {}  {} layers, hidden {}, {}\n", model.config().architecture,
               model.config().layers, model.config().hidden,
               size_text(model.checkpoint().total_bytes()));
    if (report.tokens != 0) {
      fmt::print("Text        {} tokens in {} sequence{}\n", report.tokens, report.sequences,
                 report.sequences == 1 ? "" : "s");
    }
    fmt::print("Verdict     {}\n", verdict(report));
    print_massive(report, text_of);
    print_channels(report, text_of);
    print_sinks(report, text_of);
    print_weights(report);
    if (report.tokens == 0) {
      fmt::print("Next        quell outliers {} --calib TEXT   (activations and attention)\n",
                 model_);
    }
  }

  static std::string verdict(const OutlierReport& report) {
    std::size_t marked = 0, nonfinite = 0;
    for (const TensorOutliers& w : report.weights) {
      marked += w.marked.empty() && !w.stands_out ? 0 : 1;
      nonfinite += w.nonfinite != 0 ? 1 : 0;
    }
    std::string weights = marked == 0 ? "no weight stands out"
                                      : fmt::format("{} of {} weight matrices stand out", marked,
                                                    report.weights.size());
    if (nonfinite != 0) weights += fmt::format(", {} hold values that are not finite", nonfinite);
    if (report.tokens == 0) return weights + "; activations need text";
    std::size_t systematic = 0, neurons = 0;
    for (const ChannelOutlier& c : report.channels) {
      (c.kind == ChannelOutlier::Kind::systematic ? systematic : neurons) += 1;
    }
    if (report.massive.empty() && systematic == 0 && neurons == 0 && report.sinks.empty()) {
      return "no massive activation, no systematic channel, no attention sink; " + weights;
    }
    const auto count = [](std::size_t n, const char* one, const char* many) {
      return n == 0 ? fmt::format("no {}", one) : fmt::format("{} {}", n, n == 1 ? one : many);
    };
    std::size_t sink_layers = 0;
    for (const pipeline::AttentionSink& s : report.sinks) sink_layers += s.head ? 0 : 1;
    return fmt::format("{}, {}, {}; {}",
                       count(report.massive.size(), "massive activation", "massive activations"),
                       count(systematic, "systematic channel", "systematic channels"),
                       count(sink_layers, "attention sink", "attention sinks"), weights);
  }

  static void print_massive(const OutlierReport& report, const TextOf& text_of) {
    if (report.massive.empty()) return;
    fmt::print(
        "\nMassive activations: more than the rule's multiple of the sequence's magnitude\n");
    fmt::print("  {:<22} {:>7} {:>9} {:>9}  {}\n", "place", "channel", "value", "x median",
               "token");
    for (const pipeline::MassiveActivation& hit : report.massive) {
      fmt::print("  {:<22} {:>7} {:>9} {:>9}  {} at {}, in {} of {} sequences\n", hit.place,
                 hit.channel, number_text(static_cast<double>(hit.value)),
                 number_text(hit.ratio_to_median), token_text(text_of(hit.token)), hit.position,
                 hit.sequences, report.sequences);
    }
  }

  static void print_channels(const OutlierReport& report, const TextOf& text_of) {
    if (report.channels.empty()) return;
    fmt::print("\nChannels that lead, by their largest magnitude over the median channel's\n");
    for (const ChannelOutlier& outlier : report.channels) {
      const auto& ratios = outlier.channel.ratios;
      const auto [least, most] = std::minmax_element(ratios.begin(), ratios.end());
      const std::string where = token_text(text_of(outlier.token));
      if (outlier.kind == ChannelOutlier::Kind::systematic) {
        fmt::print(
            "  channel {:<5} of {}: {} to {} times in {} of {} layers, leads in {}; {} at {}\n",
            outlier.channel.channel, outlier.place, number_text(*least, 3), number_text(*most, 3),
            outlier.channel.layers, ratios.size(), outlier.channel.leads, where, outlier.position);
      } else {
        fmt::print("  neuron {:<6} of {}: {} times; {} at {}\n", outlier.channel.channel,
                   outlier.place, number_text(*most, 3), where, outlier.position);
      }
    }
  }

  static void print_sinks(const OutlierReport& report, const TextOf& text_of) {
    bool titled = false;
    for (const pipeline::AttentionSink& sink : report.sinks) {
      if (sink.head) continue;
      if (!titled)
        fmt::print("\nAttention sinks: a tenth of the attention or more (mean over heads)\n");
      titled = true;
      std::string heads;
      if (sink.position == 0) {
        const auto& first = report.first_token_mass[sink.layer];
        heads = fmt::format(", head {} gives {:.0f} %", first.head, 100 * first.largest_head);
      }
      fmt::print("  layer {:<3} {} at {}: {:.1f} %{}\n", sink.layer,
                 token_text(text_of(sink.token)), sink.position, 100 * sink.mass, heads);
    }
  }

  static void print_weights(const OutlierReport& report) {
    std::vector<const TensorOutliers*> order;
    for (const TensorOutliers& w : report.weights) order.push_back(&w);
    std::stable_sort(order.begin(), order.end(),
                     [](const TensorOutliers* a, const TensorOutliers* b) {
                       return a->excess_kurtosis > b->excess_kurtosis;
                     });
    fmt::print("\nWeights with the heaviest tails\n");
    fmt::print("  {:<40} {:>8} {:>8} {:>8}  {}\n", "module", "kurtosis", "max", "x median",
               "marked");
    for (std::size_t i = 0; i < std::min<std::size_t>(5, order.size()); ++i) {
      const TensorOutliers& w = *order[i];
      std::string marked;
      const auto add = [&](std::size_t n, const char* what) {
        if (n != 0) marked += fmt::format("{}{} {}", marked.empty() ? "" : ", ", n, what);
      };
      add(w.marked.elements.size(), "elements");
      add(w.marked.rows.size(), "rows");
      add(w.marked.columns.size(), "columns");
      add(static_cast<std::size_t>(w.nonfinite), "not finite");
      if (w.stands_out) marked += marked.empty() ? "stands out" : ", stands out";
      fmt::print("  {:<40} {:>8} {:>8} {:>8}  {}\n", io::printable(w.name),
                 number_text(w.excess_kurtosis, 3), number_text(static_cast<double>(w.absmax), 3),
                 number_text(w.max_to_median(), 3), marked.empty() ? "-" : marked);
    }
  }

  std::string model_, rule_ = "median";
  TextOptions data_;
};

}  // namespace

std::unique_ptr<Command> make_outliers() {
  return std::make_unique<Outliers>();
}

}  // namespace quell::cli
