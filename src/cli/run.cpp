// SPDX-License-Identifier: Apache-2.0

// `quell run`: outliers, quantize, verify, eval and a report in one go; without MODEL on the
// demonstration model.

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>

#include "cli/command.hpp"
#include "quell/io/output.hpp"
#include "quell/io/printable.hpp"
#include "quell/pipeline/evaluate.hpp"
#include "quell/pipeline/outliers.hpp"
#include "quell/report/outliers.hpp"
#include "quell/report/run.hpp"
#include "quell/report/write.hpp"

namespace quell::cli {
namespace {

using pipeline::TensorOutliers;

class RunAll final : public Command {
 public:
  std::string_view name() const override { return "run"; }
  std::string_view help() const override {
    return "outliers, quantize, verify, eval and a report in one go";
  }
  void add_options(CLI::App& app) override {
    app.add_option("MODEL", arguments_.model, "model folder (default: the demonstration model)");
    app.add_option("-o,--output", arguments_.output, "folder to write")->required();
    app.add_option("--text", text_.files, "evaluation text (default: the demonstration's)");
    app.add_option("--context", text_.length, "tokens of an evaluation window");
    arguments_.add(app);
  }

  Status run() override {
    if (arguments_.model.empty()) {
      QUELL_TRY(demonstration, find_demonstration());
      arguments_.model = demonstration.model.string();
      if (!arguments_.data.given() && arguments_.statistics.empty()) {
        arguments_.data.files = {demonstration.calibration.string()};
      }
      if (text_.files.empty()) text_.files = {demonstration.evaluation.string()};
    }
    if (text_.files.empty()) return Error{ErrorCode::usage, "no evaluation text: give --text FILE"};
    if (text_.files == arguments_.data.files) {
      return Error{ErrorCode::usage,
                   "the evaluation text is the calibration text; a model is proved on text it was "
                   "not calibrated with"};
    }
    if (arguments_.dry_run || !arguments_.shard.empty()) {
      return Error{ErrorCode::usage, "--dry-run and --shard belong to `quell quantize`"};
    }
    text_.documents = arguments_.data.documents;
    QUELL_TRY(recipe, arguments_.recipe());
    const std::unique_ptr<Executor> executor = make_openmp_executor(limits.threads);
    const std::unique_ptr<pipeline::Observer> observer = make_observer(limits);
    QUELL_TRY(original, model::Model::load(arguments_.model, {limits.allow_links_outside}));
    QUELL_TRY(check_max_kl(original, arguments_.max_kl));
    QUELL_TRY(corpus, read_corpus(original, text_, false));

    pipeline::OutlierReport outliers;
    QUELL_TRY(weights, pipeline::measure_weights(original, *executor, *observer));
    outliers.weights = std::move(weights);
    QUELL_TRY(
        measure_text(original, corpus, recipe.engine_precision, outliers, *executor, *observer));
    QUELL_TRY(quantized, quantize_model(arguments_, limits, *executor, *observer));
    QUELL_TRY(verified, io::verify_folder(arguments_.output));
    if (!verified.problems.empty()) {
      return Error{ErrorCode::verification, arguments_.output + ": " + verified.problems.front(),
                   arguments_.output};
    }
    QUELL_TRY(result, model::Model::load(arguments_.output, {limits.allow_links_outside}));
    QUELL_TRY(evaluation, pipeline::evaluate(result, &original, corpus, limits.max_memory,
                                             *executor, *observer));
    close_progress_line();
    const TokenText text(original);
    report::OutlierInputs inputs;
    inputs.name = arguments_.model;
    inputs.model = &original;
    inputs.found = &outliers;
    inputs.text_of = [&](std::int32_t id) { return text.of(id); };
    QUELL_TRY(facts, provenance(*this, original, &corpus, *executor));
    inputs.provenance = std::move(facts);
    QUELL_TRY(document,
              report::run_document(inputs, arguments_.output, quantized.outcome, evaluation));
    QUELL_TRY(io::add_to_finished(arguments_.output, kPage, report::write_html(document)));
    if (limits.json) {
      print_all(inputs, quantized, verified, evaluation);
    } else {
      print_report(inputs, result, quantized, evaluation);
    }
    return check_kl(evaluation, arguments_.max_kl);
  }

