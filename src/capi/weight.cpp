// SPDX-License-Identifier: Apache-2.0

// Weights from codes and from floats. Whatever QuantizedTensor promises is checked by itself; here
// is checked what it takes for granted: pointers, counts, and codes that fit their bits.

#include <span>
#include <vector>

#include "capi/handles.hpp"
#include "quell/core/bits.hpp"
#include "quell/grid/groups.hpp"
#include "quell/grid/scale.hpp"

namespace quell::capi {
namespace {

/// `count` numbers of the caller, as many as `expected`.
template <typename T>
Result<std::vector<T>> numbers(const char* name, const T* from, std::size_t count,
                               std::size_t expected) {
  if (count != expected) {
    return Error{ErrorCode::shape, std::string(name) + ": " + std::to_string(count) +
                                       ", expected " + std::to_string(expected)};
  }
  if (count != 0 && from == nullptr) return usage(std::string(name) + " is null");
  return std::vector<T>(from, from + count);
}

Result<QuantizedTensor> tensor_of(const quell_codes& from) {
  if (from.grid == nullptr) return usage("the grid is null; write a word such as int4:sym:oc:g128");
  QUELL_TRY(grid, parse_grid(from.grid));
  const std::size_t rows = from.rows, cols = from.cols;
  QUELL_TRY(codes, view_of("codes", from.codes, rows, cols, cols));
  if (codes.empty()) return detail::empty_weight_error(rows, cols);
  const GroupLayout layout = group_layout(grid, rows, cols);
  const std::size_t groups = layout.rows * layout.cols;  // at most one for each code

  GroupParameters parameters;
  parameters.rows = layout.rows;
  parameters.cols = layout.cols;
  QUELL_TRY(scales, numbers("scales", from.scales, from.scale_count, grid.two_level ? 0 : groups));
  QUELL_TRY(zeros, numbers("zeros", from.zeros, from.zero_count, grid.symmetric ? 0 : groups));
  QUELL_TRY(row_scales, numbers("row scales", from.row_scales, from.row_scale_count,
                                grid.two_level ? layout.rows : 0));
  QUELL_TRY(integers, numbers("integers of groups", from.integers, from.integer_count,
                              grid.two_level ? groups : 0));
  parameters.scales = std::move(scales);
  parameters.zeros = std::move(zeros);
  parameters.row_scales = std::move(row_scales);
  parameters.integers = std::move(integers);
  if (grid.two_level) multiply_levels(parameters);

  const unsigned code_bits = bits(grid.format);
  const std::size_t row_bytes = packed_size(cols, code_bits);
  std::vector<std::uint8_t> packed(rows * row_bytes);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::span<const std::uint8_t> row = codes.row(r);
    for (std::size_t c = 0; c < cols; ++c) {
      if (row[c] >> code_bits == 0) continue;
      return Error{ErrorCode::numeric,
                   "code [" + std::to_string(r) + ", " + std::to_string(c) + "] is " +
                       std::to_string(row[c]) + ", expected less than " +
                       std::to_string(1u << code_bits) + " on " + to_string(grid)};
    }
    pack_codes(row, code_bits, {packed.data() + r * row_bytes, row_bytes});
  }
  return QuantizedTensor::create(grid, rows, cols, std::move(packed), std::move(parameters));
}

Result<quell_weight> rounded(MatrixView<const float> values, const char* word, Executor& executor) {
  quell_weight weight;
  if (word == nullptr) {
    QUELL_TRY(floats, Matrix::uninitialized(values.rows(), values.cols()));
    for (std::size_t r = 0; r < values.rows(); ++r) {
      const std::span<const float> row = values.row(r);
      std::copy(row.begin(), row.end(), floats.row(r).begin());
    }
    weight.floats = std::move(floats);
    return weight;
  }
  QUELL_TRY(grid, parse_grid(word));
  QUELL_TRY(scales, choose_scales(values, grid, ScaleMethod::absmax, {}, executor));
  QUELL_TRY(codes, quantize_to_grid(values, grid, std::move(scales), executor));
  weight.grid = to_string(grid);
  weight.codes = std::move(codes);
  return weight;
}

}  // namespace
}  // namespace quell::capi

using namespace quell::capi;

extern "C" {

quell_status quell_weight_from_codes(quell_context* context, const quell_codes* codes,
                                     quell_weight** weight) {
  if (weight != nullptr) *weight = nullptr;
  return call(context, [&]() -> quell::Status {
    if (weight == nullptr) return usage("the place for the weight is null");
    QUELL_TRY(known, read_struct("quell_codes", codes));
    QUELL_TRY(tensor, tensor_of(known));
    quell_weight made;
    made.grid = to_string(tensor.grid());
    made.codes = std::move(tensor);
    QUELL_TRY(handle, make_handle(*context, std::move(made)));
    *weight = handle;
    return quell::ok();
  });
}

quell_status quell_weight_from_floats(quell_context* context, const float* values, size_t rows,
                                      size_t cols, size_t stride, const char* grid,
                                      quell_weight** weight) {
  if (weight != nullptr) *weight = nullptr;
  return call(context, [&]() -> quell::Status {
    if (weight == nullptr) return usage("the place for the weight is null");
    QUELL_TRY(view, view_of("values", values, rows, cols, stride));
    if (view.empty()) return quell::detail::empty_weight_error(rows, cols);
    QUELL_TRY(made, rounded(view, grid, context->executor));
    QUELL_TRY(context->executor.check());
    QUELL_TRY(handle, make_handle(*context, std::move(made)));
    *weight = handle;
    return quell::ok();
  });
}

quell_status quell_weight_describe(quell_context* context, const quell_weight* weight,
                                   quell_weight_info* info) {
  return call(context, [&]() -> quell::Status {
    if (weight == nullptr) return usage("the weight is null");
    quell_weight_info filled = {};
    filled.rows = weight->rows();
    filled.cols = weight->cols();
    filled.grid = weight->grid.c_str();
    filled.bits_per_weight = weight->is_quantized() ? weight->codes.bits_per_weight() : 32;
    return write_struct("quell_weight_info", filled, info);
  });
}

quell_status quell_weight_values(quell_context* context, const quell_weight* weight, float* values,
                                 size_t stride) {
  return call(context, [&]() -> quell::Status {
    if (weight == nullptr) return usage("the weight is null");
    QUELL_TRY(to, view_of("values", values, weight->rows(), weight->cols(), stride));
    if (weight->is_quantized()) {
      QUELL_TRY(dequantize(weight->codes, to, context->executor));
      return context->executor.check();
    }
    for (std::size_t r = 0; r < to.rows(); ++r) {
      const std::span<const float> row = weight->floats.row(r);
      std::copy(row.begin(), row.end(), to.row(r).begin());
    }
    return quell::ok();
  });
}

void quell_weight_free(quell_weight* weight) {
  free_handle(weight);
}

}  // extern "C"
