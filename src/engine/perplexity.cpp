// SPDX-License-Identifier: Apache-2.0

// The text is cut into parts of whole sequences whose hidden states fit in memory; a part goes
// through all blocks, then its logits are made a few rows at a time and scored row by row over the
// threads. Rows land in their own places, so the sums do not depend on the cut or the threads.

#include "quell/engine/perplexity.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "engine/parts.hpp"

namespace quell::engine {
namespace {

// Logits held at a time for one model. A large head is packed anew for every such piece, which
// costs as much as multiplying it with some 250 rows; 96 MB are 786 rows of 32,000. They are
// allocated when no block is resident.
constexpr std::uint64_t kLogitBytes = 96u << 20;

/// ln sum exp(x - max) in double and the maximum.
struct LogSum {
  double max = 0, log_sum = 0;
  double log_probability(float logit) const { return static_cast<double>(logit) - max - log_sum; }
};

LogSum log_sum(std::span<const float> logits) {
  double max = -std::numeric_limits<double>::infinity();
  for (const float logit : logits) {
    if (!std::isfinite(logit)) return {std::numeric_limits<double>::quiet_NaN(), 0};
    max = std::max(max, static_cast<double>(logit));
  }
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - max);
  return {max, std::log(sum)};
}

/// For every token, the row of its sequence's last token is not scored; scored rows know their
/// target.
struct Targets {
  static constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();
  std::vector<std::size_t> place;  // of each token: index among the scored ones, or kNone
  std::vector<std::uint32_t> counts;
  std::size_t scored = 0;
};

Targets find_targets(std::span<const std::uint32_t> lengths) {
  Targets targets;
  for (const std::uint32_t length : lengths) {
    for (std::uint32_t i = 0; i < length; ++i) {
      targets.place.push_back(i + 1 < length ? targets.scored++ : Targets::kNone);
    }
    targets.counts.push_back(length == 0 ? 0 : length - 1);
  }
  return targets;
}

Error not_finite(std::size_t token) {
  return Error{ErrorCode::numeric, "the logits at token " + std::to_string(token) +
                                       " of the text are not finite; the weights overflow float32"};
}

std::size_t logit_rows(const Engine& engine) {
  const std::uint64_t row = std::uint64_t{engine.model().config().vocabulary} * sizeof(float);
  return static_cast<std::size_t>(std::max<std::uint64_t>(1, kLogitBytes / row));
}

}  // namespace

double negative_log_likelihood(std::span<const float> logits, std::size_t target) {
  QUELL_ASSERT(target < logits.size());
  return 0.0 - log_sum(logits).log_probability(logits[target]);  // 0 - x: never -0
}

double kl_divergence(std::span<const float> reference, std::span<const float> other) {
  QUELL_ASSERT(reference.size() == other.size());
  const LogSum p = log_sum(reference), q = log_sum(other);
  double sum = 0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const double log_p = p.log_probability(reference[i]);
    sum += std::exp(log_p) * (log_p - q.log_probability(other[i]));
  }
  // Rounding can take the sum of a tiny divergence below zero, where no divergence is.
  return sum < 0 ? 0 : sum;
}

