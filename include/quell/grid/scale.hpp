// SPDX-License-Identifier: Apache-2.0
#pragma once

// Choice of scale and zero for every group of a weight, and rounding to codes with them.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/core/half.hpp"
#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/core/view.hpp"
#include "quell/grid/groups.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/grid/spec.hpp"
#include "quell/grid/strip.hpp"
#include "quell/grid/two_level.hpp"

namespace quell {

enum class ScaleMethod {
  absmax,  // symmetric: absmax over the grid's half range (7.5 for int4); asymmetric: min-max
  minmax,  // the same on symmetric grids; min and max, with zero inside, on asymmetric ones
  search,  // least squares over shrunk ranges, both signs of the scale, weighted by importance
};

/// Scales and zeros of all groups. `importance` has one finite weight >= 0 per input channel
/// (empty: all 1) and is read by `search` alone, where groups run along input channels; in a group
/// of one input channel it would be a constant. All-zero groups get empty_scale(grid). Scales are
/// rounded to the grid's scale type; on two-level grids they are split as two_level.hpp says.
/// Errors: usage (check_grid); shape; numeric (a non-finite element with its place; a scale that
/// the scale type cannot hold, with the group, the value and the types to use instead).
inline Result<GroupParameters> choose_scales(MatrixView<const float> weight, const GridSpec& grid,
                                             ScaleMethod method, std::span<const float> importance,
                                             Executor& executor);

/// Codes = round-half-even(w / scale) + zero, clamped to the format's range; of a codebook, the
/// nearest level to w / scale. Errors: usage, shape and numeric as QuantizedTensor::create; numeric
/// for a non-finite element, with its place.
inline Result<QuantizedTensor> quantize_to_grid(MatrixView<const float> weight,
                                                const GridSpec& grid, GroupParameters parameters,
                                                Executor& executor);

/// Plain rounding with the input channels `columns` (ascending, below IC) kept in f16: they count
/// as zeros when scales are chosen, so outliers in them spoil no group. Errors: as the two
/// functions above and QuantizedTensor::keeping; resource.
inline Result<QuantizedTensor> quantize_keeping(MatrixView<const float> weight,
                                                const GridSpec& grid, ScaleMethod method,
                                                std::span<const float> importance,
                                                std::span<const std::uint32_t> columns,
                                                Executor& executor);

// ------------------------------------------------------------------ definitions

namespace detail {

inline void scale_strip(const GridSpec& grid, ScaleMethod method, const float* values,
                        const float* importance, std::size_t n, float* scales,
                        std::uint8_t* zeros) {
  switch (method) {
    case ScaleMethod::absmax:
      return absmax_strip(grid, values, n, scales, zeros);
    case ScaleMethod::minmax:
      return minmax_strip(grid, values, n, scales, zeros);
    case ScaleMethod::search:
      return search_strip(grid, values, importance, n, scales, zeros);
  }
}

// True if all are finite: the exponent field of a float that is not is all ones.
inline bool all_finite(std::span<const float> values) noexcept {
  std::uint32_t largest = 0;
  for (const float value : values) {
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(value) & 0x7FFF'FFFFu;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest < 0x7F80'0000u;
}

// Codes of a run with one scale and zero.
inline void round_run(const float* __restrict x, std::size_t n, float scale, int zero,
                      CodeRange range, std::uint8_t* __restrict codes) {
  const float lo = static_cast<float>(range.lowest - zero);
  const float hi = static_cast<float>(range.highest - zero);
  for (std::size_t i = 0; i < n; ++i) {
    const float steps = round_between(x[i] / scale, lo, hi);
    codes[i] = static_cast<std::uint8_t>(static_cast<int>(steps) + zero);
  }
}

// Codes of a row in which every element has its own scale; `zeros` is null on symmetric grids.
inline void round_columns(const float* __restrict x, std::size_t n, const float* __restrict scales,
                          const std::uint8_t* __restrict zeros, int fixed_zero, CodeRange range,
                          std::uint8_t* __restrict codes) {
  for (std::size_t i = 0; i < n; ++i) {
    const int zero = zeros == nullptr ? fixed_zero : zeros[i];
    const float lo = static_cast<float>(range.lowest - zero);
    const float hi = static_cast<float>(range.highest - zero);
    const float steps = round_between(x[i] / scales[i], lo, hi);
    codes[i] = static_cast<std::uint8_t>(static_cast<int>(steps) + zero);
  }
}

// Codes of a run on a codebook: element i has scales[i * step].
inline void round_to_levels(const Codebook& codebook, const float* __restrict x, std::size_t n,
                            const float* __restrict scales, std::size_t step,
                            std::uint8_t* __restrict codes) {
  for (std::size_t i = 0; i < n; ++i) codes[i] = codebook.nearest(x[i] / scales[i * step]);
}

inline Error non_finite_error(MatrixView<const float> weight) {
  std::size_t count = 0;
  std::string place;
  for (std::size_t row = 0; row < weight.rows(); ++row) {
    for (std::size_t col = 0; col < weight.cols(); ++col) {
      const float value = weight(row, col);
      if (std::isfinite(value)) continue;
      if (count++ == 0) {
        place = (std::isnan(value) ? std::string("NaN") : number_text(static_cast<double>(value))) +
                " at row " + std::to_string(row) + ", column " + std::to_string(col);
      }
    }
  }
  return {ErrorCode::numeric, "the weight holds " + std::to_string(count) +
                                  " elements that are not finite; the first is " + place +
                                  "; only finite weights can be quantized"};
}

// The scale of group (r, c) came out as 0 or infinity: an error, unless 0 is what a group of zeros
// is meant to have.
inline Status check_scale_range(MatrixView<const float> weight, const GridSpec& grid,
                                const GroupLayout& layout, std::size_t r, std::size_t c,
                                float scale) {
  const bool per_output = grid.per == Channel::output;
  const std::size_t first = (per_output ? c : r) * layout.length;
  const std::size_t run = per_output ? weight.cols() : weight.rows();
  const std::size_t last = std::min(run, first + layout.length);
  float lo = 0;
  float hi = 0;
  for (std::size_t k = first; k < last; ++k) {
    const float x = per_output ? weight(r, k) : weight(k, c);
    lo = std::min(lo, x);
    hi = std::max(hi, x);
  }
  if (scale == 0 && empty_scale(grid) == 0 && lo == 0 && hi == 0) return ok();
  const double wanted = grid.symmetric
                            ? std::max(-static_cast<double>(lo), static_cast<double>(hi)) /
                                  static_cast<double>(info(grid.format).absmax_divisor)
                            : (static_cast<double>(hi) - static_cast<double>(lo)) /
                                  static_cast<double>(code_range(grid).highest);
  std::string message =
      "grid " + to_string(grid) + ": group " + std::to_string(per_output ? c : r) + " of " +
      (per_output ? "output" : "input") + " channel " + std::to_string(per_output ? r : c) +
      " spans " + number_text(static_cast<double>(lo)) + " to " +
      number_text(static_cast<double>(hi)) + " and needs the scale " + number_text(wanted) +
      ", which " + (scale == 0 ? "underflows" : "overflows") + " " +
      std::string(to_string(grid.scale_type));
  message += grid.scale_type == ScaleType::f16 ? "; use bf16 or f32 scales"
             : grid.scale_type == ScaleType::bf16
                 ? "; use f32 scales"
                 : "; rescale the weight or keep it in floating point";
  return Error{ErrorCode::numeric, std::move(message)};
}

}  // namespace detail

inline Result<GroupParameters> choose_scales(MatrixView<const float> weight, const GridSpec& grid,
                                             ScaleMethod method, std::span<const float> importance,
                                             Executor& executor) {
  const std::size_t rows = weight.rows();
  const std::size_t cols = weight.cols();
  QUELL_TRY(check_grid(grid));
  if (weight.empty()) return detail::empty_weight_error(rows, cols);
  if (!importance.empty() && importance.size() != cols) {
    return Error{ErrorCode::shape, "the importance has " + std::to_string(importance.size()) +
                                       " elements, the weight has " + std::to_string(cols) +
                                       " input channels; give one per channel"};
  }
  for (std::size_t i = 0; i < importance.size(); ++i) {
    if (importance[i] >= 0 && std::isfinite(importance[i])) continue;
    return Error{ErrorCode::numeric, "the importance of input channel " + std::to_string(i) +
                                         " is " +
                                         detail::number_text(static_cast<double>(importance[i])) +
                                         "; it must be finite and not negative"};
  }

  const GroupLayout layout = group_layout(grid, rows, cols);
  const bool per_output = grid.per == Channel::output;
  GridSpec first = grid;  // what the strips choose; on two levels not rounded yet
  if (grid.two_level) first.scale_type = ScaleType::f32;
  GroupParameters parameters;
  parameters.rows = layout.rows;
  parameters.cols = layout.cols;
  parameters.scales.resize(layout.rows * layout.cols);
  std::vector<std::uint8_t> zeros(grid.symmetric ? 0 : parameters.scales.size());

  // One work item is a strip: 16 output channels with all their groups, or one group of 16 input
  // channels. It writes its own scales and its own flag and nothing else.
  const std::size_t strip_columns = ceil_divide(cols, kStripLanes);
  const std::size_t strips =
      per_output ? ceil_divide(rows, kStripLanes) : layout.rows * strip_columns;
  std::vector<std::uint8_t> not_finite(strips, 0);
  executor.run(strips, 1, [&](std::size_t begin, std::size_t end, unsigned) {
    std::vector<float> values(layout.length * kStripLanes);
    float scale[kStripLanes];
    std::uint8_t zero[kStripLanes];
    const auto store = [&](std::size_t index, std::size_t lane) {
      parameters.scales[index] = scale[lane];
      if (!grid.symmetric) zeros[index] = zero[lane];
    };
    for (std::size_t strip = begin; strip < end; ++strip) {
      if (per_output) {
        const std::size_t row = strip * kStripLanes;
        const std::size_t lanes = std::min(kStripLanes, rows - row);
        if (lanes < kStripLanes) std::fill(values.begin(), values.end(), 0.0f);
        for (std::size_t group = 0; group < layout.cols; ++group) {
          const std::size_t col = group * layout.length;
          const std::size_t n = std::min(layout.length, cols - col);
          for (std::size_t lane = 0; lane < lanes; ++lane) {
            const float* src = weight.row(row + lane).data() + col;
            for (std::size_t i = 0; i < n; ++i) values[i * kStripLanes + lane] = src[i];
          }
          if (!detail::all_finite({values.data(), n * kStripLanes})) not_finite[strip] = 1;
          detail::scale_strip(first, method, values.data(),
                              importance.empty() ? nullptr : importance.data() + col, n, scale,
                              zero);
          for (std::size_t lane = 0; lane < lanes; ++lane) {
            store((row + lane) * layout.cols + group, lane);
          }
        }
      } else {
        const std::size_t group = strip / strip_columns;
        const std::size_t col = strip % strip_columns * kStripLanes;
        const std::size_t lanes = std::min(kStripLanes, cols - col);
        const std::size_t row = group * layout.length;
        const std::size_t n = std::min(layout.length, rows - row);
        if (lanes < kStripLanes) std::fill(values.begin(), values.end(), 0.0f);
        for (std::size_t i = 0; i < n; ++i) {
          std::copy_n(weight.row(row + i).data() + col, lanes, values.data() + i * kStripLanes);
        }
        if (!detail::all_finite({values.data(), n * kStripLanes})) not_finite[strip] = 1;
        detail::scale_strip(first, method, values.data(), nullptr, n, scale, zero);
        for (std::size_t lane = 0; lane < lanes; ++lane) store(group * cols + col + lane, lane);
      }
    }
  });

  if (std::find(not_finite.begin(), not_finite.end(), 1) != not_finite.end()) {
    return detail::non_finite_error(weight);
  }
  if (grid.two_level) {
    QUELL_TRY(split_levels(grid, parameters));
    return parameters;
  }
  for (std::size_t i = 0; i < parameters.scales.size(); ++i) {
    const float scale = parameters.scales[i];
    if (scale != 0 && std::isfinite(scale)) continue;
    QUELL_TRY(
        detail::check_scale_range(weight, grid, layout, i / layout.cols, i % layout.cols, scale));
  }
  parameters.zeros = std::move(zeros);
  return parameters;
}

inline Result<QuantizedTensor> quantize_to_grid(MatrixView<const float> weight,
                                                const GridSpec& grid, GroupParameters parameters,
                                                Executor& executor) {
  const std::size_t rows = weight.rows();
  const std::size_t cols = weight.cols();
  QUELL_TRY(detail::check_parameters(grid, rows, cols, parameters));
  const GroupLayout layout = group_layout(grid, rows, cols);
  const CodeRange range = code_range(grid);
  const std::uint8_t fixed_zero = symmetric_zero(grid.format);
  const Codebook* const codebook = info(grid.format).codebook;
  const unsigned code_bits = bits(grid.format);
  const std::size_t row_bytes = packed_size(cols, code_bits);
  std::vector<std::uint8_t> packed(rows * row_bytes);
  std::vector<std::uint8_t> not_finite(rows, 0);

  executor.run(rows, 1, [&](std::size_t begin, std::size_t end, unsigned) {
    std::vector<std::uint8_t> codes(cols);
    for (std::size_t row = begin; row < end; ++row) {
      const std::span<const float> src = weight.row(row);
      if (!detail::all_finite(src)) not_finite[row] = 1;
      if (grid.per == Channel::output) {
        for (std::size_t col = 0; col < cols; col += layout.length) {
          const std::size_t index = layout.index(row, col);
          const std::size_t n = std::min(layout.length, cols - col);
          if (codebook != nullptr) {
            detail::round_to_levels(*codebook, src.data() + col, n, &parameters.scales[index], 0,
                                    codes.data() + col);
            continue;
          }
          detail::round_run(src.data() + col, n, parameters.scales[index],
                            grid.symmetric ? fixed_zero : parameters.zeros[index], range,
                            codes.data() + col);
        }
      } else {
        const std::size_t index = layout.index(row, 0);
        if (codebook != nullptr) {
          detail::round_to_levels(*codebook, src.data(), cols, &parameters.scales[index], 1,
                                  codes.data());
        } else {
          detail::round_columns(src.data(), cols, parameters.scales.data() + index,
                                grid.symmetric ? nullptr : parameters.zeros.data() + index,
                                fixed_zero, range, codes.data());
        }
      }
      pack_codes(codes, code_bits, {packed.data() + row * row_bytes, row_bytes});
    }
  });
  if (std::find(not_finite.begin(), not_finite.end(), 1) != not_finite.end()) {
    return detail::non_finite_error(weight);
  }
  return QuantizedTensor::create(grid, rows, cols, std::move(packed), std::move(parameters));
}

inline Result<QuantizedTensor> quantize_keeping(MatrixView<const float> weight,
                                                const GridSpec& grid, ScaleMethod method,
                                                std::span<const float> importance,
                                                std::span<const std::uint32_t> columns,
                                                Executor& executor) {
  KeptColumns kept;
  kept.columns.assign(columns.begin(), columns.end());
  kept.values.reserve(weight.rows() * columns.size());
  QUELL_TRY(rest, Matrix::uninitialized(weight.rows(), weight.cols()));
  for (std::size_t row = 0; row < weight.rows(); ++row) {
    std::copy_n(weight.row(row).data(), weight.cols(), rest.row(row).data());
    for (const std::uint32_t col : columns) {
      if (col >= weight.cols()) continue;  // keeping() refuses it by name
      kept.values.push_back(float_to_f16(weight(row, col)));
      rest(row, col) = 0;
    }
  }
  QUELL_TRY(parameters, choose_scales(rest.view(), grid, method, importance, executor));
  QUELL_TRY(tensor, quantize_to_grid(rest.view(), grid, std::move(parameters), executor));
  return std::move(tensor).keeping(std::move(kept));
}

}  // namespace quell
