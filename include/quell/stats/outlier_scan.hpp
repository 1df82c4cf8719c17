// SPDX-License-Identifier: Apache-2.0
#pragma once

// What find_outliers (outliers.hpp) needs of a matrix that is too large to hold: pieces that take
// its rows as they come by.
//
//   LargestElements   the few largest elements of all, whatever the order of the rows.
//   ScreenCounts      a proof that no line is an outlier, from two counts a line. Let low < high <=
//                     ratio * low. Where more than half of a line is >= low its median is; where
//                     more than half of the lines have such a median the median of medians is >=
//                     low as well; and a line of which more than half is <= high has a median <=
//                     high <= ratio * (median of medians). With low and high a factor of
//                     sqrt(ratio) below and above the median of the matrix the proof succeeds for
//                     ordinary matrices. With low = high = 0 it is another: where more than half
//                     of the lines are zero by more than half there is no scale, and no outlier.
//                     Where it fails the medians have to be looked at.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "quell/core/view.hpp"

namespace quell::stats {

struct OutlierElement {
  std::size_t row = 0, col = 0;
  float value = 0;
};

/// Larger first; equals in the order of their places, so that the order of coming does not show.
inline bool comes_before(const OutlierElement& a, const OutlierElement& b) noexcept {
  const float x_a = std::fabs(a.value), x_b = std::fabs(b.value);
  if (x_a != x_b) return x_a > x_b;
  return a.row != b.row ? a.row < b.row : a.col < b.col;
}

class LargestElements {
 public:
  /// Elements below `floor` are known not to be among the largest.
  explicit LargestElements(std::size_t most, float floor = 0) : most_(most), floor_(floor) {}

  /// Magnitudes that can still be among the largest are not below this.
  float floor() const noexcept { return floor_; }
  /// Finite; zeros are left out.
  void add(const OutlierElement& element) {
    const float magnitude = std::fabs(element.value);
    if (!(magnitude > 0) || magnitude < floor_) return;
    elements_.push_back(element);
    // Four times as many are kept before the smallest are dropped: the selection costs little.
    if (elements_.size() >= 4 * most_) shrink();
  }
  void merge(const LargestElements& other) {
    for (const OutlierElement& element : other.elements_) add(element);
  }
  /// The largest first, at most `most` of them.
  std::vector<OutlierElement> sorted() const {
    std::vector<OutlierElement> top = elements_;
    std::sort(top.begin(), top.end(), comes_before);
    if (top.size() > most_) top.resize(most_);
    return top;
  }

 private:
  void shrink() {
    const auto last = elements_.begin() + static_cast<std::ptrdiff_t>(most_ - 1);
    std::nth_element(elements_.begin(), last, elements_.end(), comes_before);
    elements_.resize(most_);
    floor_ = std::max(floor_, std::fabs(elements_.back().value));
  }

  std::size_t most_;
  float floor_;
  std::vector<OutlierElement> elements_;
};

/// Magnitudes that bfloat16 has, so that its numbers are compared as integers; 0 if there are none
/// such.
struct ScreenLevels {
  float low = 0, high = 0;

  ScreenLevels() = default;
  /// `median` is about that of the matrix.
  ScreenLevels(double median, double ratio) {
    const float from = truncated(median / std::sqrt(ratio));
    const float to = truncated(ratio * static_cast<double>(from));
    // Subnormal levels would be coarse.
    if (!(from >= std::numeric_limits<float>::min()) || !(to > from) || !std::isfinite(to)) return;
    low = from;
    high = to;
  }
  bool usable() const noexcept { return low > 0; }

 private:
  static float truncated(double value) {
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(static_cast<float>(value)) &
                                0xFFFF'0000u);
  }
};

/// Of each line, how many of its finite values are >= low and how many are <= high.
struct ScreenCounts {
  std::vector<std::uint32_t> at_least_low, at_most_high;

