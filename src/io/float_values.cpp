// SPDX-License-Identifier: Apache-2.0
#include "io/float_values.hpp"

#include <cstdint>
#include <cstring>

#include "quell/core/half.hpp"
#include "quell/core/panic.hpp"

namespace quell::io {
namespace {

// Elements of this type at `bytes`, which the caller has aligned for it.
template <typename T>
std::span<const T> as(std::span<const std::byte> bytes) {
  QUELL_ASSERT(reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) == 0);
  return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
}

}  // namespace

bool is_float(DType dtype) noexcept {
  switch (dtype) {
    case DType::f64:
    case DType::f32:
    case DType::f16:
    case DType::bf16:
    case DType::f8_e5m2:
    case DType::f8_e4m3:
    case DType::f8_e8m0:
    case DType::f8_e4m3fnuz:
    case DType::f8_e5m2fnuz:
      return true;
    default:
      return false;
  }
}

void to_floats(DType dtype, std::span<const std::byte> bytes, std::span<float> out) noexcept {
  QUELL_ASSERT(is_float(dtype) && bytes.size() == out.size() * (bits(dtype) / 8));
  if (out.empty()) return;
  switch (dtype) {
    case DType::f64: {
      const auto values = as<double>(bytes);
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(values[i]);
      return;
    }
    case DType::f32:
      std::memcpy(out.data(), bytes.data(), bytes.size());
      return;
    case DType::f16:
      f16_to_float(as<std::uint16_t>(bytes), out);
      return;
    case DType::bf16:
      bf16_to_float(as<std::uint16_t>(bytes), out);
      return;
    case DType::f8_e5m2:
      f8_e5m2_to_float(as<std::uint8_t>(bytes), out);
      return;
    case DType::f8_e4m3:
      f8_e4m3_to_float(as<std::uint8_t>(bytes), out);
      return;
    case DType::f8_e8m0:
      f8_e8m0_to_float(as<std::uint8_t>(bytes), out);
      return;
    case DType::f8_e4m3fnuz:
      f8_e4m3fnuz_to_float(as<std::uint8_t>(bytes), out);
      return;
    case DType::f8_e5m2fnuz:
      f8_e5m2fnuz_to_float(as<std::uint8_t>(bytes), out);
      return;
    default:
      return;
  }
}

}  // namespace quell::io
