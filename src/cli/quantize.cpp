// SPDX-License-Identifier: Apache-2.0

// `quell quantize`: the checks that need no computation, the plan, then the run.

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>

#include "cli/command.hpp"
#include "quell/calib/statistics.hpp"
#include "quell/io/output.hpp"
#include "quell/pipeline/allocation.hpp"
#include "quell/pipeline/plan.hpp"
#include "quell/quant/transform.hpp"

namespace quell::cli {
namespace {

Error usage(std::string message) {
  return Error{ErrorCode::usage, std::move(message)};
}

struct Shard {
  std::uint32_t part = 1, parts = 1;
};

Result<Shard> parse_shard(const std::string& text) {
  Shard shard;
  char slash = 0;
  int end = 0;
  if (text.empty()) return shard;
  if (std::sscanf(text.c_str(), "%u%c%u%n", &shard.part, &slash, &shard.parts, &end) != 3 ||
      slash != '/' || end != static_cast<int>(text.size()) || shard.part < 1 ||
      shard.part > shard.parts || shard.parts > 1'000'000) {
    return usage("--shard " + text + "; it is i/n with 1 <= i <= n, for example 2/8");
  }
  return shard;
}

// Layers with an element that is not finite, for --nonfinite skip.
Result<std::vector<std::string>> nonfinite_layers(const model::Model& model, Executor& executor) {
  std::vector<std::string> names;
  const auto check = [&](const model::Linear& linear) -> Status {
    QUELL_TRY(weight, model.weight(linear, executor, true));
    const auto values = weight.values();
    if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
      names.push_back(linear.name);
    }
    return ok();
  };
  for (const model::Block& block : model.blocks()) {
    for (const model::Site site : model::kSites) {
      for (const model::Linear* linear : linears_at(block, site)) QUELL_TRY(check(*linear));
    }
  }
  for (const model::Linear& linear : model.generic_linears()) QUELL_TRY(check(linear));
  return names;
}

io::Json dry_run_json(const pipeline::Plan& plan, std::uint64_t hidden_limit) {
  io::Json json = io::Json::object();
  json.set("bytes", plan.folder.total_bytes);
  json.set("bits_per_weight", plan.bits_per_weight);
  json.set("peak_memory_bytes", plan.peak_memory(hidden_limit));
  json.set("seconds_estimate", plan.seconds_estimate);
  json.set("layout", plan.layout->name);
  io::Json modules = io::Json::array();
  for (const pipeline::Task& task : plan.tasks) {
    io::Json module = io::Json::object();
    module.set("name", task.linear->name);
    module.set("method", task.method);
    module.set("grid", to_string(task.grid));
    if (task.open_direction) module.set("per", "auto");
    module.set("activation_bits", task.activation_bits == 0 ? 16u : task.activation_bits);
    module.set("kept_columns", static_cast<std::uint64_t>(task.kept_columns));
    module.set("rotation", static_cast<std::uint64_t>(task.rotation));
    modules.push(std::move(module));
  }
  json.set("modules", std::move(modules));
  io::Json notes = io::Json::array();
  for (const std::string& note : plan.notes) notes.push(note);
  json.set("notes", std::move(notes));
  json.set("problems", io::Json::array());
  return json;
}

Result<model::Model> load_model(const QuantizeArguments& arguments, const Limits& limits) {
  auto model = model::Model::load(arguments.model, {limits.allow_links_outside});
  if (model || model.error().code != ErrorCode::unsupported || arguments.method != "rtn")
    return model;
  // An architecture that is not known still has matrices that can be rounded.
  auto weights = model::Model::load_weights_only(arguments.model, {limits.allow_links_outside});
  return weights ? std::move(weights) : std::move(model);
}

class Quantize final : public Command {
 public:
  std::string_view name() const override { return "quantize"; }
  std::string_view help() const override { return "calibrate, quantize, write"; }
  void add_options(CLI::App& app) override {
    app.add_option("MODEL", arguments_.model, "model folder")->required();
    app.add_option("-o,--output", arguments_.output, "folder to write");
    arguments_.add(app);
  }

