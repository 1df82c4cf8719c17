// SPDX-License-Identifier: Apache-2.0
#pragma once

// vdpbf16ps in plain C++, as the processor's manual tells it: for every lane, the product of the
// upper halves is added, then that of the lower ones; each step is fused and rounds to nearest
// even, and subnormal numbers count as zero on the way in and out.

#include "kernels/target.hpp"

#if QUELL_X86

#include <immintrin.h>

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "quell/core/half.hpp"

namespace quell::test {

inline float bf16_step(float a, float b, float sum) {
  const auto normal = [](float value) {
    return std::fabs(value) < FLT_MIN ? std::copysign(0.0F, value) : value;
  };
  return normal(std::fma(normal(a), normal(b), normal(sum)));
}

inline void add_pair_products(float* sums, const std::uint16_t* x, const std::uint16_t* w) {
  for (unsigned lane = 0; lane < 16; ++lane) {
    for (const unsigned half : {1u, 0u}) {
      sums[lane] = bf16_step(bf16_to_float(x[2 * lane + half]), bf16_to_float(w[2 * lane + half]),
                             sums[lane]);
    }
  }
}

}  // namespace quell::test

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512)
namespace quell::test {

struct PlainVectors {
  static QUELL_INLINE void add_products(__m512& sum, __m512i x, __m512i w) {
    alignas(64) float sums[16];
    alignas(64) std::uint16_t xs[32], ws[32];
    _mm512_store_ps(sums, sum);
    _mm512_store_si512(xs, x);
    _mm512_store_si512(ws, w);
    add_pair_products(sums, xs, ws);
    sum = _mm512_load_ps(sums);
  }
};

}  // namespace quell::test
QUELL_TARGET_END

#endif
