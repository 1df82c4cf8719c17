// SPDX-License-Identifier: Apache-2.0
#pragma once

// hadamard, f32: blocks of n = m 2^k values, in place, times H_m (x) S / sqrt(n), with H_m a
// symmetric Hadamard matrix of order m (1, or a multiple of 4) and S Sylvester's of order 2^k.
// scalar.cpp is the specification; all entries perform these IEEE operations on each element and so
// give equal bits, NaN payloads excepted:
//
//   1. in each of the m slices of L = 2^k values, for h = 1, 2, 4, ... L / 2: every pair (i, i +
//   h),
//      i without bit h, becomes (a + b, a - b);
//   2. for m > 1, for each place j of the slices, with x_i the value at j of slice i: four x make a
//      quad, v = (x0 +- x1) +- (x2 +- x3), signs relative to the first of each sum; y_i is the sum
//      of +-v over the m / 4 quads in ascending order, starting from the first +-v;
//   3. one multiplication by `scale`.
//
// Quads take a quarter of the additions of a plain product, because there are only eight different
// v, and a chain of additions that is four times shorter.
//
// Signs of a quad of row i are a code of four bits, from s0 to s3 of H_m(i, 4 q ...):
//   1: s0 != s1, 2: s2 != s3, 4: s0 != s2, 8: s0 is minus;
// the byte that holds it is 16 times the code, so that eight times the byte is the offset, in
// bytes, of a row of 32 floats, which x86 adds to an address at no cost. Pointers need the
// alignment of float only.

#include <cstddef>
#include <cstdint>
#include <span>

#include "quell/kernels/isa.hpp"

namespace quell::kernels::hadamard_family {

// Columns of a strip, for which all sums of a quad are held at once: two registers of AVX-512.
constexpr std::size_t kStrip = 32;
// Quads whose sums are held: 24 KB leave half of a first-level cache of 48 KB to the results. Holding
// the sums of all quads at once takes a tenth longer at order 172 and a fifth at 924.
constexpr std::size_t kHeldQuads = 12;

struct Problem {
  std::size_t order = 1;                // m
  unsigned log2_slice = 0;              // k
  const std::uint8_t* codes = nullptr;  // [m / 4 of rows][m / 4 quads][4 rows]; unread for m = 1
  float scale = 1.0f;
};

/// Scratch of an entry: sums [kHeldQuads][16 codes][kStrip], then results [m][kStrip], then a copy
/// of a strip [m][kStrip].
constexpr std::size_t scratch_floats(std::size_t order) {
  return order == 1 ? 0 : (kHeldQuads * 16 + 2 * order) * kStrip;
}

struct Entry {
  Isa isa;
  /// `blocks` blocks of m 2^k values, one after the other at x. scratch: scratch_floats(m), at a
  /// 64-byte boundary.
  void (*transform)(const Problem& problem, float* x, std::size_t blocks, float* scratch);
};

/// Best first, scalar last.
std::span<const Entry* const> table() noexcept;

}  // namespace quell::kernels::hadamard_family

namespace quell::kernels {
namespace scalar {
extern const hadamard_family::Entry hadamard_entry;
}
namespace avx2 {
extern const hadamard_family::Entry hadamard_entry;
}
namespace avx512 {
extern const hadamard_family::Entry hadamard_entry;
}
}  // namespace quell::kernels
