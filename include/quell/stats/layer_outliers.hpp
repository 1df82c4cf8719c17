// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which blocks of a model hold the outliers, and how often OwLore would therefore pick each for
// fine-tuning (Li, Yin, Gao and Liu, "OwLore: outlier-weighed layerwise sampled low-rank projection
// for memory-efficient LLM fine-tuning", 2024; the measure is that of OWL, Yin et al., 2024).
//
// Each weight W [OC, IC] of a block is scored by what it does to its input (the score of Wanda, Sun
// et al., 2023), and the scores of all linears of the block are one set, however their scales
// differ:
//
//     score_ij = |W_ij| sqrt(scaler_j)           scaler_j: energy of input channel j, sum x^2
//     D(M)     = 100 * #{score > M * mean of the scores} / #scores        (percent)
//
// D is unchanged when W, or the scaler, of the whole block is multiplied by one number; not when
// channels are rescaled or rotated. Whether the scaler is a sum or a mean over tokens is therefore
// of no account, as long as all linears of a block do the same.
//
// The mean has to be known before anything is counted: two passes. `layer_outliers` does both over
// weights in memory. For weights read piece by piece, merge `score_sums` of the pieces (rows of W
// with the same scaler), then add up `scores_above`.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quell/core/panic.hpp"
#include "quell/core/view.hpp"

namespace quell::stats {

/// Thresholds M: of OwLore's published file, and the default of OWL for pruning.
inline constexpr double kOwloreThreshold = 13;
inline constexpr double kOwlThreshold = 5;

/// A linear, or some of its rows, with the energy of its input channels.
struct ScoredWeight {
  MatrixView<const float> weight;  // [OC, IC]
  std::span<const double> scaler;  // [IC], >= 0
};

/// First pass. Scores that are not finite (of a damaged weight, or a scaler that is not a number >=
/// 0) are counted apart.
struct ScoreSums {
  std::uint64_t count = 0;
  std::uint64_t nonfinite = 0;
  double sum = 0;
  double max = 0;

  double mean() const noexcept { return count > 0 ? sum / static_cast<double>(count) : 0; }
  void merge(const ScoreSums& other) noexcept;
};
inline ScoreSums score_sums(const ScoredWeight& linear);

/// Second pass: how many finite scores are strictly above a threshold, which is M * mean().
inline std::uint64_t scores_above(const ScoredWeight& linear, double threshold);

struct LayerOutliers {
  ScoreSums scores;
  std::uint64_t outliers = 0;

