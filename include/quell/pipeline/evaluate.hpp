// SPDX-License-Identifier: Apache-2.0
#pragma once

// The proof: perplexity of a model, and how far it is from the original, in lock step.

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

struct Evaluation {
  std::uint64_t tokens = 0;  // scored
  double nll = 0;            // mean per token, nats
  double nll_standard_error = 0;
  double perplexity = 0;
  double perplexity_standard_error = 0;  // perplexity * that of nll
  std::optional<Against> against;

  io::Json to_json() const;
};

/// `reference` may be null. Errors: usage (vocabularies of different sizes), numeric.
Result<Evaluation> evaluate(const model::Model& model, const model::Model* reference,
                            const calib::Corpus& corpus, std::uint64_t max_memory,
                            Executor& executor, Observer& observer);

}  // namespace quell::pipeline
