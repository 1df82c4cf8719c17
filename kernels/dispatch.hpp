// SPDX-License-Identifier: Apache-2.0
#pragma once

// Choosing an entry. A family's table lists pointers to its entries, best first and scalar last;
// the choice is the first whose instruction set the machine has under the cap. Scalar is always
// there, so the choice cannot fail.

#include <span>

#include "quell/core/panic.hpp"
#include "quell/kernels/isa.hpp"

namespace quell::kernels {

template <typename Entry>
const Entry& choose(std::span<const Entry* const> table) noexcept {
  for (const Entry* entry : table) {
    if (has(entry->isa)) return *entry;
  }
  panic("a kernel table without a scalar entry");
}

}  // namespace quell::kernels
