// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/tensor_stats/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::tensor_stats {
namespace {

constexpr const Entry* kEntries[] = {
#if QUELL_X86
    &avx512::tensor_stats_entry,
    &avx2::tensor_stats_entry,
#endif
    &scalar::tensor_stats_entry,
};

}  // namespace

std::span<const Entry* const> table() noexcept {
  return kEntries;
}

}  // namespace quell::kernels::tensor_stats
