// SPDX-License-Identifier: Apache-2.0
#pragma once

// QuantizedTensor: a weight W [OC, IC] as codes on a grid. What is here is canonical and
// independent of the machine: row-major codes, lowest bits first, a row starting at a byte. What
// kernels multiply with is packed from it, in an order of their own.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "quell/core/bits.hpp"
#include "quell/core/checked.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/half.hpp"
#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/grid/groups.hpp"
#include "quell/grid/spec.hpp"

namespace quell {

/// Scales and zeros of all groups, in storage order: [OC, groups along IC] per output channel,
/// [groups along OC, IC] per input channel.
struct GroupParameters {
  std::size_t rows = 0;  // of the array above
  std::size_t cols = 0;
  // Finite, not zero (but for all-zero groups of a codebook without a zero); of one-level grids
  // exactly representable in the scale type.
  std::vector<float> scales;
  std::vector<std::uint8_t> zeros = {};  // asymmetric grids only, in code units; else empty
  // Two-level grids only, else empty. scales[r, c] is then the float product of row_scales[r],
  // which is positive and exact in the scale type, and integers[r, c], 1 to kHighestGroupInteger.
  std::vector<float> row_scales = {};
  std::vector<std::uint8_t> integers = {};
};

/// Sets the scales of two-level parameters to the products. Sizes are as in GroupParameters.
inline void multiply_levels(GroupParameters& parameters) {
  parameters.scales.resize(parameters.integers.size());
  for (std::size_t i = 0; i < parameters.scales.size(); ++i) {
    parameters.scales[i] =
        parameters.row_scales[i / parameters.cols] * static_cast<float>(parameters.integers[i]);
  }
}

/// Input channels that stay in f16 beside the codes (outliers): k of them.
struct KeptColumns {
  std::vector<std::uint32_t> columns = {};  // [k], ascending, below IC
  std::vector<std::uint16_t> values = {};   // [OC, k], f16 bits of finite numbers

  bool operator==(const KeptColumns&) const = default;
};

class QuantizedTensor {
 public:
  QuantizedTensor() = default;

  /// Takes codes packed as described above and checks everything that was promised: array sizes,
  /// code range of the format, scales finite, not zero, representable, and negative only where
  /// allows_negative_scale(grid). Bits after the last code of a row are cleared. Errors: shape,
  /// numeric.
  static Result<QuantizedTensor> create(const GridSpec& grid, std::size_t rows, std::size_t cols,
                                        std::vector<std::uint8_t> packed_codes,
                                        GroupParameters parameters);

  /// The same with kept columns, replacing those it had. Their codes must mean zero, so that a
  /// kernel may add their products to those of the codes; a format without a zero (iq4) keeps
  /// none. Errors: usage, shape, numeric.
  Result<QuantizedTensor> keeping(KeptColumns kept) &&;

  const KeptColumns& kept() const noexcept { return kept_; }
  const GridSpec& grid() const noexcept { return grid_; }
  std::size_t rows() const noexcept { return rows_; }  // OC
  std::size_t cols() const noexcept { return cols_; }  // IC
  /// Bytes of one packed row: ceil(IC * bits / 8).
  std::size_t row_bytes() const noexcept { return row_bytes_; }
  std::span<const std::uint8_t> packed_codes() const noexcept { return codes_; }
  const GroupParameters& parameters() const noexcept { return parameters_; }

  /// Unpacked codes of one row, 0 .. 2^bits - 1; `codes` has IC elements.
  void unpack_row(std::size_t row, std::span<std::uint8_t> codes) const;
  /// Dequantized values of one row; `values` has IC elements.
  void dequantize_row(std::size_t row, std::span<float> values) const;

  /// Everything counted: codes, scales in their type, zeros in `bits` bits each; of two levels, row
  /// scales in their type and integers in 4 bits; kept values in 16 bits, their columns in 32.
  double bits_per_weight() const noexcept;

