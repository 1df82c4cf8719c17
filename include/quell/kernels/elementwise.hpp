// SPDX-License-Identifier: Apache-2.0
#pragma once

// The arithmetic between the matrix products: activations, softmax, norms, rotary positions. Rows are
// independent and spread over the context's threads. Reductions are one fixed tree of 16 lanes and
// exp is our own polynomial, so every x86 instruction set gives the same bits.

#include <cstddef>
#include <span>

#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/kernels/context.hpp"

namespace quell::kernels {

enum class Activation { relu, silu, gelu, gelu_tanh, quick_gelu };

/// y = exp(x), element by element; relative error at most 2e-7 where the result is normal.
void exp(std::span<const float> x, std::span<float> y);

/// x = activation(x), in place, [T, I].
void activate(Activation activation, MatrixView<float> x, Context& context);
/// gate = activation(gate) * up, in place, [T, I].
void activate_and_multiply(Activation activation, MatrixView<float> gate,
                           MatrixView<const float> up, Context& context);

/// y[t] = x[t] / sqrt(mean(x[t]^2) + eps) * weight; [T, H]; y may be x.
void rms_norm(MatrixView<const float> x, std::span<const float> weight, float eps,
              MatrixView<float> y, Context& context);
/// y[t] = (x[t] - mean) / sqrt(variance + eps) * weight + bias, with the biased variance.
void layer_norm(MatrixView<const float> x, std::span<const float> weight,
                std::span<const float> bias, float eps, MatrixView<float> y, Context& context);

/// What the rows of a piece of attention scores see.
struct AttentionWindow {
  std::size_t offset = 0;  // row r sits at position offset + r and sees columns <= offset + r
  std::size_t window = 0;  // 0: all of them; else only the last `window` ones
  bool causal = true;      // false: every row sees every column

  struct Range {
    std::size_t first = 0, last = 0;
  };
  /// The columns, of `columns`, that row r sees.
  Range seen(std::size_t r, std::size_t columns) const noexcept {
    Range range{0, columns};
    if (!causal) return range;
    const std::size_t ahead = offset + r + 1;  // columns before this one are not ahead
    if (window != 0 && ahead > window) range.first = ahead - window;
    if (ahead < columns) range.last = ahead;
    if (range.first > range.last) range.first = range.last;
    return range;
  }
};
/// Row-wise softmax of scale * scores, in place, over the columns that each row sees; the others
/// become 0. A row that sees none becomes zeros. Single-threaded: callers spread heads.
void attention_softmax(MatrixView<float> scores, float scale, float softcap, AttentionWindow window);

/// Half-split rotary embedding of `heads` vectors of `head_dim` in every row of x, in place:
/// out[t] = x[t] cos - x[t + R/2] sin, out[t + R/2] = x[t + R/2] cos + x[t] sin for t < R/2.
/// cosine and sine are [T, R/2], row r for row r of x.
void rotate(MatrixView<float> x, std::size_t heads, std::size_t head_dim,
            MatrixView<const float> cosine, MatrixView<const float> sine, Context& context);

/// x += y and x[t] += bias.
void add(MatrixView<float> x, MatrixView<const float> y, Context& context);
void add_bias(MatrixView<float> x, std::span<const float> bias, Context& context);

/// log(sum(exp(x))) of one row of logits, accumulated in double. Finite input assumed.
double log_sum_exp(std::span<const float> logits);

}  // namespace quell::kernels
