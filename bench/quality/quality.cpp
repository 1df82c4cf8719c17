// SPDX-License-Identifier: Apache-2.0

// What every method makes of a model: method x bits x seed to KL divergence, likelihood, agreement
// and bits per weight counted from the bytes written.
//
//   quality_bench MODEL --calib FILE --text FILE [--documents] [--length 256] [--samples 128]
//                 [--max-tokens 30000] [--group 32] [--bits 4,3] [--seeds 3] [--methods a,b]
//                 [--json FILE]
//   quality_bench --plot FILE.svg FILE.json...
//
// Every registered method runs, with the scales that it takes by default and, for those that search
// them, with absmax ones too ("gptq absmax" is plain gptq, which all others are compared with); the
// default method on the iq4 table, and with widths chosen for the same bits ("target"). The text of
// the calibration and of the evaluation must not overlap. Results are bits, so a row repeats on any
// machine; seconds do not.

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quality/plot.hpp"
#include "quell/calib/corpus.hpp"
#include "quell/core/executor.hpp"
#include "quell/io/json.hpp"
#include "quell/model/model.hpp"
#include "quell/pipeline/allocation.hpp"
#include "quell/pipeline/evaluate.hpp"
#include "quell/pipeline/quantize.hpp"
#include "quell/quant/registry.hpp"
#include "quell/tokenizer/tokenizer.hpp"

namespace quell::bench {
namespace {

struct Arguments {
  std::string model, json;
  std::vector<std::filesystem::path> calibration, text;
  bool documents = false;
  std::uint32_t length = 256, group = 32;
  std::size_t samples = 128, seeds = 3;
  std::uint64_t max_tokens = 30'000;
  std::vector<std::string> bits = {"4", "3"}, methods;
};

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    parts.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

/// One row of the table.
struct Contender {
  std::string name, method;
  std::optional<ScaleMethod> scale;
  bool table = false;   // iq4 in place of int4
  bool target = false;  // widths chosen for the same bits
};

std::vector<Contender> contenders(const Arguments& arguments) {
  std::vector<Contender> all;
  for (const quant::Method& method : quant::methods()) {
    const std::string name(method.name);
    const bool searches = includes(method.needs, quant::Needs::second_moment);
    if (!searches) {
      all.push_back({name + " absmax", name, ScaleMethod::absmax});
      all.push_back({name + " search", name, ScaleMethod::search});
    } else if (name == "gptq") {
      all.push_back({"gptq absmax", name, ScaleMethod::absmax});
      all.push_back({name, name, {}});
    } else {
      all.push_back({name, name, {}});
    }
  }
  all.push_back({"balanced iq4", "balanced", {}, true});
  all.push_back({"balanced target", "balanced", {}, false, true});
  if (arguments.methods.empty()) return all;
  std::vector<Contender> chosen;
  for (const std::string& name : arguments.methods) {
    bool found = false;
    for (const Contender& contender : all) {
      if (contender.name != name) continue;
      chosen.push_back(contender);
      found = true;
    }
    // A chain of methods, as the command line takes it.
    if (!found) chosen.push_back({name, name, {}});
  }
  return chosen;
}

struct Figures {
  double kl = 0, nll = 0, agreement = 0, bits_per_weight = 0, seconds = 0;
};

class Bench {
 public:
  Bench(const Arguments& arguments, const model::Model& model,
        const tokenizer::Tokenizer& tokenizer)
      : arguments_(arguments),
        model_(model),
        tokenizer_(tokenizer),
        executor_(make_openmp_executor(0)) {}

