// SPDX-License-Identifier: Apache-2.0

// `quell outliers`: where the outliers of a model are.

#include "quell/pipeline/outliers.hpp"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <optional>

#include "cli/command.hpp"
#include "quell/io/new_file.hpp"
#include "quell/report/outliers.hpp"
#include "quell/report/write.hpp"

namespace quell::cli {
namespace {

class Outliers final : public Command {
 public:
  std::string_view name() const override { return "outliers"; }
  std::string_view help() const override {
    return "where the outliers are: weights, and with text activations and attention";
  }
  void add_options(CLI::App& app) override {
    app.add_option("MODEL", model_, "model folder")->required();
    add_calibration(app, data_);
    app.add_option("--html", html_, "also write the report as one HTML file");
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

    // Read first: weights of a large model take minutes, and a wrong file should not wait for them.
    std::optional<calib::Corpus> corpus;
    if (data_.given()) {
      QUELL_TRY(read, read_corpus(model, data_, false));
      corpus = calib::sample(std::move(read), static_cast<std::size_t>(data_.samples), data_.seed);
      for (const std::string& note : corpus->notes) observer->note(note);
    }
    pipeline::OutlierReport found;
    QUELL_TRY(weights, pipeline::measure_weights(model, *executor, *observer));
    found.weights = std::move(weights);
    if (corpus) {
      QUELL_TRY(
          pipeline::measure_activations(model, *corpus, options, found, *executor, *observer));
    }
    const TokenText text(model);
    const auto text_of = [&](std::int32_t id) { return text.of(id); };
    close_progress_line();
    const report::Document document = report::outlier_document(model_, model, found, text_of);
    if (!html_.empty()) {
      QUELL_TRY(io::write_new_file(html_, report::write_html(document)));
      fmt::print(stderr, "{}: written\n", html_);
    }
    if (limits.json) {
      io::Json json = begin_json("outliers");
      const io::Json members = found.to_json(text_of);
      for (const auto& [key, value] : members.members()) json.set(key, value);
      print_json(std::move(json));
      return ok();
    }
    fmt::print("{}", report::write_text(document));
    if (found.tokens == 0) {
      fmt::print("\nNext: quell outliers {} --calib TEXT   (activations and attention)\n", model_);
    }
    return ok();
  }

 private:
  std::string model_, html_, rule_ = "median";
  TextOptions data_;
};

}  // namespace

std::unique_ptr<Command> make_outliers() {
  return std::make_unique<Outliers>();
}

}  // namespace quell::cli
