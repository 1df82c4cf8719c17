// SPDX-License-Identifier: Apache-2.0

#include <immintrin.h>

#include "kernels/cpu/strip/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX2)
namespace quell::kernels::avx2 {
namespace {

// A row of the strip is two registers: 12 accumulators, 2 of x and a broadcast are 15 of 16.
constexpr unsigned kRows = 6;

template <unsigned Rows>
void block(const float* c, std::size_t stride, std::size_t depth, const float* x, float* out) {
  __m256 low[Rows], high[Rows];
  QUELL_UNROLL
  for (unsigned r = 0; r < Rows; ++r) {
    low[r] = _mm256_loadu_ps(out + r * strip::kLanes);
    high[r] = _mm256_loadu_ps(out + r * strip::kLanes + 8);
  }
  for (std::size_t j = 0; j < depth; ++j) {
    const __m256 x_low = _mm256_loadu_ps(x + j * strip::kLanes);
    const __m256 x_high = _mm256_loadu_ps(x + j * strip::kLanes + 8);
    QUELL_UNROLL
    for (unsigned r = 0; r < Rows; ++r) {
      const __m256 c_r = _mm256_broadcast_ss(c + r * stride + j);
      low[r] = _mm256_fnmadd_ps(c_r, x_low, low[r]);
      high[r] = _mm256_fnmadd_ps(c_r, x_high, high[r]);
    }
  }
  QUELL_UNROLL
  for (unsigned r = 0; r < Rows; ++r) {
    _mm256_storeu_ps(out + r * strip::kLanes, low[r]);
    _mm256_storeu_ps(out + r * strip::kLanes + 8, high[r]);
  }
}

using Block = void (*)(const float*, std::size_t, std::size_t, const float*, float*);
constexpr Block kBlocks[kRows + 1] = {nullptr,  block<1>, block<2>, block<3>,
                                      block<4>, block<5>, block<6>};

void subtract(const float* c, std::size_t stride, std::size_t rows, std::size_t depth,
              const float* x, float* out) {
  if (depth == 0) return;
  while (rows != 0) {
    // 8 rows are 4 and 4, not 6 and 2: below four the latency shows.
    const std::size_t part = rows <= kRows ? rows : rows < 2 * kRows ? (rows + 1) / 2 : kRows;
    kBlocks[part](c, stride, depth, x, out);
    c += part * stride;
    out += part * strip::kLanes;
    rows -= part;
  }
}

}  // namespace

extern const strip::Entry strip_entry = {Isa::avx2, subtract};

}  // namespace quell::kernels::avx2
QUELL_TARGET_END
