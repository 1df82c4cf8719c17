// SPDX-License-Identifier: Apache-2.0

// An accumulator waits four cycles for each element, so rows of W are taken four at a time, as far
// as the shortest of them goes. Lanes across the rows of W were not tried: an element would take a
// gather of its column, its value and x each.

#include <immintrin.h>

#include "kernels/cpu/sparse_rows/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX2)
namespace quell::kernels::avx2 {
namespace {

using sparse_rows::Elements;
using sparse_rows::kLanes;

/// One output: a float in the lowest lane.
struct Single {
  static constexpr std::size_t kWidth = 1;
  __m128 sum;
  QUELL_INLINE void load(const float* y) { sum = _mm_load_ss(y); }
  QUELL_INLINE void store(float* y) const { _mm_store_ss(y, sum); }
  QUELL_INLINE void add(const Elements& w, std::size_t k, const float* x) {
    sum = _mm_fmadd_ss(_mm_load_ss(w.values + k), _mm_load_ss(x + w.columns[k]), sum);
  }
};

/// Sixteen outputs of a strip.
struct Line {
  static constexpr std::size_t kWidth = kLanes;
  __m256 low, high;
  QUELL_INLINE void load(const float* y) {
    low = _mm256_load_ps(y);
    high = _mm256_load_ps(y + 8);
  }
  QUELL_INLINE void store(float* y) const {
    _mm256_store_ps(y, low);
    _mm256_store_ps(y + 8, high);
  }
  QUELL_INLINE void add(const Elements& w, std::size_t k, const float* x) {
    const float* line = x + std::size_t{kLanes} * w.columns[k];
    const __m256 value = _mm256_broadcast_ss(w.values + k);
    low = _mm256_fmadd_ps(value, _mm256_load_ps(line), low);
    high = _mm256_fmadd_ps(value, _mm256_load_ps(line + 8), high);
  }
};

template <typename Sum, unsigned Rows>
QUELL_INLINE void add_rows(const Elements& w, std::size_t r, const float* x, float* y) {
  Sum sum[Rows];
  std::size_t k[Rows], end[Rows];
  std::size_t shortest = ~std::size_t{0};
  QUELL_UNROLL
  for (unsigned i = 0; i < Rows; ++i) {
    sum[i].load(y + i * Sum::kWidth);
    k[i] = w.start[r + i];
    end[i] = w.start[r + i + 1];
    if (end[i] - k[i] < shortest) shortest = end[i] - k[i];
  }
  for (std::size_t step = 0; step < shortest; ++step) {
    QUELL_UNROLL
    for (unsigned i = 0; i < Rows; ++i) sum[i].add(w, k[i] + step, x);
  }
  QUELL_UNROLL
  for (unsigned i = 0; i < Rows; ++i) {
    for (std::size_t rest = k[i] + shortest; rest < end[i]; ++rest) sum[i].add(w, rest, x);
    sum[i].store(y + i * Sum::kWidth);
  }
}

template <typename Sum>
void product(const Elements& w, std::size_t first, std::size_t last, const float* x, float* y) {
  std::size_t r = first;
  for (; r + 4 <= last; r += 4, y += 4 * Sum::kWidth) add_rows<Sum, 4>(w, r, x, y);
  for (; r < last; ++r, y += Sum::kWidth) add_rows<Sum, 1>(w, r, x, y);
}

}  // namespace

extern const sparse_rows::Entry sparse_rows_entry = {Isa::avx2, product<Single>, product<Line>};

}  // namespace quell::kernels::avx2
QUELL_TARGET_END
