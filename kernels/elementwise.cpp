// SPDX-License-Identifier: Apache-2.0

// The public functions over the family elementwise: they check sizes, choose the entry and spread
// rows over the host's threads. A row is never cut, so results do not depend on the threads.

#include "quell/kernels/elementwise.hpp"

#include <cmath>
#include <limits>

#include "kernels/cpu/elementwise/contract.hpp"
#include "kernels/dispatch.hpp"

namespace quell::kernels {
namespace {

const elementwise::Entry& entry() noexcept {
  return choose(elementwise::table());
}

// Handing a range to another thread costs some microseconds; 16,384 elements take about as long at
// the cheapest of these operations, so shorter work stays on one thread.
constexpr std::size_t kElementsPerGrain = 16384;

template <typename RowFunction>
void for_rows(std::size_t rows, std::size_t cols, Context& context, RowFunction row_function) {
  if (rows == 0 || cols == 0) return;
  const std::size_t grain = cols >= kElementsPerGrain ? 1 : kElementsPerGrain / cols;
  context.executor().run(rows, grain, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t t = begin; t < end; ++t) row_function(t);
  });
}

}  // namespace

void exp(std::span<const float> x, std::span<float> y) {
  QUELL_ASSERT(x.size() == y.size());
  entry().exp(x.data(), y.data(), x.size());
}

void activate(Activation activation, MatrixView<float> x, Context& context) {
  const auto function = entry().activate[static_cast<std::size_t>(activation)];
  for_rows(x.rows(), x.cols(), context,
           [&](std::size_t t) { function(x.row(t).data(), nullptr, x.cols()); });
}

void activate_and_multiply(Activation activation, MatrixView<float> gate,
                           MatrixView<const float> up, Context& context) {
  QUELL_ASSERT(gate.rows() == up.rows() && gate.cols() == up.cols());
  const auto function = entry().activate[static_cast<std::size_t>(activation)];
  for_rows(gate.rows(), gate.cols(), context,
           [&](std::size_t t) { function(gate.row(t).data(), up.row(t).data(), gate.cols()); });
}

void rms_norm(MatrixView<const float> x, std::span<const float> weight, float eps,
              MatrixView<float> y, Context& context) {
  QUELL_ASSERT(x.rows() == y.rows() && x.cols() == y.cols());
  QUELL_ASSERT(weight.empty() || weight.size() == x.cols());
  const auto function = entry().rms_norm;
  const float* w = weight.empty() ? nullptr : weight.data();
  for_rows(x.rows(), x.cols(), context,
           [&](std::size_t t) { function(x.row(t).data(), w, eps, y.row(t).data(), x.cols()); });
}

void layer_norm(MatrixView<const float> x, std::span<const float> weight,
                std::span<const float> bias, float eps, MatrixView<float> y, Context& context) {
  QUELL_ASSERT(x.rows() == y.rows() && x.cols() == y.cols());
  QUELL_ASSERT(weight.empty() || weight.size() == x.cols());
  QUELL_ASSERT(bias.empty() || bias.size() == x.cols());
  const auto function = entry().layer_norm;
  const float* w = weight.empty() ? nullptr : weight.data();
  const float* b = bias.empty() ? nullptr : bias.data();
  for_rows(x.rows(), x.cols(), context,
           [&](std::size_t t) { function(x.row(t).data(), w, b, eps, y.row(t).data(), x.cols()); });
}

void attention_softmax(MatrixView<float> scores, float scale, float softcap,
                       AttentionWindow window) {
  const auto softmax = entry().softmax;
  const std::size_t columns = scores.cols();
  for (std::size_t r = 0; r < scores.rows(); ++r) {
    const auto [first, last] = window.seen(r, columns);
    float* row = scores.row(r).data();
    // Masked columns are written, never read: they may hold anything.
    for (std::size_t c = 0; c < first; ++c) row[c] = 0.0f;
    if (first < last) softmax(row + first, last - first, scale, softcap);
    for (std::size_t c = last; c < columns; ++c) row[c] = 0.0f;
  }
}

void rotate(MatrixView<float> x, std::size_t heads, std::size_t head_dim,
            MatrixView<const float> cosine, MatrixView<const float> sine, Context& context) {
  const std::size_t half = cosine.cols();
  QUELL_ASSERT(cosine.rows() == x.rows() && sine.rows() == x.rows() && sine.cols() == half);
  QUELL_ASSERT(heads * head_dim <= x.cols() && 2 * half <= head_dim);
  const auto function = entry().rotate;
  for_rows(x.rows(), heads * half, context, [&](std::size_t t) {
    for (std::size_t head = 0; head < heads; ++head) {
      function(x.row(t).data() + head * head_dim, cosine.row(t).data(), sine.row(t).data(), half);
    }
  });
}

void add(MatrixView<float> x, MatrixView<const float> y, Context& context) {
  QUELL_ASSERT(x.rows() == y.rows() && x.cols() == y.cols());
  const auto function = entry().add;
  for_rows(x.rows(), x.cols(), context,
           [&](std::size_t t) { function(x.row(t).data(), y.row(t).data(), x.cols()); });
}

void add_bias(MatrixView<float> x, std::span<const float> bias, Context& context) {
  QUELL_ASSERT(bias.size() == x.cols());
  const auto function = entry().add;
  for_rows(x.rows(), x.cols(), context,
           [&](std::size_t t) { function(x.row(t).data(), bias.data(), x.cols()); });
}

double log_sum_exp(std::span<const float> logits) {
  float max = -std::numeric_limits<float>::infinity();
  double sum = 0;
  entry().sum_exp(logits.data(), logits.size(), &max, &sum);
  // Nothing, or nothing but -infinity, has probability zero; +infinity swallows the rest.
  if (std::isinf(max)) return static_cast<double>(max);
  return static_cast<double>(max) + std::log(sum);
}

}  // namespace quell::kernels
