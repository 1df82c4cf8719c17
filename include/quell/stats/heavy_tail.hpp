// SPDX-License-Identifier: Apache-2.0
#pragma once

// How heavy the tail of a weight's spectrum is: the exponent alpha of a density x^-alpha fitted to
// its largest eigenvalues x = (singular value of W)^2 (Martin and Mahoney, "Implicit
// self-regularization in deep neural networks", JMLR 2021; Clauset, Shalizi and Newman, "Power-law
// distributions in empirical data", SIAM Review 2009). Given where the tail begins, at x_min, its n
// values have the most likely exponent
//
//     alpha = 1 + n / sum ln(x / x_min)           standard error (alpha - 1) / sqrt(n)
//
// Smaller is heavier. The two functions differ in the choice of x_min. Alpha does not change when
// the weight is scaled. A tail of equal values has alpha = infinity, no values at all give 0.
//
// Singular values come in any order. Those below 1e-12 of the largest are rank lost to rounding,
// not spectrum: they are dropped, as is what is not finite or negative.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace quell::stats {

/// PL_Alpha_Hill: the tail is the upper half. Of N eigenvalues in ascending order x_min is number
/// floor(N / 2), counted from 0, and n = N - floor(N / 2), x_min itself included.
inline double hill_alpha(std::span<const double> singular_values);

struct TailFit {
  double alpha = 0;
  double x_min = 0;           // an eigenvalue, where the tail begins
  double distance = 0;        // of Kolmogorov and Smirnov, between the tail and its fit, in [0, 1]
  double standard_error = 0;  // (alpha - 1) / sqrt(tail), for x_min given
  std::uint64_t tail = 0;     // n: eigenvalues >= x_min
};

/// Every eigenvalue is tried as x_min, and the one with the smallest distance is taken; of equals
/// the longest tail. The distance is the largest gap between the fitted distribution and the steps
/// of the observed one, above or below: a step has height 1 / n, so very short tails do not win, as
/// they may when the gap is taken on one side of the steps only. On Pareto samples the choice makes
/// alpha err by an eighth more than its standard error says. O(N^2) at worst, 0.4 s for N = 4096; a
/// candidate is left as soon as it is worse than the best.
inline TailFit fit_tail(std::span<const double> singular_values);

// ------------------------------------------------------------------ definitions

namespace detail {

// The singular values that count, ascending.
inline std::vector<double> spectrum(std::span<const double> singular_values) {
  double largest = 0;
  for (const double s : singular_values) {
    if (std::isfinite(s)) largest = std::max(largest, s);
  }
  std::vector<double> kept;
  for (const double s : singular_values) {
    if (std::isfinite(s) && s > 0 && s >= 1e-12 * largest) kept.push_back(s);
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

// Logarithms of the eigenvalues: s^2 itself could overflow.
inline std::vector<double> log_eigenvalues(std::span<const double> spectrum) {
  std::vector<double> logs(spectrum.size());
  std::transform(spectrum.begin(), spectrum.end(), logs.begin(),
                 [](double s) { return 2 * std::log(s); });
  return logs;
}

inline double alpha_of(std::uint64_t n, double sum_of_logs) noexcept {
  if (!(sum_of_logs > 0)) return std::numeric_limits<double>::infinity();
  return 1 + static_cast<double>(n) / sum_of_logs;
}

// The distance of an ascending tail of logarithms from 1 - (x / x_min)^(1 - alpha); left early,
// with some value above `enough`, once it exceeds that. Among equal values the largest gaps are at
// the first and the last, so they need no care.
inline double tail_distance(std::span<const double> logs, double alpha, double enough) noexcept {
  const double n = static_cast<double>(logs.size());
  double distance = 0;
  for (std::size_t k = 0; k < logs.size() && distance <= enough; ++k) {
    const double fitted = -std::expm1((1 - alpha) * (logs[k] - logs[0]));
    const double below = static_cast<double>(k) / n;
    const double above = static_cast<double>(k + 1) / n;
    distance = std::max({distance, fitted - below, above - fitted});
  }
  return distance;
}

}  // namespace detail

inline double hill_alpha(std::span<const double> singular_values) {
  const std::vector<double> logs = detail::log_eigenvalues(detail::spectrum(singular_values));
  if (logs.empty()) return 0;
  const std::size_t first = logs.size() / 2;
  double sum = 0;
  for (std::size_t j = first; j < logs.size(); ++j) sum += logs[j] - logs[first];
  return detail::alpha_of(logs.size() - first, sum);
}

inline TailFit fit_tail(std::span<const double> singular_values) {
  const std::vector<double> values = detail::spectrum(singular_values);
  TailFit best;
  if (values.empty()) return best;
  const std::vector<double> logs = detail::log_eigenvalues(values);
  const std::size_t count = values.size();
  // Unless a candidate has spread, all values are equal and are one tail that fits exactly.
  best = {std::numeric_limits<double>::infinity(), values[0] * values[0], 0,
          std::numeric_limits<double>::infinity(), count};
  double smallest = std::numeric_limits<double>::infinity();
  double sum = 0;  // of ln(x_j / x_i) over j >= i; grows by differences, so nothing cancels
  for (std::size_t i = count - 1; i-- > 0;) {
    sum += static_cast<double>(count - 1 - i) * (logs[i + 1] - logs[i]);
    const bool is_first_of_equals = i == 0 || logs[i - 1] < logs[i];
    if (!is_first_of_equals || !(sum > 0)) continue;
    const std::uint64_t n = count - i;
    const double alpha = detail::alpha_of(n, sum);
    const double distance =
        detail::tail_distance(std::span<const double>(logs).subspan(i), alpha, smallest);
    if (distance > smallest) continue;
    smallest = distance;
    best = {alpha, values[i] * values[i], distance, (alpha - 1) / std::sqrt(static_cast<double>(n)),
            n};
  }
  return best;
}

}  // namespace quell::stats