  Status run() override {
    const std::unique_ptr<Executor> executor = make_openmp_executor(limits.threads);
    const std::unique_ptr<pipeline::Observer> observer = make_observer(limits);
    QUELL_TRY(result, quantize_model(arguments_, limits, *executor, *observer));
    close_progress_line();
    if (limits.json) {
      io::Json json = begin_json("quantize");
      if (result.dry_run) {
        for (const auto& [name, value] : result.dry_run->members()) json.set(name, value);
      } else if (result.statistics) {
        json.set("statistics", *result.statistics);
      } else {
        const io::Json outcome = result.outcome.to_json();
        for (const auto& [name, value] : outcome.members()) json.set(name, value);
        json.set("resumed_modules", static_cast<std::uint64_t>(result.outcome.resumed));
        json.set("phases", phases_json(result.outcome.phases));
      }
      print_json(std::move(json));
      return ok();
    }
    if (result.dry_run) return print_dry_run(*result.dry_run);
    if (result.statistics) {
      fmt::print("Statistics  {}\n", *result.statistics);
      return ok();
    }
    print_outcome(result.outcome);
    fmt::print("Next        quell eval {} --against {} --text TEXT\n", arguments_.output,
               arguments_.model);
    return ok();
  }

  static io::Json phases_json(const pipeline::Phases& phases) {
    io::Json json = io::Json::object();
    json.set("read", phases.read);
    json.set("forward", phases.forward);
    json.set("solve", phases.solve);
    json.set("write", phases.write);
    return json;
  }

 private:
  Status print_dry_run(const io::Json& plan) const {
    fmt::print("Plan        {} layers, {:.3f} bits per weight, {} to write as {}\n",
               plan.find("modules")->items().size(), plan.find("bits_per_weight")->as_number(),
               size_text(static_cast<std::uint64_t>(plan.find("bytes")->as_integer())),
               plan.find("layout")->as_string());
    fmt::print("Needs       {} of memory, about {:.0f} s\n",
               size_text(static_cast<std::uint64_t>(plan.find("peak_memory_bytes")->as_integer())),
               plan.find("seconds_estimate")->as_number());
    std::string last;
    for (const io::Json& module : plan.find("modules")->items()) {
      const std::string what =
          module.find("method")->as_string() + "  " + module.find("grid")->as_string();
      if (what == last) continue;
      last = what;
      fmt::print("            {}  from {}\n", what, module.find("name")->as_string());
    }
    return ok();
  }

  QuantizeArguments arguments_;
};

}  // namespace

namespace {

// What is done to inputs while the model runs, where anything is.
void print_inputs(const std::vector<pipeline::ModuleOutcome>& modules) {
  std::size_t rounded = 0, rotated = 0;
  std::uint64_t bits = 16, kept = 0;
  for (const pipeline::ModuleOutcome& module : modules) {
    rounded += module.activation_bits != 16 ? 1 : 0;
    rotated += module.method.starts_with("hadamard+") ? 1 : 0;
    bits = std::min(bits, module.activation_bits);
    kept += module.kept_columns;
  }
  if (rounded == 0 && rotated == 0 && kept == 0) return;
  fmt::print("Inputs      ");
  if (rounded != 0) fmt::print("rounded to {} bits in {} layers", bits, rounded);
  if (rotated != 0) fmt::print("{}rotated in {}", rounded != 0 ? ", " : "", rotated);
  if (kept != 0) {
    fmt::print("{}{} columns kept in f16", rounded + rotated != 0 ? ", " : "", kept);
  }
  fmt::print("\n");
}

}  // namespace

