// SPDX-License-Identifier: Apache-2.0
#pragma once

// Token ids in NumPy's .npy files.

#include <cstdint>
#include <filesystem>
#include <vector>

#include "quell/core/result.hpp"

namespace quell::io {

struct NpyInt32 {
  std::vector<std::uint64_t> shape;
  std::vector<std::int32_t> values;  // row-major
};

/// Reads a version 1 or 2 file of little-endian int32 in C order. Other element types and orders are
/// refused by name. Errors: missing, parse, unsupported.
Result<NpyInt32> read_npy_int32(const std::filesystem::path& path);

}  // namespace quell::io
