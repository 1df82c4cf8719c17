// SPDX-License-Identifier: Apache-2.0

// The specification.

#include <cmath>

#include "kernels/cpu/kept_columns/contract.hpp"
#include "quell/core/half.hpp"

namespace quell::kernels::scalar {
namespace {

void add(const float* x, std::size_t rows, const std::uint16_t* values, std::size_t kept,
         float* y) {
  for (std::size_t k = 0; k < kept; ++k, values += kept_columns::kCols) {
    for (unsigned c = 0; c < kept_columns::kCols; ++c) {
      const float value = f16_to_float(values[c]);
      for (std::size_t r = 0; r < rows; ++r) {
        float& sum = y[r * kept_columns::kCols + c];
        sum = std::fma(x[r * kept + k], value, sum);
      }
    }
  }
}

}  // namespace

extern const kept_columns::Entry kept_columns_entry = {Isa::scalar, add};

}  // namespace quell::kernels::scalar
