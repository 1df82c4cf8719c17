// SPDX-License-Identifier: Apache-2.0
#pragma once

// What detection knows beyond which instructions there are. Private.

namespace quell::kernels {

/// True where vdpbf16ps is faster than fused multiply-add of float32. No feature bit tells: Zen 4
/// and later do twice as many products with it, Sapphire Rapids half as many, and Intel's
/// processors with AMX have tiles for the purpose. So it is the vendor.
bool bf16_vectors_pay() noexcept;
/// The same of the vendor that cpuid's leaf 0 names in these registers, here "AuthenticAMD".
constexpr bool bf16_vectors_pay(unsigned ebx, unsigned edx, unsigned ecx) noexcept {
  return ebx == 0x6874'7541 && edx == 0x6974'6e65 && ecx == 0x444d'4163;
}

}  // namespace quell::kernels
