// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/strip/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::strip {
namespace {

constexpr const Entry* kEntries[] = {
#if QUELL_X86
    &avx512::strip_entry,
    &avx2::strip_entry,
#endif
    &scalar::strip_entry,
};

}  // namespace

std::span<const Entry* const> table() noexcept {
  return kEntries;
}

}  // namespace quell::kernels::strip
