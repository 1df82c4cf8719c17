// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/cpu/gemm_int8/neon_product.hpp"

namespace quell::kernels::neondot {

extern const gemm_int8::Entry gemm_int8_entries[4] = {
    {Isa::neondot, Codes::four_bits, kTileRows, kTileRows, 1,
     multiply<DotInstruction, Codes::four_bits>},
    {Isa::neondot, Codes::eight_bits, kTileRows, kTileRows, 1,
     multiply<DotInstruction, Codes::eight_bits>},
    {Isa::neondot, Codes::two_level, kTileRows, kTileRows, 1,
     multiply<DotInstruction, Codes::two_level>},
    {Isa::neondot, Codes::table, kTileRows, kTileRows, 1, multiply<DotInstruction, Codes::table>}};

}  // namespace quell::kernels::neondot