 private:
  GridSpec grid_;
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  std::size_t row_bytes_ = 0;
  std::vector<std::uint8_t> codes_;
  GroupParameters parameters_;
  KeptColumns kept_;
};

/// The whole tensor as floats; `out` is [OC, IC]. Errors: shape.
inline Status dequantize(const QuantizedTensor& tensor, MatrixView<float> out, Executor& executor);

// ------------------------------------------------------------------ definitions

namespace detail {

// A number as text with the nine digits that tell every float from its neighbours.
inline std::string number_text(double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value, std::chars_format::general, 9);
  return {text, end.ptr};
}

inline Error empty_weight_error(std::size_t rows, std::size_t cols) {
  return {ErrorCode::shape, "a weight of " + std::to_string(rows) + " x " + std::to_string(cols) +
                                " has no elements to quantize"};
}

// The two levels of scales and that their products are the scales, whose count was checked.
inline Status check_levels(const GridSpec& grid, const std::string& where,
                           const GroupParameters& parameters) {
  const std::size_t cols = parameters.cols;
  const auto place = [cols](std::size_t i) {
    return "[" + std::to_string(i / cols) + ", " + std::to_string(i % cols) + "]";
  };
  if (parameters.row_scales.size() != parameters.rows ||
      parameters.integers.size() != parameters.scales.size()) {
    return Error{ErrorCode::shape, where + std::to_string(parameters.row_scales.size()) +
                                       " row scales and " +
                                       std::to_string(parameters.integers.size()) +
                                       " integers, expected " + std::to_string(parameters.rows) +
                                       " and " + std::to_string(parameters.scales.size())};
  }
  for (std::size_t r = 0; r < parameters.rows; ++r) {
    const float scale = parameters.row_scales[r];
    if (scale > 0 && std::isfinite(scale) && round_scale(scale, grid.scale_type) == scale) continue;
    return Error{ErrorCode::numeric, where + "row scale " + std::to_string(r) + " is " +
                                         number_text(static_cast<double>(scale)) +
                                         "; row scales are finite, positive and exact in " +
                                         std::string(to_string(grid.scale_type))};
  }
  for (std::size_t i = 0; i < parameters.scales.size(); ++i) {
    const std::uint8_t integer = parameters.integers[i];
    if (integer == 0 || integer > kHighestGroupInteger) {
      return Error{ErrorCode::numeric, where + "the integer of group " + place(i) + " is " +
                                           std::to_string(integer) + ", expected 1 to " +
                                           std::to_string(kHighestGroupInteger)};
    }
    const float product = parameters.row_scales[i / cols] * static_cast<float>(integer);
    if (parameters.scales[i] == product && std::isfinite(product)) continue;
    return Error{ErrorCode::numeric, where + "scale " + place(i) + " is " +
                                         number_text(static_cast<double>(parameters.scales[i])) +
                                         ", expected a finite product of row scale and integer, " +
                                         number_text(static_cast<double>(product))};
  }
  return ok();
}

// Sizes, scales and zeros of a weight's group parameters.
inline Status check_parameters(const GridSpec& grid, std::size_t rows, std::size_t cols,
                               const GroupParameters& parameters) {
  QUELL_TRY(check_grid(grid));
  if (rows == 0 || cols == 0) return empty_weight_error(rows, cols);
  const GroupLayout layout = group_layout(grid, rows, cols);
  const auto count = checked_multiply(layout.rows, layout.cols);
  const std::string where = "grid " + to_string(grid) + " on " + std::to_string(rows) + " x " +
                            std::to_string(cols) + ": ";
  if (parameters.rows != layout.rows || parameters.cols != layout.cols || !count ||
      parameters.scales.size() != *count) {
    return Error{ErrorCode::shape, where + "scales [" + std::to_string(parameters.rows) + ", " +
                                       std::to_string(parameters.cols) + "] of " +
                                       std::to_string(parameters.scales.size()) +
                                       " elements, expected [" + std::to_string(layout.rows) +
                                       ", " + std::to_string(layout.cols) + "]"};
  }
  const std::uint64_t zeros = grid.symmetric ? 0 : *count;
  if (parameters.zeros.size() != zeros) {
    return Error{ErrorCode::shape, where + std::to_string(parameters.zeros.size()) +
                                       " zeros, expected " + std::to_string(zeros)};
  }
  if (grid.two_level) return check_levels(grid, where, parameters);
  if (!parameters.row_scales.empty() || !parameters.integers.empty()) {
    return Error{ErrorCode::shape,
                 where + "row scales and integers belong to two-level grids (u4)"};
  }
  const bool may_be_negative = allows_negative_scale(grid);
  const bool may_be_zero = empty_scale(grid) == 0;
  for (std::size_t i = 0; i < parameters.scales.size(); ++i) {
    const float scale = parameters.scales[i];
    const bool good = (scale != 0 || may_be_zero) && std::isfinite(scale) &&
                      round_scale(scale, grid.scale_type) == scale &&
                      (scale >= 0 || may_be_negative);
    if (good) continue;
    return Error{ErrorCode::numeric, where + "scale [" + std::to_string(i / layout.cols) + ", " +
                                         std::to_string(i % layout.cols) + "] is " +
                                         number_text(static_cast<double>(scale)) +
                                         "; scales are finite, " +
                                         (may_be_zero ? "" : "not zero, ") + "exact in " +
                                         std::string(to_string(grid.scale_type)) +
                                         (may_be_negative ? "" : " and positive on this grid")};
  }
  const std::uint8_t highest = code_range(grid).highest;
  for (std::size_t i = 0; i < parameters.zeros.size(); ++i) {
    if (parameters.zeros[i] <= highest) continue;
    return Error{ErrorCode::numeric, where + "zero [" + std::to_string(i / layout.cols) + ", " +
                                         std::to_string(i % layout.cols) + "] is " +
                                         std::to_string(parameters.zeros[i]) +
                                         ", above the highest code " + std::to_string(highest)};
  }
  return ok();
}

// values[i] = (codes[i] - zero) * scale over a run with one scale; a codebook's levels instead.
inline void dequantize_run(const Codebook* codebook, const std::uint8_t* __restrict codes,
                           std::size_t n, int zero, float scale, float* __restrict values) {
  if (codebook != nullptr) {
    for (std::size_t i = 0; i < n; ++i) values[i] = codebook->levels[codes[i]] * scale;
    return;
  }
  for (std::size_t i = 0; i < n; ++i) {
    values[i] = static_cast<float>(static_cast<int>(codes[i]) - zero) * scale;
  }
}

}  // namespace detail

