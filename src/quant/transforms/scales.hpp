// SPDX-License-Identifier: Apache-2.0
#pragma once

// The factors of the diagonal transforms as plain functions of vectors, and the checks of the
// statistics that they start from.

#include <span>
#include <string>
#include <vector>

#include "quell/quant/transform.hpp"

namespace quell::quant {

/// unsupported unless the model is known and has a site that can be scaled.
Status expect_scalable(const model::Model& model, std::string_view transform);

/// How the channels that follow one free channel, as those of query heads that share a value head,
/// become one value.
enum class Ties { largest, mean };

/// The values of free channels. Errors: numeric (as many values as the site has channels, none of
/// them negative or not finite).
template <typename T>
Result<std::vector<double>> free_values(const SiteProblem& problem, std::span<const T> values,
                                        Ties ties, std::string_view what);

/// max_x^alpha / max_w^(1 - alpha), maxima of at least 1e-5; 1 where both are below that.
std::vector<float> smooth_factors(std::span<const double> max_x, std::span<const double> max_w,
                                  double alpha);

/// a^alpha / (w^(1 - alpha) + 1e-4), or a^alpha where `w` is empty; at least 1e-4, then divided by
/// the root of the largest times the smallest.
std::vector<float> awq_factors(std::span<const double> a, std::span<const double> w, double alpha);

}  // namespace quell::quant
