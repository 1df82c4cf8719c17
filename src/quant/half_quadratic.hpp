// SPDX-License-Identifier: Apache-2.0
#pragma once

// Half-quadratic optimisation of one group's zero and scale (Badri and Shaji, "Half-quadratic
// quantization of large machine learning models", 2023). Errors are measured by sum |e|^p with p <
// 1, which forgives the few that are large anyway. With an auxiliary error e' the problem falls
// into two that have closed forms: e' = shrink(e), then the zero (and here the scale) of least
// squares for the targets w - e'.

#include <span>

#include "quell/grid/spec.hpp"

namespace quell::quant {

struct HalfQuadratic {
  double p = 0.7;        // of the norm
  double beta = 10;      // of the coupling of e and e', per unit of weight
  unsigned rounds = 20;  // at most; fewer once the mean error stops falling
  bool scale = true;     // the scale moves as well; the paper moves the zero alone
  bool storable = true;  // zeros and scales are rounded to what the grid stores; false: for tests
};

/// beta^(1 / (p - 2)): where shrink() begins to be more than 0. Most errors of rounding lie below
/// it and cost no power.
double shrink_threshold(const HalfQuadratic& options) noexcept;

/// sign(x) max(|x| - |x|^(p-1) / beta, 0).
double shrink(double x, double threshold, const HalfQuadratic& options) noexcept;

/// value = (code - zero) * scale, or level[code] * scale.
struct GroupFit {
  float scale = 1;
  float zero = 0;
  double error = 0;  // mean |w - value|
};

/// The mean error of a zero and a scale on `weights`.
double mean_error(const GridSpec& grid, std::span<const float> weights, const GroupFit& fit,
                  const HalfQuadratic& options) noexcept;

/// Zero and scale after one round from `fit`; `unit` is the size of a weight that counts as 1 in
/// `beta`. The zero of a symmetric grid stays. A scale that would be zero, infinite or of the other
/// sign stays too.
GroupFit half_quadratic_round(const GridSpec& grid, std::span<const float> weights,
                              const GroupFit& fit, float unit,
                              const HalfQuadratic& options) noexcept;

/// Rounds until the mean error stops falling. The best fit seen, the start included (the published
/// code returns the last, which may be worse).
GroupFit half_quadratic(const GridSpec& grid, std::span<const float> weights, const GroupFit& start,
                        float unit, const HalfQuadratic& options) noexcept;

}  // namespace quell::quant
