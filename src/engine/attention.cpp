// SPDX-License-Identifier: Apache-2.0

// Queries are taken kTileRows at a time: scores [tile, S] = Q K^T, softmax over what each row may
// see, then the weighted sum of V. Keys that no row of the tile sees are left out of both products.
// They would add exact zeros, so tiles of any size give the same bits.

#include "engine/attention.hpp"

#include <algorithm>

#include "quell/engine/tap.hpp"
#include "quell/kernels/elementwise.hpp"
#include "quell/kernels/gemm.hpp"

namespace quell::engine {
namespace {

// Bounds the scores to 128 S floats a thread (4 MiB for S = 8192) while the products still reuse
// each packed key 128 times.
constexpr std::size_t kTileRows = 128;

/// Adds the probabilities of queries at `position` and after, of keys from `first` on, to mass [S].
void add_mass(MatrixView<const float> probabilities, std::size_t position, std::size_t first,
              bool causal, double* mass) {
  for (std::size_t r = 0; r < probabilities.rows(); ++r) {
    const std::size_t query = position + r;
    const std::size_t end = !causal            ? first + probabilities.cols()
                            : query < kMassGap ? 0
                                               : query - kMassGap + 1;
    const float* row = probabilities.row(r).data();
    for (std::size_t key = first; key < end; ++key) {
      mass[key] += static_cast<double>(row[key - first]);
    }
  }
}

}  // namespace

Attention::Attention(Executor& executor)
    : executor_(&executor), serial_(std::make_unique<SerialExecutor>()) {
  slots_.reserve(executor.width());
  for (unsigned slot = 0; slot < executor.width(); ++slot) slots_.emplace_back(*serial_);
}

Status Attention::run(std::span<const AttentionItem> items, const AttentionShape& shape) {
  executor_->run(items.size() * shape.heads, 1,
                 [&](std::size_t begin, std::size_t end, unsigned slot_index) {
                   Slot& slot = slots_[slot_index];
                   for (std::size_t i = begin; i < end && !slot.error; ++i) {
                     auto done = run_head(items[i / shape.heads], i % shape.heads, shape, slot);
                     if (!done) slot.error = std::move(done).error();
                   }
                 });
  for (Slot& slot : slots_) {
    if (!slot.error) continue;
    Error error = *std::move(slot.error);
    for (Slot& other : slots_) other.error.reset();
    return error;
  }
  return ok();
}

Status Attention::run_head(const AttentionItem& item, std::size_t head, const AttentionShape& shape,
                           Slot& slot) {
  const std::size_t kv_head = head * shape.kv_heads / shape.heads;
  const auto queries = item.queries.cols_from(head * shape.head_dim, shape.head_dim);
  const auto keys = item.keys.cols_from(kv_head * shape.head_dim, shape.head_dim);
  const auto values = item.values.cols_from(kv_head * shape.head_dim, shape.head_dim);
  const auto out = item.out.cols_from(head * shape.head_dim, shape.head_dim);
  const std::size_t offset = keys.rows() - queries.rows();

  for (std::size_t row = 0; row < queries.rows(); row += kTileRows) {
    const std::size_t rows = std::min(kTileRows, queries.rows() - row);
    const std::size_t position = offset + row;  // of the first query
    const bool windowed = shape.causal && shape.window != 0 && position + 1 > shape.window;
    const std::size_t first = windowed ? position + 1 - shape.window : 0;
    const std::size_t last = shape.causal ? position + rows : keys.rows();
    const std::size_t count = last - first;

    QUELL_TRY(scores, slot.scores.shape(rows, count));
    kernels::DenseProduct product;
    product.a = {queries.rows_from(row, rows), false};
    product.b = {keys.rows_from(first, count), false};
    product.c = scores;
    QUELL_TRY(kernels::gemm_dense(product, slot.context));
    kernels::attention_softmax(scores, shape.scale, shape.softcap,
                               {position - first, shape.window, shape.causal});
    if (!item.mass.empty()) {
      add_mass(scores, position, first, shape.causal, item.mass.row(head).data());
    }
    product.a = {scores, false};
    product.b = {values.rows_from(first, count), true};
    product.c = out.rows_from(row, rows);
    QUELL_TRY(kernels::gemm_dense(product, slot.context));
  }
  return ok();
}

}  // namespace quell::engine
