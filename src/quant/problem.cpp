// SPDX-License-Identifier: Apache-2.0

#include "quant/problem.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string>

#include "quell/grid/scale.hpp"

namespace quell::quant {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);

Error about(const LayerProblem& layer, ErrorCode code, const std::string& what) {
  return Error{code, layer.name + ": " + what, {}, layer.name};
}

std::string place(std::size_t index, std::size_t cols) {
  return "[" + std::to_string(index / cols) + ", " + std::to_string(index % cols) + "]";
}

std::string text(float value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "infinity" : "-infinity";
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.9g", static_cast<double>(value));
  return buffer;
}

void lower(std::atomic<std::size_t>& smallest, std::size_t candidate) {
  std::size_t seen = smallest.load();
  while (candidate < seen && !smallest.compare_exchange_weak(seen, candidate)) {
  }
}

/// Row-major index of the first element that is not finite.
std::size_t first_nonfinite(MatrixView<const float> matrix, Executor& executor) {
  std::atomic<std::size_t> found{kNone};
  executor.run(matrix.rows(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t r = begin; r < end; ++r) {
      const auto row = matrix.row(r);
      // The exponent bits of what is not finite are all ones, so the largest pattern tells; unlike
      // a sum, a maximum of integers runs on all lanes.
      std::uint32_t largest = 0;
      for (const float x : row) {
        const std::uint32_t pattern = std::bit_cast<std::uint32_t>(x) & 0x7FFF'FFFFU;
        largest = pattern > largest ? pattern : largest;
      }
      if (largest < 0x7F80'0000U) continue;
      const auto bad =
          std::find_if(row.begin(), row.end(), [](float x) { return !std::isfinite(x); });
      lower(found, r * matrix.cols() + static_cast<std::size_t>(bad - row.begin()));
      return;
    }
  });
  return found;
}

/// Row-major index of the first H_ij, j < i, that differs from H_ji by more than 1e-6 of
/// sqrt(H_ii H_jj), the natural size of an element of a second moment (and of the larger of the
/// two).
std::size_t first_asymmetric(MatrixView<const float> h, Executor& executor) {
  constexpr std::size_t kBlock = 64;  // both blocks, 32 KiB, fit the first-level cache
  std::vector<float> root(h.rows());
  for (std::size_t k = 0; k < h.rows(); ++k) root[k] = std::sqrt(std::max(h(k, k), 0.0F));
  std::atomic<std::size_t> found{kNone};
  executor.run(h.rows(), kBlock, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t i0 = begin; i0 < end; i0 += kBlock) {
      const std::size_t i1 = std::min(i0 + kBlock, end);
      for (std::size_t j0 = 0; j0 <= i0; j0 += kBlock) {
        for (std::size_t i = i0; i < i1; ++i) {
          const float* row = h.row(i).data();
          const std::size_t j1 = std::min(j0 + kBlock, i);
          for (std::size_t j = j0; j < j1; ++j) {
            const float mirrored = h.row(j).data()[i];
            if (row[j] == mirrored) continue;
            const float size = std::max({root[i] * root[j], std::abs(row[j]), std::abs(mirrored)});
            // Halves, since the difference of two large numbers may overflow.
            if (std::abs(row[j] / 2 - mirrored / 2) > 0.5e-6F * size) {
              lower(found, i * h.cols() + j);
            }
          }
        }
      }
    }
  });
  return found;
}

}  // namespace

