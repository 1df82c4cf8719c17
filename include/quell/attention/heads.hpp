// SPDX-License-Identifier: Apache-2.0
#pragma once

// Heads that do nothing. A head whose attention rests on keys with values near zero adds nothing to
// its token, whatever the weights say: with O the keys of zero value and N the others,
//
//     y = S y~,   S = Z_N / (Z_N + Z_O) = sigmoid(log Z_N - log Z_O),   Z = sum of e^score,
//
// where y~ is attention over N alone (An et al., "Systematic Outliers in Large Language Models",
// ICLR 2025). So the mass on such keys, 1 - S, says how far the head is switched off.

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "quell/core/panic.hpp"
#include "quell/core/view.hpp"

namespace quell::attention {

/// A value is small if its norm is at most this share of the mean norm of the head's values in the
/// sequence.
inline constexpr double kSmallValue = 0.5;

/// Of one head, means over queries (masses) and over sequences (ratio).
struct HeadActivity {
  double idle_mass = 0;          // attention on keys with small values
  double first_token_mass = 0;   // attention on position 0
  double first_value_ratio = 0;  // |v_0| / mean |v_j|; 0 where all values are 0
};

/// A head is idle from this idle mass on: S above is at most a half, so the head is nearer to off
/// than to on. Seen over English text: a head of books7m (layer 5, 0.68) and one of minilm-l6
/// (layer 5, 0.61) are beyond it; the next are at 0.26 (books7m), 0.46 (minilm-l6), 0.28 (tiny1m,
/// whose sinks get a quarter) and 0.43 (stories260K); babyllama105, which has no sinks, stays below
/// 0.02. Which heads idle depends on the text: over ids in no order, two others of books7m do.
inline constexpr double kIdleMass = 0.5;
inline bool is_idle(const HeadActivity& activity) noexcept {
  return activity.idle_mass >= kIdleMass;
}

/// |v_j| of every key j: values [T, kv_heads * head_dim], columns of key head `kv_head`.
inline std::vector<double> value_norms(MatrixView<const float> values, std::size_t kv_head,
                                       std::size_t head_dim) {
  std::vector<double> norms;
  norms.reserve(values.rows());
  for (std::size_t j = 0; j < values.rows(); ++j) {
    double sum = 0;
    for (const float v : values.row(j).subspan(kv_head * head_dim, head_dim)) {
      sum += static_cast<double>(v) * static_cast<double>(v);
    }
    norms.push_back(std::sqrt(sum));
  }
  return norms;
}

/// Adds up sequences of one head.
class HeadMeter {
 public:
  /// mass[j]: the probabilities of key j, summed over `queries` queries, of which `first_queries`
  /// see position 0; norms[j] = |v_j|. A sequence without queries says nothing.
  void add(std::span<const double> mass, std::span<const double> norms, std::size_t queries,
           std::size_t first_queries) {
    QUELL_ASSERT(mass.size() == norms.size());
    if (mass.empty() || queries == 0) return;
    double mean = 0;
    for (const double norm : norms) mean += norm;
    mean /= static_cast<double>(norms.size());
    for (std::size_t j = 0; j < mass.size(); ++j) {
      if (norms[j] <= kSmallValue * mean) idle_ += mass[j];
    }
    first_ += mass[0];
    ratio_ += mean > 0 ? norms[0] / mean : 0;
    queries_ += static_cast<double>(queries);
    first_queries_ += static_cast<double>(first_queries);
    sequences_ += 1;
  }

  HeadActivity activity() const noexcept {
    if (sequences_ == 0) return {};
    return {idle_ / queries_, first_queries_ > 0 ? first_ / first_queries_ : 0,
            ratio_ / sequences_};
  }
  bool empty() const noexcept { return sequences_ == 0; }

 private:
  double idle_ = 0, first_ = 0, ratio_ = 0, queries_ = 0, first_queries_ = 0, sequences_ = 0;
};

}  // namespace quell::attention
