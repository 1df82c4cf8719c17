// SPDX-License-Identifier: Apache-2.0
#pragma once

// strip: products of a small matrix with sixteen rows at once, which lie side by side: element
// (j, lane) of a strip is at x[16 j + lane]. scalar.cpp is the specification; all entries give
// equal bits: one accumulator for each output, j ascending, fused multiply-add.

#include <cstddef>
#include <span>

#include "quell/kernels/isa.hpp"

namespace quell::kernels::strip {

constexpr unsigned kLanes = 16;

struct Entry {
  Isa isa;
  /// out[16 r + lane] -= sum over j < depth of c[r stride + j] x[16 j + lane], for r < rows. `out`
  /// does not overlap x.
  void (*subtract)(const float* c, std::size_t stride, std::size_t rows, std::size_t depth,
                   const float* x, float* out);
};

/// Best first, scalar last.
std::span<const Entry* const> table() noexcept;

}  // namespace quell::kernels::strip

namespace quell::kernels {
namespace scalar {
extern const strip::Entry strip_entry;
}
namespace avx2 {
extern const strip::Entry strip_entry;
}
namespace avx512 {
extern const strip::Entry strip_entry;
}
}  // namespace quell::kernels