  /// D(M); 0 without scores.
  double percent() const noexcept {
    return scores.count > 0
               ? 100 * static_cast<double>(outliers) / static_cast<double>(scores.count)
               : 0;
  }
};

/// Both passes over all linears of a block.
inline LayerOutliers layer_outliers(std::span<const ScoredWeight> block,
                                    double m = kOwloreThreshold);

struct SamplingProbabilities {
  std::vector<double> p;  // one a block, sum 1
  /// No block has an outlier, so all are equal; a lower M would tell them apart.
  bool is_fallback = false;
};

/// p_l = D_l / sum D. Values that are not finite or not above 0 count as 0.
inline SamplingProbabilities sampling_probabilities(std::span<const double> outlier_percents);

/// The probability of each block to be among `draws` blocks that are drawn one after the other by
/// `p`, without replacement, what is left being renormalised after each draw. Flatter than draws *
/// p; the sum is `draws`. p: >= 0, finite, not all 0, else all results are 0. Blocks with p = 0 are
/// never drawn, so more draws than other blocks are as many as there are.
///
/// Not an estimate: within 1e-12. Give every block a clock that rings after an exponential time of
/// rate p_l; the order of ringing is the order of drawing. So
///
///     P_l = integral over t > 0 of  p_l exp(-p_l t) * P(fewer than `draws` other clocks rang by t)
///
/// where the second factor comes from convolving one yes-or-no variable after another, all terms
/// positive. In s = ln t the trapezoidal rule with step h converges geometrically: on the line Im s
/// = 1 the integral of the modulus is at most P_l cos(1)^-draws, because |1 - exp(-z)| <=
/// (1 - exp(-Re z)) / cos(arg z), so the error is below 2 P_l cos(1)^-draws / (exp(2 pi / h) - 1)
/// (Trefethen and Weideman, "The exponentially convergent trapezoidal rule", SIAM Review 2014,
/// theorem 5.1). Time: a few hundred steps of L * draws.
inline std::vector<double> inclusion_probabilities(std::span<const double> p, std::size_t draws);

// ------------------------------------------------------------------ definitions

namespace detail {

// Calls use(score) for every finite score in order; returns how many are not.
template <typename Use>
std::uint64_t for_each_score(const ScoredWeight& linear, Use&& use) {
  QUELL_ASSERT(linear.scaler.size() == linear.weight.cols());
  std::vector<double> roots(linear.scaler.size());
  std::transform(linear.scaler.begin(), linear.scaler.end(), roots.begin(),
                 [](double energy) { return std::sqrt(energy); });
  std::uint64_t nonfinite = 0;
  for (std::size_t oc = 0; oc < linear.weight.rows(); ++oc) {
    const std::span<const float> row = linear.weight.row(oc);
    for (std::size_t ic = 0; ic < row.size(); ++ic) {
      const double score = std::fabs(static_cast<double>(row[ic])) * roots[ic];
      if (std::isfinite(score)) {
        use(score);
      } else {
        ++nonfinite;
      }
    }
  }
  return nonfinite;
}

inline double usable_weight(double p) noexcept {
  return std::isfinite(p) && p > 0 ? p : 0;
}

// In units of the largest, so that the sum cannot overflow; all 0 if there is none.
inline std::vector<double> scaled_weights(std::span<const double> p) {
  double unit = 0;
  for (const double x : p) unit = std::max(unit, usable_weight(x));
  std::vector<double> scaled(p.size(), 0.0);
  if (!(unit > 0)) return scaled;
  std::transform(p.begin(), p.end(), scaled.begin(),
                 [unit](double x) { return usable_weight(x) / unit; });
  return scaled;
}

// For every l, the probability that fewer than `draws` of the others rang, if l has rung by now
// with probability rang[l]. A distribution [draws] of how many of the first l rang, for all l,
// meets another of those after l.
class OthersRang {
 public:
  OthersRang(std::size_t count, std::size_t draws)
      : draws_(draws), before_(count * draws), after_(draws), fewer_(count) {}

  std::span<const double> operator()(std::span<const double> rang, std::span<const double> silent) {
    const std::size_t count = rang.size();
    std::fill_n(before_.begin(), draws_, 0.0);
    before_[0] = 1;
    for (std::size_t l = 0; l + 1 < count; ++l) {
      const double* now = before_.data() + l * draws_;
      double* next = before_.data() + (l + 1) * draws_;
      next[0] = now[0] * silent[l];
      for (std::size_t k = 1; k < draws_; ++k) {
        next[k] = now[k] * silent[l] + now[k - 1] * rang[l];
      }
    }
    std::fill(after_.begin(), after_.end(), 0.0);
    after_[0] = 1;
    for (std::size_t l = count; l-- > 0;) {
      const double* now = before_.data() + l * draws_;
      double at_most = 0;  // P(at most draws - 1 - k after l)
      fewer_[l] = 0;
      for (std::size_t k = draws_; k-- > 0;) {
        at_most += after_[draws_ - 1 - k];
        fewer_[l] += now[k] * at_most;
      }
      for (std::size_t k = draws_; k-- > 1;) {
        after_[k] = after_[k] * silent[l] + after_[k - 1] * rang[l];
      }
      after_[0] *= silent[l];
    }
    return fewer_;
  }

