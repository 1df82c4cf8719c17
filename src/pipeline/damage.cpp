// SPDX-License-Identifier: Apache-2.0

#include "pipeline/damage.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "quell/engine/embeddings.hpp"
#include "quell/engine/perplexity.hpp"

namespace quell::pipeline {
namespace {

// Logits of the original and of one changed model, held at a time.
constexpr std::uint64_t kLogitBytes = 96u << 20;

double largest(std::span<const float> logits) {
  double max = -std::numeric_limits<double>::infinity();
  for (const float logit : logits) {
    if (!std::isfinite(logit)) return std::numeric_limits<double>::quiet_NaN();
    max = std::max(max, static_cast<double>(logit));
  }
  return max;
}

/// p = softmax(logits); returns its entropy in nats, NaN if a logit is not finite. Many models are
/// compared with one, so what exponentials that one needs are taken once.
double probabilities(std::span<const float> logits, std::span<double> p) {
  const double max = largest(logits);
  double sum = 0, weighted = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double shifted = static_cast<double>(logits[i]) - max;
    p[i] = std::exp(shifted);
    sum += p[i];
    weighted += p[i] * shifted;
  }
  for (double& value : p) value /= sum;
  return std::log(sum) - weighted / sum;
}

/// -sum p ln softmax(logits).
double cross_entropy(std::span<const double> p, std::span<const float> logits) {
  const double max = largest(logits);
  double sum = 0, weighted = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double shifted = static_cast<double>(logits[i]) - max;
    sum += std::exp(shifted);
    weighted += p[i] * shifted;
  }
  return std::log(sum) - weighted;
}

Result<Matrix> pooled(engine::Engine& engine, MatrixView<const float> states,
                      std::span<const std::uint32_t> lengths) {
  QUELL_TRY(embeddings, Matrix::uninitialized(lengths.size(), states.cols()));
  QUELL_TRY(engine::pool(states, lengths, engine.model().config().pooling, embeddings.view(),
                         engine.context().executor()));
  return embeddings;
}

}  // namespace

Result<Damage> Damage::create(engine::Engine& engine, Matrix original,
                              std::span<const std::uint32_t> lengths) {
  if (!engine.model().has_head()) {
    QUELL_TRY(embeddings, pooled(engine, original.view(), lengths));
    original = std::move(embeddings);
  }
  return Damage(engine, std::move(original), lengths);
}

Result<std::vector<DamageValue>> Damage::measure(std::span<const Matrix> changed) const {
  return engine_->model().has_head() ? of_predictions(changed) : of_embeddings(changed);
}

Result<std::vector<DamageValue>> Damage::of_embeddings(std::span<const Matrix> changed) const {
  std::vector<DamageValue> values;
  for (const Matrix& states : changed) {
    QUELL_TRY(embeddings, pooled(*engine_, states.view(), lengths_));
    std::vector<double> errors;
    for (std::size_t text = 0; text < lengths_.size(); ++text) {
      errors.push_back(engine::cosine_error(original_.row(text), embeddings.row(text)));
    }
    const engine::Summary summary = engine::summarize(errors);
    values.push_back({summary.mean, summary.standard_error});
  }
  return values;
}

Result<std::vector<DamageValue>> Damage::of_predictions(std::span<const Matrix> changed) const {
  const std::size_t tokens = original_.rows();
  const std::size_t vocabulary = engine_->model().config().vocabulary;
  const std::size_t step = static_cast<std::size_t>(std::clamp<std::uint64_t>(
      kLogitBytes / ((sizeof(float) + sizeof(double)) * std::uint64_t{vocabulary}), 1, tokens));
  QUELL_TRY(logits, Matrix::uninitialized(step, vocabulary));
  QUELL_TRY(p, Matrix64::uninitialized(step, vocabulary));
  std::vector<double> entropy(step);
  std::vector<std::vector<double>> kl(changed.size(), std::vector<double>(tokens));
  Executor& executor = engine_->context().executor();
  for (std::size_t first = 0; first < tokens; first += step) {
    const std::size_t rows = std::min(step, tokens - first);
    const auto out = logits.view().rows_from(0, rows);
    QUELL_TRY(engine_->logits(original_.view().rows_from(first, rows), out));
    executor.run(rows, 1, [&](std::size_t begin, std::size_t end, unsigned) {
      for (std::size_t row = begin; row < end; ++row) {
        entropy[row] = probabilities(out.row(row), p.row(row));
      }
    });
    for (std::size_t i = 0; i < changed.size(); ++i) {
      QUELL_TRY(engine_->logits(changed[i].view().rows_from(first, rows), out));
      executor.run(rows, 1, [&](std::size_t begin, std::size_t end, unsigned) {
        for (std::size_t row = begin; row < end; ++row) {
          const double divergence = cross_entropy(p.row(row), out.row(row)) - entropy[row];
          // Rounding can take a tiny divergence below zero. A NaN stays one.
          kl[i][first + row] = divergence < 0 ? 0 : divergence;
        }
      });
    }
  }
  // As in `eval`: the prediction at the last token of a sequence has nothing to be judged by.
  std::vector<std::uint32_t> counts;
  for (const std::uint32_t length : lengths_) counts.push_back(length - 1);
  std::vector<DamageValue> values;
  for (std::vector<double>& each : kl) {
    const auto bad = std::find_if(each.begin(), each.end(), [](double v) { return std::isnan(v); });
    if (bad != each.end()) {
      return Error{ErrorCode::numeric, "the logits at token " + std::to_string(bad - each.begin()) +
                                           " of the text are not finite; the weights overflow "
                                           "float32"};
    }
    std::size_t kept = 0, token = 0;
    for (const std::uint32_t count : counts) {
      for (std::uint32_t i = 0; i < count; ++i) each[kept++] = each[token++];
      ++token;
    }
    each.resize(kept);
    const engine::Summary summary = engine::summarize(each);
    values.push_back({summary.mean, counts.size() > 1
                                        ? engine::clustered_standard_error(each, counts)
                                        : summary.standard_error});
  }
  return values;
}

}  // namespace quell::pipeline
