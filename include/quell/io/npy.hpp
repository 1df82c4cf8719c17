// SPDX-License-Identifier: Apache-2.0
#pragma once

// Arrays in NumPy's .npy files: token ids (int32) and reference values (float32).

#include <cstdint>
#include <filesystem>
#include <vector>

#include "quell/core/result.hpp"

namespace quell::io {

struct NpyInt32 {
  std::vector<std::uint64_t> shape;
  std::vector<std::int32_t> values;  // row-major
};
struct NpyFloat32 {
  std::vector<std::uint64_t> shape;
  std::vector<float> values;  // row-major
};

/// Reads a version 1 to 3 file of little-endian int32 in C order. Other element types and orders
/// are refused by name. Errors: missing, parse, unsupported.
Result<NpyInt32> read_npy_int32(const std::filesystem::path& path);
/// The same for float32.
Result<NpyFloat32> read_npy_float32(const std::filesystem::path& path);

}  // namespace quell::io
