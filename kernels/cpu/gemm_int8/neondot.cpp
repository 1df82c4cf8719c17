// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/cpu/gemm_int8/neon_product.hpp"

namespace quell::kernels::neondot {

extern const gemm_int8::Entry gemm_int8_entries[2] = {
    {Isa::neondot, 4, kTileRows, kTileRows, 1, multiply<DotInstruction, 4>},
    {Isa::neondot, 8, kTileRows, kTileRows, 1, multiply<DotInstruction, 8>}};

}  // namespace quell::kernels::neondot