  Status run() {
    QUELL_TRY(text, corpus(arguments_.text, arguments_.max_tokens));
    QUELL_TRY(calibration, corpus(arguments_.calibration, 0));
    io::Json rows = io::Json::array();
    std::printf(
        "| bits | method | bits per weight | KL | spread | of gptq absmax | NLL | same top | s |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for (const std::string& bits : arguments_.bits) {
      double plain = 0;
      for (const Contender& contender : contenders(arguments_)) {
        if (contender.table && bits != "4") continue;
        std::vector<Figures> found;
        for (std::size_t seed = 0; seed < arguments_.seeds; ++seed) {
          const calib::Corpus sampled = calib::sample(calibration, arguments_.samples, seed);
          QUELL_TRY(figures, measure(contender, bits, sampled, text));
          found.push_back(figures);
          const auto chain = quant::parse_chain(contender.method);
          // Without data a seed changes nothing.
          if (chain && !includes(chain->needs(), quant::Needs::second_moment)) break;
        }
        Figures mean;
        double low = found[0].kl, high = found[0].kl;
        const auto count = static_cast<double>(found.size());
        for (const Figures& of_seed : found) {
          mean.kl += of_seed.kl / count;
          mean.nll += of_seed.nll / count;
          mean.agreement += of_seed.agreement / count;
          mean.bits_per_weight += of_seed.bits_per_weight / count;
          mean.seconds += of_seed.seconds / count;
          low = std::min(low, of_seed.kl);
          high = std::max(high, of_seed.kl);
        }
        if (contender.name == "gptq absmax") plain = mean.kl;
        char share[32] = "";
        if (plain > 0) std::snprintf(share, sizeof share, "%.3f", mean.kl / plain);
        std::printf("| %s | %s | %.3f | %.5f | %.5f to %.5f | %s | %.4f | %.2f %% | %.1f |\n",
                    bits.c_str(), contender.name.c_str(), mean.bits_per_weight, mean.kl, low, high,
                    share, mean.nll, 100 * mean.agreement, mean.seconds);
        std::fflush(stdout);
        io::Json row = io::Json::object();
        row.set("bits", bits);
        row.set("method", contender.name);
        row.set("bits_per_weight", mean.bits_per_weight);
        row.set("kl", mean.kl);
        row.set("kl_low", low);
        row.set("kl_high", high);
        row.set("nll", mean.nll);
        row.set("top1_agreement", mean.agreement);
        row.set("seconds", mean.seconds);
        rows.push(std::move(row));
      }
    }
    if (arguments_.json.empty()) return ok();
    io::Json json = io::Json::object();
    json.set("model", std::filesystem::path(arguments_.model).filename().string());
    json.set("group", arguments_.group);
    json.set("rows", std::move(rows));
    return write_file(arguments_.json, json.dump(1) + "\n");
  }

 private:
  Result<calib::Corpus> corpus(const std::vector<std::filesystem::path>& files,
                               std::uint64_t max_tokens) {
    calib::CutOptions cut;
    cut.length = arguments_.length;
    cut.documents = arguments_.documents;
    cut.max_tokens = max_tokens;
    return calib::read_text(files, tokenizer_, cut);
  }

  Result<Figures> measure(const Contender& contender, const std::string& bits,
                          const calib::Corpus& calibration, const calib::Corpus& text) {
    pipeline::Recipe recipe;
    recipe.method = contender.method;
    recipe.bits = static_cast<std::uint32_t>(std::atoi(bits.c_str()));
    recipe.group = arguments_.group;
    recipe.scale = contender.scale;
    recipe.scale_type = ScaleType::f16;
    recipe.to = "quell";
    if (contender.table) {
      QUELL_TRY(rule, pipeline::Rule::parse("*=" + contender.method + "@iq4:sym:oc:g" +
                                            std::to_string(arguments_.group)));
      recipe.rules.push_back(std::move(rule));
    }
    pipeline::CalibrationSize size;
    size.available = size.sequential = size.peaks = true;
    size.tokens = calibration.ids.size();
    for (const calib::Chunk& chunk : calib::chunks(calibration)) {
      size.longest = std::max<std::uint64_t>(size.longest, chunk.tokens);
    }
    pipeline::Observer observer;
    if (contender.target) {
      // Of the uniform grid at these bits: a scale of 16 bits a group.
      recipe.target_bits_per_weight = recipe.bits + 16.0 / arguments_.group;
      QUELL_TRY(allocation,
                pipeline::allocate(model_, recipe, size, calibration, false, *executor_, observer));
      recipe = std::move(allocation.recipe);
    }
    QUELL_TRY(plan, pipeline::make_plan(model_, recipe, size, *executor_));
    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() /
        ("quell-quality-" + std::to_string(static_cast<unsigned long>(::getpid())));
    const Folder remove{folder};
    pipeline::QuantizeOptions options;
    options.output = folder;
    options.force = true;
    options.corpus = &calibration;
    QUELL_TRY(outcome, pipeline::quantize(model_, recipe, plan, options, *executor_, observer));
    QUELL_TRY(quantized, model::Model::load(folder));
    QUELL_TRY(evaluation, pipeline::evaluate(quantized, &model_, text, 0, *executor_, observer));
    Figures figures;
    figures.kl = evaluation.against->kl.mean;
    figures.nll = evaluation.nll;
    figures.agreement = evaluation.against->top1_agreement;
    figures.bits_per_weight = outcome.bits_per_weight;
    const pipeline::Phases& phases = outcome.phases;
    figures.seconds = phases.read + phases.forward + phases.solve + phases.write;
    return figures;
  }

