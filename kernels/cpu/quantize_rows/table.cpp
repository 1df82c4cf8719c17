// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/quantize_rows/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::quantize_rows_family {
namespace {

constexpr const Entry* kEntries[] = {
#if QUELL_X86
    &avx512::quantize_rows_entry,
    &avx2::quantize_rows_entry,
#endif
    &scalar::quantize_rows_entry,
};

}  // namespace

std::span<const Entry* const> table() noexcept {
  return kEntries;
}

}  // namespace quell::kernels::quantize_rows_family
