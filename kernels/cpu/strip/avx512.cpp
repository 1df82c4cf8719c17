// SPDX-License-Identifier: Apache-2.0

#include <immintrin.h>

#include "kernels/cpu/strip/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512)
namespace quell::kernels::avx512 {
namespace {

// A row of the strip is one register, so every multiplication loads its coefficient (embedded
// broadcast): 13 loads for 12 multiplications, two of each a cycle. Eight accumulators would do to
// hide the latency; twelve spare a third of the loads of x.
constexpr unsigned kRows = 12;

/// sum -= *c * x, fused.
QUELL_INLINE void subtract_product(__m512& sum, const float* c, __m512 x) {
  __asm__("vfnmadd231ps %1%{1to16%}, %2, %0" : "+v"(sum) : "m"(*c), "v"(x));
}

template <unsigned Rows>
void block(const float* c, std::size_t stride, std::size_t depth, const float* x, float* out) {
  __m512 sum[Rows];
  QUELL_UNROLL
  for (unsigned r = 0; r < Rows; ++r) sum[r] = _mm512_loadu_ps(out + r * strip::kLanes);
  for (std::size_t j = 0; j < depth; ++j) {
    const __m512 x_j = _mm512_loadu_ps(x + j * strip::kLanes);
    QUELL_UNROLL
    for (unsigned r = 0; r < Rows; ++r) subtract_product(sum[r], c + r * stride + j, x_j);
  }
  QUELL_UNROLL
  for (unsigned r = 0; r < Rows; ++r) _mm512_storeu_ps(out + r * strip::kLanes, sum[r]);
}

using Block = void (*)(const float*, std::size_t, std::size_t, const float*, float*);
constexpr Block kBlocks[kRows + 1] = {nullptr,   block<1>,  block<2>, block<3>, block<4>,
                                      block<5>,  block<6>,  block<7>, block<8>, block<9>,
                                      block<10>, block<11>, block<12>};

void subtract(const float* c, std::size_t stride, std::size_t rows, std::size_t depth,
              const float* x, float* out) {
  if (depth == 0) return;
  while (rows != 0) {
    // 16 rows are 8 and 8, not 12 and 4: below eight the latency shows.
    const std::size_t part = rows <= kRows ? rows : rows < 2 * kRows ? (rows + 1) / 2 : kRows;
    kBlocks[part](c, stride, depth, x, out);
    c += part * stride;
    out += part * strip::kLanes;
    rows -= part;
  }
}

}  // namespace

extern const strip::Entry strip_entry = {Isa::avx512, subtract};

}  // namespace quell::kernels::avx512
QUELL_TARGET_END
