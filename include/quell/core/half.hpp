// SPDX-License-Identifier: Apache-2.0
#pragma once

// Small floating-point types as integers of their bits, and their conversion to and from float.
//
//     type        sign exponent fraction  bias  largest   special
//     f16          1      5        10      15   65504     infinities, NaN
//     bf16         1      8         7     127   3.39e38   infinities, NaN
//     f8_e5m2      1      5         2      15   57344     infinities, NaN
//     f8_e4m3      1      4         3       7   448       NaN (0x7F, 0xFF), no infinity
//     f8_e5m2fnuz  1      5         2      16   57344     NaN (0x80), no infinity, no -0
//     f8_e4m3fnuz  1      4         3       8   240       NaN (0x80), no infinity, no -0
//     f8_e8m0      0      8         0     127   2^127     NaN (0xFF), no zero
//     f6_e3m2      1      3         2       3   28        none
//     f6_e2m3      1      2         3       1   7.5       none
//     f4_e2m1      1      2         1       1   6         none
//
// To float every value is exact. From float the nearest value is taken, ties to the even fraction;
// NaN stays NaN. What is too large becomes infinity in f16, bf16 and f8_e5m2; f8_e4m3 has none and
// saturates at 448 (infinities too), the saturating mode of the OCP specification "8-bit floating
// point" (2023). Nothing here depends on hardware conversions or on subnormal floats being
// honoured, except that bf16 subnormals are float subnormals. All functions are branch-free, so
// that the loops over spans vectorize.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "quell/core/panic.hpp"

