// SPDX-License-Identifier: Apache-2.0
#pragma once

// The header of one safetensors file: text to records, with every rule of the format checked. After
// this, offsets and sizes can be trusted: the tensors tile the data section without overlap or
// hole, and each has exactly the bytes of its shape.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.hpp"
#include "quell/core/result.hpp"
#include "quell/io/safetensors.hpp"

namespace quell::io {

// Bytes before the header: its length, unsigned, little-endian.
inline constexpr std::uint64_t kHeaderStart = 8;

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // sorted by name; offsets from the start of the file
  std::vector<MetadataEntry> metadata;
};

/// Parses header text that is followed by `data_bytes` bytes of data. `file` is for errors, all of
/// them `parse`.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, std::uint64_t data_bytes,
                                                   std::string_view file);

/// Reads and parses the header of an open file; says what the file is if it is none of ours.
Result<SafetensorsHeader> read_safetensors_header(const File& file);

/// Bytes of a tensor, or the reason why there is no such number (as the end of "tensor NAME ...").
struct ByteCount {
  std::uint64_t bytes = 0;
  std::string fault;  // empty if there are bytes
};
ByteCount byte_count(DType dtype, std::span<const std::uint64_t> shape);

}  // namespace quell::io