void print_outcome(const pipeline::QuantizeOutcome& outcome) {
  fmt::print("Output      {}  {}, {:.3f} bits per weight in {} layers\n", outcome.output.string(),
             size_text(outcome.bytes), outcome.bits_per_weight, outcome.modules.size());
  print_inputs(outcome.modules);
  std::vector<const pipeline::ModuleOutcome*> worst;
  std::size_t fallbacks = 0;
  for (const pipeline::ModuleOutcome& module : outcome.modules) {
    worst.push_back(&module);
    fallbacks += module.fallback.empty() ? 0 : 1;
  }
  std::stable_sort(worst.begin(), worst.end(),
                   [](const auto* a, const auto* b) { return a->objective > b->objective; });
  for (std::size_t i = 0; i < std::min<std::size_t>(3, worst.size()); ++i) {
    fmt::print("{:<11} {}  loss {} ({} by rounding), weight error {}\n", i == 0 ? "Worst" : "",
               worst[i]->name, number_text(worst[i]->objective, 3),
               number_text(worst[i]->objective_rtn, 3), number_text(worst[i]->relative_error, 3));
  }
  if (fallbacks != 0) fmt::print("Fallbacks   {} (see the report)\n", fallbacks);
  if (outcome.resumed != 0)
    fmt::print("Resumed     {} layers of an earlier run\n", outcome.resumed);
  const pipeline::Phases& phases = outcome.phases;
  fmt::print(
      "Time        read {:.1f} s, forward and statistics {:.1f} s, solve {:.1f} s, write {:.1f} s; "
      "peak memory {}\n",
      phases.read, phases.forward, phases.solve, phases.write, size_text(peak_rss_bytes()));
  fmt::print("Hash        {}\n", outcome.hash);
}

