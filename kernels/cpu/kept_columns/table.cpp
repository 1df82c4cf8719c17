// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/kept_columns/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::kept_columns {
namespace {

constexpr const Entry* kEntries[] = {
#if QUELL_X86
    &avx512::kept_columns_entry,
    &avx2::kept_columns_entry,
#endif
    &scalar::kept_columns_entry,
};

}  // namespace

std::span<const Entry* const> table() noexcept {
  return kEntries;
}

}  // namespace quell::kernels::kept_columns
