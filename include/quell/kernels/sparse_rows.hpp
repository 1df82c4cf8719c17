// SPDX-License-Identifier: Apache-2.0
#pragma once

// SparseRows: the few weights that stay in float beside a quantized matrix, row after row, and
// their product with activations, which is added to the product of the rest (SpQR, Dettmers et al.
// 2023).

#include <cstddef>
#include <cstdint>
#include <span>

#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/kernels/context.hpp"

namespace quell::kernels {

/// A view of a sparse matrix W [OC, IC]; its arrays must outlive it. Row r has the elements
/// [row_start[r], row_start[r + 1]), element k lies in column columns[k].
class SparseRows {
 public:
  /// row_start has OC + 1 elements, from 0 up to the number of elements, never descending; columns
  /// are below `cols` (IC), in any order. Checked here, once. Error: shape.
  static Result<SparseRows> of(std::size_t cols, std::span<const std::uint32_t> row_start,
                               std::span<const std::uint32_t> columns,
                               std::span<const float> values);

  std::size_t rows() const noexcept { return row_start_.size() - 1; }  // OC
  std::size_t cols() const noexcept { return cols_; }                  // IC
  std::span<const std::uint32_t> row_start() const noexcept { return row_start_; }
  std::span<const std::uint32_t> columns() const noexcept { return columns_; }
  std::span<const float> values() const noexcept { return values_; }

 private:
  SparseRows() = default;
  std::size_t cols_ = 0;
  std::span<const std::uint32_t> row_start_, columns_;
  std::span<const float> values_;
};

/// y [T, OC] += x [T, IC] * W^T. Each output is one accumulator, which starts from y and to which
/// the elements of its row are added in their order, fused: the same bits on every x86 instruction
/// set, for any T and any number of threads. y does not overlap x. Errors: shape, resource.
Status add_sparse_product(MatrixView<const float> x, const SparseRows& weight, MatrixView<float> y,
                          Context& context);

}  // namespace quell::kernels
