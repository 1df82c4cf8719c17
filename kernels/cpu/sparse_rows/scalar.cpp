// SPDX-License-Identifier: Apache-2.0

// The specification of sparse_rows.

#include <cmath>

#include "kernels/cpu/sparse_rows/contract.hpp"

namespace quell::kernels::scalar {
namespace {

using sparse_rows::Elements;
using sparse_rows::kLanes;

void one(const Elements& w, std::size_t first, std::size_t last, const float* x, float* y) {
  for (std::size_t r = first; r < last; ++r, ++y) {
    for (std::size_t k = w.start[r]; k < w.start[r + 1]; ++k) {
      *y = std::fma(w.values[k], x[w.columns[k]], *y);
    }
  }
}

void strip(const Elements& w, std::size_t first, std::size_t last, const float* x, float* y) {
  for (std::size_t r = first; r < last; ++r, y += kLanes) {
    for (std::size_t k = w.start[r]; k < w.start[r + 1]; ++k) {
      const float* line = x + std::size_t{kLanes} * w.columns[k];
      for (unsigned lane = 0; lane < kLanes; ++lane) {
        y[lane] = std::fma(w.values[k], line[lane], y[lane]);
      }
    }
  }
}

}  // namespace

extern const sparse_rows::Entry sparse_rows_entry = {Isa::scalar, one, strip};

}  // namespace quell::kernels::scalar