Result<QuantizeResult> quantize_model(const QuantizeArguments& arguments, const Limits& limits,
                                      Executor& executor, pipeline::Observer& observer) {
  QUELL_TRY(recipe, arguments.recipe());
  QUELL_TRY(shard, parse_shard(arguments.shard));
  if (!arguments.method.empty()) QUELL_TRY(pipeline::MethodWord::parse(arguments.method));
  if (arguments.output.empty() && arguments.save_statistics.empty() && !arguments.dry_run) {
    return usage("no output folder: give -o OUT");
  }
  if (!arguments.shard.empty() && arguments.save_statistics.empty()) {
    return usage("--shard collects a part of the statistics: give --save-stats FILE as well");
  }
  if (arguments.data.given() && !arguments.statistics.empty()) {
    return usage("--stats and calibration text exclude each other");
  }
  if (!arguments.engine_precision.empty() && !arguments.statistics.empty()) {
    return usage(
        "--engine-precision is how text is run through the model; statistics of --stats were made "
        "before, so leave it out");
  }
  if (arguments.nonfinite != "error" && arguments.nonfinite != "zero" &&
      arguments.nonfinite != "skip") {
    return usage("--nonfinite " + arguments.nonfinite + "; it is error, zero or skip");
  }
  if (arguments.resume && arguments.no_resume)
    return usage("--resume and --no-resume exclude each other");
  if (!arguments.output.empty() && (io::same_file_or_inside(arguments.output, arguments.model) ||
                                    io::same_file_or_inside(arguments.model, arguments.output))) {
    return usage("the output " + arguments.output +
                 " is the model's own folder, or one holds the other; "
                 "choose another place, so that the input stays as it is");
  }

  QUELL_TRY(model, load_model(arguments, limits));
  for (const std::string& warning : model.warnings()) observer.note(warning);
  if (!model.quantized().empty() && !arguments.allow_requantize) {
    return Error{ErrorCode::unsupported,
                 arguments.model + " is quantized already (layout " +
                     std::string(model.quantized().layout()) + ", " +
                     std::to_string(model.quantized().modules().size()) +
                     " layers); quantize the original, or give --allow-requantize",
                 arguments.model};
  }

  QuantizeResult result;
  std::optional<calib::Corpus> corpus;
  std::optional<calib::StatisticsFile> statistics;
  if (arguments.data.given()) {
    QUELL_TRY(read, read_corpus(model, arguments.data, true));
    corpus = std::move(read);
    for (const std::string& note : corpus->notes) observer.note(note);
  }
  if (!arguments.save_statistics.empty()) {
    if (!corpus) return usage("--save-stats needs calibration text: give --calib");
    QUELL_TRY(pipeline::save_statistics(model, *corpus, shard.part, shard.parts,
                                        recipe.engine_precision, limits.max_memory,
                                        arguments.save_statistics, executor, observer));
    if (!arguments.shard.empty() || arguments.output.empty()) {
      result.statistics = arguments.save_statistics;
      return result;
    }
    QUELL_TRY(made, calib::StatisticsFile::open(arguments.save_statistics));
    statistics = std::move(made);
    corpus.reset();
  }
  if (!arguments.statistics.empty()) {
    QUELL_TRY(read, calib::StatisticsFile::open(arguments.statistics));
    const calib::StatisticsInfo& info = read.info();
    QUELL_TRY(fingerprint, calib::model_fingerprint(model));
    if (info.model_fingerprint != fingerprint) {
      return Error{ErrorCode::parse,
                   arguments.statistics + ": made for model " +
                       info.model_fingerprint.substr(0, 12) + ", " + arguments.model +
                       " is model " + fingerprint.substr(0, 12),
                   arguments.statistics};
    }
    if (info.parts != 1) {
      return usage(arguments.statistics + " holds " + std::to_string(info.merged_parts.size()) +
                   " of " + std::to_string(info.parts) +
                   " parts; merge all of them first (quell stats merge)");
    }
    QUELL_TRY(read.check());
    statistics = std::move(read);
  }
  if (arguments.nonfinite == "skip") {
    QUELL_TRY(names, nonfinite_layers(model, executor));
    for (const std::string& layer : names) {
      observer.note(layer +
                    ": holds values that are not finite and stays as it is (--nonfinite skip)");
    }
    recipe.ignore.insert(recipe.ignore.end(), names.begin(), names.end());
  }

  pipeline::CalibrationSize shape;
  shape.available = corpus.has_value() || statistics.has_value();
  shape.sequential = corpus.has_value();
  shape.peaks = corpus.has_value() || (statistics && statistics->info().peaks);
  if (corpus) {
    shape.tokens = corpus->ids.size();
    for (const calib::Chunk& chunk : calib::chunks(*corpus)) {
      shape.longest = std::max<std::uint64_t>(shape.longest, chunk.tokens);
    }
  }
  if (recipe.target_bits_per_weight || recipe.target_bytes) {
    if (!corpus) {
      return usage(
          "a target is met by measuring which layers are sensitive, on text: give --calib (without "
          "--stats and --save-stats)");
    }
    QUELL_TRY(allocation, pipeline::allocate(model, recipe, shape, *corpus,
                                             arguments.nonfinite == "zero", executor, observer));
    recipe = std::move(allocation.recipe);
    for (const std::string& note : allocation.notes) observer.note(note);
  }
  QUELL_TRY(plan, pipeline::make_plan(model, recipe, shape, executor));
  for (const std::string& note : plan.notes) observer.note(note);
  if (arguments.dry_run) {
    QUELL_TRY(hidden, pipeline::hidden_limit(plan, limits.max_memory));
    result.dry_run = dry_run_json(plan, hidden);
    return result;
  }
  pipeline::QuantizeOptions options;
  options.output = arguments.output;
  options.force = arguments.force;
  options.resume = !arguments.no_resume;
  options.max_memory = limits.max_memory;
  options.nonfinite =
      arguments.nonfinite == "zero" ? pipeline::Nonfinite::zero : pipeline::Nonfinite::error;
  options.corpus = corpus ? &*corpus : nullptr;
  options.statistics = statistics ? &*statistics : nullptr;
  const DeferSignals defer;
  QUELL_TRY(outcome, pipeline::quantize(model, recipe, plan, options, executor, observer));
  result.outcome = std::move(outcome);
  result.notes = plan.notes;
  return result;
}

std::unique_ptr<Command> make_quantize() {
  return std::make_unique<Quantize>();
}

}  // namespace quell::cli