inline Result<QuantizedTensor> QuantizedTensor::create(const GridSpec& grid, std::size_t rows,
                                                       std::size_t cols,
                                                       std::vector<std::uint8_t> packed_codes,
                                                       GroupParameters parameters) {
  QUELL_TRY(detail::check_parameters(grid, rows, cols, parameters));
  const unsigned code_bits = bits(grid.format);
  QuantizedTensor tensor;
  tensor.grid_ = grid;
  tensor.rows_ = rows;
  tensor.cols_ = cols;
  tensor.row_bytes_ = packed_size(cols, code_bits);
  const auto size = checked_multiply(rows, tensor.row_bytes_);
  if (!size || packed_codes.size() != *size) {
    return Error{ErrorCode::shape, "codes of " + std::to_string(rows) + " x " +
                                       std::to_string(cols) + " at " + std::to_string(code_bits) +
                                       " bits: " + std::to_string(packed_codes.size()) +
                                       " bytes, expected " + std::to_string(rows) + " rows of " +
                                       std::to_string(tensor.row_bytes_)};
  }
  const auto used_bits = static_cast<unsigned>(cols % 8 * code_bits % 8);
  if (used_bits != 0) {
    const auto mask = static_cast<std::uint8_t>((1u << used_bits) - 1u);
    for (std::size_t row = 0; row < rows; ++row) {
      packed_codes[(row + 1) * tensor.row_bytes_ - 1] &= mask;
    }
  }
  tensor.codes_ = std::move(packed_codes);
  tensor.parameters_ = std::move(parameters);

  // Only narrow ranges can be left: every other bit pattern is a code.
  const CodeRange range = code_range(grid);
  if (range.lowest > 0 || range.highest + 1u < 1u << code_bits) {
    std::vector<std::uint8_t> codes(cols);
    for (std::size_t row = 0; row < rows; ++row) {
      tensor.unpack_row(row, codes);
      const auto [low, high] = std::minmax_element(codes.begin(), codes.end());
      if (*low >= range.lowest && *high <= range.highest) continue;
      const auto bad = *low < range.lowest ? low : high;
      const int zero = symmetric_zero(grid.format);
      return Error{ErrorCode::numeric, "grid " + to_string(grid) + ": the code of element [" +
                                           std::to_string(row) + ", " +
                                           std::to_string(bad - codes.begin()) + "] is " +
                                           std::to_string(*bad - zero) + ", outside [" +
                                           std::to_string(range.lowest - zero) + ", " +
                                           std::to_string(range.highest - zero) + "]"};
    }
  }
  return tensor;
}

