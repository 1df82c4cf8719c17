// SPDX-License-Identifier: Apache-2.0
#pragma once

// Magnitudes of a matrix counted by their bits: exact for sixteen-bit types, whose 32,768
// magnitudes have a counter each; floats by the nearest bfloat16, as stats::QuantileSketch does,
// and then, for the one quantile that is wanted exactly, by the other sixteen bits.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quell/stats/quantile.hpp"

namespace quell::pipeline {

/// What half precision cannot hold: |x| > 65504 overflows, 0 < |x| < 2^-14 is subnormal. Finite
/// values.
struct HalfRange {
  std::uint64_t overflow = 0, subnormal = 0;

  void add(float value, std::uint64_t times) noexcept {
    const float magnitude = value < 0 ? -value : value;
    if (magnitude > 65504.0F) overflow += times;
    if (magnitude > 0 && magnitude < 0x1p-14F) subnormal += times;
  }
};

/// Counters of sixteen-bit words, one thread's; they are moved to a MagnitudeCount before 2^32
/// values have come.
class WordCount {
 public:
  WordCount() : counts_(std::size_t{1} << 16) {}
  void add(std::span<const std::uint16_t> words) {
    std::uint32_t* counts = counts_.data();
    for (const std::uint16_t word : words) ++counts[word];
  }
  std::span<std::uint32_t> counts() noexcept { return counts_; }

 private:
  std::vector<std::uint32_t> counts_;
};

class MagnitudeCount {
 public:
  /// Of floats: zeros, and what is not finite, have words of their own above those of bfloat16.
  static constexpr std::uint16_t kZero = 0x7FFE, kNotFinite = 0x7FFF;

  MagnitudeCount() : counts_(std::size_t{1} << 15) {}

  /// Takes the counts of words, sign and all, and sets them to zero.
  void take(WordCount& words) noexcept {
    std::span<std::uint32_t> from = words.counts();
    for (std::size_t i = 0; i < from.size(); ++i) {
      counts_[i & 0x7FFF] += from[i];
      from[i] = 0;
    }
  }
  std::span<const std::uint64_t> counts() const noexcept { return counts_; }

  /// The word of a float. Unlike rounding to bfloat16 it keeps zero apart from what rounds to it.
  static std::uint16_t word_of(float value) noexcept {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value) & 0x7FFF'FFFFu;
    const std::uint32_t rounded = (bits + 0x8000u) >> 16;
    const std::uint32_t kept = bits == 0 ? kZero : rounded;
    return static_cast<std::uint16_t>(bits >= 0x7F80'0000u ? kNotFinite : kept);
  }
  /// The bits of the magnitudes that have a word of floats which is neither of the two.
  struct BitRange {
    std::uint32_t first = 0, count = 0;
  };
  static BitRange range_of(std::uint16_t word) noexcept {
    const std::uint32_t middle = std::uint32_t{word} << 16;
    const std::uint32_t first = word == 0 ? 1 : middle - 0x8000u;
    return {first, std::min(middle + 0x8000u, 0x7F80'0000u) - first};
  }

 private:
  std::vector<std::uint64_t> counts_;
};

/// The bin in which the value of this rank lies, and the values in the bins before.
struct RankedBin {
  std::size_t bin = 0;
  std::uint64_t before = 0;
};
inline RankedBin bin_of_rank(std::span<const std::uint64_t> counts, std::uint64_t rank) noexcept {
  RankedBin found;
  while (found.bin + 1 < counts.size() && found.before + counts[found.bin] <= rank) {
    found.before += counts[found.bin++];
  }
  return found;
}

}  // namespace quell::pipeline
