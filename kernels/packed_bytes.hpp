// SPDX-License-Identifier: Apache-2.0
#pragma once

// What every way of packing shares: the label at the end of packed bytes, and the step from bytes
// to something that multiplies. Private.

#include <cstddef>
#include <span>

#include "kernels/packed_form.hpp"
#include "quell/core/result.hpp"
#include "quell/kernels/gemm.hpp"

namespace quell::kernels {

/// 64 bytes.
void write_label(const PackedPlan& plan, std::byte* to) noexcept;

/// Memory that a caller lends for packed bytes: its size and its alignment. Errors: shape, usage.
Status check_memory(const PackedPlan& plan, std::span<const std::byte> memory);

/// `bytes` are complete. Error: unsupported (no entry of this machine reads them).
Result<PackedWeights> form_of(const PackedPlan& plan, PackedBytes bytes);

}  // namespace quell::kernels