inline void QuantizedTensor::unpack_row(std::size_t row, std::span<std::uint8_t> codes) const {
  QUELL_ASSERT(row < rows_ && codes.size() == cols_);
  unpack_codes({codes_.data() + row * row_bytes_, row_bytes_}, bits(grid_.format), codes);
}

inline void QuantizedTensor::dequantize_row(std::size_t row, std::span<float> values) const {
  QUELL_ASSERT(row < rows_ && values.size() == cols_);
  // Codes are unpacked by chunks that stay in the first-level cache and, being multiples of eight
  // codes, start at a byte.
  constexpr std::size_t kChunk = 1024;
  std::uint8_t codes[kChunk];
  const GroupLayout layout = group_layout(grid_, rows_, cols_);
  const unsigned code_bits = bits(grid_.format);
  const int fixed_zero = symmetric_zero(grid_.format);
  const Codebook* const codebook = info(grid_.format).codebook;
  const std::uint8_t* packed = codes_.data() + row * row_bytes_;
  for (std::size_t first = 0; first < cols_; first += kChunk) {
    const std::size_t n = std::min(kChunk, cols_ - first);
    unpack_codes({packed + packed_size(first, code_bits), packed_size(n, code_bits)}, code_bits,
                 {codes, n});
    float* out = values.data() + first;
    if (layout.per == Channel::output) {
      for (std::size_t i = 0; i < n;) {
        const std::size_t col = first + i;
        const std::size_t index = layout.index(row, col);
        const std::size_t run = std::min(layout.length - col % layout.length, n - i);
        const int zero = grid_.symmetric ? fixed_zero : parameters_.zeros[index];
        detail::dequantize_run(codebook, codes + i, run, zero, parameters_.scales[index], out + i);
        i += run;
      }
    } else {
      const std::size_t index = layout.index(row, first);
      const float* scales = parameters_.scales.data() + index;
      if (codebook != nullptr) {
        for (std::size_t i = 0; i < n; ++i) out[i] = codebook->levels[codes[i]] * scales[i];
      } else if (grid_.symmetric) {
        for (std::size_t i = 0; i < n; ++i) {
          out[i] = static_cast<float>(static_cast<int>(codes[i]) - fixed_zero) * scales[i];
        }
      } else {
        const std::uint8_t* zeros = parameters_.zeros.data() + index;
        for (std::size_t i = 0; i < n; ++i) {
          out[i] = static_cast<float>(static_cast<int>(codes[i]) - zeros[i]) * scales[i];
        }
      }
    }
  }
  const std::size_t kept = kept_.columns.size();
  for (std::size_t k = 0; k < kept; ++k) {
    values[kept_.columns[k]] = f16_to_float(kept_.values[row * kept + k]);
  }
}

