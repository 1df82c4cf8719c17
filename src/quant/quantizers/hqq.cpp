// SPDX-License-Identifier: Apache-2.0

// hqq: rounding, with every group's zero and scale moved by half-quadratic rounds first. Zeros of
// the paper are real numbers; quell stores a code (0 to 2^bits - 1), so every round rounds the zero
// to one and the scale then takes up what the rounding of the zero left.

#include <algorithm>
#include <cmath>
#include <vector>

#include "quant/half_quadratic.hpp"
#include "quant/problem.hpp"
#include "quell/grid/formats.hpp"
#include "quell/grid/groups.hpp"
#include "quell/quant/methods.hpp"

namespace quell::quant {
namespace {

/// What a group's code counts in scales: code - zero, or a level.
class Levels {
 public:
  Levels(const GridSpec& grid, const GroupFit& fit, const HalfQuadratic& options)
      : codebook_(info(grid.format).codebook),
        scale_(fit.scale),
        shift_(options.storable ? 0 : fit.zero) {
    const CodeRange range = code_range(grid);
    const float zero = options.storable ? fit.zero : 0;
    lowest_ = range.lowest - zero;
    highest_ = range.highest - zero;
  }
  float operator()(float w) const noexcept {
    const float y = w / scale_;
    if (codebook_ != nullptr) return codebook_->levels[codebook_->nearest(y)];
    return detail::round_between(y + shift_, lowest_, highest_) - shift_;
  }

 private:
  const Codebook* codebook_;
  float scale_, shift_, lowest_, highest_;
};

}  // namespace

double shrink_threshold(const HalfQuadratic& options) noexcept {
  return std::pow(options.beta, 1 / (options.p - 2));
}

double shrink(double x, double threshold, const HalfQuadratic& options) noexcept {
  const double size = std::abs(x);
  if (!(size > threshold)) return 0;
  // Rounded to float32, since the last bit of a power in double is the C library's own.
  const auto power = static_cast<double>(static_cast<float>(std::pow(size, options.p - 1)));
  return std::copysign(std::max(size - power / options.beta, 0.0), x);
}

double mean_error(const GridSpec& grid, std::span<const float> weights, const GroupFit& fit,
                  const HalfQuadratic& options) noexcept {
  const Levels level(grid, fit, options);
  double sum = 0;
  for (const float w : weights) {
    sum += std::abs(static_cast<double>(w) - static_cast<double>(level(w) * fit.scale));
  }
  return sum / static_cast<double>(weights.size());
}

GroupFit half_quadratic_round(const GridSpec& grid, std::span<const float> weights,
                              const GroupFit& fit, float unit,
                              const HalfQuadratic& options) noexcept {
  const Levels level(grid, fit, options);
  const double scale = static_cast<double>(fit.scale), size = static_cast<double>(unit);
  const double threshold = shrink_threshold(options);
  // Sums over q, the code counted from the old zero, and the target t = w - e'.
  const double n = static_cast<double>(weights.size());
  double q_sum = 0, t_sum = 0, qq = 0, qt = 0;
  for (const float w : weights) {
    const double q = static_cast<double>(level(w)), x = static_cast<double>(w);
    const double t = x - size * shrink((x - q * scale) / size, threshold, options);
    q_sum += q;
    t_sum += t;
    qq += q * q;
    qt += q * t;
  }
  GroupFit next = fit;
  double shift = 0;  // of the zero
  if (!grid.symmetric) {
    shift = (q_sum - t_sum / scale) / n;
    if (options.storable) {
      shift = std::nearbyint(shift);
      const double highest = static_cast<double>(code_range(grid).highest);
      shift = std::clamp(static_cast<double>(fit.zero) + shift, 0.0, highest) -
              static_cast<double>(fit.zero);
    }
    next.zero = static_cast<float>(static_cast<double>(fit.zero) + shift);
  }
  if (options.scale) {
    // q - shift in the place of q.
    const double squares = qq - 2 * shift * q_sum + n * shift * shift;
    auto best = static_cast<float>((qt - shift * t_sum) / squares);
    if (options.storable) best = round_scale(best, grid.scale_type);
    if (std::isfinite(best) && best != 0 && (best > 0) == (fit.scale > 0)) next.scale = best;
  }
  next.error = mean_error(grid, weights, next, options);
  return next;
}

GroupFit half_quadratic(const GridSpec& grid, std::span<const float> weights, const GroupFit& start,
                        float unit, const HalfQuadratic& options) noexcept {
  GroupFit best = start;
  best.error = mean_error(grid, weights, start, options);
  for (unsigned round = 0; round < options.rounds; ++round) {
    const GroupFit next = half_quadratic_round(grid, weights, best, unit, options);
    if (!(next.error < best.error)) break;
    best = next;
  }
  return best;
}

namespace {

/// Root mean square of all weights: beta and the errors it meets are then those of weights of size
/// 1, for which its default was found. (The published code takes weights as they are; at their
/// usual size of 0.02 no error outgrows the threshold of shrink.)
float size_of(MatrixView<const float> weight) {
  double sum = 0;
  for (std::size_t r = 0; r < weight.rows(); ++r) {
    double row = 0;
    for (const float w : weight.row(r)) row += static_cast<double>(w) * static_cast<double>(w);
    sum += row;
  }
  const double count = static_cast<double>(weight.rows()) * static_cast<double>(weight.cols());
  const auto size = static_cast<float>(std::sqrt(sum / count));
  return size > 0 && std::isfinite(size) ? size : 1.0F;
}

class Hqq final : public Quantizer {
 public:
  std::string_view name() const override { return "hqq"; }
  Needs needs() const override { return Needs::weights_only; }

