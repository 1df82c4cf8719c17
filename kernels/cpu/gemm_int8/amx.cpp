// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/amx_tiles.hpp"
#include "kernels/cpu/gemm_int8/amx_product.hpp"
#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/target.hpp"

namespace quell::kernels::amx {

extern const gemm_int8::Entry gemm_int8_entries[4] = {
    entry_of<AmxTiles, Codes::four_bits>(), entry_of<AmxTiles, Codes::eight_bits>(),
    entry_of_two_level<AmxTiles>(), entry_of<AmxTiles, Codes::table>()};

}  // namespace quell::kernels::amx
