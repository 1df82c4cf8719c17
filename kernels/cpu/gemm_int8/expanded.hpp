// SPDX-License-Identifier: Apache-2.0
#pragma once

// Codes of two levels, or of a table, written out as codes of eight bits, and a product handed on
// to the entry for these. Written out, a group is a block as panels.hpp has it: units of 128 bytes,
// then the scales of its rows.

#include <cstddef>
#include <cstring>

#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels {
namespace {  // an object for an instruction set exports its entry alone

/// Of one group.
constexpr std::size_t expanded_bytes(std::size_t units) {
  return units * gemm_int8::unit_bytes(gemm_int8::Codes::eight_bits) + 128;
}

/// Copies the scales of one group, at whose units `product` ends.
QUELL_INLINE void copy_scales(const gemm_int8::TileProduct& product, const std::byte* tail,
                              std::byte* to) {
  if (!product.ends || product.scales == PanelScales::none) return;
  std::memcpy(to, tail, product.scales == PanelScales::f32 ? 128 : 64);
}

/// The same product, of codes of eight bits.
QUELL_INLINE gemm_int8::TileProduct of_expanded(const gemm_int8::TileProduct& product,
                                                const std::byte* expanded) {
  gemm_int8::TileProduct bytes = product;
  bytes.codes = expanded;
  bytes.tail = expanded + expanded_bytes(product.units) - 128;
  bytes.block_bytes = expanded_bytes(product.units);
  bytes.panel_bytes = product.groups * bytes.block_bytes;
  bytes.opened = nullptr;
  return bytes;
}

/// Units of one part: 16 KB of bytes.
constexpr std::size_t kPartUnits = 128;

/// A product of one panel of two levels that was not opened: part after part is written out by
/// `open` and handed to `multiply` of the entry for eight bits.
template <typename Open, typename Multiply>
QUELL_INLINE void multiply_in_parts(const gemm_int8::TileProduct& product, Open open,
                                    Multiply multiply) {
  alignas(64) std::byte expanded[expanded_bytes(kPartUnits)];
  for (std::size_t done = 0; done < product.units; done += kPartUnits) {
    gemm_int8::TileProduct part = product;
    const std::size_t left = product.units - done;
    part.units = left < kPartUnits ? left : kPartUnits;
    part.codes += done * gemm_int8::unit_bytes(gemm_int8::Codes::two_level);
    part.first_unit += done;
    part.begins = product.begins && done == 0;
    part.ends = product.ends && part.units == left;
    open(part, expanded);
    multiply(of_expanded(part, expanded));
  }
}

}  // namespace
}  // namespace quell::kernels
