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
// squared ratio of step to range. A codebook's levels take the place of the integers; there the
// unit of the levels is the step.

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

// The nearest q to y in a lane.
struct NearestInteger {
  const LaneBounds& bounds;
  float operator()(float y, std::size_t lane) const noexcept {
    return round_between(y, bounds.lo[lane], bounds.hi[lane]);
  }
};
struct NearestLevel {
  const Codebook& codebook;
  float operator()(float y, std::size_t) const noexcept {
    return codebook.levels[codebook.nearest(y)];
  }
};

template <bool kWeighted, bool kError, typename Nearest>
inline LaneSums lane_sums(const float* values, const float* importance, std::size_t n,
                          float importance_factor, const LaneFloats& inverse_step,
                          const Nearest& nearest) {
  LaneSums total;
  for (std::size_t first = 0; first < n; first += kSumChunk) {
    const std::size_t last = std::min(n, first + kSumChunk);
    LaneSums part;
    for (std::size_t i = first; i < last; ++i) {
      const float* __restrict x = values + i * kStripLanes;
      const float w = kWeighted ? importance[i] * importance_factor : 1.0f;
      for (std::size_t r = 0; r < kStripLanes; ++r) {
        const float y = x[r] * inverse_step[r];
        const float q = nearest(y, r);
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

// The candidate of highest merit so far: its fraction of the range (negative for a negative scale),
// its zero, and its least-squares scale, not yet rounded.
struct LaneCandidate {
  LaneFloats merit{};
  LaneFloats shrink{};
  LaneFloats zero{};
  LaneFloats scale{};
};

// The pair of smallest measured error so far, with the scale rounded to its type.
struct LaneResult {
  LaneFloats error{};
  LaneFloats scale{};
  LaneFloats zero{};
};

// The ladder of shrunk ranges has twelve rungs. The first two are those on which a group that
// already lies on the grid is found exactly: its largest code is the end of the longer side, or of
// the shorter one (fraction reach / (reach - 1)); NF4, with sides of one length, has its second
// largest level there, which saves 3 % of the error of groups of 32. The others follow by this
// ratio. With few bits the best range of a long group is a small part of it (2 bits, 4096 elements:
// 0.5 for a Gaussian, 0.2 with the tails of a Student t distribution of 4 degrees) and the error is
// flat around it; with 8 bits it lies between 0.8 and 1, and the error is ragged, so the steps are
// small. Compared with ninety steps of a hundredth and every zero, the ladder leaves up to 0.2 %
// more error at 2 to 4 bits in groups of 128 and 0.6 % in groups of 32; with 8 bits up to 3 % and
// 11 %.
inline constexpr int kRungs = 12;
inline constexpr float ladder_ratio(unsigned code_bits) noexcept {
  return code_bits == 8 ? 0.98f : code_bits == 4 ? 0.90f : 0.87f;
}

template <bool kWeighted>
class LaneSearch {
 public:
  LaneSearch(const GridSpec& grid, const float* values, const float* importance, std::size_t n,
             float importance_factor)
      : grid_(grid),
        values_(values),
        importance_(importance),
        n_(n),
        importance_factor_(importance_factor),
        lowest_(code_range(grid).lowest),
        highest_(code_range(grid).highest),
        codebook_(info(grid.format).codebook),
        reach_(codebook_ != nullptr ? -codebook_->levels.front()
               : grid.symmetric     ? static_cast<float>(-info(grid.format).lowest)
                                    : highest_),
        below_reach_(codebook_ == nullptr                ? reach_ - 1
                     : codebook_->levels.back() < reach_ ? codebook_->levels.back()
                                                         : codebook_->levels[14]) {
    LaneFloats lo{};
    LaneFloats hi{};
    lane_ranges(values, n, lo, hi);
    for (std::size_t r = 0; r < kStripLanes; ++r) {
      range_[r] = grid.symmetric ? std::max(-lo[r], hi[r]) : hi[r] - lo[r];
      middle_[r] = (lo[r] + hi[r]) * 0.5f;
    }
  }

  // Improves the given scales and zeros, the absmax or min-max ones.
  void run(float* scales, std::uint8_t* zeros);

 private:
  template <bool kError>
  LaneSums sums(const LaneFloats& inverse_step, const LaneFloats& zero) const;
  // Measures rounded scales with their zeros; returns the least-squares scales of their integers.
  LaneFloats measure(const LaneFloats& scale, const LaneFloats& zero);
  // Rates ranges shrunk to these fractions, with these zeros.
  void rate(const LaneFloats& shrink, const LaneFloats& zero);
  // Zeros that cut as much at the lower as at the upper end of the shrunk range, then shifted.
  LaneFloats centred_zeros(const LaneFloats& shrink, float shift) const;

  const GridSpec& grid_;
  const float* values_;
  const float* importance_;
  std::size_t n_;
  float importance_factor_;
  float lowest_;  // codes
  float highest_;
  const Codebook* codebook_;
  float reach_;        // steps that cover the range when nothing is shrunk
  float below_reach_;  // the next largest value, on the other side where that is shorter
  LaneFloats range_;
  LaneFloats middle_;
  LaneFloats orientation_;  // sign of scale that is tried first
  LaneCandidate candidate_;
  LaneResult result_;
};

template <bool kWeighted>
template <bool kError>
LaneSums LaneSearch<kWeighted>::sums(const LaneFloats& inverse_step, const LaneFloats& zero) const {
  if (codebook_ != nullptr) {
    return lane_sums<kWeighted, kError>(values_, importance_, n_, importance_factor_, inverse_step,
                                        NearestLevel{*codebook_});
  }
  LaneBounds bounds;
  for (std::size_t r = 0; r < kStripLanes; ++r) {
    bounds.lo[r] = lowest_ - zero[r];
    bounds.hi[r] = highest_ - zero[r];
  }
  return lane_sums<kWeighted, kError>(values_, importance_, n_, importance_factor_, inverse_step,
                                      NearestInteger{bounds});
}

template <bool kWeighted>
LaneFloats LaneSearch<kWeighted>::measure(const LaneFloats& scale, const LaneFloats& zero) {
  LaneFloats inverse;
  for (std::size_t r = 0; r < kStripLanes; ++r) inverse[r] = 1.0f / scale[r];
  const LaneSums sums = this->sums<true>(inverse, zero);
  LaneFloats refined;
  for (std::size_t r = 0; r < kStripLanes; ++r) {
    const float ratio = scale[r] / range_[r];
    const float error = sums.error[r] * ratio * ratio;
    const bool better = error < result_.error[r];
    result_.error[r] = better ? error : result_.error[r];
    result_.scale[r] = better ? scale[r] : result_.scale[r];
    result_.zero[r] = better ? zero[r] : result_.zero[r];
    refined[r] = scale[r] * (sums.qy[r] / sums.qq[r]);
  }
  return refined;
}

template <bool kWeighted>
void LaneSearch<kWeighted>::rate(const LaneFloats& shrink, const LaneFloats& zero) {
  LaneFloats inverse;
  for (std::size_t r = 0; r < kStripLanes; ++r) inverse[r] = reach_ / (shrink[r] * range_[r]);
  const LaneSums sums = this->sums<false>(inverse, zero);
  for (std::size_t r = 0; r < kStripLanes; ++r) {
    const float scaled = sums.qy[r] * shrink[r];
    const float merit = sums.qq[r] > 0 ? scaled * scaled / sums.qq[r] : 0.0f;
    const bool better = merit > candidate_.merit[r];
    candidate_.merit[r] = better ? merit : candidate_.merit[r];
    candidate_.shrink[r] = better ? shrink[r] : candidate_.shrink[r];
    candidate_.zero[r] = better ? zero[r] : candidate_.zero[r];
    candidate_.scale[r] = better ? sums.qy[r] / sums.qq[r] / inverse[r] : candidate_.scale[r];
  }
}

template <bool kWeighted>
LaneFloats LaneSearch<kWeighted>::centred_zeros(const LaneFloats& shrink, float shift) const {
  LaneFloats zero;
  for (std::size_t r = 0; r < kStripLanes; ++r) {
    const float centre = highest_ * 0.5f - middle_[r] * reach_ / (shrink[r] * range_[r]);
    zero[r] = round_between(centre + shift, 0.0f, highest_);
  }
  return zero;
}

template <bool kWeighted>
void LaneSearch<kWeighted>::run(float* scales, std::uint8_t* zeros) {
  LaneFloats scale;
  LaneFloats zero;
  for (std::size_t r = 0; r < kStripLanes; ++r) {
    scale[r] = scales[r];
    zero[r] = zeros[r];
  }
  result_.error.fill(std::numeric_limits<float>::infinity());
  // With both signs, the one that points the longer side at the larger extreme comes first and wins
  // ties, so that negating the weights negates the result.
  const bool both_signs = allows_negative_scale(grid_);
  for (std::size_t r = 0; r < kStripLanes; ++r) {
    orientation_[r] = both_signs && middle_[r] > 0 ? -1.0f : 1.0f;
    scale[r] = std::fabs(scale[r]) * orientation_[r];
  }
  measure(scale, zero);
  if (both_signs) {
    for (float& s : scale) s = -s;
    measure(scale, zero);
  }

  const float ratio = ladder_ratio(bits(grid_.format));
  LaneFloats shrink;
  float fraction = reach_ / below_reach_;
  for (int rung = 0; rung < kRungs; ++rung) {
    if (rung != 0) fraction = rung == 1 ? 1.0f : fraction * ratio;
    for (std::size_t r = 0; r < kStripLanes; ++r) shrink[r] = fraction * orientation_[r];
    if (grid_.symmetric) {
      rate(shrink, zero);
      if (!both_signs) continue;
      for (float& part : shrink) part = -part;
      rate(shrink, zero);
    } else {
      for (const float shift : {-1.0f, 0.0f, 1.0f}) rate(shrink, centred_zeros(shrink, shift));
    }
  }
  // Between the rungs, around the best one, with its sign and zero.
  const LaneFloats best_shrink = candidate_.shrink;
  const LaneFloats best_zero = candidate_.zero;
  const float third = 1.0f - (1.0f - ratio) / 3;
  for (const float factor : {third * third, third, 2 - third, (2 - third) * (2 - third)}) {
    for (std::size_t r = 0; r < kStripLanes; ++r) shrink[r] = best_shrink[r] * factor;
    rate(shrink, best_zero);
  }

  LaneFloats refined = candidate_.scale;
  for (int pass = 0; pass < 3; ++pass) {
    for (std::size_t r = 0; r < kStripLanes; ++r) {
      scale[r] = round_scale(refined[r], grid_.scale_type);
    }
    refined = measure(scale, candidate_.zero);
  }
  for (std::size_t r = 0; r < kStripLanes; ++r) {
    const bool ordinary = range_[r] > 0x1p-100f && range_[r] < 0x1p100f && scales[r] != 0 &&
                          std::isfinite(scales[r]) && result_.scale[r] != 0 &&
                          std::isfinite(result_.scale[r]);
    scales[r] = ordinary ? result_.scale[r] : scales[r];
    zeros[r] = ordinary ? static_cast<std::uint8_t>(result_.zero[r]) : zeros[r];
  }
}

}  // namespace detail

inline void search_strip(const GridSpec& grid, const float* values, const float* importance,
                         std::size_t n, float scales[kStripLanes],
                         std::uint8_t zeros[kStripLanes]) {
  absmax_strip(grid, values, n, scales, zeros);
  if (importance == nullptr) {
    return detail::LaneSearch<false>(grid, values, nullptr, n, 1.0f).run(scales, zeros);
  }
  float largest = 0;
  for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, importance[i]);
  if (!(largest > 0) || !std::isfinite(largest)) return;
  // A power of two near 1 / largest: exact, so common factors of the importance change nothing.
  int exponent = 0;
  std::frexp(largest, &exponent);
  const float factor = std::ldexp(1.0f, std::clamp(-exponent, -126, 126));
  detail::LaneSearch<true>(grid, values, importance, n, factor).run(scales, zeros);
}

}  // namespace quell
