// SPDX-License-Identifier: Apache-2.0
#pragma once

// Arithmetic on numbers that a file controls. Plain + and * on such numbers is a defect in review:
// these functions say when the result does not fit instead of wrapping around.

#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

namespace quell {

/// a + b, or nothing if it does not fit in 64 bits.
constexpr std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) noexcept {
  if (a > std::numeric_limits<std::uint64_t>::max() - b) return std::nullopt;
  return a + b;
}

/// a * b, or nothing if it does not fit in 64 bits.
constexpr std::optional<std::uint64_t> checked_multiply(std::uint64_t a, std::uint64_t b) noexcept {
  if (b != 0 && a > std::numeric_limits<std::uint64_t>::max() / b) return std::nullopt;
  return a * b;
}

/// The value in a narrower (or signed) integer type, or nothing if it does not fit.
template <std::integral To, std::integral From>
constexpr std::optional<To> checked_narrow(From value) noexcept {
  if (!std::in_range<To>(value)) return std::nullopt;
  return static_cast<To>(value);
}

/// The smallest multiple of `step` (> 0) not below `value`, or nothing if it does not fit.
constexpr std::optional<std::uint64_t> checked_round_up(std::uint64_t value,
                                                        std::uint64_t step) noexcept {
  const std::uint64_t rest = value % step;
  return rest == 0 ? std::optional(value) : checked_add(value, step - rest);
}

/// ceil(value / step) for step > 0; cannot overflow.
constexpr std::uint64_t ceil_divide(std::uint64_t value, std::uint64_t step) noexcept {
  return value / step + (value % step != 0 ? 1 : 0);
}

}  // namespace quell
