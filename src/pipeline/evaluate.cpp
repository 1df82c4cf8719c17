// SPDX-License-Identifier: Apache-2.0

// Scores in words that people compare: means with their standard errors, tails, and where along the
// blocks the difference comes from.

#include "quell/pipeline/evaluate.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "quell/engine/embeddings.hpp"

namespace quell::pipeline {
namespace {

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) /
         static_cast<double>(std::max<std::size_t>(values.size(), 1));
}

// Carries the first chunk through both models block by block.
Result<std::vector<LayerError>> layer_errors(engine::Engine& reference, engine::Engine& other,
                                             const calib::Corpus& corpus) {
  std::vector<LayerError> result;
  const std::size_t layers = reference.model().blocks().size();
  const std::size_t hidden = reference.model().config().hidden;
  if (layers != other.model().blocks().size() || hidden != other.model().config().hidden)
    return result;
  const calib::Chunk chunk = calib::chunks(corpus).front();
  const std::span<const std::uint32_t> lengths(corpus.lengths.data(), chunk.sequences);
  const std::span<const std::int32_t> ids(corpus.ids.data(), chunk.tokens);
  QUELL_TRY(x, Matrix::uninitialized(chunk.tokens, hidden));
  QUELL_TRY(y, Matrix::uninitialized(chunk.tokens, hidden));
  QUELL_TRY(reference.embed(ids, lengths, x.view()));
  QUELL_TRY(other.embed(ids, lengths, y.view()));
  for (std::uint32_t layer = 0; layer < layers; ++layer) {
    {
      QUELL_TRY(weights, reference.load_block(layer));
      QUELL_TRY(reference.run_block(weights, lengths, x.view()));
    }
    QUELL_TRY(weights, other.load_block(layer));
    QUELL_TRY(other.run_block(weights, lengths, y.view()));
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double a = static_cast<double>(x.data()[i]);
      const double difference = static_cast<double>(y.data()[i]) - a;
      error += difference * difference;
      norm += a * a;
    }
    result.push_back({layer, norm > 0 ? std::sqrt(error / norm) : 0});
  }
  return result;
}

io::Json layers_json(const std::vector<LayerError>& errors) {
  io::Json layers = io::Json::array();
  for (const LayerError& error : errors) {
    layers.push(
        io::Json::object({{"layer", error.layer}, {"relative_error", error.relative_error}}));
  }
  return layers;
}

Result<EmbeddingsAgainst> compare_encoders(engine::Engine& reference, engine::Engine& other,
                                           const calib::Corpus& corpus,
                                           const engine::ScoreOptions& options) {
  QUELL_TRY(compared,
            engine::compare_embeddings(reference, other, corpus.ids, corpus.lengths, options));
  EmbeddingsAgainst against;
  against.texts = compared.cosine_error.size();
  against.cosine_error_mean = mean(compared.cosine_error);
  against.cosine_error_max =
      *std::max_element(compared.cosine_error.begin(), compared.cosine_error.end());
  against.hidden_relative_error = compared.hidden_relative_error;
  if (against.texts >= 2) {
    against.nearest_neighbour_agreement =
        static_cast<double>(compared.same_neighbour) / static_cast<double>(against.texts);
  }
  QUELL_TRY(layers, layer_errors(reference, other, corpus));
  against.layers = std::move(layers);
  return against;
}

}  // namespace

Status check_evaluation(const model::Model& model, const model::Model* reference) {
  const auto name = [](const model::Model& each) {
    return each.folder().string() + " (" + each.config().architecture + ")";
  };
  if (reference != nullptr && reference->has_head() != model.has_head()) {
    const model::Model& encoder = model.has_head() ? *reference : model;
    const model::Model& decoder = model.has_head() ? model : *reference;
    return Error{ErrorCode::usage, name(encoder) + " is an encoder and " + name(decoder) +
                                       " is not; they cannot be compared"};
  }
  if (model.has_head() || reference != nullptr) return ok();
  return Error{ErrorCode::usage,
               name(model) +
                   " is an encoder, which predicts no tokens and so has no perplexity: give "
                   "--against ORIGINAL, for the cosine error of its embeddings (mean and largest), "
                   "the relative error of its hidden states and the share of texts that keep their "
                   "nearest neighbour"};
}

