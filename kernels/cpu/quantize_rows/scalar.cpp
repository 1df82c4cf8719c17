// SPDX-License-Identifier: Apache-2.0

// The specification.

#include <cmath>

#include "kernels/cpu/quantize_rows/contract.hpp"

namespace quell::kernels::scalar {
namespace {

float value(const float* x, const float* factors, std::size_t k) {
  return factors != nullptr ? x[k] * factors[k] : x[k];
}

float absmax(const float* x, const float* factors, std::size_t n) {
  float most = 0;
  for (std::size_t k = 0; k < n; ++k) {
    const float magnitude = std::fabs(value(x, factors, k));
    if (!(magnitude <= most)) most = magnitude;  // a NaN too
    if (!std::isfinite(most)) return most;
  }
  return most;
}

void round(const float* x, const float* factors, std::size_t n, float lift, float inverse,
           std::int8_t* codes) {
  for (std::size_t k = 0; k < n; ++k) {
    codes[k] = static_cast<std::int8_t>(std::nearbyint(value(x, factors, k) * lift * inverse));
  }
}

std::int32_t sum(const std::int8_t* codes, std::size_t n) {
  std::int32_t sum = 0;
  for (std::size_t k = 0; k < n; ++k) sum += codes[k];
  return sum;
}

}  // namespace

extern const quantize_rows_family::Entry quantize_rows_entry = {Isa::scalar, absmax, round, sum};

}  // namespace quell::kernels::scalar
