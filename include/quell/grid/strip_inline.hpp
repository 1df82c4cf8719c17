// SPDX-License-Identifier: Apache-2.0
#pragma once

// Definitions of strip.hpp.

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "quell/grid/strip.hpp"

namespace quell {

namespace detail {

using LaneFloats = std::array<float, kStripLanes>;

// Round half to even of a value of magnitude below 2^22: the sum has steps of 1, so the addition
// rounds, and the subtraction is exact.
inline constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23

// Clamped to [lo, hi], then rounded: the same as rounding first, since the bounds are integers. NaN
// fails the first comparison and becomes lo.
inline float round_between(float value, float lo, float hi) noexcept {
  const float above = value > lo ? value : lo;
  const float inside = above < hi ? above : hi;
  return (inside + kRounder) - kRounder;
}

// Bounds of code - zero.
struct LaneBounds {
  LaneFloats lo;
  LaneFloats hi;
};

inline LaneBounds lane_bounds(const GridSpec& grid, const std::uint8_t* zeros) noexcept {
  const CodeRange range = code_range(grid);
  LaneBounds bounds;
  for (std::size_t r = 0; r < kStripLanes; ++r) {
    bounds.lo[r] = static_cast<float>(range.lowest - zeros[r]);
    bounds.hi[r] = static_cast<float>(range.highest - zeros[r]);
  }
  return bounds;
}

}  // namespace detail

inline void absmax_strip(const GridSpec& grid, const float* values, std::size_t n,
                         float scales[kStripLanes], std::uint8_t zeros[kStripLanes]) {
  if (!grid.symmetric) return minmax_strip(grid, values, n, scales, zeros);
  detail::LaneFloats largest{};
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t r = 0; r < kStripLanes; ++r) {
      const float magnitude = std::fabs(values[i * kStripLanes + r]);
      largest[r] = magnitude > largest[r] ? magnitude : largest[r];
    }
  }
  const float divisor = info(grid.format).absmax_divisor;
  for (std::size_t r = 0; r < kStripLanes; ++r) {
    scales[r] = largest[r] == 0 ? 1.0f : round_scale(largest[r] / divisor, grid.scale_type);
    zeros[r] = symmetric_zero(grid.format);
  }
}

inline void minmax_strip(const GridSpec& grid, const float* values, std::size_t n,
                         float scales[kStripLanes], std::uint8_t zeros[kStripLanes]) {
  if (grid.symmetric) return absmax_strip(grid, values, n, scales, zeros);
  detail::LaneFloats lo{};
  detail::LaneFloats hi{};
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t r = 0; r < kStripLanes; ++r) {
      const float x = values[i * kStripLanes + r];
      lo[r] = x < lo[r] ? x : lo[r];
      hi[r] = x > hi[r] ? x : hi[r];
    }
  }
  const float top = static_cast<float>(code_range(grid).highest);
  for (std::size_t r = 0; r < kStripLanes; ++r) {
    // The difference of two huge ends may overflow; that of their parts does not.
    const float range = hi[r] - lo[r];
    const float raw = std::isfinite(range) ? range / top : hi[r] / top - lo[r] / top;
    scales[r] = range == 0 ? 1.0f : round_scale(raw, grid.scale_type);
    zeros[r] = static_cast<std::uint8_t>(detail::round_between(-lo[r] / scales[r], 0.0f, top));
  }
}

inline void round_strip(const GridSpec& grid, const float* values, std::size_t n,
                        const float scales[kStripLanes], const std::uint8_t zeros[kStripLanes],
                        std::uint8_t* codes, float* reconstruction) {
  const detail::LaneBounds bounds = detail::lane_bounds(grid, zeros);
  for (std::size_t i = 0; i < n; ++i) {
    const float* __restrict x = values + i * kStripLanes;
    std::uint8_t* __restrict code = codes + i * kStripLanes;
    float steps[kStripLanes];
    for (std::size_t r = 0; r < kStripLanes; ++r) {
      steps[r] = detail::round_between(x[r] / scales[r], bounds.lo[r], bounds.hi[r]);
    }
    for (std::size_t r = 0; r < kStripLanes; ++r) {
      code[r] = static_cast<std::uint8_t>(static_cast<int>(steps[r]) + zeros[r]);
    }
    if (reconstruction != nullptr) {
      float* __restrict value = reconstruction + i * kStripLanes;
      for (std::size_t r = 0; r < kStripLanes; ++r) value[r] = steps[r] * scales[r];
    }
  }
}

}  // namespace quell

#include "quell/grid/search_inline.hpp"  // IWYU pragma: export
