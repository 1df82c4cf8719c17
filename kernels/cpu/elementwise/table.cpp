// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/elementwise/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::elementwise {
namespace {

constexpr const Entry* kEntries[] = {
#if QUELL_X86
    &avx512::elementwise_entry,
    &avx2::elementwise_entry,
#endif
    &scalar::elementwise_entry,
};

}  // namespace

std::span<const Entry* const> table() noexcept {
  return kEntries;
}

}  // namespace quell::kernels::elementwise
