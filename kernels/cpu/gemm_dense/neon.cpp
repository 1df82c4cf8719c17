// SPDX-License-Identifier: Apache-2.0

// 4 x 6 accumulators, one register of A whose lanes are the four rows, and one of B at a time: 24
// multiplications beside 7 loads.

#include <arm_neon.h>

#include "kernels/cpu/gemm_dense/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::neon {
namespace {

constexpr unsigned kTileRows = 4;
constexpr unsigned kVectors = 6;
constexpr unsigned kWidth = 4;
constexpr unsigned kPanelCols = kVectors * kWidth;
// A panel is 24 KB and a tile 4 KB, within a first cache of 32 KB.
constexpr unsigned kDepthBlock = 256;

template <unsigned Rows>
QUELL_INLINE void step(const float* a, const float* b, float32x4_t (&sum)[Rows][kVectors]) {
  float32x4_t rows = vdupq_n_f32(0);
  if constexpr (Rows == 4) rows = vld1q_f32(a);
  QUELL_UNROLL
  for (unsigned v = 0; v < kVectors; ++v) {
    const float32x4_t b_v = vld1q_f32(b + v * kWidth);
    if constexpr (Rows == 4) {
      sum[0][v] = vfmaq_laneq_f32(sum[0][v], b_v, rows, 0);
      sum[1][v] = vfmaq_laneq_f32(sum[1][v], b_v, rows, 1);
      sum[2][v] = vfmaq_laneq_f32(sum[2][v], b_v, rows, 2);
      sum[3][v] = vfmaq_laneq_f32(sum[3][v], b_v, rows, 3);
    } else {
      QUELL_UNROLL
      for (unsigned r = 0; r < Rows; ++r) sum[r][v] = vfmaq_n_f32(sum[r][v], b_v, a[r]);
    }
  }
}

template <unsigned Rows>
void tile(const gemm_dense_family::TileProduct& p) {
  float32x4_t sum[Rows][kVectors];
  QUELL_UNROLL
  for (unsigned r = 0; r < Rows; ++r) {
    QUELL_UNROLL
    for (unsigned v = 0; v < kVectors; ++v) {
      sum[r][v] =
          p.from != nullptr ? vld1q_f32(p.from + r * p.from_stride + v * kWidth) : vdupq_n_f32(0);
    }
  }
  const char* ahead = static_cast<const char*>(p.ahead);
  for (std::size_t k = 0; k < p.depth; ++k) {
    __builtin_prefetch(ahead);
    ahead += p.ahead_step;
    step<Rows>(p.a + k * Rows, p.b + k * kPanelCols, sum);
  }
  QUELL_UNROLL
  for (unsigned r = 0; r < Rows; ++r) {
    QUELL_UNROLL
    for (unsigned v = 0; v < kVectors; ++v) {
      vst1q_f32(p.to + r * p.to_stride + v * kWidth, sum[r][v]);
    }
  }
}

void multiply(const gemm_dense_family::TileProduct& product) {
  switch (product.rows) {
    case 1:
      return tile<1>(product);
    case 2:
      return tile<2>(product);
    case 3:
      return tile<3>(product);
    default:
      return tile<4>(product);
  }
}

void pack(const gemm_dense_family::Source& source, std::size_t rows, std::size_t width,
          std::size_t depth, bool negate, float* dst) {
  scalar::gemm_dense_entry.pack(source, rows, width, depth, negate, dst);
}

}  // namespace

extern const gemm_dense_family::Entry gemm_dense_entry = {Isa::neon,   kTileRows, kPanelCols,
                                                          kDepthBlock, pack,      multiply};

}  // namespace quell::kernels::neon
