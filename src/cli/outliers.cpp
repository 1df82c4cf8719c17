// SPDX-License-Identifier: Apache-2.0

// `quell outliers`: where the outliers of a model are.

#include "quell/pipeline/outliers.hpp"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <optional>

#include "cli/command.hpp"
#include "quell/io/new_file.hpp"
#include "quell/pipeline/sensitivity.hpp"
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
    add_engine_precision(app, precision_);
    app.add_option("--html", html_, "also write the report as one HTML file");
    app.add_flag("--verbose", verbose_, "print all tables, not one screen");
    app.add_option("--rule", rule_,
                   "when an activation is massive: median (1000 times the median, the default), "
                   "systematic-outliers, massive-activations");
    app.add_flag("--sensitivity", sensitivity_,
                 "swap one module at a time for its quantized self: what it costs, how errors "
                 "travel, which cure helps (needs text)");
    app.add_option("--scheme", scheme_, "what modules are quantized to: W4A16 (the default), ...");
    app.add_option("--method", method_,
                   "how: rtn (the default), importance, hqq, gptq, balanced or adadim+METHOD");
    app.add_option("--group-size", group_size_, "weights of a group; -1: one group per row");
    app.add_option("--sensitivity-tokens", sensitivity_tokens_,
                   "tokens of the text that --sensitivity uses (default 4096)")
        ->check(whole_number(2));
    app.add_option("--what-if", what_if_,
                   "what clipped softmax would do to this model: clip:ZETA,GAMMA or clip:alpha=A; "
                   "needs text");
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
    if (!precision_.empty()) {
      QUELL_TRY(parsed, pipeline::parse_engine_precision(precision_));
      options.precision = parsed;
    }
    std::optional<pipeline::WhatIfClip> clip;
    if (what_if_) {
      QUELL_TRY(parsed, pipeline::WhatIfClip::parse(*what_if_));
      if (!data_.given()) {
        return Error{ErrorCode::usage,
                     "--what-if " + *what_if_ + " needs text: give --calib FILE or --ids FILE"};
      }
      clip = parsed;
    }
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
    if (!sensitivity_ && (!scheme_.empty() || group_size_)) {
      return Error{ErrorCode::usage,
                   "--scheme and --group-size say what --sensitivity swaps in; give that too"};
    }
    std::optional<pipeline::Plan> plan;
    if (sensitivity_) {
      if (!corpus) {
        return Error{ErrorCode::usage,
                     "--sensitivity runs the model on text: give --calib FILE or --ids FILE.npy"};
      }
      QUELL_TRY(made, make_plan(model, *corpus, *executor));
      plan = std::move(made);
    }
    pipeline::OutlierReport found;
    QUELL_TRY(weights, pipeline::measure_weights(model, *executor, *observer));
    found.weights = std::move(weights);
    if (corpus) {
      QUELL_TRY(
          pipeline::measure_activations(model, *corpus, options, found, *executor, *observer));
      if (clip) {
        QUELL_TRY(answer, pipeline::what_if(model, *corpus, *clip, *executor, *observer));
        found.what_if = std::move(answer);
      }
    }
    std::optional<pipeline::Sensitivity> sensitivity;
    if (plan) {
      pipeline::SensitivityOptions how;
      how.tokens = sensitivity_tokens_;
      if (limits.max_memory != 0) how.state_bytes = limits.max_memory / 8;
      QUELL_TRY(measured,
                pipeline::measure_sensitivity(model, *plan, *corpus, how, *executor, *observer));
      sensitivity = std::move(measured);
    }
    const TokenText text(model);
    const auto text_of = [&](std::int32_t id) { return text.of(id); };
    close_progress_line();
    report::OutlierInputs inputs;
    inputs.name = model_;
    inputs.model = &model;
    inputs.found = &found;
    inputs.text_of = text_of;
    inputs.distinct_tokens = corpus ? distinct_tokens(*corpus) : 0;
    inputs.sensitivity = sensitivity ? &*sensitivity : nullptr;
    QUELL_TRY(facts, provenance(*this, model, corpus ? &*corpus : nullptr, *executor));
    inputs.provenance = std::move(facts);
    const report::Document document = report::outlier_document(inputs);
    if (!html_.empty()) {
      QUELL_TRY(io::write_new_file(html_, report::write_html(document)));
      fmt::print(stderr, "{}: written\n", html_);
    }
    if (limits.json) {
      io::Json json = begin_json("outliers");
      const io::Json members = found.to_json(text_of);
      for (const auto& [key, value] : members.members()) json.set(key, value);
      if (sensitivity) {
        const io::Json more = sensitivity->to_json();
        for (const auto& [key, value] : more.members()) json.set(key, value);
      }
      print_json(std::move(json));
      return ok();
    }
    fmt::print("{}", verbose_ ? report::write_text(document) : report::write_screen(document));
    if (found.tokens == 0) {
      fmt::print("\nNext: quell outliers {} --calib TEXT   (activations and attention)\n", model_);
    } else if (!verbose_) {
      fmt::print("\nTables: --verbose. Pictures, every module: --html FILE.{}\n",
                 sensitivity ? "" : " Damage: --sensitivity.");
    }
    return ok();
  }

 private:
  /// What the modules would become.
  Result<pipeline::Plan> make_plan(const model::Model& model, const calib::Corpus& corpus,
                                   Executor& executor) const {
    pipeline::Recipe recipe;
    if (!scheme_.empty()) QUELL_TRY(recipe.apply_scheme(scheme_));
    recipe.method = method_;
    if (group_size_) {
      if (*group_size_ < -1 || *group_size_ == 0) {
        return Error{ErrorCode::usage, "--group-size is " + std::to_string(*group_size_) +
                                           ", expected a number of weights, or -1 for whole rows"};
      }
      recipe.group = *group_size_ < 0 ? 0 : static_cast<std::uint32_t>(*group_size_);
    }
    pipeline::CalibrationSize size;
    size.available = size.sequential = true;
    size.tokens = corpus.ids.size();
    return pipeline::make_plan(model, recipe, size, executor);
  }

  std::string model_, html_, precision_, rule_ = "median", scheme_, method_ = "rtn";
  bool sensitivity_ = false, verbose_ = false;
  std::optional<std::int64_t> group_size_;
  std::uint64_t sensitivity_tokens_ = pipeline::SensitivityOptions().tokens;
  std::optional<std::string> what_if_;
  TextOptions data_;
};

}  // namespace

std::unique_ptr<Command> make_outliers() {
  return std::make_unique<Outliers>();
}

}  // namespace quell::cli
