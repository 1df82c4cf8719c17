// SPDX-License-Identifier: Apache-2.0

// The specification of strip.

#include <cmath>

#include "kernels/cpu/strip/contract.hpp"

namespace quell::kernels::scalar {
namespace {

void subtract(const float* c, std::size_t stride, std::size_t rows, std::size_t depth,
              const float* x, float* out) {
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t lane = 0; lane < strip::kLanes; ++lane) {
      float sum = out[r * strip::kLanes + lane];
      for (std::size_t j = 0; j < depth; ++j) {
        sum = std::fma(-c[r * stride + j], x[j * strip::kLanes + lane], sum);
      }
      out[r * strip::kLanes + lane] = sum;
    }
  }
}

}  // namespace

extern const strip::Entry strip_entry = {Isa::scalar, subtract};

}  // namespace quell::kernels::scalar
