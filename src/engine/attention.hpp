// SPDX-License-Identifier: Apache-2.0
#pragma once

// Attention of many sequences and heads at once. One pair of sequence and head is one work item,
// done by one thread with its own scratch memory, so no result depends on the number of threads.

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/scratch.hpp"
#include "quell/attention/rule.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/engine/tap.hpp"
#include "quell/kernels/attention.hpp"
#include "quell/kernels/context.hpp"
#include "quell/kernels/elementwise.hpp"

namespace quell::engine {

struct AttentionShape {
  std::size_t heads = 0, kv_heads = 0, head_dim = 0;  // query head h reads key head h * kv / heads
  float scale = 1, softcap = 0;
  std::size_t window = 0;  // 0: all of the past
  bool causal = true;
  const attention::Weighting* weighting = nullptr;  // null: softmax
};

/// Queries of one sequence and everything they may look at. Query row r is at position S - T + r.
struct AttentionItem {
  MatrixView<const float> queries;       // [T, heads * head_dim]
  MatrixView<const float> keys, values;  // [S, kv_heads * head_dim], positions 0 to S - 1
  MatrixView<float> out;                 // [T, heads * head_dim]
  MatrixView<const float> gates = {};    // [T, heads], factors of the heads' outputs; or empty
  /// [heads, S], zero: filled with the attention mass of each key (AttentionMass); or empty.
  MatrixView<double> mass = {}, near = {};
  std::span<AttentionZeros> zeros = {};  // [heads], counted up; or empty
};

/// The same for one sequence whose keys and values, `length` of them, are in a cache; of `item` the
/// queries, out and gates. Products with the cache as it is, for few queries.
Status attend_over_cache(const AttentionItem& item, const kernels::KeyValueCache& cache,
                         std::size_t length, const AttentionShape& shape,
                         kernels::Context& context);

class Attention {
 public:
  /// `executor` must outlive this.
  explicit Attention(Executor& executor);
  Status run(std::span<const AttentionItem> items, const AttentionShape& shape);

 private:
  struct Slot {
    explicit Slot(Executor& serial) : context(serial) {}
    kernels::Context context;
    Scratch scores;
    std::optional<Error> error;
  };
  static Status run_head(const AttentionItem& item, std::size_t head, const AttentionShape& shape,
                         Slot& slot);

  Executor* executor_;
  std::unique_ptr<SerialExecutor> serial_;
  std::vector<Slot> slots_;
};

}  // namespace quell::engine
