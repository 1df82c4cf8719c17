// SPDX-License-Identifier: Apache-2.0
#pragma once

// The one hook through which the engine shows intermediate tensors.

#include <cstddef>
#include <cstdint>
#include <span>

#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/model/model.hpp"

namespace quell::engine {

/// Queries that are this close behind a key are left out of its attention mass: with few keys to
/// choose from, every key gets much.
inline constexpr std::size_t kMassGap = 16;

/// What one head does with the probabilities of one sequence, all queries counted.
struct AttentionZeros {
  std::uint64_t visible = 0, zeros = 0;    // pairs of query and key it sees; those of exactly 0
  std::uint64_t rows = 0, empty_rows = 0;  // queries; those whose probabilities are all 0
};

/// Attention of one sequence in one block, summed over queries.
struct AttentionMass {
  /// [heads, T]: sum of the probabilities P[i, j] of key j over the queries i >= j + kMassGap; over
  /// all queries where attention looks both ways.
  MatrixView<const double> mass;
  /// [heads, T]: the same over queries that are closer, of the `rows` queries at kMassGap and
  /// after. Over all keys, mass and near together count each of these queries once.
  MatrixView<const double> near;
  std::size_t rows = 0;
  /// Queries behind each number of column j.
  std::span<const std::uint32_t> queries;
  MatrixView<const float> values;  // [T, kv_heads * head_dim]
  std::size_t head_dim = 0;
  std::span<const AttentionZeros> zeros;  // [heads], or empty where they are not wanted
};

class Tap {
 public:
  virtual ~Tap() = default;
  /// The input of the linears at `site` of block `layer`: [T, IC], the rows of several whole
  /// sequences one after the other, in the order they were fed. Rows may be further apart than IC.
  /// Called from the calling thread, once for every group of sequences.
  virtual Status input(std::uint32_t layer, model::Site site, MatrixView<const float> x) = 0;
  /// The residual stream after the block (layer = -1: after the embedding).
  virtual Status residual(std::int32_t /*layer*/, MatrixView<const float> /*x*/) { return ok(); }
  /// Whether attention() is wanted: it costs a pass over the probabilities.
  virtual bool wants_attention() const { return false; }
  /// Whether AttentionMass::zeros is wanted too.
  virtual bool wants_zeros() const { return false; }
  /// After a block's attention, sequence by sequence in the order they were fed.
  virtual Status attention(std::uint32_t /*layer*/, const AttentionMass& /*mass*/) { return ok(); }
};

}  // namespace quell::engine
