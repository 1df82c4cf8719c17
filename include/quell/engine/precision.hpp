// SPDX-License-Identifier: Apache-2.0
#pragma once

// The precision that a caller asks of a forward pass, f32 unless it says so. It is recorded with
// what the pass gave, since numbers made in bf16 are near those of f32 and no more than that: the
// bits may differ from one machine to another, never with the number of threads.

#include <optional>
#include <string_view>

namespace quell::engine {

/// Of the products with the weights of blocks; all else is float32 in both.
enum class Precision {
  f32,
  bf16,  // weights and activations rounded to bfloat16, sums in float32
};

constexpr std::string_view to_string(Precision precision) noexcept {
  return precision == Precision::bf16 ? "bf16" : "f32";
}
constexpr std::optional<Precision> parse_precision(std::string_view word) noexcept {
  if (word == "f32") return Precision::f32;
  if (word == "bf16") return Precision::bf16;
  return std::nullopt;
}

}  // namespace quell::engine