inline Result<QuantizedTensor> QuantizedTensor::keeping(KeptColumns kept) && {
  const std::string where = "kept columns of a weight of " + std::to_string(rows_) + " x " +
                            std::to_string(cols_) + " on " + to_string(grid_) + ": ";
  const std::size_t count = kept.columns.size();
  if (count != 0 && !has_zero(grid_.format)) {
    return Error{ErrorCode::usage, where +
                                       "the format has no code for zero; keep columns beside "
                                       "another one"};
  }
  const auto size = checked_multiply(rows_, count);
  if (!size || kept.values.size() != *size) {
    return Error{ErrorCode::shape, where + std::to_string(kept.values.size()) +
                                       " values, expected " + std::to_string(count) +
                                       " for each row"};
  }
  for (std::size_t k = 0; k < count; ++k) {
    if (kept.columns[k] < cols_ && (k == 0 || kept.columns[k - 1] < kept.columns[k])) continue;
    return Error{ErrorCode::shape, where + "column " + std::to_string(k) + " of the list is " +
                                       std::to_string(kept.columns[k]) +
                                       "; columns ascend and are below " + std::to_string(cols_)};
  }
  const GroupLayout layout = group_layout(grid_, rows_, cols_);
  std::vector<std::uint8_t> codes(cols_);
  for (std::size_t row = 0; row < rows_ && count != 0; ++row) {
    unpack_row(row, codes);
    for (std::size_t k = 0; k < count; ++k) {
      const std::uint32_t col = kept.columns[k];
      const auto place = [&] {
        return "[" + std::to_string(row) + ", " + std::to_string(col) + "]";
      };
      const int zero = grid_.symmetric ? symmetric_zero(grid_.format)
                                       : parameters_.zeros[layout.index(row, col)];
      if (code_level(grid_.format, codes[col], zero) != 0) {
        return Error{ErrorCode::numeric, where + "the code of element " + place() + " is " +
                                             std::to_string(codes[col]) +
                                             ", which does not mean zero"};
      }
      if (!std::isfinite(f16_to_float(kept.values[row * count + k]))) {
        return Error{ErrorCode::numeric,
                     where + "the value of element " + place() + " is not a finite f16 number"};
      }
    }
  }
  kept_ = std::move(kept);
  return std::move(*this);
}

inline double QuantizedTensor::bits_per_weight() const noexcept {
  if (rows_ == 0) return 0;
  const std::size_t scales =
      grid_.two_level ? parameters_.row_scales.size() : parameters_.scales.size();
  const double all =
      8.0 * static_cast<double>(codes_.size()) +
      static_cast<double>(bits(grid_.scale_type)) * static_cast<double>(scales) +
      static_cast<double>(kGroupIntegerBits) * static_cast<double>(parameters_.integers.size()) +
      16.0 * static_cast<double>(kept_.values.size()) +
      32.0 * static_cast<double>(kept_.columns.size()) +
      static_cast<double>(bits(grid_.format)) * static_cast<double>(parameters_.zeros.size());
  return all / (static_cast<double>(rows_) * static_cast<double>(cols_));
}

inline Status dequantize(const QuantizedTensor& tensor, MatrixView<float> out, Executor& executor) {
  if (out.rows() != tensor.rows() || out.cols() != tensor.cols()) {
    return Error{ErrorCode::shape, "dequantize: the destination is " + std::to_string(out.rows()) +
                                       " x " + std::to_string(out.cols()) + ", the tensor " +
                                       std::to_string(tensor.rows()) + " x " +
                                       std::to_string(tensor.cols())};
  }
  executor.run(tensor.rows(), 1, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t row = begin; row < end; ++row) tensor.dequantize_row(row, out.row(row));
  });
  return ok();
}

}  // namespace quell