namespace quell {

// One value to float. Codes of f4 and f6 are in the low 4 and 6 bits; higher bits are ignored.
constexpr float f16_to_float(std::uint16_t value) noexcept;
constexpr float bf16_to_float(std::uint16_t value) noexcept;
constexpr float f8_e4m3_to_float(std::uint8_t value) noexcept;
constexpr float f8_e5m2_to_float(std::uint8_t value) noexcept;
constexpr float f8_e4m3fnuz_to_float(std::uint8_t value) noexcept;
constexpr float f8_e5m2fnuz_to_float(std::uint8_t value) noexcept;
constexpr float f8_e8m0_to_float(std::uint8_t value) noexcept;
constexpr float f6_e2m3_to_float(std::uint8_t value) noexcept;
constexpr float f6_e3m2_to_float(std::uint8_t value) noexcept;
constexpr float f4_to_float(std::uint8_t value) noexcept;

// One float to the nearest value.
constexpr std::uint16_t float_to_f16(float value) noexcept;
constexpr std::uint16_t float_to_bf16(float value) noexcept;
constexpr std::uint8_t float_to_f8_e4m3(float value) noexcept;
constexpr std::uint8_t float_to_f8_e5m2(float value) noexcept;
/// The nearest power of two (1.5 * 2^e goes to the even exponent code). Zero and what lies below
/// the range give the smallest, 2^-127; what rounds above 2^127, negative values and NaN give NaN
/// (0xFF).
constexpr std::uint8_t float_to_f8_e8m0(float value) noexcept;

// Many values; both spans have the same length and do not overlap.
inline void f16_to_float(std::span<const std::uint16_t> src, std::span<float> dst);
inline void bf16_to_float(std::span<const std::uint16_t> src, std::span<float> dst);
inline void f8_e4m3_to_float(std::span<const std::uint8_t> src, std::span<float> dst);
inline void f8_e5m2_to_float(std::span<const std::uint8_t> src, std::span<float> dst);
inline void f8_e4m3fnuz_to_float(std::span<const std::uint8_t> src, std::span<float> dst);
inline void f8_e5m2fnuz_to_float(std::span<const std::uint8_t> src, std::span<float> dst);
inline void f8_e8m0_to_float(std::span<const std::uint8_t> src, std::span<float> dst);
inline void float_to_f16(std::span<const float> src, std::span<std::uint16_t> dst);
inline void float_to_bf16(std::span<const float> src, std::span<std::uint16_t> dst);
inline void float_to_f8_e4m3(std::span<const float> src, std::span<std::uint8_t> dst);
inline void float_to_f8_e5m2(std::span<const float> src, std::span<std::uint8_t> dst);

// ------------------------------------------------------------------ definitions

namespace detail {

// `when ? yes : no` on bits, in a form that every compiler turns into masks.
constexpr std::uint32_t select(bool when, std::uint32_t yes, std::uint32_t no) noexcept {
  const std::uint32_t mask = 0u - static_cast<std::uint32_t>(when);
  return (yes & mask) | (no & ~mask);
}

// a < b for values below 2^31: baseline vector units compare signed integers only.
constexpr bool below(std::uint32_t a, std::uint32_t b) noexcept {
  return static_cast<std::int32_t>(a) < static_cast<std::int32_t>(b);
}

// 2^exponent for -126 <= exponent <= 127.
constexpr float power_of_two(int exponent) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
}

// Decodes the bits below the sign of a type with `Fraction` fraction bits and this exponent bias.
// A normal number keeps its exponent and fraction fields and moves to float's bias. A subnormal one
// is its integer value times the smallest step: an exact product, since it has at most 10 bits.
template <int Fraction, int Bias>
constexpr std::uint32_t decode_magnitude(std::uint32_t magnitude) noexcept {
  const std::uint32_t normal =
      (magnitude << (23 - Fraction)) + (static_cast<std::uint32_t>(127 - Bias) << 23);
  const float step = power_of_two(1 - Bias - Fraction);
  const float subnormal = static_cast<float>(static_cast<std::int32_t>(magnitude)) * step;
  return select(below(magnitude, 1u << Fraction), std::bit_cast<std::uint32_t>(subnormal), normal);
}

// Encodes |value|, given as the bits of a float that is not NaN, to the bits below the sign, ties
// to even, without an upper limit. Normal results: adding just under half a step (half a step if
// the kept part is odd) and cutting off carries into the exponent as it must. Subnormal results:
// adding a power of two whose float step is the type's smallest step lets the addition do the
// rounding.
template <int Fraction, int Bias>
constexpr std::uint32_t encode_magnitude(std::uint32_t bits) noexcept {
  constexpr int kShift = 23 - Fraction;
  const std::uint32_t odd = (bits >> kShift) & 1u;
  const std::uint32_t normal = ((bits + ((1u << (kShift - 1)) - 1u) + odd) >> kShift) -
                               (static_cast<std::uint32_t>(127 - Bias) << Fraction);
  constexpr float kAligner = power_of_two(24 - Bias - Fraction);
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(bits) + kAligner) -
      std::bit_cast<std::uint32_t>(kAligner);
  constexpr std::uint32_t kSmallestNormal = static_cast<std::uint32_t>(128 - Bias) << 23;
  return select(below(bits, kSmallestNormal), subnormal, normal);
}

inline constexpr std::uint32_t kFloatInfinity = 0x7F80'0000u;
inline constexpr std::uint32_t kFloatNan = 0x7FC0'0000u;

template <int Fraction, int Bias>
constexpr float decode_fnuz(std::uint8_t value) noexcept {
  const std::uint32_t magnitude = decode_magnitude<Fraction, Bias>(value & 0x7Fu);
  const std::uint32_t sign = (value & 0x80u) << 24;
  return std::bit_cast<float>(select(value == 0x80u, kFloatNan, magnitude | sign));
}

constexpr std::uint32_t least(std::uint32_t a, std::uint32_t b) noexcept {
  return select(below(a, b), a, b);
}

}  // namespace detail

constexpr float f16_to_float(std::uint16_t value) noexcept {
  const std::uint32_t magnitude = value & 0x7FFFu;
  const std::uint32_t finite = detail::decode_magnitude<10, 15>(magnitude);
  const std::uint32_t special = detail::kFloatInfinity | (magnitude << 13);
  const std::uint32_t sign = (value & 0x8000u) << 16;
  return std::bit_cast<float>(detail::select(detail::below(0x7BFFu, magnitude), special, finite) |
                              sign);
}