Status check_problem(const LayerProblem& layer, bool moment_needed, Executor& executor) {
  const auto& w = layer.weight;
  if (w.empty()) {
    return about(layer, ErrorCode::shape,
                 "the weight is " + std::to_string(w.rows()) + " x " + std::to_string(w.cols()) +
                     ", expected at least one row and one column");
  }
  if (const std::size_t bad = first_nonfinite(w, executor); bad != kNone) {
    return about(layer, ErrorCode::numeric,
                 "element " + place(bad, w.cols()) + " of the weight is " +
                     text(w(bad / w.cols(), bad % w.cols())) + ", expected a finite number");
  }
  const auto& h = layer.second_moment;
  if (h.size() == 0) {
    if (!moment_needed) return ok();
    return about(layer, ErrorCode::missing,
                 "the method needs the second moment of the layer's inputs, and there is none");
  }
  if (h.rows() != w.cols() || h.cols() != w.cols()) {
    return about(layer, ErrorCode::shape,
                 "the second moment is " + std::to_string(h.rows()) + " x " +
                     std::to_string(h.cols()) + ", expected " + std::to_string(w.cols()) + " x " +
                     std::to_string(w.cols()) + ", the inputs of the weight");
  }
  if (const std::size_t bad = first_nonfinite(h, executor); bad != kNone) {
    return about(layer, ErrorCode::numeric,
                 "element " + place(bad, h.cols()) + " of the second moment is " +
                     text(h(bad / h.cols(), bad % h.cols())) + ", expected a finite number");
  }
  for (std::size_t k = 0; k < h.rows(); ++k) {
    if (h(k, k) < 0) {
      return about(layer, ErrorCode::numeric,
                   "element " + place(k * h.cols() + k, h.cols()) + " of the second moment is " +
                       text(h(k, k)) + ", expected a mean of squares, 0 or more");
    }
  }
  if (const std::size_t bad = first_asymmetric(h, executor); bad != kNone) {
    const std::size_t i = bad / h.cols();
    const std::size_t j = bad % h.cols();
    return about(layer, ErrorCode::numeric,
                 "the second moment is not symmetric: element " + place(bad, h.cols()) + " is " +
                     text(h(i, j)) + " and element " + place(j * h.cols() + i, h.cols()) + " is " +
                     text(h(j, i)) + "; the statistics are damaged");
  }
  return ok();
}

MomentProfile profile_moment(MatrixView<const float> moment) {
  MomentProfile profile;
  const std::size_t n = moment.rows();
  double sum = 0;
  for (std::size_t k = 0; k < n; ++k) {
    const float own = moment(k, k);
    (own > 0 ? profile.live : profile.dead).push_back(static_cast<std::uint32_t>(k));
    sum += static_cast<double>(own);
  }
  if (!profile.live.empty()) {
    const double mean = sum / static_cast<double>(profile.live.size());
    const int exponent = std::clamp(std::ilogb(mean), -126, 126);
    profile.unit = std::ldexp(1.0F, -exponent);
    profile.mean = mean * static_cast<double>(profile.unit);
  }
  profile.importance.resize(n);
  for (std::size_t k = 0; k < n; ++k) profile.importance[k] = profile.unit * moment(k, k);
  return profile;
}

Result<GroupParameters> layer_scales(const LayerProblem& layer, std::span<const float> importance,
                                     Executor& executor) {
  if (layer.given != nullptr) return GroupParameters(*layer.given);
  const auto choose = [&](ScaleMethod method) -> Result<GroupParameters> {
    auto chosen = choose_scales(layer.weight, layer.grid, method, importance, executor);
    if (chosen) return chosen;
    Error error = std::move(chosen).error();
    return about(layer, error.code, error.message);
  };
  QUELL_TRY(parameters, choose(layer.scale));
  // Along a row the search itself falls back to absmax where all its weights are zero; down a
  // column it takes no weights. On two levels the scales of a row stand together, so they stay.
  const bool any_dead = std::find(importance.begin(), importance.end(), 0.0F) != importance.end();
  if (layer.scale != ScaleMethod::search || layer.grid.per == Channel::output ||
      layer.grid.two_level || !any_dead) {
    return parameters;
  }
  QUELL_TRY(plain, choose(ScaleMethod::absmax));
  for (std::size_t i = 0; i < parameters.scales.size(); ++i) {
    if (importance[i % parameters.cols] != 0) continue;
    parameters.scales[i] = plain.scales[i];
    if (!parameters.zeros.empty()) parameters.zeros[i] = plain.zeros[i];
  }
  return parameters;
}

