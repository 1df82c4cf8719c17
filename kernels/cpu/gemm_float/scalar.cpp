// SPDX-License-Identifier: Apache-2.0

// The specification: one output at a time.

#include <cmath>

#include "kernels/cpu/gemm_float/contract.hpp"

namespace quell::kernels::scalar {
namespace {

namespace family = gemm_float;

template <unsigned kBits>
void multiply(const family::TileProduct& p) {
  constexpr std::size_t kUnitBytes = kPanelCols * kUnit * kBits / 8;
  for (std::size_t g = 0; g < p.groups; ++g) {
    const std::byte* codes = p.codes + g * p.block_bytes;
    const std::byte* tail = p.tail + g * p.block_bytes;
    const float* a = p.a + (p.first_unit + g * p.units) * kUnit * p.rows;
    for (std::size_t c = 0; c < kPanelCols; ++c) {
      float zero = kBits == 8 ? p.zero : 0;
      if (p.zeros) zero = static_cast<float>(panel_zero(p.scales, tail, c));
      const float scale = panel_scale(p.scales, tail, c);
      for (unsigned r = 0; r < p.rows; ++r) {
        float& y = p.y[r * kPanelCols + c];
        if (p.first && g == 0) y = 0;
        for (std::size_t chunk = 0; chunk < p.units; chunk += family::kChunkUnits) {
          const std::size_t end =
              chunk + family::kChunkUnits < p.units ? chunk + family::kChunkUnits : p.units;
          float sum = 0;
          for (std::size_t k = chunk * kUnit; k < end * kUnit; ++k) {
            const unsigned code = panel_code(kBits, codes + k / kUnit * kUnitBytes, c, k % kUnit);
            const float value = kBits == 8 ? static_cast<float>(code) : p.table[code];
            sum = std::fma(a[k * p.rows + r], value - zero, sum);
          }
          y = std::fma(sum, scale, y);
        }
      }
    }
  }
}

}  // namespace

extern const gemm_float::Entry gemm_float_entries[2] = {{Isa::scalar, 4, 4, multiply<4>},
                                                        {Isa::scalar, 8, 4, multiply<8>}};

}  // namespace quell::kernels::scalar
