// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/amx_tiles.hpp"
#include "kernels/cpu/gemm_bf16/amx_product.hpp"
#include "kernels/cpu/gemm_bf16/contract.hpp"

namespace quell::kernels::amx {

extern const gemm_bf16::Entry gemm_bf16_entries[gemm_bf16::kKinds] = {
    entry_of<AmxTiles, gemm_bf16::Weights::four_bits>(),
    entry_of<AmxTiles, gemm_bf16::Weights::eight_bits>(),
    entry_of<AmxTiles, gemm_bf16::Weights::bf16>()};

}  // namespace quell::kernels::amx