 private:
  std::size_t draws_;
  std::vector<double> before_;  // [count, draws]
  std::vector<double> after_;   // [draws]
  std::vector<double> fewer_;   // [count]
};

}  // namespace detail

inline void ScoreSums::merge(const ScoreSums& other) noexcept {
  count += other.count;
  nonfinite += other.nonfinite;
  sum += other.sum;
  max = std::max(max, other.max);
}

inline ScoreSums score_sums(const ScoredWeight& linear) {
  // Partial sums of 4,096 scores, added in order: the rounding of statistics everywhere here.
  constexpr std::uint64_t kChunk = 4096;
  ScoreSums total;
  double part = 0;
  total.nonfinite = detail::for_each_score(linear, [&](double score) {
    part += score;
    total.max = std::max(total.max, score);
    if (++total.count % kChunk == 0) {
      total.sum += part;
      part = 0;
    }
  });
  total.sum += part;
  return total;
}

inline std::uint64_t scores_above(const ScoredWeight& linear, double threshold) {
  std::uint64_t above = 0;
  detail::for_each_score(linear, [&](double score) { above += score > threshold ? 1 : 0; });
  return above;
}

inline LayerOutliers layer_outliers(std::span<const ScoredWeight> block, double m) {
  LayerOutliers result;
  for (const ScoredWeight& linear : block) result.scores.merge(score_sums(linear));
  const double threshold = m * result.scores.mean();
  for (const ScoredWeight& linear : block) result.outliers += scores_above(linear, threshold);
  return result;
}

inline SamplingProbabilities sampling_probabilities(std::span<const double> outlier_percents) {
  SamplingProbabilities result;
  result.p = detail::scaled_weights(outlier_percents);
  double sum = 0;
  for (const double p : result.p) sum += p;
  result.is_fallback = !(sum > 0) && !result.p.empty();
  if (result.is_fallback) {
    std::fill(result.p.begin(), result.p.end(), 1.0);
    sum = static_cast<double>(result.p.size());
  }
  for (double& p : result.p) p /= sum;
  return result;
}

inline std::vector<double> inclusion_probabilities(std::span<const double> p, std::size_t draws) {
  const std::vector<double> scaled = detail::scaled_weights(p);
  std::vector<double> result(p.size(), 0.0);
  std::vector<std::size_t> blocks;  // that can be drawn
  double sum = 0;
  for (std::size_t l = 0; l < p.size(); ++l) {
    if (!(scaled[l] > 0)) continue;
    blocks.push_back(l);
    sum += scaled[l];
  }
  const std::size_t count = blocks.size();
  if (draws >= count) {
    for (const std::size_t l : blocks) result[l] = 1;
    return result;
  }
  if (draws == 0) return result;
  std::vector<double> log_rates(count), rang(count), silent(count);
  for (std::size_t i = 0; i < count; ++i)
    log_rates[i] = std::log(scaled[blocks[i]]) - std::log(sum);
  const double slowest = *std::min_element(log_rates.begin(), log_rates.end());
  // The bound above, with -ln cos(1) < 0.616: below 2 exp(-32) = 3e-14. What is left out is below
  // exp(-32) P_l where t < exp(-32), and below exp(-40) where even the slowest clock has rung.
  const double step = 6.283185307179586 / (32 + 0.616 * static_cast<double>(draws));
  const double first = -32, last = std::log(40.0) - slowest;
  const auto steps = static_cast<std::size_t>(std::ceil((last - first) / step));
  detail::OthersRang others_rang(count, draws);
  for (std::size_t i = 0; i <= steps; ++i) {
    const double s = first + step * static_cast<double>(i);
    for (std::size_t l = 0; l < count; ++l) {
      const double hazard = std::exp(s + log_rates[l]);  // p_l t
      rang[l] = -std::expm1(-hazard);
      silent[l] = std::exp(-hazard);
    }
    const std::span<const double> fewer = others_rang(rang, silent);
    for (std::size_t l = 0; l < count; ++l) {
      // p_l t exp(-p_l t), 0 once it would be a product of infinity and 0.
      const double density = silent[l] > 0 ? std::exp(s + log_rates[l]) * silent[l] : 0;
      result[blocks[l]] += step * density * fewer[l];
    }
  }
  return result;
}

}  // namespace quell::stats
