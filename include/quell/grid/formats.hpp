// SPDX-License-Identifier: Apache-2.0
#pragma once

// The one table of formats. Codes are stored unsigned in `bits` bits; on a symmetric grid the
// stored code minus 2^(bits-1) is the signed integer listed here. Asymmetric grids use all 2^bits
// codes whatever the format; `int4n` and `int8full` then say the same as `int4` and `int8`.
// Codebook formats are symmetric only: their code is an index into a list (codebook.hpp).

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "quell/grid/codebook.hpp"

namespace quell {

/// What the codes mean.
enum class Format : std::uint8_t {
  int2,      // symmetric: [-2, 1]
  int3,      // symmetric: [-4, 3]
  int4,      // symmetric: [-8, 7], absmax scale = absmax / 7.5, as the common loaders
  int4n,     // the narrow form, [-7, 7], absmax scale = absmax / 7
  int8,      // symmetric: [-127, 127]; -128 is left out for kernels that negate
  int8full,  // symmetric: [-128, 127], absmax scale = absmax / 127.5
  nf4,       // codebook kNf4, absmax scale = absmax
  iq4,       // codebook kIq4, absmax scale = -extreme / 127, which maps the extreme to -127
};

struct FormatInfo {
  Format format;
  std::string_view name;
  unsigned bits;  // of a stored code
  int lowest;     // signed code range of the symmetric grid
  int highest;
  float absmax_divisor;                // symmetric absmax scale = absmax / this
  const Codebook* codebook = nullptr;  // of codebook formats
};

/// In the order of the enumerators. Half-integer divisors spread the absolute maximum over half of
/// the 2^bits - 1 steps, so +absmax is clipped by half a step and -absmax is not: the convention of
/// the common loaders of 4-bit checkpoints. The narrow formats map +-absmax to the outermost codes.
inline constexpr std::array<FormatInfo, 8> kFormats = {{
    {Format::int2, "int2", 2, -2, 1, 1.5f},
    {Format::int3, "int3", 3, -4, 3, 3.5f},
    {Format::int4, "int4", 4, -8, 7, 7.5f},
    {Format::int4n, "int4n", 4, -7, 7, 7.0f},
    {Format::int8, "int8", 8, -127, 127, 127.0f},
    {Format::int8full, "int8full", 8, -128, 127, 127.5f},
    {Format::nf4, "nf4", 4, -8, 7, 1.0f, &kNf4},
    {Format::iq4, "iq4", 4, -8, 7, 127.0f, &kIq4},
}};

constexpr const FormatInfo& info(Format format) noexcept {
  return kFormats[static_cast<std::size_t>(format)];
}
constexpr std::string_view to_string(Format format) noexcept {
  return info(format).name;
}
constexpr unsigned bits(Format format) noexcept {
  return info(format).bits;
}

/// The zero of every group of a symmetric grid, as a stored code; codebooks have none and ignore
/// it.
constexpr std::uint8_t symmetric_zero(Format format) noexcept {
  return static_cast<std::uint8_t>(1u << (bits(format) - 1));
}

/// What a stored code counts of its group's scale: value = code_level * scale.
constexpr float code_level(Format format, int code, int zero) noexcept {
  const Codebook* const codebook = info(format).codebook;
  return codebook != nullptr ? codebook->levels[static_cast<std::size_t>(code)]
                             : static_cast<float>(code - zero);
}

/// True if zero is among the values of a symmetric grid whatever the scale.
constexpr bool has_zero(Format format) noexcept {
  const Codebook* const codebook = info(format).codebook;
  return codebook == nullptr || codebook->has_zero();
}

namespace detail {
consteval bool formats_are_consistent() {
  for (std::size_t i = 0; i < kFormats.size(); ++i) {
    const FormatInfo& f = kFormats[i];
    const int half = 1 << (f.bits - 1);
    if (static_cast<std::size_t>(f.format) != i) return false;
    if (f.lowest < -half || f.highest != half - 1) return false;
    if (f.lowest != -half && f.lowest != -f.highest) return false;
    // By format and not by pointer: GCC 12 takes no address for a constant under its sanitizer.
    if (f.format == Format::nf4 || f.format == Format::iq4) {
      const Codebook& codebook = f.format == Format::nf4 ? kNf4 : kIq4;
      if (f.bits != 4 || f.lowest != -half) return false;
      if (f.absmax_divisor != -codebook.levels[0] || !codebook.ascends()) return false;
      continue;
    }
    if (2 * f.absmax_divisor != static_cast<float>(f.highest - f.lowest)) return false;
  }
  return true;
}
static_assert(formats_are_consistent(), "info() indexes the table by enumerator");
}  // namespace detail

}  // namespace quell
