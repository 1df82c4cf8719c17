// SPDX-License-Identifier: Apache-2.0

// The specification: one output at a time.

#include <cmath>

#include "kernels/cpu/gemm_int8/contract.hpp"

namespace quell::kernels::scalar {
namespace {

namespace family = gemm_int8;

template <unsigned kBits>
void multiply(const family::TileProduct& p) {
  constexpr std::size_t kUnitBytes = kPanelCols * kUnit * kBits / 8;
  for (std::size_t g = 0; g < p.groups; ++g) {
    const std::byte* codes = p.codes + g * p.block_bytes;
    const std::byte* tail = p.tail + g * p.block_bytes;
    const std::size_t first_unit = p.first_unit + g * p.units;
    for (unsigned r = 0; r < p.rows; ++r) {
      for (std::size_t c = 0; c < kPanelCols; ++c) {
        // Unsigned, because sums on the way may wrap.
        std::uint32_t sum = 0;
        if (p.begins) {
          const auto zero = p.zeros ? std::uint32_t{panel_zero(p.scales, tail, c)} : 1u;
          sum = zero * static_cast<std::uint32_t>(p.starts[g * p.rows + r]);
        } else {
          sum = static_cast<std::uint32_t>(p.carry[r * kPanelCols + c]);
        }
        for (std::size_t u = 0; u < p.units; ++u) {
          const std::size_t block = (first_unit + u) / family::kBlockUnits;
          const std::size_t within = (first_unit + u) % family::kBlockUnits;
          const std::int8_t* four =
              p.a + (block * p.rows + r) * family::kBlockBytes + within * kUnit;
          for (std::size_t b = 0; b < kUnit; ++b) {
            const std::int32_t x = four[b];
            sum += panel_code(kBits, codes + u * kUnitBytes, c, b) * static_cast<std::uint32_t>(x);
          }
        }
        const auto whole = static_cast<std::int32_t>(sum);
        if (!p.ends) {
          p.carry[r * kPanelCols + c] = whole;
          continue;
        }
        float& y = p.y[r * kPanelCols + c];
        const float before = p.first && g == 0 ? 0.0f : y;
        y = std::fma(static_cast<float>(whole), panel_scale(p.scales, tail, c), before);
      }
    }
  }
}

}  // namespace

extern const gemm_int8::Entry gemm_int8_entries[2] = {{Isa::scalar, 4, 4, 4, 1, multiply<4>},
                                                      {Isa::scalar, 8, 4, 4, 1, multiply<8>}};

}  // namespace quell::kernels::scalar
