// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/gemm_float/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::gemm_float {
namespace {

template <unsigned kIndex>
constexpr const Entry* kEntries[] = {
#if QUELL_X86
    &avx512::gemm_float_entries[kIndex],
    &avx2::gemm_float_entries[kIndex],
#endif
#if QUELL_NEON
    &neon::gemm_float_entries[kIndex],
#endif
    &scalar::gemm_float_entries[kIndex],
};

}  // namespace

std::span<const Entry* const> table(Weights weights) noexcept {
  switch (weights) {
    case Weights::four_bits:
      return kEntries<0>;
    case Weights::eight_bits:
      return kEntries<1>;
    case Weights::f16:
      return kEntries<2>;
    case Weights::bf16:
      return kEntries<3>;
  }
  return {};
}

}  // namespace quell::kernels::gemm_float
