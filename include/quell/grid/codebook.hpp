// SPDX-License-Identifier: Apache-2.0
#pragma once

// Codebooks: formats whose sixteen values are listed instead of evenly spaced. The stored code is
// an index into the ascending list, and
//
//     value = level[code] * scale
//
// A value y = w / scale takes the nearest level; a tie takes the lower one. Between neighbours lies
// one threshold, their midpoint rounded to float, so the nearest level is found by halving the
// fifteen thresholds four times, without branches.

#include <array>
#include <cstddef>
#include <cstdint>

namespace quell {

struct Codebook {
  std::array<float, 16> levels;      // ascending
  std::array<float, 15> thresholds;  // y above the k-th takes a code above k

  /// The code of the nearest level. NaN takes the lowest code, infinities the outermost ones.
  constexpr std::uint8_t nearest(float y) const noexcept {
    std::size_t code = static_cast<std::size_t>(y > thresholds[7]) << 3;
    code += static_cast<std::size_t>(y > thresholds[code + 3]) << 2;
    code += static_cast<std::size_t>(y > thresholds[code + 1]) << 1;
    code += static_cast<std::size_t>(y > thresholds[code]);
    return static_cast<std::uint8_t>(code);
  }
  constexpr bool ascends() const noexcept {
    for (std::size_t k = 1; k < levels.size(); ++k) {
      if (!(levels[k - 1] < levels[k])) return false;
    }
    return true;
  }
  /// True if every level is a whole number of [-127, 127].
  constexpr bool is_whole() const noexcept {
    for (const float level : levels) {
      if (level < -127 || level > 127 || static_cast<float>(static_cast<int>(level)) != level) {
        return false;
      }
    }
    return true;
  }
  /// False if no level is 0: then only a scale of 0 gives back a group of zeros.
  constexpr bool has_zero() const noexcept {
    for (const float level : levels) {
      if (level == 0) return true;
    }
    return false;
  }
};

namespace detail {
consteval Codebook make_codebook(const std::array<float, 16>& levels) {
  Codebook codebook{levels, {}};
  for (std::size_t k = 0; k < codebook.thresholds.size(); ++k) {
    const double sum = static_cast<double>(levels[k]) + static_cast<double>(levels[k + 1]);
    codebook.thresholds[k] = static_cast<float>(sum / 2);
  }
  return codebook;
}
}  // namespace detail

/// NF4 (Dettmers et al. 2023, QLoRA, appendix E): quantiles of a normal distribution, scaled to
/// [-1, 1], with an exact zero; seven levels below it and eight above.
inline constexpr Codebook kNf4 = detail::make_codebook(
    {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
     -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
     0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
     0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f});

/// The table of IQ4_NL (llama.cpp): int8 values, denser around zero, none of them zero, the lower
/// end longer than the upper one.
inline constexpr Codebook kIq4 = detail::make_codebook(
    {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113});

}  // namespace quell