constexpr float bf16_to_float(std::uint16_t value) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}

constexpr float f8_e4m3_to_float(std::uint8_t value) noexcept {
  const std::uint32_t magnitude = value & 0x7Fu;
  const std::uint32_t finite = detail::decode_magnitude<3, 7>(magnitude);
  const std::uint32_t sign = (value & 0x80u) << 24;
  return std::bit_cast<float>(detail::select(magnitude == 0x7Fu, detail::kFloatNan, finite) | sign);
}

// The upper byte of an f16: same exponent, the fraction cut to two bits.
constexpr float f8_e5m2_to_float(std::uint8_t value) noexcept {
  return f16_to_float(static_cast<std::uint16_t>(value << 8));
}

constexpr float f8_e4m3fnuz_to_float(std::uint8_t value) noexcept {
  return detail::decode_fnuz<3, 8>(value);
}

constexpr float f8_e5m2fnuz_to_float(std::uint8_t value) noexcept {
  return detail::decode_fnuz<2, 16>(value);
}

// 2^-127 is a float subnormal: the exponent field would be zero, so the fraction says one half.
constexpr float f8_e8m0_to_float(std::uint8_t value) noexcept {
  const std::uint32_t normal = static_cast<std::uint32_t>(value) << 23;
  const std::uint32_t finite = detail::select(value == 0, 1u << 22, normal);
  return std::bit_cast<float>(detail::select(value == 0xFFu, detail::kFloatNan, finite));
}

constexpr float f6_e2m3_to_float(std::uint8_t value) noexcept {
  const std::uint32_t sign = (value & 0x20u) << 26;
  return std::bit_cast<float>(detail::decode_magnitude<3, 1>(value & 0x1Fu) | sign);
}

constexpr float f6_e3m2_to_float(std::uint8_t value) noexcept {
  const std::uint32_t sign = (value & 0x20u) << 26;
  return std::bit_cast<float>(detail::decode_magnitude<2, 3>(value & 0x1Fu) | sign);
}

constexpr float f4_to_float(std::uint8_t value) noexcept {
  const std::uint32_t sign = (value & 0x8u) << 28;
  return std::bit_cast<float>(detail::decode_magnitude<1, 1>(value & 0x7u) | sign);
}

// A NaN keeps the upper bits of its payload and becomes quiet, so that it cannot turn into
// infinity.
constexpr std::uint16_t float_to_f16(float value) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7FFF'FFFFu;
  const std::uint32_t rounded = detail::least(detail::encode_magnitude<10, 15>(magnitude), 0x7C00u);
  const std::uint32_t nan = 0x7E00u | ((magnitude >> 13) & 0x3FFu);
  const std::uint32_t result =
      detail::select(detail::below(detail::kFloatInfinity, magnitude), nan, rounded);
  return static_cast<std::uint16_t>(result | ((bits >> 16) & 0x8000u));
}

constexpr std::uint16_t float_to_bf16(float value) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const bool is_nan = detail::below(detail::kFloatInfinity, bits & 0x7FFF'FFFFu);
  return static_cast<std::uint16_t>(detail::select(is_nan, (bits >> 16) | 0x40u, rounded));
}

constexpr std::uint8_t float_to_f8_e4m3(float value) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7FFF'FFFFu;
  const std::uint32_t rounded = detail::least(detail::encode_magnitude<3, 7>(magnitude), 0x7Eu);
  const std::uint32_t result =
      detail::select(detail::below(detail::kFloatInfinity, magnitude), 0x7Fu, rounded);
  return static_cast<std::uint8_t>(result | ((bits >> 24) & 0x80u));
}