  explicit ScreenCounts(std::size_t lines = 0) : at_least_low(lines), at_most_high(lines) {}
  /// True if it is proved that no line is an outlier. finite(i) is the number of finite values of
  /// line i.
  template <typename Finite>
  bool prove_ordinary(const ScreenLevels& levels, Finite finite) const {
    std::size_t known = 0, large = 0, small = 0;
    for (std::size_t i = 0; i < at_least_low.size(); ++i) {
      const std::uint64_t count = finite(i);
      if (count == 0) continue;
      ++known;
      large += 2 * std::uint64_t{at_least_low[i]} > count;
      small += 2 * std::uint64_t{at_most_high[i]} > count;
    }
    if (!levels.usable()) return 2 * small > known;
    return small == known && 2 * large > known;
  }
};

/// Counts rows of float or of bfloat16 words: `rows` has one pair for each row of x, `columns` one
/// for each column, to which is added.
template <typename T>
inline void screen(MatrixView<const T> x, const ScreenLevels& levels,
                   std::span<std::uint32_t> row_low, std::span<std::uint32_t> row_high,
                   ScreenCounts& columns);

// ------------------------------------------------------------------ definitions

namespace detail {

// Magnitudes as integers of the width of the values, and counters as wide: vectors of one width.
inline std::int32_t screen_bits(float value) noexcept {
  return static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(value) & 0x7FFF'FFFFu);
}
inline std::int16_t screen_bits(std::uint16_t bf16) noexcept {
  return static_cast<std::int16_t>(bf16 & 0x7FFFu);
}

}  // namespace detail

template <typename T>
inline void screen(MatrixView<const T> x, const ScreenLevels& levels,
                   std::span<std::uint32_t> row_low, std::span<std::uint32_t> row_high,
                   ScreenCounts& columns) {
  using Bits = decltype(detail::screen_bits(T{}));
  constexpr unsigned kShift = 32 - 8 * sizeof(Bits);
  const auto level = [](float value) {
    return static_cast<Bits>(std::bit_cast<std::uint32_t>(value) >> kShift);
  };
  const Bits low = level(levels.low), high = level(levels.high);
  const Bits infinity = level(std::numeric_limits<float>::infinity());
  // A strip of columns whose counts of a few rows fit into sixteen bits and into the first cache.
  constexpr std::size_t kStrip = 1024, kRows = 16384;
  std::fill(row_low.begin(), row_low.end(), 0u);
  std::fill(row_high.begin(), row_high.end(), 0u);
  for (std::size_t first = 0; first < x.cols(); first += kStrip) {
    const std::size_t cols = std::min(kStrip, x.cols() - first);
    for (std::size_t start = 0; start < x.rows(); start += kRows) {
      Bits column_low[kStrip] = {}, column_high[kStrip] = {};
      for (std::size_t r = start; r < std::min(start + kRows, x.rows()); ++r) {
        const T* row = x.row(r).data() + first;
        Bits in_low = 0, in_high = 0;
        for (std::size_t c = 0; c < cols; ++c) {
          const Bits bits = detail::screen_bits(row[c]);
          const auto is_low = static_cast<Bits>((bits >= low) & (bits < infinity));
          const auto is_high = static_cast<Bits>(bits <= high);
          in_low = static_cast<Bits>(in_low + is_low);
          in_high = static_cast<Bits>(in_high + is_high);
          column_low[c] = static_cast<Bits>(column_low[c] + is_low);
          column_high[c] = static_cast<Bits>(column_high[c] + is_high);
        }
        row_low[r] += static_cast<std::uint32_t>(in_low);
        row_high[r] += static_cast<std::uint32_t>(in_high);
      }
      for (std::size_t c = 0; c < cols; ++c) {
        columns.at_least_low[first + c] += static_cast<std::uint32_t>(column_low[c]);
        columns.at_most_high[first + c] += static_cast<std::uint32_t>(column_high[c]);
      }
    }
  }
}

}  // namespace quell::stats
