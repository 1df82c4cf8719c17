// SPDX-License-Identifier: Apache-2.0

// `quell inspect`: what a model is, from its headers alone.

#include <fmt/format.h>
#include <sys/sysinfo.h>
#include <CLI/CLI.hpp>

#include <map>

#include "cli/command.hpp"
#include "quell/kernels/explain.hpp"
#include "quell/model/architecture.hpp"

namespace quell::cli {
namespace {

class Inspect final : public Command {
 public:
  std::string_view name() const override { return "inspect"; }
  std::string_view help() const override {
    return "what a model is: architecture, sizes, types, tokenizer";
  }
  void add_options(CLI::App& app) override {
    app.add_option("MODEL", model_, "model folder")->required();
  }

  Status run() override {
    QUELL_TRY(model, model::Model::load(model_, {limits.allow_links_outside}));
    std::map<std::string, std::uint64_t> dtypes;
    for (const io::TensorInfo& tensor : model.checkpoint().tensors()) {
      dtypes[std::string(to_string(tensor.dtype))] += tensor.bytes;
    }
    auto tokenizer = tokenizer::Tokenizer::read(model.folder());
    const model::ModelConfig& config = model.config();
    const std::string layout(model.quantized().empty() ? "" : model.quantized().layout());

    if (limits.json) {
      io::Json json = begin_json("inspect");
      json.set("architecture", config.architecture);
      json.set("parameters", model.parameters());
      json.set("bytes", model.checkpoint().total_bytes());
      json.set("layers", config.layers);
      json.set("hidden_size", config.hidden);
      json.set("vocab_size", config.vocabulary);
      io::Json types = io::Json::object();
      for (const auto& [type, bytes] : dtypes) types.set(type, bytes);
      json.set("dtypes", std::move(types));
      json.set("shards", static_cast<std::uint64_t>(model.checkpoint().files().size()));
      json.set("tied_head", model.has_head() ? io::Json(model.tied_head()) : io::Json());
      if (!model.has_head()) json.set("pooling", to_string(config.pooling));
      json.set("tokenizer", tokenizer ? io::Json(tokenizer->model_type()) : io::Json());
      json.set("quantized", layout.empty() ? io::Json() : io::Json(layout));
      io::Json warnings = io::Json::array();
      for (const std::string& warning : model.warnings()) warnings.push(warning);
      json.set("warnings", std::move(warnings));
      print_json(std::move(json));
      return ok();
    }

    std::string types;
    for (const auto& [type, bytes] : dtypes) {
      types += (types.empty() ? "" : ", ") + type + " " + size_text(bytes);
    }
    fmt::print("{}  {} layers, hidden {}, {} heads ({} for keys and values), {} positions\n",
               config.architecture, config.layers, config.hidden, config.heads, config.kv_heads,
               config.max_positions);
    fmt::print("Size       {} parameters, {} in {} file{} ({})\n", count_text(model.parameters()),
               size_text(model.checkpoint().total_bytes()), model.checkpoint().files().size(),
               model.checkpoint().files().size() == 1 ? "" : "s", types);
    fmt::print("Head       {}, vocabulary {}\n", head_text(model), config.vocabulary);
    if (tokenizer) {
      fmt::print("Tokenizer  {}, {} tokens{}\n", tokenizer->model_type(), tokenizer->size(),
                 tokenizer->bos()
                     ? ", puts " + std::string(tokenizer->piece(*tokenizer->bos())) + " in front"
                     : "");
    } else {
      fmt::print("Tokenizer  none that can be read: {}\n", tokenizer.error().message);
    }
    if (!layout.empty()) {
      fmt::print("Quantized  {} of its layers, layout {}\n", model.quantized().modules().size(),
                 layout);
    }
    std::string features;
    for (const std::string_view feature : kernels::cpu_features())
      features += " " + std::string(feature);
    struct sysinfo memory = {};
    ::sysinfo(&memory);
    fmt::print("Machine    {} of memory, CPU features:{}\n",
               size_text(static_cast<std::uint64_t>(memory.totalram) * memory.mem_unit),
               features.empty() ? " none of the wide ones" : features);
    for (const std::string& warning : model.warnings()) fmt::print("Warning    {}\n", warning);
    if (layout.empty()) fmt::print("Next       quell quantize {} -o OUT --calib TEXT\n", model_);
    return ok();
  }

 private:
  static std::string head_text(const model::Model& model) {
    if (model.has_head()) return model.tied_head() ? "tied to the embedding" : "its own matrix";
    const bool mean = model.config().pooling == model::Pooling::mean;
    return std::string("none, an encoder; a text's embedding is ") +
           (mean ? "the mean over its tokens" : "the state of its first token");
  }

  static std::string count_text(std::uint64_t count) {
    const auto value = static_cast<double>(count);
    if (value < 1e6) return fmt::format("{}", count);
    if (value < 1e9) return fmt::format("{:.2f} M", value / 1e6);
    return fmt::format("{:.2f} B", value / 1e9);
  }

  std::string model_;
};

}  // namespace

std::unique_ptr<Command> make_inspect() {
  return std::make_unique<Inspect>();
}

}  // namespace quell::cli
