// SPDX-License-Identifier: Apache-2.0

// Queries are taken kTileRows at a time: scores [tile, S] = Q K^T, softmax over what each row may
// see, then the weighted sum of V. Keys that no row of the tile sees are left out of both products.
// They would add exact zeros, so tiles of any size give the same bits.

#include "engine/attention.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "quell/kernels/gemm.hpp"

namespace quell::engine {
namespace {

// Bounds the scores to 128 S floats a thread (4 MiB for S = 8192) while the products still reuse
// each packed key 128 times.
constexpr std::size_t kTileRows = 128;

/// Adds the probabilities of queries at `position` and after, of keys from `first` on, to mass and
/// near [S].
void add_mass(MatrixView<const float> probabilities, std::size_t position, std::size_t first,
              bool causal, double* mass, double* near) {
  const std::size_t last = first + probabilities.cols();
  for (std::size_t r = 0; r < probabilities.rows(); ++r) {
    const std::size_t query = position + r;
    if (causal && query < kMassGap) continue;
    const float* row = probabilities.row(r).data();
    const std::size_t end = causal ? std::max(first, query - kMassGap + 1) : last;
    for (std::size_t key = first; key < end; ++key) {
      mass[key] += static_cast<double>(row[key - first]);
    }
    for (std::size_t key = end; key < (causal ? query + 1 : last); ++key) {
      near[key] += static_cast<double>(row[key - first]);
    }
  }
}

void count_zeros(MatrixView<const float> probabilities, kernels::AttentionWindow window,
                 AttentionZeros& zeros) {
  for (std::size_t r = 0; r < probabilities.rows(); ++r) {
    const auto [first, last] = window.seen(r, probabilities.cols());
    const auto row = probabilities.row(r).subspan(first, last - first);
    const auto none = static_cast<std::size_t>(std::count(row.begin(), row.end(), 0.0f));
    zeros.visible += row.size();
    zeros.zeros += none;
    zeros.rows += 1;
    zeros.empty_rows += none == row.size() ? 1 : 0;
  }
}

float capped(float score, float cap) {
  return cap > 0 ? cap * std::tanh(score / cap) : score;
}

/// Whether the softmax of the kernels is the rule, or its first step.
bool through_kernel(const AttentionShape& shape) {
  return shape.weighting == nullptr ||
         std::holds_alternative<attention::Softmax>(*shape.weighting) ||
         std::holds_alternative<attention::ClippedSoftmax>(*shape.weighting);
}

/// Raw products of one query with the keys it sees become weights, under the other rules. Returns
/// the mass on the extra key.
float weigh_row(const AttentionShape& shape, std::size_t head, std::span<const float> query,
                std::span<float> seen) {
  for (float& score : seen) score = capped(shape.scale * score, shape.softcap);
  float extra_score = 0;
  if (const auto* bias = std::get_if<attention::BiasKeySoftmax>(shape.weighting)) {
    const float* key = bias->keys.data() + head * shape.head_dim;
    double product = 0;
    for (std::size_t i = 0; i < shape.head_dim; ++i) {
      product += static_cast<double>(query[i]) * static_cast<double>(key[i]);
    }
    extra_score = capped(shape.scale * static_cast<float>(product), shape.softcap);
  }
  return attention::weigh(*shape.weighting, head, extra_score, seen, kernels::exp);
}

/// What follows the sum of values, for one query and head: the value of the extra key, the gate.
void finish_row(const AttentionShape& shape, const AttentionItem& item, std::size_t row,
                std::size_t head, float extra, std::span<float> out) {
  const auto* bias = shape.weighting == nullptr
                         ? nullptr
                         : std::get_if<attention::BiasKeySoftmax>(shape.weighting);
  if (bias != nullptr) {
    const float* value = bias->values.data() + head * shape.head_dim;
    for (std::size_t i = 0; i < shape.head_dim; ++i) out[i] += extra * value[i];
  }
  if (!item.gates.empty()) {
    for (float& value : out) value *= item.gates(row, head);
  }
}

/// The rules over products with a cache.
class RuleWeighting final : public kernels::RowWeighting {
 public:
  RuleWeighting(const AttentionShape& shape, MatrixView<const float> queries)
      : shape_(shape), queries_(queries), extra_(queries.rows() * shape.heads) {}

