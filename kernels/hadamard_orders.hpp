// SPDX-License-Identifier: Apache-2.0
#pragma once

// Symmetric Hadamard matrices of orders that are no powers of two, computed from number theory.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace quell::kernels {

/// The order m with which rows of `size` = m 2^k are transformed: 1 for powers of two, 0 if there
/// is none.
std::size_t hadamard_order(std::size_t size) noexcept;

/// Elements +1 and -1 of a symmetric Hadamard matrix, [order, order]; `order` is one that
/// hadamard_order gives.
std::vector<std::int8_t> hadamard_signs(std::size_t order);

/// The same as codes of quads, in the order of the family's contract; empty for order 1.
std::vector<std::uint8_t> hadamard_codes(std::size_t order);

}  // namespace quell::kernels
