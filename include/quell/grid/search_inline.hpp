// SPDX-License-Identifier: Apache-2.0
#pragma once

// Definition of search_strip (strip.hpp).
//
// For fixed integers q = code - zero the best scale is s = sum(w q x) / sum(w q^2), and it leaves
// the error sum(w x^2) - sum(w q x)^2 / sum(w q^2): one pass over the group rates a candidate step
// without computing an error. So the search (1) rates a ladder of shrunk ranges, with both signs or
// with neighbouring zeros, by that merit; (2) refines the winner: round its least-squares scale to
// the scale type, round the values with it, measure the true error, take the least-squares scale of
// the new integers, and again; (3) keeps the best measured pair, the absmax or min-max one
// included.
//
// Everything is done on y = x / candidate step, of the size of the codes, so no sum can overflow or
// vanish whatever the units of the weight; errors and merits are compared after scaling by the
// squared ratio of step to range.

#include "quell/grid/strip_inline.hpp"

namespace quell {

namespace detail {

// What one pass gathers: sums of w q y, w q^2 and, where asked, w (y - q)^2.
struct LaneSums {
  LaneFloats qy{};
  LaneFloats qq{};
  LaneFloats error{};
};

// Partial sums over 256 elements, so that the rounding error of the total grows with n / 256.
inline constexpr std::size_t kSumChunk = 256;

template <bool kWeighted, bool kError>
inline LaneSums lane_sums(const float* values, const float* importance, std::size_t n,
                          float importance_factor, const LaneFloats& inverse_step,
                          const LaneBounds& bounds) {
  LaneSums total;
  for (std::size_t first = 0; first < n; first += kSumChunk) {
    const std::size_t last = std::min(n, first + kSumChunk);
    LaneSums part;
    for (std::size_t i = first; i < last; ++i) {
      const float* __restrict x = values + i * kStripLanes;
      const float w = kWeighted ? importance[i] * importance_factor : 1.0f;
      for (std::size_t r = 0; r < kStripLanes; ++r) {
        const float y = x[r] * inverse_step[r];
        const float q = round_between(y, bounds.lo[r], bounds.hi[r]);
        const float wq = kWeighted ? w * q : q;
        part.qy[r] += wq * y;
        part.qq[r] += wq * q;
        if constexpr (kError) {
          const float miss = y - q;
          part.error[r] += kWeighted ? w * miss * miss : miss * miss;
        }
      }
    }
    for (std::size_t r = 0; r < kStripLanes; ++r) {
      total.qy[r] += part.qy[r];
      total.qq[r] += part.qq[r];
      total.error[r] += part.error[r];
    }
  }
  return total;
}

// The candidate of highest merit so far, and the best measured one.
struct LaneBest {
  LaneFloats merit{};
  LaneFloats step{};  // least-squares scale of the candidate, not yet rounded
  LaneFloats zero{};
  LaneFloats error{};
  LaneFloats scale{};
  LaneFloats scale_zero{};
};

template <bool kWeighted>
inline void search_lanes(const GridSpec& grid, const float* values, const float* importance,
                         std::size_t n, float importance_factor, float* scales,
                         std::uint8_t* zeros) {
  const FormatInfo& format = info(grid.format);
  const CodeRange codes = code_range(grid);
  const bool both_signs = allows_negative_scale(grid);
  const float top = static_cast<float>(codes.highest);
  LaneFloats lo{};
  LaneFloats hi{};
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t r = 0; r < kStripLanes; ++r) {
      const float x = values[i * kStripLanes + r];
      lo[r] = x < lo[r] ? x : lo[r];
      hi[r] = x > hi[r] ? x : hi[r];
    }
  }
  LaneFloats range;  // what `reach` steps cover when nothing is shrunk
  const float reach = grid.symmetric ? static_cast<float>(-format.lowest) : top;
  for (std::size_t r = 0; r < kStripLanes; ++r) {
    range[r] = grid.symmetric ? std::max(-lo[r], hi[r]) : hi[r] - lo[r];
  }

