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

/// Place j of all slices, x[length i] for i < m. `sums` holds the v of every quad and code.
void multiply_column(const Problem& p, float* x, std::size_t length, float* sums) {
  const std::size_t quads = p.order / 4;
  for (std::size_t q = 0; q < quads; ++q) {
    const float* quad = x + 4 * q * length;
    const float x0 = quad[0], x1 = quad[length], x2 = quad[2 * length], x3 = quad[3 * length];
    for (unsigned code = 0; code < 8; ++code) {
      const float a = (code & 1) != 0 ? x0 - x1 : x0 + x1;
      const float b = (code & 2) != 0 ? x2 - x3 : x2 + x3;
      const float v = (code & 4) != 0 ? a - b : a + b;
      sums[16 * q + code] = v;
      sums[16 * q + code + 8] = -v;
    }
  }
  for (std::size_t i = 0; i < p.order; ++i) {
    const std::uint8_t* codes = p.codes + i / 4 * p.order + i % 4;
    float y = sums[codes[0] / 16];
    for (std::size_t q = 1; q < quads; ++q) y = y + sums[16 * q + codes[4 * q] / 16];
    x[i * length] = y * p.scale;
  }
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
