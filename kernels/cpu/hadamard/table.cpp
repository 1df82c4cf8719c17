// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/hadamard/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::hadamard_family {
namespace {

constexpr const Entry* kEntries[] = {
#if QUELL_X86
    &avx512::hadamard_entry,
    &avx2::hadamard_entry,
#endif
    &scalar::hadamard_entry,
};

}  // namespace

std::span<const Entry* const> table() noexcept {
  return kEntries;
}

}  // namespace quell::kernels::hadamard_family
