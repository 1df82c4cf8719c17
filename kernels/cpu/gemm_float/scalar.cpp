// SPDX-License-Identifier: Apache-2.0

// The specification: one output at a time.

#include <cmath>

#include "kernels/cpu/gemm_float/contract.hpp"

namespace quell::kernels::scalar {
namespace {

namespace family = gemm_float;

template <family::Weights kWeights>
void multiply(const family::TileProduct& p) {
  using family::Weights;
  constexpr std::size_t kUnitBytes = family::unit_bytes(kWeights);
  const auto weight = [&](const std::byte* unit, std::size_t c, std::size_t b) {
    if constexpr (kWeights == Weights::f16 || kWeights == Weights::bf16) {
      return panel_float(kWeights == Weights::bf16, unit, c, b);
    } else if constexpr (kWeights == Weights::eight_bits) {
      return static_cast<float>(panel_code(8, unit, c, b));
    } else {
      return p.table[panel_code(4, unit, c, b)];
    }
  };
  for (std::size_t g = 0; g < p.groups; ++g) {
    const std::byte* codes = p.codes + g * p.block_bytes;
    const std::byte* tail = p.tail + g * p.block_bytes;
    const float* a = p.a + (p.first_unit + g * p.units) * kUnit * p.rows;
    for (std::size_t c = 0; c < kPanelCols; ++c) {
      float zero = kWeights == Weights::eight_bits ? p.zero : 0;
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
            const float value = weight(codes + k / kUnit * kUnitBytes, c, k % kUnit);
            sum = std::fma(a[k * p.rows + r], value - zero, sum);
          }
          y = std::fma(sum, scale, y);
        }
      }
    }
  }
}

}  // namespace

using gemm_float::Weights;
extern const gemm_float::Entry gemm_float_entries[gemm_float::kKinds] = {
    {Isa::scalar, Weights::four_bits, 4, multiply<Weights::four_bits>},
    {Isa::scalar, Weights::eight_bits, 4, multiply<Weights::eight_bits>},
    {Isa::scalar, Weights::f16, 4, multiply<Weights::f16>},
    {Isa::scalar, Weights::bf16, 4, multiply<Weights::bf16>}};

}  // namespace quell::kernels::scalar
