// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::gemm_int8 {
namespace {

template <unsigned kIndex>
constexpr const Entry* kEntries[] = {
#if QUELL_X86
    &amx::gemm_int8_entries[kIndex],     &avx512vnni::gemm_int8_entries[kIndex],
    &avx2::gemm_int8_entries[kIndex],
#endif
#if QUELL_NEON
    &neondot::gemm_int8_entries[kIndex], &neon::gemm_int8_entries[kIndex],
#endif
    &scalar::gemm_int8_entries[kIndex],
};

}  // namespace

std::span<const Entry* const> table(unsigned code_bits) noexcept {
  if (code_bits == 4) return kEntries<0>;
  return kEntries<1>;
}

}  // namespace quell::kernels::gemm_int8
