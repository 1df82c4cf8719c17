// SPDX-License-Identifier: Apache-2.0
#pragma once

// Large pages for memory that kernels stream through. A packed operand on 4 KB pages costs a page
// walk every 64 lines, and in a virtual machine a walk goes through two tables: gemm_dense measured
// 61 % of the multiply limit on small pages and 76 % on large ones (Ice Lake server, 512 x 4096 x
// 4096).

#include <cstddef>

namespace quell::kernels {

inline constexpr std::size_t kLargePage = std::size_t{2} << 20;

/// Advises the system to back the whole large pages inside [data, data + bytes) by large pages. To
/// be called before the memory is first written; where the advice is refused, only speed is lost.
void prefer_large_pages(void* data, std::size_t bytes) noexcept;

}  // namespace quell::kernels
