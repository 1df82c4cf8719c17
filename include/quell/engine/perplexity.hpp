// SPDX-License-Identifier: Apache-2.0
#pragma once

// How well a model predicts a text, and how far one model's predictions are from another's. Logits
// at position i predict token i + 1, so the first token of a sequence is not scored:
//
//     NLL(i) = -ln softmax(logits[i])[ids[i + 1]]        perplexity = exp(mean NLL)
//     KL(i)  = sum_v P(v) (ln P(v) - ln Q(v))            P of the reference, Q of the other; in
//     nats
//
// Sums are double, from the float32 logits on. Two models go in lock step, so that no logits are
// kept.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/engine/engine.hpp"

namespace quell::engine {

/// -ln softmax(logits)[target] >= 0. NaN if a logit is not finite.
double negative_log_likelihood(std::span<const float> logits, std::size_t target);
/// KL(P || Q) >= 0; exactly 0 for equal rows. NaN if a logit is not finite.
double kl_divergence(std::span<const float> reference, std::span<const float> other);
/// Index of the largest logit, the first of equals.
std::size_t top_token(std::span<const float> logits);

/// The median is the mean of the two middle values for an even count; p99 is the smallest value
/// that at least 99 % of the values do not exceed.
struct Summary {
  std::uint64_t count = 0;
  double mean = 0;
  double standard_error = 0;  // of the mean, values taken as independent: s / sqrt(n), 0 for n < 2
  double median = 0, p99 = 0, max = 0;
};
Summary summarize(std::span<const double> values);

/// Standard error of the mean over all values when those of one sequence go together: the sequences
/// are the independent draws (a ratio estimate). `counts` has the number of values of each
/// sequence. 0 for fewer than two sequences.
double clustered_standard_error(std::span<const double> values,
                                std::span<const std::uint32_t> counts);

struct ScoreOptions {
  /// Hidden states held at a time; each part of the text of that size reads all blocks once.
  std::uint64_t hidden_bytes = 256u << 20;
  /// Weights to use in place of the model's own, for the scored model and for the reference.
  WeightSource* source = nullptr;
  WeightSource* reference_source = nullptr;
  /// Called with work done and in all (tokens times blocks, the head counting as one).
  std::function<void(std::uint64_t, std::uint64_t)> progress;
};

struct Scores {
  std::vector<double> nll;            // one for each scored token, in the order of the text
  std::vector<std::uint32_t> counts;  // scored tokens of each sequence
};
/// Errors: those of Engine::embed, unsupported (an encoder, which predicts nothing), and numeric
/// (logits that are not finite, with sequence and token).
Result<Scores> score(Engine& engine, std::span<const std::int32_t> ids,
                     std::span<const std::uint32_t> lengths, const ScoreOptions& options = {});

struct Comparison {
  std::vector<double> reference_nll, nll, kl;  // one for each scored token
  std::vector<std::uint32_t> counts;
  std::uint64_t same_top = 0;  // scored tokens at which both give the same token the largest logit
};
/// Scores both models on the same text. They must share the vocabulary size (usage otherwise) and
/// have heads (unsupported; compare_embeddings is for encoders).
Result<Comparison> compare(Engine& reference, Engine& other, std::span<const std::int32_t> ids,
                           std::span<const std::uint32_t> lengths,
                           const ScoreOptions& options = {});

/// Hidden states [sum of lengths, hidden] after all blocks, one block resident at a time. For an
/// encoder they are the last hidden states that it gives.
Result<Matrix> hidden_states(Engine& engine, std::span<const std::int32_t> ids,
                             std::span<const std::uint32_t> lengths, WeightSource* source = nullptr,
                             Tap* tap = nullptr);

}  // namespace quell::engine
