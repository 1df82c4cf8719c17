// SPDX-License-Identifier: Apache-2.0
#pragma once

// Safetensors files made by hand, right or wrong, without any code of the library.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quell::test {

/// Eight bytes, little-endian.
inline std::string length_bytes(std::uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>((value >> (8 * i)) & 255U);
  return bytes;
}

/// A file with this header text and these bytes of data; the length is right.
inline std::string safetensors_bytes(std::string_view header, std::string_view values = {}) {
  std::string bytes = length_bytes(header.size());
  bytes += header;
  bytes += values;
  return bytes;
}

/// `"name":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`; name and shape are put in as they
/// are.
inline std::string entry(std::string_view name, std::string_view dtype, std::string_view shape,
                         std::uint64_t begin, std::uint64_t end) {
  std::string text = "\"";
  text += name;
  text += "\":{\"dtype\":\"";
  text += dtype;
  text += "\",\"shape\":";
  text += shape;
  text += ",\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
  return text;
}

/// A valid file of U8 vectors, one for each name, each of `size` bytes of value `fill`.
inline std::string bytes_of_vectors(const std::vector<std::string>& names, std::uint64_t size,
                                    char fill = 1) {
  std::string header = "{";
  std::uint64_t cursor = 0;
  for (const std::string& name : names) {
    if (header.size() > 1) header += ',';
    header += entry(name, "U8", "[" + std::to_string(size) + "]", cursor, cursor + size);
    cursor += size;
  }
  return safetensors_bytes(header + "}", std::string(static_cast<std::size_t>(cursor), fill));
}

/// The worked example of the format: b F32[2] = {1, 2}, a F16[3] = {1, 2, 3}, c U8[1] = {255}, as
/// the reference writer (safetensors 0.8.0 for Python) has it.
inline std::string worked_example() {
  std::string header =
      "{\"__metadata__\":{\"format\":\"pt\"},"
      "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
      "\"a\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[8,14]},"
      "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[14,15]}}";
  header.resize(200, ' ');
  using namespace std::string_view_literals;
  return safetensors_bytes(header,
                           "\x00\x00\x80\x3f\x00\x00\x00\x40\x00\x3c\x00\x40\x00\x42\xff"sv);
}

}  // namespace quell::test