std::size_t top_token(std::span<const float> logits) {
  return static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

Summary summarize(std::span<const double> values) {
  Summary summary;
  summary.count = values.size();
  if (values.empty()) return summary;
  const double n = static_cast<double>(values.size());
  summary.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (const double value : values) squares += (value - summary.mean) * (value - summary.mean);
  if (values.size() > 1) summary.standard_error = std::sqrt(squares / (n - 1) / n);
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const std::size_t middle = sorted.size() / 2;
  summary.median = sorted.size() % 2 == 1
                       ? sorted[middle]
                       : sorted[middle - 1] + (sorted[middle] - sorted[middle - 1]) / 2;
  // ceil(0.99 n) in integers: the product in floating point may land on the wrong side.
  summary.p99 = sorted[(99 * sorted.size() + 99) / 100 - 1];
  summary.max = sorted.back();
  return summary;
}

double clustered_standard_error(std::span<const double> values,
                                std::span<const std::uint32_t> counts) {
  if (counts.size() < 2 || values.empty()) return 0;
  const double mean =
      std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  // Ratio estimate (Cochran 1977, section 2.11): the deviation of a sequence is its sum minus what
  // its length would give at the common mean.
  double squares = 0;
  std::size_t at = 0;
  for (const std::uint32_t count : counts) {
    double deviation = 0;
    for (std::uint32_t i = 0; i < count; ++i) deviation += values[at++] - mean;
    squares += deviation * deviation;
  }
  const double m = static_cast<double>(counts.size());
  return std::sqrt(squares * m / (m - 1)) / static_cast<double>(values.size());
}

Result<Matrix> hidden_states(Engine& engine, std::span<const std::int32_t> ids,
                             std::span<const std::uint32_t> lengths, WeightSource* source,
                             Tap* tap) {
  return run_blocks(engine, ids, lengths, source, tap, nullptr);
}

Result<Scores> score(Engine& engine, std::span<const std::int32_t> ids,
                     std::span<const std::uint32_t> lengths, const ScoreOptions& options) {
  QUELL_TRY(check_total(ids, lengths));
  QUELL_TRY(model::expect_head(engine.model()));
  const model::ModelConfig& config = engine.model().config();
  Targets targets = find_targets(lengths);
  Scores scores;
  scores.counts = std::move(targets.counts);
  scores.nll.resize(targets.scored);
  Progress progress(options, ids.size() * (std::uint64_t{config.layers} + 1));
  const std::size_t step = logit_rows(engine);

  for (const Part& part : cut(lengths, config.hidden, options.hidden_bytes)) {
    const auto part_ids = ids.subspan(part.first_token, part.tokens);
    const auto part_lengths = lengths.subspan(part.first_sequence, part.sequences);
    QUELL_TRY(x, run_blocks(engine, part_ids, part_lengths, options.source, nullptr, &progress));
    QUELL_TRY(logits, Matrix::uninitialized(std::min(step, part.tokens), config.vocabulary));
    for (std::size_t first = 0; first < part.tokens; first += step) {
      const std::size_t rows = std::min(step, part.tokens - first);
      const auto out = logits.view().rows_from(0, rows);
      QUELL_TRY(engine.logits(x.view().rows_from(first, rows), out));
      const std::size_t token = part.first_token + first;
      engine.context().executor().run(rows, 1, [&](std::size_t begin, std::size_t end, unsigned) {
        for (std::size_t row = begin; row < end; ++row) {
          const std::size_t place = targets.place[token + row];
          if (place == Targets::kNone) continue;
          scores.nll[place] =
              negative_log_likelihood(out.row(row), static_cast<std::size_t>(ids[token + row + 1]));
        }
      });
      for (std::size_t row = 0; row < rows; ++row) {
        const std::size_t place = targets.place[token + row];
        if (place != Targets::kNone && std::isnan(scores.nll[place]))
          return not_finite(token + row);
      }
      progress.add(rows);
    }
  }
  return scores;
}

Result<Comparison> compare(Engine& reference, Engine& other, std::span<const std::int32_t> ids,
                           std::span<const std::uint32_t> lengths, const ScoreOptions& options) {
  QUELL_TRY(check_total(ids, lengths));
  QUELL_TRY(model::expect_head(reference.model()));
  QUELL_TRY(model::expect_head(other.model()));
  const model::ModelConfig& config = reference.model().config();
  const model::ModelConfig& other_config = other.model().config();
  if (config.vocabulary != other_config.vocabulary) {
    return Error{ErrorCode::usage, "the models cannot be compared: one has a vocabulary of " +
                                       std::to_string(config.vocabulary) + ", the other of " +
                                       std::to_string(other_config.vocabulary)};
  }
  Targets targets = find_targets(lengths);
  Comparison result;
  result.counts = std::move(targets.counts);
  result.reference_nll.resize(targets.scored);
  result.nll.resize(targets.scored);
  result.kl.resize(targets.scored);
  std::vector<std::uint8_t> same(targets.scored);
  Progress progress(options, ids.size() * (std::uint64_t{config.layers} + other_config.layers + 1));
  const std::size_t step = logit_rows(reference);

  const std::size_t hidden = std::max(config.hidden, other_config.hidden);
  for (const Part& part : cut(lengths, hidden, options.hidden_bytes / 2)) {
    const auto part_ids = ids.subspan(part.first_token, part.tokens);
    const auto part_lengths = lengths.subspan(part.first_sequence, part.sequences);
    QUELL_TRY(x, run_blocks(reference, part_ids, part_lengths, options.reference_source, nullptr,
                            &progress));
    QUELL_TRY(y, run_blocks(other, part_ids, part_lengths, options.source, nullptr, &progress));
    QUELL_TRY(p, Matrix::uninitialized(std::min(step, part.tokens), config.vocabulary));
    QUELL_TRY(q, Matrix::uninitialized(std::min(step, part.tokens), config.vocabulary));
    for (std::size_t first = 0; first < part.tokens; first += step) {
      const std::size_t rows = std::min(step, part.tokens - first);
      const auto p_rows = p.view().rows_from(0, rows), q_rows = q.view().rows_from(0, rows);
      QUELL_TRY(reference.logits(x.view().rows_from(first, rows), p_rows));
      QUELL_TRY(other.logits(y.view().rows_from(first, rows), q_rows));
      const std::size_t token = part.first_token + first;
      other.context().executor().run(rows, 1, [&](std::size_t begin, std::size_t end, unsigned) {
        for (std::size_t row = begin; row < end; ++row) {
          const std::size_t place = targets.place[token + row];
          if (place == Targets::kNone) continue;
          const auto target = static_cast<std::size_t>(ids[token + row + 1]);
          result.reference_nll[place] = negative_log_likelihood(p_rows.row(row), target);
          result.nll[place] = negative_log_likelihood(q_rows.row(row), target);
          result.kl[place] = kl_divergence(p_rows.row(row), q_rows.row(row));
          same[place] = top_token(p_rows.row(row)) == top_token(q_rows.row(row));
        }
      });
      for (std::size_t row = 0; row < rows; ++row) {
        const std::size_t place = targets.place[token + row];
        if (place != Targets::kNone && std::isnan(result.kl[place])) return not_finite(token + row);
      }
      progress.add(rows);
    }
  }
  for (const std::uint8_t one : same) result.same_top += one;
  return result;
}

}  // namespace quell::engine
