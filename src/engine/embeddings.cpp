// SPDX-License-Identifier: Apache-2.0

// Texts go through the blocks in parts, as in perplexity.cpp; of each part only the embeddings and
// two sums are kept. Neighbours are found from the products of all pairs, a band of rows at a time.

#include "quell/engine/embeddings.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "engine/parts.hpp"
#include "quell/kernels/gemm.hpp"

namespace quell::engine {
namespace {

// Products of all pairs held at a time: 32 MB are 83 rows of 100,000 texts.
constexpr std::uint64_t kPairBytes = 32u << 20;

double norm(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return std::sqrt(sum);
}

bool is_zero(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return value == 0; });
}

/// |y - x|^2 and |x|^2. Both are summed row by row in the order of the text, whatever its cut.
struct Distance {
  double error = 0, reference = 0;
  void add(MatrixView<const float> x, MatrixView<const float> y) {
    for (std::size_t t = 0; t < x.rows(); ++t) {
      const auto a = x.row(t), b = y.row(t);
      double row_error = 0, row_reference = 0;
      for (std::size_t i = 0; i < a.size(); ++i) {
        const double value = static_cast<double>(a[i]);
        const double difference = static_cast<double>(b[i]) - value;
        row_error += difference * difference;
        row_reference += value * value;
      }
      error += row_error;
      reference += row_reference;
    }
  }
  double relative() const {
    if (reference > 0) return std::sqrt(error / reference);
    return error > 0 ? 1 : 0;
  }
};

}  // namespace

Status pool(MatrixView<const float> states, std::span<const std::uint32_t> lengths,
            model::Pooling pooling, MatrixView<float> embeddings, Executor& executor) {
  QUELL_ASSERT(embeddings.rows() == lengths.size() && embeddings.cols() == states.cols());
  std::vector<std::size_t> first(lengths.size());
  std::size_t total = 0;
  for (std::size_t s = 0; s < lengths.size(); ++s) {
    first[s] = total;
    total += lengths[s];
  }
  QUELL_ASSERT(total == states.rows());
  std::vector<std::uint8_t> finite(lengths.size(), 1);
  executor.run(lengths.size(), 1, [&](std::size_t begin, std::size_t end, unsigned) {
    std::vector<double> sum(states.cols());
    for (std::size_t s = begin; s < end; ++s) {
      std::fill(sum.begin(), sum.end(), 0.0);
      const std::size_t rows = pooling == model::Pooling::first ? 1 : lengths[s];
      for (std::size_t t = 0; t < rows; ++t) {
        const auto row = states.row(first[s] + t);
        for (std::size_t i = 0; i < row.size(); ++i) sum[i] += static_cast<double>(row[i]);
      }
      // The mean and the sum have the same direction. Sums of float32 stay far inside double.
      const double length = norm(sum);
      finite[s] = std::isfinite(length) ? 1 : 0;
      const auto out = embeddings.row(s);
      for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = length > 0 ? static_cast<float>(sum[i] / length) : 0;
      }
    }
  });
  for (std::size_t s = 0; s < finite.size(); ++s) {
    if (finite[s] != 0) continue;
    return Error{ErrorCode::numeric, "the hidden states of text " + std::to_string(s) +
                                         " are not finite; the weights overflow float32"};
  }
  return ok();
}

Result<Matrix> embed_texts(Engine& engine, std::span<const std::int32_t> ids,
                           std::span<const std::uint32_t> lengths, const ScoreOptions& options) {
  QUELL_TRY(check_total(ids, lengths));
  const model::ModelConfig& config = engine.model().config();
  QUELL_TRY(embeddings, Matrix::uninitialized(lengths.size(), config.hidden));
  Progress progress(options, ids.size() * std::uint64_t{config.layers});
  for (const Part& part : cut(lengths, config.hidden, options.hidden_bytes)) {
    const auto part_lengths = lengths.subspan(part.first_sequence, part.sequences);
    QUELL_TRY(x, run_blocks(engine, ids.subspan(part.first_token, part.tokens), part_lengths,
                            options.source, nullptr, &progress));
    QUELL_TRY(pool(x.view(), part_lengths, config.pooling,
                   embeddings.view().rows_from(part.first_sequence, part.sequences),
                   engine.context().executor()));
  }
  return embeddings;
}

