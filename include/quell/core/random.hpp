// SPDX-License-Identifier: Apache-2.0
#pragma once

// Random numbers by counter: number i of a stream is a function of (seed, stream, i) and of nothing
// else, so work may be cut among threads in any way and every platform gives the same numbers. The
// generator is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011). The standard library's distributions differ between implementations, and so
// do log and cos; the normal numbers here are made of +, -, *, / and sqrt alone, which IEEE 754
// fixes.

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace quell {

/// Ten rounds of Philox on a 128-bit counter with a 64-bit key: four random words.
constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                  std::array<std::uint32_t, 2> key) noexcept {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t even = std::uint64_t{0xD251'1F53u} * counter[0];
    const std::uint64_t odd = std::uint64_t{0xCD9E'8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(odd >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(odd),
               static_cast<std::uint32_t>(even >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(even)};
    key[0] += 0x9E37'79B9u;  // the golden ratio and sqrt(3) - 1, as fractions of 2^32
    key[1] += 0xBB67'AE85u;
  }
  return counter;
}

/// One stream of random numbers, addressed by index. Different seeds or streams are independent.
/// Every index has its own 128 random bits; the functions below are views of them, so use each
/// index for one purpose.
class Random {
 public:
  constexpr explicit Random(std::uint64_t seed, std::uint64_t stream = 0) noexcept
      : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)},
        stream_(stream) {}

  constexpr std::array<std::uint32_t, 4> words(std::uint64_t index) const noexcept {
    return philox4x32(
        {static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
         static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
        key_);
  }
  constexpr std::uint64_t bits(std::uint64_t index) const noexcept {
    const auto w = words(index);
    return w[0] | std::uint64_t{w[1]} << 32;
  }
  /// In [0, 1), a multiple of 2^-53.
  constexpr double uniform(std::uint64_t index) const noexcept {
    return static_cast<double>(bits(index) >> 11) * 0x1p-53;
  }
  /// In [0, n), n > 0. No value is more likely than another by more than a factor 1 + n / 2^64.
  constexpr std::uint64_t below(std::uint64_t index, std::uint64_t n) const noexcept;
  /// Mean 0, variance 1 (Box and Muller, 1958): sqrt(-2 ln u) cos(2 pi v). At most 8.6 in
  /// magnitude.
  double normal(std::uint64_t index) const noexcept;

  /// dst[i] = uniform(first + i), rounded to float downwards so that it stays below 1.
  void fill_uniform(std::span<float> dst, std::uint64_t first = 0) const noexcept;
  /// dst[i] = normal(first + i), rounded to float.
  void fill_normal(std::span<float> dst, std::uint64_t first = 0) const noexcept;

 private:
  std::array<std::uint32_t, 2> key_;
  std::uint64_t stream_;
};

// ------------------------------------------------------------------ definitions

namespace detail {

// ln(x) for a normal x > 0. x = m 2^e with m in [sqrt(1/2), sqrt(2)); with t = (m - 1) / (m + 1),
// |t| < 0.172, ln m = 2 (t + t^3/3 + t^5/5 + ...). The first term left out, t^21/21, is below
// 1e-17.
inline double portable_log(double x) noexcept {
  int exponent = 0;
  double m = std::frexp(x, &exponent);  // in [0.5, 1), exact
  if (m < 0.70710678118654752) {
    m *= 2;
    --exponent;
  }
  const double t = (m - 1) / (m + 1);
  const double t2 = t * t;
  double series = 0;
  for (int k = 19; k >= 1; k -= 2) series = series * t2 + 1.0 / k;
  return 2 * t * series + exponent * 0.69314718055994531;
}

// cos(2 pi v) for v in [0, 1). Reduced to an angle of at most pi/4 by symmetry, then Taylor; the
// first term left out is below 4e-16 (cosine) and 4e-17 (sine) of the result.
inline double portable_cos_turns(double v) noexcept {
  const double octant_turns = v * 8;
  const int octant = static_cast<int>(octant_turns);
  const double half_pi_quarter = 0.78539816339744831;  // pi / 4
  const double fraction = octant_turns - octant;       // exact
  // Odd octants count back from their end, so that the angle stays in [0, pi/4].
  const double a = ((octant & 1) != 0 ? 1 - fraction : fraction) * half_pi_quarter;
  const double a2 = a * a;
  double cosine = 1;
  for (int k = 14; k >= 2; k -= 2) cosine = 1 - cosine * a2 / (k * (k - 1));
  double sine = 1;
  for (int k = 15; k >= 3; k -= 2) sine = 1 - sine * a2 / (k * (k - 1));
  sine *= a;
  switch (octant) {
    case 0:
      return cosine;
    case 1:
      return sine;
    case 2:
      return -sine;
    case 3:
      return -cosine;
    case 4:
      return -cosine;
    case 5:
      return -sine;
    case 6:
      return sine;
    default:
      return cosine;
  }
}

}  // namespace detail

constexpr std::uint64_t Random::below(std::uint64_t index, std::uint64_t n) const noexcept {
  // The upper half of the 128-bit product bits * n, from 32-bit halves.
  const std::uint64_t x = bits(index);
  const std::uint64_t x_low = x & 0xFFFF'FFFFu, x_high = x >> 32;
  const std::uint64_t n_low = n & 0xFFFF'FFFFu, n_high = n >> 32;
  const std::uint64_t low_high = x_low * n_high, high_low = x_high * n_low;
  const std::uint64_t carry =
      ((x_low * n_low) >> 32) + (low_high & 0xFFFF'FFFFu) + (high_low & 0xFFFF'FFFFu);
  return x_high * n_high + (low_high >> 32) + (high_low >> 32) + (carry >> 32);
}

inline double Random::normal(std::uint64_t index) const noexcept {
  const auto w = words(index);
  const std::uint64_t first = (w[0] | std::uint64_t{w[1]} << 32) >> 11;
  const std::uint64_t second = (w[2] | std::uint64_t{w[3]} << 32) >> 11;
  const double u = static_cast<double>(first + 1) * 0x1p-53;  // in (0, 1]: the logarithm is finite
  const double v = static_cast<double>(second) * 0x1p-53;
  return std::sqrt(-2 * detail::portable_log(u)) * detail::portable_cos_turns(v);
}

inline void Random::fill_uniform(std::span<float> dst, std::uint64_t first) const noexcept {
  for (std::size_t i = 0; i < dst.size(); ++i) {
    dst[i] = static_cast<float>(bits(first + i) >> 40) * 0x1p-24f;
  }
}

inline void Random::fill_normal(std::span<float> dst, std::uint64_t first) const noexcept {
  for (std::size_t i = 0; i < dst.size(); ++i) dst[i] = static_cast<float>(normal(first + i));
}

}  // namespace quell
