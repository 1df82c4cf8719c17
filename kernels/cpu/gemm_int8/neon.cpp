// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/cpu/gemm_int8/neon_product.hpp"

namespace quell::kernels::neon {

extern const gemm_int8::Entry gemm_int8_entries[2] = {
    {Isa::neon, 4, kTileRows, kTileRows, 1, multiply<PlainDots, 4>},
    {Isa::neon, 8, kTileRows, kTileRows, 1, multiply<PlainDots, 8>}};

}  // namespace quell::kernels::neon
