// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::gemm_int8 {
namespace {

template <std::size_t kIndex>
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

std::span<const Entry* const> table(Codes codes) noexcept {
  switch (codes) {
    case Codes::four_bits:
      return kEntries<index_of(Codes::four_bits)>;
    case Codes::eight_bits:
      return kEntries<index_of(Codes::eight_bits)>;
    case Codes::two_level:
      return kEntries<index_of(Codes::two_level)>;
    case Codes::table:
      break;
  }
  return kEntries<index_of(Codes::table)>;
}

}  // namespace quell::kernels::gemm_int8