constexpr std::uint8_t float_to_f8_e5m2(float value) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7FFF'FFFFu;
  const std::uint32_t rounded = detail::least(detail::encode_magnitude<2, 15>(magnitude), 0x7Cu);
  const std::uint32_t nan = 0x7Eu | ((magnitude >> 21) & 0x3u);
  const std::uint32_t result =
      detail::select(detail::below(detail::kFloatInfinity, magnitude), nan, rounded);
  return static_cast<std::uint8_t>(result | ((bits >> 24) & 0x80u));
}

constexpr std::uint8_t float_to_f8_e8m0(float value) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t odd = (bits >> 23) & 1u;
  // Below 2^-126 the exponent field is 0 and the fraction is linear; the tie, 1.5 * 2^-127, goes to
  // code 0.
  const std::uint32_t rounded = (bits + 0x3F'FFFFu + odd) >> 23;
  const std::uint32_t tiny = static_cast<std::uint32_t>(bits > 0x60'0000u);
  const std::uint32_t positive = detail::select(bits < 0x80'0000u, tiny, rounded);
  const bool is_zero = (bits << 1) == 0;
  const bool is_refused = bits >= detail::kFloatInfinity && !is_zero;  // also all negative values
  const std::uint32_t result =
      detail::select(is_refused, 0xFFu, detail::select(is_zero, 0, positive));
  return static_cast<std::uint8_t>(result);
}

namespace detail {
// The one loop of all span versions. The restrict-qualified pointers let it vectorize without
// checks.
template <typename Src, typename Dst, typename Convert>
inline void convert_all(std::span<const Src> src, std::span<Dst> dst, Convert convert) {
  QUELL_ASSERT(src.size() == dst.size());
  const Src* __restrict from = src.data();
  Dst* __restrict to = dst.data();
  const std::size_t n = src.size();
  for (std::size_t i = 0; i < n; ++i) to[i] = convert(from[i]);
}
}  // namespace detail

inline void f16_to_float(std::span<const std::uint16_t> src, std::span<float> dst) {
  detail::convert_all(src, dst, [](std::uint16_t v) { return f16_to_float(v); });
}
inline void bf16_to_float(std::span<const std::uint16_t> src, std::span<float> dst) {
  detail::convert_all(src, dst, [](std::uint16_t v) { return bf16_to_float(v); });
}
inline void f8_e4m3_to_float(std::span<const std::uint8_t> src, std::span<float> dst) {
  detail::convert_all(src, dst, [](std::uint8_t v) { return f8_e4m3_to_float(v); });
}
inline void f8_e5m2_to_float(std::span<const std::uint8_t> src, std::span<float> dst) {
  detail::convert_all(src, dst, [](std::uint8_t v) { return f8_e5m2_to_float(v); });
}
inline void f8_e4m3fnuz_to_float(std::span<const std::uint8_t> src, std::span<float> dst) {
  detail::convert_all(src, dst, [](std::uint8_t v) { return f8_e4m3fnuz_to_float(v); });
}
inline void f8_e5m2fnuz_to_float(std::span<const std::uint8_t> src, std::span<float> dst) {
  detail::convert_all(src, dst, [](std::uint8_t v) { return f8_e5m2fnuz_to_float(v); });
}
inline void f8_e8m0_to_float(std::span<const std::uint8_t> src, std::span<float> dst) {
  detail::convert_all(src, dst, [](std::uint8_t v) { return f8_e8m0_to_float(v); });
}
inline void float_to_f16(std::span<const float> src, std::span<std::uint16_t> dst) {
  detail::convert_all(src, dst, [](float v) { return float_to_f16(v); });
}
inline void float_to_bf16(std::span<const float> src, std::span<std::uint16_t> dst) {
  detail::convert_all(src, dst, [](float v) { return float_to_bf16(v); });
}
inline void float_to_f8_e4m3(std::span<const float> src, std::span<std::uint8_t> dst) {
  detail::convert_all(src, dst, [](float v) { return float_to_f8_e4m3(v); });
}
inline void float_to_f8_e5m2(std::span<const float> src, std::span<std::uint8_t> dst) {
  detail::convert_all(src, dst, [](float v) { return float_to_f8_e5m2(v); });
}

}  // namespace quell
