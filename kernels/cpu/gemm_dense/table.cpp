// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/gemm_dense/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::gemm_dense_family {
namespace {

constexpr const Entry* kEntries[] = {
#if QUELL_X86
    &avx512::gemm_dense_entry,
    &avx2::gemm_dense_entry,
#endif
#if QUELL_NEON
    &neon::gemm_dense_entry,
#endif
    &scalar::gemm_dense_entry,
};

}  // namespace

std::span<const Entry* const> table() noexcept {
  return kEntries;
}

}  // namespace quell::kernels::gemm_dense_family