 private:
  static constexpr const char* kPage = "report.html";

  std::string page() const { return (std::filesystem::path(arguments_.output) / kPage).string(); }

  /// Outliers show on a few sequences as they do on many; the first windows of the text will do.
  Status measure_text(const model::Model& model, const calib::Corpus& corpus,
                      engine::Precision precision, pipeline::OutlierReport& outliers,
                      Executor& executor, pipeline::Observer& observer) const {
    constexpr std::size_t kSequences = 8;
    pipeline::OutlierOptions options;
    options.precision = precision;
    if (limits.max_memory != 0) options.hidden_limit = limits.max_memory / 4;
    options.spill_folder = std::filesystem::temp_directory_path();
    return pipeline::measure_activations(model, calib::sample(corpus, kSequences, 0), options,
                                         outliers, executor, observer);
  }

  void print_all(const report::OutlierInputs& inputs, const QuantizeResult& quantized,
                 const io::VerifyReport& verified, const pipeline::Evaluation& evaluation) const {
    io::Json json = begin_json("run");
    json.set("outliers", inputs.found->to_json(inputs.text_of));
    json.set("quantize", quantized.outcome.to_json());
    json.set("verify", io::Json::object({{"complete", verified.complete},
                                         {"tensors_checked", verified.tensors_checked},
                                         {"problems", io::Json::array()}}));
    json.set("eval", evaluation.to_json());
    json.set("report", page());
    print_json(std::move(json));
  }

  void print_report(const report::OutlierInputs& inputs, const model::Model& result,
                    const QuantizeResult& quantized, const pipeline::Evaluation& evaluation) const {
    const model::Model& original = *inputs.model;
    const pipeline::OutlierReport& outliers = *inputs.found;
    fmt::print("Model       {}  {} layers, {}\n", original.config().architecture,
               original.config().layers, size_text(original.checkpoint().total_bytes()));
    fmt::print("Outliers    {}\n", report::outlier_document(inputs).verdict);
    for (std::size_t i = 0; i < std::min<std::size_t>(3, outliers.massive.size()); ++i) {
      const pipeline::MassiveActivation& hit = outliers.massive[i];
      fmt::print("{:<11} {}, channel {}: {:.1f} at \"{}\", position {}: {:.0f} times the median\n",
                 i == 0 ? "Massive" : "", hit.place, hit.channel, static_cast<double>(hit.value),
                 io::printable(inputs.text_of(hit.token)), hit.position, hit.ratio_to_median);
    }
    std::vector<TensorOutliers> weights = outliers.weights;
    std::stable_sort(weights.begin(), weights.end(),
                     [](const TensorOutliers& a, const TensorOutliers& b) {
                       return a.excess_kurtosis > b.excess_kurtosis;
                     });
    for (std::size_t i = 0; i < std::min<std::size_t>(2, weights.size()); ++i) {
      const TensorOutliers& t = weights[i];
      fmt::print("{:<11} {}: excess kurtosis {:.1f}, largest {:.3g}, {:.0f} times the median\n",
                 i == 0 ? "Weights" : "", t.name, t.excess_kurtosis, static_cast<double>(t.absmax),
                 t.max_to_median());
    }
    print_outcome(quantized.outcome);
    fmt::print("Size        {} -> {}\n", size_text(original.checkpoint().total_bytes()),
               size_text(result.checkpoint().total_bytes()));
    print_evaluation(evaluation, text_.length);
    fmt::print("Report      {}\n", page());
    if (!result.has_head()) return;
    fmt::print("Next        quell generate {} --prompt TEXT\n", arguments_.output);
  }

  QuantizeArguments arguments_;
  TextOptions text_;
};

}  // namespace

std::unique_ptr<Command> make_run() {
  return std::make_unique<RunAll>();
}

}  // namespace quell::cli