  void weigh(std::size_t row, std::size_t head, std::span<float> products) const override {
    if (!through_kernel(shape_)) {
      const auto query = queries_.row(row).subspan(head * shape_.head_dim, shape_.head_dim);
      extra_[row * shape_.heads + head] = weigh_row(shape_, head, query, products);
      return;
    }
    const MatrixView<float> one(products.data(), 1, products.size());
    kernels::attention_softmax(one, shape_.scale, shape_.softcap, {0, 0, false});
    if (const auto* clipped = std::get_if<attention::ClippedSoftmax>(shape_.weighting)) {
      attention::clip(*clipped, products);
    }
  }
  float extra(std::size_t row, std::size_t head) const { return extra_[row * shape_.heads + head]; }

 private:
  const AttentionShape& shape_;  // with a weighting
  MatrixView<const float> queries_;
  mutable std::vector<float> extra_;  // each element is written by one thread
};

}  // namespace

Status attend_over_cache(const AttentionItem& item, const kernels::KeyValueCache& cache,
                         std::size_t length, const AttentionShape& shape,
                         kernels::Context& context) {
  const RuleWeighting rule(shape, item.queries);
  const kernels::CachedAttention attention{item.queries,
                                           shape.heads,
                                           length,
                                           shape.scale,
                                           shape.softcap,
                                           shape.window,
                                           shape.weighting == nullptr ? nullptr : &rule};
  QUELL_TRY(kernels::attend(attention, cache, item.out, context));
  for (std::size_t r = 0; r < item.out.rows(); ++r) {
    for (std::size_t head = 0; head < shape.heads; ++head) {
      const auto out = item.out.row(r).subspan(head * shape.head_dim, shape.head_dim);
      finish_row(shape, item, r, head, rule.extra(r, head), out);
    }
  }
  return ok();
}

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
  const auto* clipped = shape.weighting == nullptr
                            ? nullptr
                            : std::get_if<attention::ClippedSoftmax>(shape.weighting);

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
    const kernels::AttentionWindow window{position - first, shape.window, shape.causal};
    std::array<float, kTileRows> extra{};
    if (through_kernel(shape)) {
      kernels::attention_softmax(scores, shape.scale, shape.softcap, window);
      for (std::size_t r = 0; clipped != nullptr && r < rows; ++r) {
        const auto [from, to] = window.seen(r, count);
        attention::clip(*clipped, scores.row(r).subspan(from, to - from));
      }
    } else {
      for (std::size_t r = 0; r < rows; ++r) {
        const auto scored = scores.row(r);
        const auto [from, to] = window.seen(r, count);
        extra[r] = weigh_row(shape, head, queries.row(row + r), scored.subspan(from, to - from));
        // Masked columns are written, never read: they may hold anything.
        std::fill(scored.begin(), scored.begin() + static_cast<std::ptrdiff_t>(from), 0.0f);
        std::fill(scored.begin() + static_cast<std::ptrdiff_t>(to), scored.end(), 0.0f);
      }
    }
    if (!item.mass.empty()) {
      add_mass(scores, position, first, shape.causal, item.mass.row(head).data(),
               item.near.row(head).data());
    }
    if (!item.zeros.empty()) count_zeros(scores, window, item.zeros[head]);
    product.a = {scores, false};
    product.b = {values.rows_from(first, count), true};
    product.c = out.rows_from(row, rows);
    QUELL_TRY(kernels::gemm_dense(product, slot.context));
    for (std::size_t r = row; r < row + rows; ++r) {
      finish_row(shape, item, r, head, extra[r - row], out.row(r));
    }
  }
  return ok();
}

}  // namespace quell::engine
