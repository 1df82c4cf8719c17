// SPDX-License-Identifier: Apache-2.0

// The specification of gemm_dense. A tile of 4 x 8 because sixteen or fewer columns keep a panel's
// row in one cache line; there is nothing else to tune, since fused multiply-add is a library call
// on the architecture's floor (2.2 ns measured, which bounds this entry at 0.9 GFLOP/s a thread).

#include <cmath>

#include "kernels/cpu/gemm_dense/contract.hpp"

namespace quell::kernels::scalar {
namespace {

constexpr unsigned kTileRows = 4;
constexpr unsigned kPanelCols = 8;

void pack(const gemm_dense_family::Source& source, std::size_t rows, std::size_t width,
          std::size_t depth, bool negate, float* dst) {
  const std::size_t row_step = source.transposed ? 1 : source.stride;
  const std::size_t k_step = source.transposed ? source.stride : 1;
  for (std::size_t k = 0; k < depth; ++k) {
    for (std::size_t r = 0; r < width; ++r) {
      const float value = r < rows ? source.data[r * row_step + k * k_step] : 0.0f;
      dst[k * width + r] = negate ? -value : value;
    }
  }
}

void multiply(const gemm_dense_family::TileProduct& p) {
  for (unsigned r = 0; r < p.rows; ++r) {
    for (unsigned col = 0; col < kPanelCols; ++col) {
      float sum = p.from != nullptr ? p.from[r * p.from_stride + col] : 0.0f;
      for (std::size_t k = 0; k < p.depth; ++k) {
        sum = std::fma(p.a[k * p.rows + r], p.b[k * kPanelCols + col], sum);
      }
      p.to[r * p.to_stride + col] = sum;
    }
  }
}

}  // namespace

extern const gemm_dense_family::Entry gemm_dense_entry = {
    Isa::scalar, kTileRows, kPanelCols, /*depth_block=*/256, pack, multiply};

}  // namespace quell::kernels::scalar
