// SPDX-License-Identifier: Apache-2.0
#pragma once

// Where the error behind a layer comes from. A layer f of the original, its quantized self g, the
// input h of the original and the input k that the quantized model has there. The error of the
// output, g(k) - f(h), is split between two causes, each averaged over both states of the other:
//
//     a = ((g(k) - g(h)) + (f(k) - f(h))) / 2      carried: because the input was off
//     b = ((g(k) - f(k)) + (g(h) - f(h))) / 2      fresh: because the layer is another
//
// a + b is the error, exactly: the Shapley value of a game of two. In squares, over |f(h)|^2:
//
//     R = A + B + C,   A = |a|^2,  B = |b|^2,  C = 2 a.b;     gain = A / R of the input
//
// For a linear layer g(x) = (W + E) x: a = (W + E/2)(k - h), b = E (h + k)/2.
// Source: Vlassis, Ashkboos, Volkova, Hoefler and Alistarh, "Beyond Outliers: a study of optimizers
// under quantization", ICLR 2026 (the ABC decomposition).

#include <cstddef>
#include <span>

#include "quell/core/panic.hpp"  // QUELL_ASSERT

namespace quell::stats {

/// Parts of the relative squared error of a layer's output, and that of its input.
struct ErrorSplit {
  double carried = 0;   // A
  double fresh = 0;     // B
  double cross = 0;     // C: negative where both work against each other
  double previous = 0;  // R of the input

  double total() const noexcept { return carried + fresh + cross; }  // R
  /// A / R of the input; 0 where no error came in.
  double gain() const noexcept { return previous > 0 ? carried / previous : 0; }
};

/// Adds up the parts over tokens, in double. Two answers: norms taken over all tokens together, and
/// the mean over tokens of each token's own parts (tokens whose output or input is zero are left
/// out of that mean, as they have no relative error).
class ErrorSplitSums {
 public:
  /// One token. `carried`, `fresh`, `output` (f(h)): [OC]; `difference` (k - h), `input` (h): [IC].
  void add(std::span<const float> carried, std::span<const float> fresh,
           std::span<const float> output, std::span<const float> difference,
           std::span<const float> input) noexcept {
    QUELL_ASSERT(carried.size() == output.size() && fresh.size() == output.size());
    QUELL_ASSERT(difference.size() == input.size());
    double a = 0, b = 0, c = 0, y = 0, d = 0, h = 0;
    for (std::size_t i = 0; i < output.size(); ++i) {
      const double a_i = static_cast<double>(carried[i]), b_i = static_cast<double>(fresh[i]);
      const double y_i = static_cast<double>(output[i]);
      a += a_i * a_i;
      b += b_i * b_i;
      c += a_i * b_i;
      y += y_i * y_i;
    }
    for (std::size_t i = 0; i < input.size(); ++i) {
      const double d_i = static_cast<double>(difference[i]), h_i = static_cast<double>(input[i]);
      d += d_i * d_i;
      h += h_i * h_i;
    }
    add_squares(a, b, 2 * c, y, d, h);
  }

  /// The same from sums of squares: |a|^2, |b|^2, 2 a.b, |f(h)|^2, |k - h|^2, |h|^2.
  void add_squares(double a, double b, double c, double output, double difference,
                   double input) noexcept {
    sums_.carried += a;
    sums_.fresh += b;
    sums_.cross += c;
    sums_.previous += difference;
    output_ += output;
    input_ += input;
    if (!(output > 0) || !(input > 0)) return;
    ++tokens_;
    per_token_.carried += a / output;
    per_token_.fresh += b / output;
    per_token_.cross += c / output;
    per_token_.previous += difference / input;
  }

  /// Zero where the original's output or input is zero altogether.
  ErrorSplit over_all() const noexcept {
    ErrorSplit split;
    if (output_ > 0) {
      split.carried = sums_.carried / output_;
      split.fresh = sums_.fresh / output_;
      split.cross = sums_.cross / output_;
    }
    if (input_ > 0) split.previous = sums_.previous / input_;
    return split;
  }

  ErrorSplit per_token() const noexcept {
    if (tokens_ == 0) return {};
    const double n = static_cast<double>(tokens_);
    return {per_token_.carried / n, per_token_.fresh / n, per_token_.cross / n,
            per_token_.previous / n};
  }

 private:
  ErrorSplit sums_, per_token_;
  double output_ = 0, input_ = 0;
  std::size_t tokens_ = 0;
};

}  // namespace quell::stats
