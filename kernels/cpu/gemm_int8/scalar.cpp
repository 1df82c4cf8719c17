// SPDX-License-Identifier: Apache-2.0

// The specification: one output at a time.

#include <cmath>

#include "kernels/cpu/gemm_int8/contract.hpp"

namespace quell::kernels::scalar {
namespace {

namespace family = gemm_int8;

using family::Codes;

/// The code of OC c, IC 4 u + b of the panel, u = p.first_unit + `unit`, as it is multiplied.
template <Codes kCodes>
unsigned code_at(const family::TileProduct& p, const std::byte* codes, std::size_t unit,
                 std::size_t c, std::size_t b) {
  const unsigned code =
      panel_code(family::bits_of(kCodes), codes + unit * family::unit_bytes(kCodes), c, b);
  if constexpr (kCodes == Codes::table) return p.table[code];
  if constexpr (kCodes != Codes::two_level) return code;
  const std::size_t group = (p.first_unit + unit) / p.level_units;
  const unsigned integer = panel_integer(p.integers, group, c);
  return 128 - 8 * integer + code * integer;
}

template <Codes kCodes>
void multiply(const family::TileProduct& p) {
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
            sum += code_at<kCodes>(p, codes, u, c, b) * static_cast<std::uint32_t>(x);
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

extern const gemm_int8::Entry gemm_int8_entries[4] = {
    {Isa::scalar, Codes::four_bits, 4, 4, 1, multiply<Codes::four_bits>},
    {Isa::scalar, Codes::eight_bits, 4, 4, 1, multiply<Codes::eight_bits>},
    {Isa::scalar, Codes::two_level, 4, 4, 1, multiply<Codes::two_level>},
    {Isa::scalar, Codes::table, 4, 4, 1, multiply<Codes::table>}};

}  // namespace quell::kernels::scalar
