// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/cpu/gemm_int8/neon_product.hpp"

namespace quell::kernels::neon {

extern const gemm_int8::Entry gemm_int8_entries[4] = {
    {Isa::neon, Codes::four_bits, kTileRows, kTileRows, 1, multiply<PlainDots, Codes::four_bits>},
    {Isa::neon, Codes::eight_bits, kTileRows, kTileRows, 1, multiply<PlainDots, Codes::eight_bits>},
    {Isa::neon, Codes::two_level, kTileRows, kTileRows, 1, multiply<PlainDots, Codes::two_level>},
    {Isa::neon, Codes::table, kTileRows, kTileRows, 1, multiply<PlainDots, Codes::table>}};

}  // namespace quell::kernels::neon
