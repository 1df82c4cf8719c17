// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/attention/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::attention_family {
namespace {

constexpr const Entry* kEntries[] = {
#if QUELL_X86
    &avx512::attention_entry,
    &avx2::attention_entry,
#endif
    &scalar::attention_entry,
};

}  // namespace

std::span<const Entry* const> table() noexcept {
  return kEntries;
}

}  // namespace quell::kernels::attention_family
