// SPDX-License-Identifier: Apache-2.0
#pragma once

// Hadamard: rows times the orthonormal matrix R = H / sqrt(n), where H is a symmetric Hadamard
// matrix (entries +1 and -1, H H = n I). So R is its own inverse: the same call goes there and
// back, and x W^T = (x R) (W R)^T. A rotation spreads a few large values of a row over all of it,
// after which a row is easy to quantize (QuaRot, Ashkboos et al. 2024; SpinQuant, Liu et al. 2024).
//
//   n = m 2^k:  H = H_m (x) S, element (2^k i + j) of a row has index i in H_m and j in S;
//   S(i, j) = (-1)^(number of ones that i and j share in binary), Sylvester's matrix;
//   m is 1 where n is a power of two, else the smallest odd(n) 2^j, up to kMaxOrder, that divides n
//   and is an order that Paley's constructions or a propus array reach: 12, 20, 28, 36, 44, 52, 60,
//   76, 84, 100, 108, 140, 148, 156, 172, 180, 924 and others; 40 is 20 * 2.
//
// Some sizes stay out of reach, 92, 116 and 188 among them. Any row that a power of two divides can
// still be rotated in blocks.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/kernels/context.hpp"

namespace quell::kernels {

/// True if there is a transform of `size` values.
bool hadamard_supported(std::size_t size) noexcept;

/// The transform of one size; made once, used for any number of rows and by any number of threads.
class Hadamard {
 public:
  static constexpr std::size_t kMaxOrder = 1024;

  /// Error: shape (no such transform; the message names the blocks that work instead).
  static Result<Hadamard> of_size(std::size_t size);

  std::size_t size() const noexcept { return size_; }    // n
  std::size_t order() const noexcept { return order_; }  // m

  /// Each row of x [T, blocks * size()] in place, block after block; one block is the full
  /// rotation. float32: k steps of sums and differences, then for m > 1 the product with H_m, then
  /// one multiplication by 1 / sqrt(n). The order of additions is fixed: the same bits on every x86
  /// instruction set and any number of threads. Sums of magnitudes of a block beyond the largest
  /// float overflow, even where the scaled result would not.
  ///
  /// With e = (k + 2 + [m > 1] sqrt(m) (m / 4 + 1)) 2^-24, |found - exact| <= 1.01 e |x| and, done
  /// twice, |found - x| <= 2.02 e |x|, in Euclidean norms of a block, as long as nothing overflows
  /// or becomes subnormal. Errors: shape (size() does not divide the columns), resource.
  Status apply(MatrixView<float> x, Context& context) const;

 private:
  Hadamard(std::size_t size, std::size_t order) : size_(size), order_(order) {}

  std::size_t size_ = 1, order_ = 1;
  std::vector<std::uint8_t> codes_;  // signs of H_m, four columns to a code (contract.hpp)
};

}  // namespace quell::kernels
