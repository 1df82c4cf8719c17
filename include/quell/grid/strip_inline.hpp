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

// min(0, min x) and max(0, max x) of every lane; both arrays hold zeros before.
inline void lane_ranges(const float* values, std::size_t n, LaneFloats& lo,
                        LaneFloats& hi) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t r = 0; r < kStripLanes; ++r) {
      const float x = values[i * kStripLanes + r];
      lo[r] = x < lo[r] ? x : lo[r];
      hi[r] = x > hi[r] ? x : hi[r];
    }
  }
}

// round_strip on a codebook.
inline void round_strip_to_levels(const Codebook& codebook, const float* values, std::size_t n,
                                  const float* scales, std::uint8_t* codes, float* reconstruction) {
  for (std::size_t i = 0; i < n; ++i) {
    const float* __restrict x = values + i * kStripLanes;
    std::uint8_t* __restrict code = codes + i * kStripLanes;
    for (std::size_t r = 0; r < kStripLanes; ++r) code[r] = codebook.nearest(x[r] / scales[r]);
    if (reconstruction != nullptr) {
      float* __restrict value = reconstruction + i * kStripLanes;
      for (std::size_t r = 0; r < kStripLanes; ++r) value[r] = codebook.levels[code[r]] * scales[r];
    }
  }
}

}  // namespace detail

inline void absmax_strip(const GridSpec& grid, const float* values, std::size_t n,
                         float scales[kStripLanes], std::uint8_t zeros[kStripLanes]) {
  if (!grid.symmetric) return minmax_strip(grid, values, n, scales, zeros);
  detail::LaneFloats lo{};
  detail::LaneFloats hi{};
  detail::lane_ranges(values, n, lo, hi);
  const FormatInfo& format = info(grid.format);
  const bool points_down = format.codebook != nullptr &&
                           -format.codebook->levels.front() > format.codebook->levels.back();
  for (std::size_t r = 0; r < kStripLanes; ++r) {
    const float largest = std::max(-lo[r], hi[r]);
    const float divisor =
        points_down && hi[r] > -lo[r] ? -format.absmax_divisor : format.absmax_divisor;
    scales[r] = largest == 0 ? empty_scale(grid) : round_scale(largest / divisor, grid.scale_type);
    zeros[r] = symmetric_zero(grid.format);
  }
}

inline void minmax_strip(const GridSpec& grid, const float* values, std::size_t n,
                         float scales[kStripLanes], std::uint8_t zeros[kStripLanes]) {
  if (grid.symmetric) return absmax_strip(grid, values, n, scales, zeros);
  detail::LaneFloats lo{};
  detail::LaneFloats hi{};
  detail::lane_ranges(values, n, lo, hi);
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
  if (const Codebook* const codebook = info(grid.format).codebook; codebook != nullptr) {
    return detail::round_strip_to_levels(*codebook, values, n, scales, codes, reconstruction);
  }
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
