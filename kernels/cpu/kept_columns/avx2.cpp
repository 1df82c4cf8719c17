// SPDX-License-Identifier: Apache-2.0

// Sums of up to six tokens and half a panel stay in registers, so that a line of values is widened
// once for all of them.

#include <immintrin.h>

#include "kernels/cpu/kept_columns/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX2)
namespace quell::kernels::avx2 {
namespace {

using kept_columns::kCols;

// 12 sums, 2 registers of values and a broadcast are 15 of 16.
constexpr unsigned kRows = 6;

template <unsigned Rows>
void half_block(const float* x, const std::uint16_t* values, std::size_t kept, float* y) {
  __m256 low[Rows], high[Rows];
  QUELL_UNROLL
  for (unsigned r = 0; r < Rows; ++r) {
    low[r] = _mm256_load_ps(y + r * kCols);
    high[r] = _mm256_load_ps(y + r * kCols + 8);
  }
  for (std::size_t k = 0; k < kept; ++k, values += kCols) {
    const auto* line = reinterpret_cast<const __m128i*>(values);
    const __m256 w_low = _mm256_cvtph_ps(_mm_load_si128(line));
    const __m256 w_high = _mm256_cvtph_ps(_mm_load_si128(line + 1));
    QUELL_UNROLL
    for (unsigned r = 0; r < Rows; ++r) {
      const __m256 x_r = _mm256_broadcast_ss(x + r * kept + k);
      low[r] = _mm256_fmadd_ps(x_r, w_low, low[r]);
      high[r] = _mm256_fmadd_ps(x_r, w_high, high[r]);
    }
  }
  QUELL_UNROLL
  for (unsigned r = 0; r < Rows; ++r) {
    _mm256_store_ps(y + r * kCols, low[r]);
    _mm256_store_ps(y + r * kCols + 8, high[r]);
  }
}

using Block = void (*)(const float*, const std::uint16_t*, std::size_t, float*);
constexpr Block kBlocks[kRows + 1] = {nullptr,       half_block<1>, half_block<2>, half_block<3>,
                                      half_block<4>, half_block<5>, half_block<6>};

void add(const float* x, std::size_t rows, const std::uint16_t* values, std::size_t kept,
         float* y) {
  while (rows != 0) {
    const std::size_t part = rows < kRows ? rows : kRows;
    kBlocks[part](x, values, kept, y);
    kBlocks[part](x, values + kCols / 2, kept, y + kCols / 2);
    x += part * kept;
    y += part * kCols;
    rows -= part;
  }
}

}  // namespace

extern const kept_columns::Entry kept_columns_entry = {Isa::avx2, add};

}  // namespace quell::kernels::avx2
QUELL_TARGET_END