  LaneBest best;
  best.error.fill(std::numeric_limits<float>::infinity());
  const auto measure = [&](const LaneFloats& scale, const LaneFloats& zero, LaneFloats& refined) {
    LaneFloats inverse;
    LaneBounds bounds;
    for (std::size_t r = 0; r < kStripLanes; ++r) {
      inverse[r] = 1.0f / scale[r];
      bounds.lo[r] = static_cast<float>(codes.lowest) - zero[r];
      bounds.hi[r] = top - zero[r];
    }
    const LaneSums sums =
        lane_sums<kWeighted, true>(values, importance, n, importance_factor, inverse, bounds);
    for (std::size_t r = 0; r < kStripLanes; ++r) {
      const float ratio = scale[r] / range[r];
      const float error = sums.error[r] * ratio * ratio;
      const bool better = error < best.error[r];
      best.error[r] = better ? error : best.error[r];
      best.scale[r] = better ? scale[r] : best.scale[r];
      best.scale_zero[r] = better ? zero[r] : best.scale_zero[r];
      refined[r] = scale[r] * (sums.qy[r] / sums.qq[r]);
    }
  };
  const auto rate = [&](float shrink, float sign, float zero_shift) {
    LaneFloats inverse;
    LaneFloats zero;
    LaneBounds bounds;
    for (std::size_t r = 0; r < kStripLanes; ++r) {
      inverse[r] = sign * reach / (shrink * range[r]);
      // Asymmetric: as many steps are cut at the lower as at the upper end, then shifted.
      const float centred = (top - (lo[r] + hi[r]) * inverse[r]) * 0.5f + zero_shift;
      zero[r] = grid.symmetric ? static_cast<float>(symmetric_zero(grid.format))
                               : round_between(centred, 0.0f, top);
      bounds.lo[r] = static_cast<float>(codes.lowest) - zero[r];
      bounds.hi[r] = top - zero[r];
    }
    const LaneSums sums =
        lane_sums<kWeighted, false>(values, importance, n, importance_factor, inverse, bounds);
    for (std::size_t r = 0; r < kStripLanes; ++r) {
      const float scaled = sums.qy[r] * shrink;
      const float merit = sums.qq[r] > 0 ? scaled * scaled / sums.qq[r] : 0.0f;
      const bool better = merit > best.merit[r];
      best.merit[r] = better ? merit : best.merit[r];
      best.step[r] = better ? sums.qy[r] / sums.qq[r] / inverse[r] : best.step[r];
      best.zero[r] = better ? zero[r] : best.zero[r];
    }
  };

  LaneFloats scale;
  LaneFloats zero;
  LaneFloats refined;
  for (std::size_t r = 0; r < kStripLanes; ++r) {
    scale[r] = scales[r];
    zero[r] = zeros[r];
  }
  measure(scale, zero, refined);
  for (int rung = 0; rung < 16; ++rung) {
    const float shrink = 1.05f - 0.04f * static_cast<float>(rung);
    if (grid.symmetric) {
      rate(shrink, 1.0f, 0.0f);
      if (both_signs) rate(shrink, -1.0f, 0.0f);
    } else {
      for (const float shift : {-1.0f, 0.0f, 1.0f}) rate(shrink, 1.0f, shift);
    }
  }
  refined = best.step;
  for (int pass = 0; pass < 3; ++pass) {
    for (std::size_t r = 0; r < kStripLanes; ++r) {
      scale[r] = round_scale(refined[r], grid.scale_type);
      zero[r] = best.zero[r];
    }
    measure(scale, zero, refined);
  }
  for (std::size_t r = 0; r < kStripLanes; ++r) {
    const bool ordinary = range[r] > 0x1p-100f && range[r] < 0x1p100f && scales[r] != 0 &&
                          std::isfinite(scales[r]) && best.scale[r] != 0 &&
                          std::isfinite(best.scale[r]);
    scales[r] = ordinary ? best.scale[r] : scales[r];
    zeros[r] = ordinary ? static_cast<std::uint8_t>(best.scale_zero[r]) : zeros[r];
  }
}

}  // namespace detail

inline void search_strip(const GridSpec& grid, const float* values, const float* importance,
                         std::size_t n, float scales[kStripLanes],
                         std::uint8_t zeros[kStripLanes]) {
  absmax_strip(grid, values, n, scales, zeros);
  if (importance == nullptr) {
    return detail::search_lanes<false>(grid, values, nullptr, n, 1.0f, scales, zeros);
  }
  float largest = 0;
  for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, importance[i]);
  if (!(largest > 0) || !std::isfinite(largest)) return;
  // A power of two near 1 / largest: exact, so common factors of the importance change nothing.
  int exponent = 0;
  std::frexp(largest, &exponent);
  const float factor = std::ldexp(1.0f, std::clamp(-exponent, -126, 126));
  detail::search_lanes<true>(grid, values, importance, n, factor, scales, zeros);
}

}  // namespace quell