  Result<Quantized> quantize(const LayerProblem& layer, Executor& executor) const override {
    QUELL_TRY(plain, rounding_->quantize(layer, executor));
    if (layer.given != nullptr) return plain;
    if (layer.grid.two_level) {
      plain.fallback = "rounding: hqq does not move two-level scales";
      return plain;
    }
    GroupParameters fitted = plain.tensor.parameters();
    fit(layer, fitted, executor);
    LayerProblem moved = layer;
    moved.given = &fitted;
    QUELL_TRY(result, rounding_->quantize(moved, executor));
    if (!layer.second_moment.empty() && !(result.objective <= plain.objective)) {
      plain.fallback = "rounding: on this layer's inputs it is better than hqq";
      return plain;
    }
    result.objective_rtn = plain.objective;
    return result;
  }

 private:
  static void fit(const LayerProblem& layer, GroupParameters& parameters, Executor& executor) {
    const GridSpec& grid = layer.grid;
    const MatrixView<const float> weight = layer.weight;
    const GroupLayout layout = group_layout(grid, weight.rows(), weight.cols());
    const bool along = grid.per == Channel::output;
    const float unit = size_of(weight);
    executor.run(layout.rows, 1, [&](std::size_t begin, std::size_t end, unsigned) {
      std::vector<float> values(layout.length);
      for (std::size_t r = begin; r < end; ++r) {
        for (std::size_t c = 0; c < layout.cols; ++c) {
          const std::size_t first = (along ? c : r) * layout.length;
          const std::size_t run = along ? weight.cols() : weight.rows();
          const std::size_t n = std::min(layout.length, run - first);
          for (std::size_t i = 0; i < n; ++i) {
            values[i] = along ? weight(r, first + i) : weight(first + i, c);
          }
          const std::span<const float> group(values.data(), n);
          if (std::all_of(group.begin(), group.end(), [](float w) { return w == 0; })) continue;
          const std::size_t index = r * layout.cols + c;
          GroupFit start;
          start.scale = parameters.scales[index];
          start.zero = grid.symmetric ? symmetric_zero(grid.format) : parameters.zeros[index];
          const GroupFit best = half_quadratic(grid, group, start, unit, {});
          parameters.scales[index] = best.scale;
          if (!grid.symmetric) parameters.zeros[index] = static_cast<std::uint8_t>(best.zero);
        }
      }
    });
  }

  std::unique_ptr<Quantizer> rounding_ = rtn();
};

}  // namespace

std::unique_ptr<Quantizer> hqq(HqqOptions) {
  return std::make_unique<Hqq>();
}

}  // namespace quell::quant
