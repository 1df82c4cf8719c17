// SPDX-License-Identifier: Apache-2.0

// `quell eval`: perplexity with its error, and with --against the distance to the original.

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>

#include "cli/command.hpp"
#include "quell/pipeline/evaluate.hpp"

namespace quell::cli {
namespace {

class Evaluate final : public Command {
 public:
  std::string_view name() const override { return "eval"; }
  std::string_view help() const override {
    return "perplexity; with --against, KL divergence and agreement, or an encoder's embeddings";
  }
  void add_options(CLI::App& app) override {
    app.add_option("MODEL", model_, "model folder, quantized or not")->required();
    app.add_option("--against", reference_, "the original, to compare with");
    app.add_option("--max-kl", max_kl_, "exit 6 if the mean KL divergence exceeds this");
    app.add_flag("--kernels", kernels_,
                 "multiply quantized weights as they are stored, as an inference engine would; "
                 "without it they are written out as float32");
    arithmetic_.add(app);
    add_evaluation(app, data_);
  }

  Status run() override {
    if (!data_.given())
      return Error{ErrorCode::usage, "no evaluation text: give --text FILE, or --ids FILE.npy"};
    if (max_kl_ && reference_.empty()) return Error{ErrorCode::usage, "--max-kl needs --against"};
    QUELL_TRY(options, arithmetic_.options(kernels_ ? engine::Arithmetic::packed
                                                    : engine::Arithmetic::dequantized));
    const std::unique_ptr<Executor> executor = make_openmp_executor(limits.threads);
    const std::unique_ptr<pipeline::Observer> observer = make_observer(limits);
    QUELL_TRY(model, model::Model::load(model_, {limits.allow_links_outside}));
    std::optional<model::Model> reference;
    if (!reference_.empty()) {
      QUELL_TRY(loaded, model::Model::load(reference_, {limits.allow_links_outside}));
      reference.emplace(std::move(loaded));
    }
    QUELL_TRY(pipeline::check_evaluation(model, reference ? &*reference : nullptr));
    QUELL_TRY(check_max_kl(model, max_kl_));
    if (options.cache != kernels::CacheKind::f32 && !model.has_head()) {
      return Error{ErrorCode::usage, "--cache " + arithmetic_.cache + ": " +
                                         model.config().architecture +
                                         " is an encoder, which has no cache; leave it out"};
    }
    QUELL_TRY(corpus, read_corpus(model, data_, false));
    for (const std::string& note : corpus.notes) observer->note(note);
    QUELL_TRY(evaluation, pipeline::evaluate(model, reference ? &*reference : nullptr, corpus,
                                             limits.max_memory, *executor, *observer, options));
    close_progress_line();
    if (limits.json) {
      io::Json json = begin_json("eval");
      json.set("cache", arithmetic_.cache);
      const io::Json results = evaluation.to_json();
      for (const auto& [name, value] : results.members()) json.set(name, value);
      print_json(std::move(json));
    } else {
      print_evaluation(evaluation, data_.length);
    }
    return check_kl(evaluation, max_kl_);
  }

 private:
  std::string model_, reference_;
  std::optional<double> max_kl_;
  ArithmeticArguments arithmetic_;
  bool kernels_ = false;
  TextOptions data_;
};

void print_layers(const std::vector<pipeline::LayerError>& layers) {
  if (layers.empty()) return;
  const auto growth = [](const pipeline::LayerError& error) { return error.relative_error; };
  const auto worst =
      std::max_element(layers.begin(), layers.end(),
                       [&](const auto& a, const auto& b) { return growth(a) < growth(b); });
  fmt::print(
      "Layers      error of the residual stream {:.4f} after the last block, largest {:.4f} "
      "after block {}\n",
      layers.back().relative_error, worst->relative_error, worst->layer);
}

void print_embeddings(const pipeline::Evaluation& evaluation) {
  const pipeline::EmbeddingsAgainst& against = *evaluation.embeddings;
  fmt::print("Embeddings  cosine error {:.3e} mean, {:.3e} largest  ({} texts, {} tokens)\n",
             against.cosine_error_mean, against.cosine_error_max, against.texts, evaluation.tokens);
  fmt::print("Hidden      relative error {:.4f} of the last hidden states\n",
             against.hidden_relative_error);
  if (against.nearest_neighbour_agreement) {
    fmt::print("Neighbours  {:.2f} % of texts keep their nearest one\n",
               100 * *against.nearest_neighbour_agreement);
  }
  print_layers(against.layers);
}

}  // namespace

void print_evaluation(const pipeline::Evaluation& evaluation, std::uint32_t context) {
  if (evaluation.embeddings) return print_embeddings(evaluation);
  fmt::print("Perplexity  {:.4f} +- {:.4f}  ({} tokens scored, mean NLL {:.6f}{})\n",
             evaluation.perplexity, evaluation.perplexity_standard_error, evaluation.tokens,
             evaluation.nll, context != 0 ? fmt::format(", context {}", context) : std::string());
  if (!evaluation.against) return;
  const pipeline::Against& against = *evaluation.against;
  fmt::print("Original    {:.4f}  (mean NLL {:.6f})\n", against.perplexity, against.nll);
  fmt::print(
      "KL          {:.5f} +- {:.5f}  median {:.5f}, 99 % {:.4f}, max {:.3f} nats per token\n",
      against.kl.mean, against.kl_standard_error, against.kl.median, against.kl.p99,
      against.kl.max);
  fmt::print("Same top    {:.2f} % of tokens\n", 100 * against.top1_agreement);
  print_layers(against.layers);
}

Status check_max_kl(const model::Model& model, std::optional<double> max_kl) {
  if (!max_kl || model.has_head()) return ok();
  return Error{ErrorCode::usage, "--max-kl limits how far predictions go apart, and " +
                                     model.config().architecture +
                                     " is an encoder, which predicts nothing; leave it out"};
}

Status check_kl(const pipeline::Evaluation& evaluation, std::optional<double> max_kl) {
  if (!max_kl || !evaluation.against || evaluation.against->kl.mean <= *max_kl) return ok();
  return Error{ErrorCode::verification, "the mean KL divergence is " +
                                            number_text(evaluation.against->kl.mean) +
                                            ", more than --max-kl " + number_text(*max_kl)};
}

std::unique_ptr<Command> make_evaluate() {
  return std::make_unique<Evaluate>();
}

}  // namespace quell::cli
