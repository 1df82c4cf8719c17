// SPDX-License-Identifier: Apache-2.0
#pragma once

// sparse_rows, f32: products of the rows of a sparse matrix with one row of activations, or with a
// strip of sixteen that lie side by side (element (col, lane) of x at x[16 col + lane]).
// scalar.cpp is the specification; all entries give equal bits: one accumulator for each output,
// which starts from y, elements in their order, fused multiply-add.

#include <cstddef>
#include <cstdint>
#include <span>

#include "quell/kernels/isa.hpp"

namespace quell::kernels::sparse_rows {

// Sixteen floats are one line of the cache: what an element fetches from a far column is used
// whole.
constexpr unsigned kLanes = 16;

/// Row r has the elements [start[r], start[r + 1]).
struct Elements {
  const std::uint32_t* start;
  const std::uint32_t* columns;
  const float* values;
};

struct Entry {
  Isa isa;
  /// y[r - first] += sum over the elements of row r of value * x[column], for first <= r < last.
  void (*one)(const Elements& weight, std::size_t first, std::size_t last, const float* x,
              float* y);
  /// y[16 (r - first) + lane] += sum of value * x[16 column + lane]; x and y lie at 64-byte
  /// boundaries.
  void (*strip)(const Elements& weight, std::size_t first, std::size_t last, const float* x,
                float* y);
};

/// Best first, scalar last.
std::span<const Entry* const> table() noexcept;

}  // namespace quell::kernels::sparse_rows

namespace quell::kernels {
namespace scalar {
extern const sparse_rows::Entry sparse_rows_entry;
}
namespace avx2 {
extern const sparse_rows::Entry sparse_rows_entry;
}
}  // namespace quell::kernels
