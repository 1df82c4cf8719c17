// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/gemm_bf16/contract.hpp"
#include "kernels/detect.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::gemm_bf16 {

std::span<const Entry* const> table([[maybe_unused]] Weights weights) noexcept {
#if QUELL_X86
  static constexpr const Entry* kEntries[kKinds][2] = {
      {&amx::gemm_bf16_entries[0], &avx512bf16::gemm_bf16_entries[0]},
      {&amx::gemm_bf16_entries[1], &avx512bf16::gemm_bf16_entries[1]},
      {&amx::gemm_bf16_entries[2], &avx512bf16::gemm_bf16_entries[2]}};
  for (unsigned kind = 0; kind < kKinds; ++kind) {
    if (kWeights[kind] == weights) return kEntries[kind];
  }
#endif
  return {};
}

const char* refuse(const Entry& entry) noexcept {
  if (entry.isa != Isa::avx512bf16 || bf16_vectors_pay()) return nullptr;
  return "this processor multiplies pairs of bfloat16 at half the rate of float32";
}

const Entry* choose(Weights weights) noexcept {
  for (const Entry* entry : gemm_bf16::table(weights)) {
    if (has(entry->isa) && refuse(*entry) == nullptr) return entry;
  }
  return nullptr;
}

}  // namespace quell::kernels::gemm_bf16