Result<QuantizedTensor> round_layer(const LayerProblem& layer, std::span<const float> importance,
                                    Executor& executor) {
  QUELL_TRY(parameters, layer_scales(layer, importance, executor));
  auto rounded = quantize_to_grid(layer.weight, layer.grid, std::move(parameters), executor);
  if (rounded) return rounded;
  Error error = std::move(rounded).error();
  return about(layer, error.code, error.message);
}

MomentLoss::MomentLoss(MatrixView<const float> moment, float unit) : moment_(moment) {
  // H * (e * scale) has the size of e when the scale is the unit; beyond 2^64 the errors themselves
  // would leave the range.
  error_scale_ = std::clamp(unit, 0x1p-64F, 0x1p64F);
  back_ = static_cast<double>(unit) /
          (static_cast<double>(error_scale_) * static_cast<double>(error_scale_));
}

void MomentLoss::gather(MatrixView<const float> weight, const QuantizedTensor* tensor,
                        std::size_t first, std::size_t stride, MatrixView<float> out,
                        Executor& executor) const {
  executor.run(out.rows(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t r = begin; r < end; ++r) {
      const std::size_t row = first + r * stride;
      const float* from = weight.row(row).data();
      float* to = out.row(r).data();
      const std::size_t n = out.cols();
      if (tensor == nullptr) {
        for (std::size_t k = 0; k < n; ++k) to[k] = from[k] * error_scale_;
        continue;
      }
      tensor->dequantize_row(row, out.row(r));
      for (std::size_t k = 0; k < n; ++k) to[k] = (from[k] - to[k]) * error_scale_;
    }
  });
}

Status MomentLoss::judge(MatrixView<const float> errors, std::span<double> out,
                         linalg::Context& context) const {
  QUELL_TRY(linalg::quadratic_losses(moment_, errors, out, context));
  for (double& loss : out) loss *= back_;
  return ok();
}

Result<double> MomentLoss::zero_loss(MatrixView<const float> weight,
                                     linalg::Context& context) const {
  const std::size_t rows = weight.rows(), inputs = weight.cols();
  const std::size_t stride = (rows + kSampledRows - 1) / kSampledRows;
  const std::size_t count = (rows + stride - 1) / stride;
  QUELL_TRY(sample, Matrix::uninitialized(count, inputs));
  gather(weight, nullptr, 0, stride, sample.view(), context.executor());
  std::vector<double> losses(count);
  QUELL_TRY(judge(sample.view(), losses, context));
  const double sampled = std::accumulate(losses.begin(), losses.end(), 0.0);
  if (stride == 1) return sampled;
  // What every row would lose if inputs did not correlate, which follows the true loss closely
  // where rows or inputs differ in size.
  std::vector<double> diagonal(inputs), alone(rows);
  for (std::size_t k = 0; k < inputs; ++k) diagonal[k] = static_cast<double>(moment_(k, k));
  context.executor().run(rows, 16, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t r = begin; r < end; ++r) {
      const float* row = weight.row(r).data();
      double sums[4] = {};  // four chains of additions
      for (std::size_t k = 0; k < inputs; ++k) {
        const double w = static_cast<double>(row[k]);
        sums[k % 4] += diagonal[k] * (w * w);
      }
      alone[r] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
  });
  double all = 0, part = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    all += alone[r];
    if (r % stride == 0) part += alone[r];
  }
  return part > 0 ? sampled * (all / part) : 0.0;
}

std::size_t panel_rows(std::size_t rows, std::size_t preferred, std::size_t step, unsigned width) {
  // A multiple of the number of threads, unless panels get smaller than a quarter of the preferred
  // size.
  std::size_t panels = (rows + preferred - 1) / preferred;
  panels = (panels + width - 1) / width * width;
  const std::size_t even = std::max((rows + panels - 1) / panels, preferred / 4);
  return (even + step - 1) / step * step;
}

}  // namespace quell::quant