double cosine_error(std::span<const float> a, std::span<const float> b) {
  QUELL_ASSERT(a.size() == b.size());
  const bool a_is_zero = is_zero(a), b_is_zero = is_zero(b);
  if (a_is_zero || b_is_zero) return a_is_zero && b_is_zero ? 0 : 1;
  double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    squares += difference * difference;
  }
  return squares / 2;
}

Result<std::vector<std::size_t>> nearest_neighbours(MatrixView<const float> embeddings,
                                                    kernels::Context& context) {
  const std::size_t count = embeddings.rows();
  QUELL_ASSERT(count >= 2);
  QUELL_TRY(packed, kernels::pack(embeddings, context.executor()));
  const std::size_t step = static_cast<std::size_t>(
      std::clamp<std::uint64_t>(kPairBytes / (count * sizeof(float)), 1, count));
  QUELL_TRY(products, Matrix::uninitialized(step, count));
  std::vector<std::size_t> nearest(count);
  for (std::size_t first = 0; first < count; first += step) {
    const std::size_t rows = std::min(step, count - first);
    const auto band = products.view().rows_from(0, rows);
    QUELL_TRY(kernels::gemm(embeddings.rows_from(first, rows), packed, band, context));
    context.executor().run(rows, 1, [&](std::size_t begin, std::size_t end, unsigned) {
      for (std::size_t r = begin; r < end; ++r) {
        const auto row = band.row(r);
        const std::size_t self = first + r;
        std::size_t best = self == 0 ? 1 : 0;
        for (std::size_t other = best + 1; other < count; ++other) {
          if (other != self && row[other] > row[best]) best = other;
        }
        nearest[self] = best;
      }
    });
  }
  return nearest;
}

Result<EmbeddingComparison> compare_embeddings(Engine& reference, Engine& other,
                                               std::span<const std::int32_t> ids,
                                               std::span<const std::uint32_t> lengths,
                                               const ScoreOptions& options) {
  QUELL_TRY(check_total(ids, lengths));
  const model::ModelConfig& config = reference.model().config();
  const model::ModelConfig& other_config = other.model().config();
  if (config.vocabulary != other_config.vocabulary || config.hidden != other_config.hidden) {
    return Error{ErrorCode::usage, "the models cannot be compared: one has a vocabulary of " +
                                       std::to_string(config.vocabulary) + " and hidden size " +
                                       std::to_string(config.hidden) + ", the other of " +
                                       std::to_string(other_config.vocabulary) + " and " +
                                       std::to_string(other_config.hidden)};
  }
  Executor& executor = other.context().executor();
  QUELL_TRY(expected, Matrix::uninitialized(lengths.size(), config.hidden));
  QUELL_TRY(found, Matrix::uninitialized(lengths.size(), config.hidden));
  Progress progress(options, ids.size() * (std::uint64_t{config.layers} + other_config.layers));
  Distance distance;
  for (const Part& part : cut(lengths, config.hidden, options.hidden_bytes / 2)) {
    const auto part_ids = ids.subspan(part.first_token, part.tokens);
    const auto part_lengths = lengths.subspan(part.first_sequence, part.sequences);
    QUELL_TRY(x, run_blocks(reference, part_ids, part_lengths, options.reference_source, nullptr,
                            &progress));
    QUELL_TRY(y, run_blocks(other, part_ids, part_lengths, options.source, nullptr, &progress));
    distance.add(x.view(), y.view());
    QUELL_TRY(pool(x.view(), part_lengths, config.pooling,
                   expected.view().rows_from(part.first_sequence, part.sequences), executor));
    QUELL_TRY(pool(y.view(), part_lengths, config.pooling,
                   found.view().rows_from(part.first_sequence, part.sequences), executor));
  }

  EmbeddingComparison result;
  result.hidden_relative_error = distance.relative();
  for (std::size_t s = 0; s < lengths.size(); ++s) {
    result.cosine_error.push_back(cosine_error(expected.row(s), found.row(s)));
  }
  if (lengths.size() < 2) return result;
  QUELL_TRY(before, nearest_neighbours(expected.view(), other.context()));
  QUELL_TRY(after, nearest_neighbours(found.view(), other.context()));
  for (std::size_t s = 0; s < lengths.size(); ++s) {
    if (before[s] == after[s]) ++result.same_neighbour;
  }
  return result;
}

}  // namespace quell::engine