Result<Evaluation> evaluate(const model::Model& model, const model::Model* reference,
                            const calib::Corpus& corpus, std::uint64_t max_memory,
                            Executor& executor, Observer& observer,
                            const engine::EngineOptions& engine_options) {
  QUELL_TRY(check_evaluation(model, reference));
  QUELL_TRY(engine, engine::Engine::create(model, executor, engine_options));
  engine::ScoreOptions options;
  // Hidden states of both models and the weights of a block share the budget.
  if (max_memory != 0) {
    options.hidden_bytes =
        std::clamp<std::uint64_t>(max_memory / 8, 8u << 20, options.hidden_bytes);
  }
  options.progress = [&](std::uint64_t done, std::uint64_t total) {
    observer.progress({"evaluation", static_cast<double>(done), static_cast<double>(total), 0});
  };
  Evaluation evaluation;
  if (!model.has_head()) {
    QUELL_TRY(original, engine::Engine::create(*reference, executor));
    QUELL_TRY(against, compare_encoders(original, engine, corpus, options));
    if (const std::string note = engine.note(); !note.empty()) observer.note(note);
    evaluation.tokens = corpus.ids.size();
    evaluation.embeddings = std::move(against);
    return evaluation;
  }
  std::vector<double> nll;
  std::vector<std::uint32_t> counts;
  if (reference == nullptr) {
    QUELL_TRY(scores, engine::score(engine, corpus.ids, corpus.lengths, options));
    nll = std::move(scores.nll);
    counts = std::move(scores.counts);
  } else {
    QUELL_TRY(original, engine::Engine::create(*reference, executor));
    QUELL_TRY(compared, engine::compare(original, engine, corpus.ids, corpus.lengths, options));
    Against against;
    against.nll = mean(compared.reference_nll);
    against.perplexity = std::exp(against.nll);
    against.kl = engine::summarize(compared.kl);
    against.kl_standard_error = engine::clustered_standard_error(compared.kl, compared.counts);
    against.top1_agreement = static_cast<double>(compared.same_top) /
                             static_cast<double>(std::max<std::size_t>(compared.kl.size(), 1));
    QUELL_TRY(layers, layer_errors(original, engine, corpus));
    against.layers = std::move(layers);
    evaluation.against = std::move(against);
    nll = std::move(compared.nll);
    counts = std::move(compared.counts);
  }
  if (const std::string note = engine.note(); !note.empty()) observer.note(note);
  evaluation.tokens = nll.size();
  evaluation.nll = mean(nll);
  evaluation.nll_standard_error = engine::clustered_standard_error(nll, counts);
  evaluation.perplexity = std::exp(evaluation.nll);
  evaluation.perplexity_standard_error = evaluation.perplexity * evaluation.nll_standard_error;
  return evaluation;
}

io::Json EmbeddingsAgainst::to_json() const {
  io::Json json = io::Json::object();
  json.set("cosine_error_mean", cosine_error_mean);
  json.set("cosine_error_max", cosine_error_max);
  json.set("hidden_relative_error", hidden_relative_error);
  json.set("nearest_neighbour_agreement",
           nearest_neighbour_agreement ? io::Json(*nearest_neighbour_agreement) : io::Json());
  json.set("layers", layers_json(layers));
  return json;
}

io::Json Evaluation::to_json() const {
  io::Json json = io::Json::object();
  json.set("tokens", tokens);
  if (embeddings) {
    json.set("texts", embeddings->texts);
    json.set("against", embeddings->to_json());
    return json;
  }
  json.set("nll", nll);
  json.set("nll_stderr", nll_standard_error);
  json.set("perplexity", perplexity);
  json.set("perplexity_stderr", perplexity_standard_error);
  if (!against) return json;
  io::Json other = io::Json::object();
  other.set("nll", against->nll);
  other.set("perplexity", against->perplexity);
  other.set("kl_mean", against->kl.mean);
  other.set("kl_mean_stderr", against->kl_standard_error);
  other.set("kl_median", against->kl.median);
  other.set("kl_p99", against->kl.p99);
  other.set("kl_max", against->kl.max);
  other.set("top1_agreement", against->top1_agreement);
  other.set("layers", layers_json(against->layers));
  json.set("against", std::move(other));
  return json;
}

}  // namespace quell::pipeline
