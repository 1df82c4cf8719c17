// SPDX-License-Identifier: Apache-2.0
#pragma once

// Element types of tensors in files: all those of the safetensors format, with the names used there.

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace quell {

/// In ascending order of the alignment rank by which safetensors files are sorted.
enum class DType : std::uint8_t {
  boolean,
  f4,         // OCP E2M1, two in a byte, first element in the low nibble
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,    // the "fn" variant: no infinities, NaN = 0x7F and 0xFF, largest value 448
  f8_e8m0,    // exponent only: 2^(byte - 127), 0xFF = NaN
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64,
};

struct DTypeInfo {
  DType dtype;
  std::string_view name;  // as safetensors spells it
  std::uint32_t bits;     // of one element
};

inline constexpr std::array<DTypeInfo, 22> kDTypes = {{
    {DType::boolean, "BOOL", 8},
    {DType::f4, "F4", 4},
    {DType::f6_e2m3, "F6_E2M3", 6},
    {DType::f6_e3m2, "F6_E3M2", 6},
    {DType::u8, "U8", 8},
    {DType::i8, "I8", 8},
    {DType::f8_e5m2, "F8_E5M2", 8},
    {DType::f8_e4m3, "F8_E4M3", 8},
    {DType::f8_e8m0, "F8_E8M0", 8},
    {DType::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    {DType::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
    {DType::i16, "I16", 16},
    {DType::u16, "U16", 16},
    {DType::f16, "F16", 16},
    {DType::bf16, "BF16", 16},
    {DType::i32, "I32", 32},
    {DType::u32, "U32", 32},
    {DType::f32, "F32", 32},
    {DType::c64, "C64", 64},
    {DType::f64, "F64", 64},
    {DType::i64, "I64", 64},
    {DType::u64, "U64", 64},
}};

constexpr const DTypeInfo& info(DType dtype) noexcept {
  return kDTypes[static_cast<std::size_t>(dtype)];
}
constexpr std::string_view to_string(DType dtype) noexcept { return info(dtype).name; }
constexpr std::uint32_t bits(DType dtype) noexcept { return info(dtype).bits; }

/// The type with this exact name (names are upper case), or nothing.
constexpr std::optional<DType> parse_dtype(std::string_view name) noexcept {
  for (const DTypeInfo& entry : kDTypes) {
    if (entry.name == name) return entry.dtype;
  }
  return std::nullopt;
}

namespace detail {
consteval bool dtypes_in_order() {
  for (std::size_t i = 0; i < kDTypes.size(); ++i) {
    if (static_cast<std::size_t>(kDTypes[i].dtype) != i) return false;
  }
  return true;
}
static_assert(dtypes_in_order(), "info() indexes the table by enumerator");
}  // namespace detail

}  // namespace quell
