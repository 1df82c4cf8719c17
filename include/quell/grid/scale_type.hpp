// SPDX-License-Identifier: Apache-2.0
#pragma once

// Rounding of a scale to the type it is stored in. A scale is rounded before any code is chosen, so
// that readers, which have only the stored scale, get the value the codes were chosen for.

#include <cstdint>
#include <string_view>

#include "quell/core/half.hpp"

namespace quell {

/// Type in which scales are stored; a scale is rounded to it before any code is chosen.
enum class ScaleType : std::uint8_t { f16, bf16, f32 };

constexpr std::string_view to_string(ScaleType type) noexcept {
  switch (type) {
    case ScaleType::f16:
      return "f16";
    case ScaleType::bf16:
      return "bf16";
    case ScaleType::f32:
      return "f32";
  }
  return "unknown";
}

constexpr unsigned bits(ScaleType type) noexcept {
  return type == ScaleType::f32 ? 32 : 16;
}

/// The nearest value of the type; 0 or infinity if it is too small or too large.
constexpr float round_scale(float scale, ScaleType type) noexcept {
  switch (type) {
    case ScaleType::f16:
      return f16_to_float(float_to_f16(scale));
    case ScaleType::bf16:
      return bf16_to_float(float_to_bf16(scale));
    case ScaleType::f32:
      return scale;
  }
  return scale;
}

}  // namespace quell
