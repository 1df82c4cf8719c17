// SPDX-License-Identifier: Apache-2.0
#pragma once

// kept_columns: what input channels that stay in f16 beside the codes (KeptColumns) add to a
// finished product with panels (kernels/panels.hpp).
//
// One definition for float32, int8 and bfloat16 activations, kept channels being c[0] < c[1] < ...:
//
//     y    = the product of the codes with x', which is x with 0 in every kept channel
//     y    = fma(x[t, c[k]], float(w[o, k]), y)             k ascending
//
// So a kept channel adds exactly nothing to the product of the codes, whatever its codes are, and a
// token is rounded to int8 with the scale of its other channels: the outlier does not take their
// range. x' is in the driver's hands (panel_form.hpp); the second line is this family's.

#include <cstddef>
#include <cstdint>
#include <span>

#include "quell/kernels/isa.hpp"

namespace quell::kernels::kept_columns {

constexpr unsigned kCols = 32;  // output channels of a panel

struct Entry {
  Isa isa;
  /// y[32 r + c] = fma(x[r kept + k], float(values[32 k + c]), y[32 r + c]) for r < rows, c < 32, k
  /// ascending. Values are f16 bits; values and y lie at 64-byte boundaries.
  void (*add)(const float* x, std::size_t rows, const std::uint16_t* values, std::size_t kept,
              float* y);
};

/// Best first, scalar last.
std::span<const Entry* const> table() noexcept;

}  // namespace quell::kernels::kept_columns

namespace quell::kernels {
namespace scalar {
extern const kept_columns::Entry kept_columns_entry;
}
namespace avx2 {
extern const kept_columns::Entry kept_columns_entry;
}
namespace avx512 {
extern const kept_columns::Entry kept_columns_entry;
}
}  // namespace quell::kernels
