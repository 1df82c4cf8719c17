// SPDX-License-Identifier: Apache-2.0

// Squares of four by four, transposed in the registers of the architecture's floor: a plain loop
// over the elements takes longer than the products inside a block of 256.

#include "linalg/strips.hpp"

#include <algorithm>
#include <cstring>

namespace quell::linalg {
namespace {

using Four = float __attribute__((vector_size(16)));

Four load(const float* from) {
  Four x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

/// to[i * to_stride + r] = from[r * from_stride + i], r and i below 4.
void transpose_square(const float* from, std::size_t from_stride, float* to,
                      std::size_t to_stride) {
  const Four a = load(from), b = load(from + from_stride), c = load(from + 2 * from_stride),
             d = load(from + 3 * from_stride);
  const Four low_ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const Four high_ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Four low_cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Four high_cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const Four out[4] = {__builtin_shufflevector(low_ab, low_cd, 0, 1, 4, 5),
                       __builtin_shufflevector(low_ab, low_cd, 2, 3, 6, 7),
                       __builtin_shufflevector(high_ab, high_cd, 0, 1, 4, 5),
                       __builtin_shufflevector(high_ab, high_cd, 2, 3, 6, 7)};
  for (std::size_t i = 0; i < 4; ++i) std::memcpy(to + i * to_stride, &out[i], sizeof out[i]);
}

void transpose(const float* from, std::size_t from_stride, std::size_t rows, std::size_t cols,
               float* to, std::size_t to_stride) {
  const std::size_t whole_rows = rows / 4 * 4, whole_cols = cols / 4 * 4;
  for (std::size_t r = 0; r < whole_rows; r += 4) {
    for (std::size_t c = 0; c < whole_cols; c += 4) {
      transpose_square(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
    }
  }
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = r < whole_rows ? whole_cols : 0; c < cols; ++c) {
      to[c * to_stride + r] = from[r * from_stride + c];
    }
  }
}

}  // namespace

void load_strip(const float* rows, std::size_t stride, std::size_t count, std::size_t n,
                float* strip) {
  if (count < kStripRows) std::fill_n(strip, n * kStripRows, 0.0F);
  transpose(rows, stride, count, n, strip, kStripRows);
}

void store_strip(const float* strip, std::size_t count, std::size_t n, float* rows,
                 std::size_t stride) {
  transpose(strip, kStripRows, n, count, rows, stride);
}

}  // namespace quell::linalg
