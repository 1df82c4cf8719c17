// SPDX-License-Identifier: Apache-2.0

// The specification of hadamard.

#include "kernels/cpu/hadamard/contract.hpp"

namespace quell::kernels::scalar {
namespace {

using hadamard_family::Problem;

void sums_and_differences(float* x, std::size_t length) {
  for (std::size_t h = 1; h < length; h *= 2) {
    for (std::size_t first = 0; first < length; first += 2 * h) {
      for (std::size_t i = first; i < first + h; ++i) {
        const float a = x[i], b = x[i + h];
        x[i] = a + b;
        x[i + h] = a - b;
      }
    }
  }
}

/// +-v of a quad whose values are `pitch` apart.
float quad(const float* x, std::size_t pitch, unsigned code) {
  const float x0 = x[0], x1 = x[pitch], x2 = x[2 * pitch], x3 = x[3 * pitch];
  const float a = (code & 1) != 0 ? x0 - x1 : x0 + x1;
  const float b = (code & 2) != 0 ? x2 - x3 : x2 + x3;
  const float v = (code & 4) != 0 ? a - b : a + b;
  return (code & 8) != 0 ? -v : v;
}

/// Place j of all slices, x[length i] for i < m.
void multiply_column(const Problem& p, float* x, std::size_t length, float* y) {
  const std::size_t quads = p.order / 4;
  for (std::size_t i = 0; i < p.order; ++i) {
    const std::uint8_t* codes = p.codes + i / 4 * p.order + i % 4;
    float sum = quad(x, length, codes[0]);
    for (std::size_t q = 1; q < quads; ++q) {
      sum = sum + quad(x + 4 * q * length, length, codes[4 * q]);
    }
    y[i] = sum * p.scale;
  }
  for (std::size_t i = 0; i < p.order; ++i) x[i * length] = y[i];
}

void transform(const Problem& p, float* x, std::size_t blocks, float* scratch) {
  const std::size_t length = std::size_t{1} << p.log2_slice;
  for (std::size_t block = 0; block < blocks; ++block, x += p.order * length) {
    for (std::size_t i = 0; i < p.order; ++i) sums_and_differences(x + i * length, length);
    if (p.order == 1) {
      for (std::size_t j = 0; j < length; ++j) x[j] = x[j] * p.scale;
    } else {
      for (std::size_t j = 0; j < length; ++j) multiply_column(p, x + j, length, scratch);
    }
  }
}

}  // namespace

extern const hadamard_family::Entry hadamard_entry = {Isa::scalar, transform};

}  // namespace quell::kernels::scalar