  struct Folder {
    std::filesystem::path path;
    ~Folder() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  };

  const Arguments& arguments_;
  const model::Model& model_;
  const tokenizer::Tokenizer& tokenizer_;
  std::unique_ptr<Executor> executor_;
};

Status plot(int count, char** values) {
  if (count < 2) return Error{ErrorCode::usage, "--plot FILE.svg FILE.json..."};
  std::vector<QualityPlot> plots;
  for (int i = 1; i < count; ++i) {
    QUELL_TRY(json, io::read_json(values[i]));
    const io::Json *model = json.find("model"), *rows = json.find("rows");
    if (model == nullptr || rows == nullptr) {
      return Error{ErrorCode::parse, std::string(values[i]) + " holds no \"model\" and \"rows\""};
    }
    QualityPlot plot;
    plot.title = model->as_string();
    for (const io::Json& row : rows->items()) {
      plot.curves[row.find("method")->as_string()].push_back(
          {row.find("bits_per_weight")->as_number(), row.find("kl")->as_number()});
    }
    plots.push_back(std::move(plot));
  }
  return write_file(values[0], svg_of(plots));
}

Status run(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "--plot") return plot(argc - 2, argv + 2);
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--documents") {
      arguments.documents = true;
      continue;
    }
    if (!name.starts_with("--")) {
      arguments.model = name;
      continue;
    }
    if (i + 1 == argc) return Error{ErrorCode::usage, std::string(name) + " needs a value"};
    const std::string value = argv[++i];
    const auto whole = [&] { return std::strtoull(value.c_str(), nullptr, 10); };
    if (name == "--calib") {
      arguments.calibration.emplace_back(value);
    } else if (name == "--text") {
      arguments.text.emplace_back(value);
    } else if (name == "--length") {
      arguments.length = static_cast<std::uint32_t>(whole());
    } else if (name == "--samples") {
      arguments.samples = whole();
    } else if (name == "--max-tokens") {
      arguments.max_tokens = whole();
    } else if (name == "--group") {
      arguments.group = static_cast<std::uint32_t>(whole());
    } else if (name == "--seeds") {
      arguments.seeds = std::max<std::size_t>(1, whole());
    } else if (name == "--bits") {
      arguments.bits = split(value);
    } else if (name == "--methods") {
      arguments.methods = split(value);
    } else if (name == "--json") {
      arguments.json = value;
    } else {
      return Error{ErrorCode::usage, "there is no option " + std::string(name)};
    }
  }
  if (arguments.model.empty() || arguments.calibration.empty() || arguments.text.empty()) {
    return Error{ErrorCode::usage, "quality_bench MODEL --calib FILE --text FILE"};
  }
  QUELL_TRY(model, model::Model::load(arguments.model));
  QUELL_TRY(tokenizer, tokenizer::Tokenizer::read(arguments.model));
  return Bench(arguments, model, tokenizer).run();
}

}  // namespace
}  // namespace quell::bench

int main(int argc, char** argv) {
  const quell::Status done = quell::bench::run(argc, argv);
  if (done) return 0;
  std::fprintf(stderr, "error: %s\n", done.error().message.c_str());
  return 1;
}
