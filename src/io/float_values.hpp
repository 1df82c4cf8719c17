// SPDX-License-Identifier: Apache-2.0
#pragma once

// Floating-point elements of files as float32. Every F16, BF16 and F8 value is one exactly; F64 is
// rounded to nearest even (and to infinity beyond the range of float32).

#include <cstddef>
#include <span>

#include "quell/core/dtype.hpp"

namespace quell::io {

bool is_float(DType dtype) noexcept;

/// `bytes` holds out.size() little-endian elements of a type for which is_float() is true.
void to_floats(DType dtype, std::span<const std::byte> bytes, std::span<float> out) noexcept;

}  // namespace quell::io
