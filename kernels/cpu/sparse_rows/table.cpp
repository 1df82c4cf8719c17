// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/sparse_rows/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::sparse_rows {
namespace {

constexpr const Entry* kEntries[] = {
#if QUELL_X86
    &avx2::sparse_rows_entry,
#endif
    &scalar::sparse_rows_entry,
};

}  // namespace

std::span<const Entry* const> table() noexcept {
  return kEntries;
}

}  // namespace quell::kernels::sparse_rows
