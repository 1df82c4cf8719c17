// SPDX-License-Identifier: Apache-2.0

// Sums of up to twelve tokens stay in registers, so that a line of values is widened once for all
// of them.

#include <immintrin.h>

#include "kernels/cpu/kept_columns/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512)
namespace quell::kernels::avx512 {
namespace {

using kept_columns::kCols;

// 24 sums, 2 registers of values and a broadcast are 27 of 32.
constexpr unsigned kRows = 12;

template <unsigned Rows>
void block(const float* x, const std::uint16_t* values, std::size_t kept, float* y) {
  __m512 low[Rows], high[Rows];
  QUELL_UNROLL
  for (unsigned r = 0; r < Rows; ++r) {
    low[r] = _mm512_load_ps(y + r * kCols);
    high[r] = _mm512_load_ps(y + r * kCols + 16);
  }
  for (std::size_t k = 0; k < kept; ++k, values += kCols) {
    const auto* line = reinterpret_cast<const __m256i*>(values);
    const __m512 w_low = _mm512_cvtph_ps(_mm256_load_si256(line));
    const __m512 w_high = _mm512_cvtph_ps(_mm256_load_si256(line + 1));
    QUELL_UNROLL
    for (unsigned r = 0; r < Rows; ++r) {
      const __m512 x_r = _mm512_set1_ps(x[r * kept + k]);
      low[r] = _mm512_fmadd_ps(x_r, w_low, low[r]);
      high[r] = _mm512_fmadd_ps(x_r, w_high, high[r]);
    }
  }
  QUELL_UNROLL
  for (unsigned r = 0; r < Rows; ++r) {
    _mm512_store_ps(y + r * kCols, low[r]);
    _mm512_store_ps(y + r * kCols + 16, high[r]);
  }
}

using Block = void (*)(const float*, const std::uint16_t*, std::size_t, float*);
constexpr Block kBlocks[kRows + 1] = {nullptr,   block<1>,  block<2>, block<3>, block<4>,
                                      block<5>,  block<6>,  block<7>, block<8>, block<9>,
                                      block<10>, block<11>, block<12>};

void add(const float* x, std::size_t rows, const std::uint16_t* values, std::size_t kept,
         float* y) {
  while (rows != 0) {
    const std::size_t part = rows < kRows ? rows : kRows;
    kBlocks[part](x, values, kept, y);
    x += part * kept;
    y += part * kCols;
    rows -= part;
  }
}

}  // namespace

extern const kept_columns::Entry kept_columns_entry = {Isa::avx512, add};

}  // namespace quell::kernels::avx512
QUELL_TARGET_END
