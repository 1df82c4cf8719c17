// SPDX-License-Identifier: Apache-2.0
#pragma once

// The proof: perplexity of a model, and how far it is from the original, in lock step. An encoder
// predicts nothing; it is measured by how far its embeddings are from the original's.

#include <cstdint>
#include <optional>
#include <vector>

#include "quell/calib/corpus.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/engine/perplexity.hpp"
#include "quell/io/json.hpp"
#include "quell/model/model.hpp"
#include "quell/pipeline/observer.hpp"

namespace quell::pipeline {

struct LayerError {
  std::uint32_t layer = 0;
  double relative_error = 0;  // |x - x_reference| / |x_reference| of the residual stream after it
};

struct Against {
  double nll = 0, perplexity = 0;  // of the reference
  engine::Summary kl;              // nats per token, reference to model
  double kl_standard_error = 0;    // of the mean, sequences taken as the independent draws
  double top1_agreement = 0;       // share of tokens where both favour the same one
  std::vector<LayerError> layers;  // over the first chunk, at most 2,048 tokens
};

/// Of an encoder, over the evaluated texts.
struct EmbeddingsAgainst {
  std::uint64_t texts = 0;
  double cosine_error_mean = 0, cosine_error_max = 0;  // 1 - cosine of the two embeddings
  double hidden_relative_error = 0;  // |h - h_reference| / |h_reference|, last hidden states
  /// Share of texts whose nearest other text stays the same; nothing where there is one text.
  std::optional<double> nearest_neighbour_agreement;
  std::vector<LayerError> layers;  // as in Against

  io::Json to_json() const;
};

struct Evaluation {
  std::uint64_t tokens = 0;  // scored; of an encoder, fed
  double nll = 0;            // mean per token, nats
  double nll_standard_error = 0;
  double perplexity = 0;
  double perplexity_standard_error = 0;  // perplexity * that of nll
  std::optional<Against> against;
  std::optional<EmbeddingsAgainst> embeddings;  // an encoder's, in place of all but `tokens`

  io::Json to_json() const;
};

/// What evaluate() needs of its models, before any text is read. Errors: usage (an encoder without
/// a reference, or beside a model that is none).
Status check_evaluation(const model::Model& model, const model::Model* reference);

/// `reference` may be null, except for an encoder; `engine_options` are those of `model`. Errors:
/// those of check_evaluation, usage (vocabularies of different sizes), numeric.
Result<Evaluation> evaluate(const model::Model& model, const model::Model* reference,
                            const calib::Corpus& corpus, std::uint64_t max_memory,
                            Executor& executor, Observer& observer,
                            const engine::EngineOptions& engine_options = {});

}  // namespace quell::pipeline
