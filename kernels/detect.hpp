// SPDX-License-Identifier: Apache-2.0
#pragma once

// What detection knows beyond which instructions there are. Private.

namespace quell::kernels {

/// True where vdpbf16ps is faster than fused multiply-add of float32. No feature bit tells: Zen 4
/// and later do twice as many products with it, Sapphire Rapids half as many, and Intel's
/// processors with AMX have tiles for the purpose. So it is the vendor.
bool bf16_vectors_pay() noexcept;

}  // namespace quell::kernels
