// SPDX-License-Identifier: Apache-2.0
#pragma once

// What an encoder gives: one vector of unit length for each text, and how far those of another
// model (the same one, quantized) are from them.
//
//     e(text) = pool(h) / |pool(h)|       h [T, hidden]: hidden states behind the last block
//     cosine error = 1 - e . e'           0: the same direction, 1: orthogonal, 2: opposite
//
// A pooled vector of zeros has no direction: its embedding is zero.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/core/view.hpp"
#include "quell/engine/engine.hpp"
#include "quell/engine/perplexity.hpp"  // ScoreOptions
#include "quell/kernels/context.hpp"

namespace quell::engine {

/// Embeddings [n, hidden] of the n sequences that `states` [T, hidden] holds one after the other.
/// Sums are double. Error: numeric (a state that is not finite, with its sequence).
Status pool(MatrixView<const float> states, std::span<const std::uint32_t> lengths,
            model::Pooling pooling, MatrixView<float> embeddings, Executor& executor);

/// Embeddings [n, hidden] of whole texts, pooled as the model's folder says. Errors: those of
/// Engine::embed, and numeric.
Result<Matrix> embed_texts(Engine& engine, std::span<const std::int32_t> ids,
                           std::span<const std::uint32_t> lengths,
                           const ScoreOptions& options = {});

/// 1 - cosine of two embeddings, as |a - b|^2 / 2, which is exactly 0 for equal ones and loses
/// nothing for close ones. Beside a zero: 1, and 0 if both are.
double cosine_error(std::span<const float> a, std::span<const float> b);

/// For every row the other row with the largest product, the first of equals. Needs two rows or
/// more. Errors: resource.
Result<std::vector<std::size_t>> nearest_neighbours(MatrixView<const float> embeddings,
                                                    kernels::Context& context);

struct EmbeddingComparison {
  std::vector<double> cosine_error;  // one for each text
  double hidden_relative_error = 0;  // |h' - h| / |h| over the last hidden states of all tokens
  /// Texts whose nearest other text is the same one for both models; 0 if there is one text.
  std::uint64_t same_neighbour = 0;
};
/// Both models on the same texts, pooled as the reference says. Errors: usage (other vocabularies
/// or widths), and those of embed_texts.
Result<EmbeddingComparison> compare_embeddings(Engine& reference, Engine& other,
                                               std::span<const std::int32_t> ids,
                                               std::span<const std::uint32_t> lengths,
                                               const ScoreOptions& options = {});

}  // namespace quell::engine
