// SPDX-License-Identifier: Apache-2.0
#pragma once

// Quantiles of magnitudes |x| of a stream of floats, in bounded memory and with a proved error. The
// sketch counts how often each magnitude occurs after rounding it to the nearest bfloat16, that is,
// to eight significant bits. Nothing else is kept but the zeros, the smallest and the largest
// magnitude, so
//
//   error     A quantile is wrong by at most 1/257 of its value, or by 2^-134 if that is more.
//             Proof: in [2^e, 2^(e+1)) neighbours are 2^(e-7) apart, so x moves by at most 2^(e-8).
//             If it moves down to 2^e it was at most 2^e (1 + 2^-8), and lost at most 1/257 of it;
//             elsewhere x is larger and moves no further. Rounding keeps the order, so the k-th
//             smallest of the rounded is the rounded k-th smallest. Below 2^-126 neighbours are
//             2^-133 apart. An interpolation of two values inherits the bound of both.
//   exact     Magnitudes of bfloat16 numbers do not move: their quantiles are exact.
//   merging   adds integers: associative, commutative, and the order of the values is forgotten.
//   memory    at most 256 octaves of 128 counters of 8 bytes (256 KiB), and only those between the
//             smallest and the largest magnitude that is not zero: 1 KiB an octave.
//
// Bins of constant relative width are the idea of DDSketch (Masson, Rim and Lee, "DDSketch: a fast
// and fully-mergeable quantile sketch with relative-error guarantees", VLDB 2019). Taking them from
// the bits of the float in place of a logarithm needs one shift, gives the same bins on every
// machine, and makes no bin collapse necessary, as the range of a float is finite. Sketches with an
// error in rank (t-digest, KLL) say little about the tail, which is what matters here, and depend
// on the order of merging.

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "quell/core/panic.hpp"

namespace quell::stats {

class QuantileSketch {
 public:
  /// One more value, of which only |x| matters. NaN and infinities are counted apart.
  void add(float x) { add(std::span<const float>(&x, 1)); }
  void add(std::span<const float> values);
  /// One value that occurs `times` times.
  void add(float x, std::uint64_t times);
  /// The union of two sets that have no element in common.
  void merge(const QuantileSketch& other);

  /// Finite values, zeros among them.
  std::uint64_t count() const noexcept { return count_; }
  std::uint64_t zeros() const noexcept { return zeros_; }
  std::uint64_t nonfinite() const noexcept { return nonfinite_; }
  /// The largest |x|, exactly; 0 of none.
  double max_abs() const noexcept;
  /// The magnitude at rank q (n - 1) of n finite values, q in [0, 1], interpolated linearly between
  /// neighbours as `quantile_in_place` does, within the error above; the ends are exact. 0 of none.
  double quantile(double q) const;

  /// Values with |x| > threshold; those closer to it than the error above may be on either side.
  std::uint64_t above(double threshold) const noexcept;

  /// The bins, for histograms: counts()[i] values that are not zero round to magnitude(first_bin()
  /// + i). Bin 0 holds those that round to zero.
  std::span<const std::uint64_t> counts() const noexcept { return counts_; }
  std::uint32_t first_bin() const noexcept { return first_bin_; }
  static double magnitude(std::uint32_t bin) noexcept;

  /// Equal sets give equal sketches, however they were cut, ordered and merged.
  bool operator==(const QuantileSketch&) const = default;

 private:
  static constexpr std::uint32_t kInfinity = 0x7F80'0000;  // bits of a float
  static constexpr std::uint32_t kOctave = 128;            // bins

  static std::uint32_t magnitude_bits(float x) noexcept {
    return std::bit_cast<std::uint32_t>(x) & 0x7FFF'FFFF;
  }
  static std::uint32_t bin_of(std::uint32_t bits) noexcept { return (bits + 0x8000) >> 16; }
  /// Bits of the smallest and the largest |x|.
  static std::pair<std::uint32_t, std::uint32_t> range_of(std::span<const float> values) noexcept;
  void reach(std::uint32_t low, std::uint32_t high);
  double at_rank(std::uint64_t rank) const noexcept;

  std::uint64_t count_ = 0;
  std::uint64_t zeros_ = 0;
  std::uint64_t nonfinite_ = 0;
  std::uint32_t low_ = kInfinity;  // bits of the smallest |x| that is not zero
  std::uint32_t high_ = 0;         // bits of the largest
  std::uint32_t first_bin_ = 0;
  std::vector<std::uint64_t> counts_;  // whole octaves, from that of low_ to that of high_
};

// ------------------------------------------------------------------ definitions

inline void QuantileSketch::add(std::span<const float> values) {
  // In chunks that stay in the first-level cache: the range is found first, so that counting needs
  // no question about it.
  constexpr std::size_t kChunk = 4096;
  std::array<float, kChunk> kept;
  for (std::size_t first = 0; first < values.size(); first += kChunk) {
    auto chunk = values.subspan(first, std::min(kChunk, values.size() - first));
    auto [low, high] = range_of(chunk);
    if (low == 0 || high >= kInfinity) {
      // Rare in models: what has no bin is set aside.
      std::size_t size = 0;
      for (const float x : chunk) {
        const std::uint32_t bits = magnitude_bits(x);
        if (bits == 0) {
          ++zeros_;
          ++count_;
        } else if (bits >= kInfinity) {
          ++nonfinite_;
        } else {
          kept[size++] = x;
        }
      }
      if (size == 0) continue;
      chunk = std::span<const float>(kept).first(size);
      std::tie(low, high) = range_of(chunk);
    }
    reach(low, high);
    count_ += chunk.size();
    for (const float x : chunk) ++counts_[bin_of(magnitude_bits(x)) - first_bin_];
  }
}

inline void QuantileSketch::add(float x, std::uint64_t times) {
  if (times == 0) return;
  const std::uint32_t bits = magnitude_bits(x);
  if (bits >= kInfinity) {
    nonfinite_ += times;
    return;
  }
  count_ += times;
  if (bits == 0) {
    zeros_ += times;
    return;
  }
  reach(bits, bits);
  counts_[bin_of(bits) - first_bin_] += times;
}

inline std::pair<std::uint32_t, std::uint32_t> QuantileSketch::range_of(
    std::span<const float> values) noexcept {
  std::uint32_t low = 0x7FFF'FFFF, high = 0;
  for (const float x : values) {
    low = std::min(low, magnitude_bits(x));
    high = std::max(high, magnitude_bits(x));
  }
  return {low, high};
}

inline void QuantileSketch::merge(const QuantileSketch& other) {
  count_ += other.count_;
  zeros_ += other.zeros_;
  nonfinite_ += other.nonfinite_;
  if (other.counts_.empty()) return;
  reach(other.low_, other.high_);
  const std::size_t offset = other.first_bin_ - first_bin_;
  for (std::size_t i = 0; i < other.counts_.size(); ++i) counts_[offset + i] += other.counts_[i];
}

// Makes room for magnitudes from `low` to `high`, both of bits that are finite and not zero.
inline void QuantileSketch::reach(std::uint32_t low, std::uint32_t high) {
  if (low >= low_ && high <= high_) return;
  low_ = std::min(low_, low);
  high_ = std::max(high_, high);
  const std::uint32_t first = bin_of(low_) / kOctave * kOctave;
  const std::uint32_t end = (bin_of(high_) / kOctave + 1) * kOctave;
  if (counts_.empty()) {
    first_bin_ = first;
  } else if (first < first_bin_) {
    counts_.insert(counts_.begin(), first_bin_ - first, 0);
    first_bin_ = first;
  }
  counts_.resize(end - first_bin_);
}

inline double QuantileSketch::magnitude(std::uint32_t bin) noexcept {
  // The largest floats round to 2^128, which is no float.
  if (bin >= kInfinity >> 16) return 0x1p128;
  return static_cast<double>(std::bit_cast<float>(bin << 16));
}

inline double QuantileSketch::max_abs() const noexcept {
  return static_cast<double>(std::bit_cast<float>(high_));
}

inline double QuantileSketch::at_rank(std::uint64_t rank) const noexcept {
  if (rank < zeros_) return 0;
  const double low = static_cast<double>(std::bit_cast<float>(low_));
  if (rank == zeros_) return low;
  if (rank + 1 >= count_) return max_abs();
  std::uint64_t before = zeros_;
  std::uint32_t bin = first_bin_;
  for (const std::uint64_t count : counts_) {
    before += count;
    if (before > rank) break;
    ++bin;
  }
  return std::clamp(magnitude(bin), low, max_abs());
}

inline std::uint64_t QuantileSketch::above(double threshold) const noexcept {
  std::uint64_t found = 0;
  for (std::size_t i = counts_.size(); i-- > 0;) {
    const auto bin = first_bin_ + static_cast<std::uint32_t>(i);
    if (!(std::min(magnitude(bin), max_abs()) > threshold)) break;
    found += counts_[i];
  }
  return found;
}

inline double QuantileSketch::quantile(double q) const {
  QUELL_ASSERT(q >= 0 && q <= 1);
  if (count_ == 0) return 0;
  const double rank = q * static_cast<double>(count_ - 1);
  const std::uint64_t below = std::min(static_cast<std::uint64_t>(rank), count_ - 1);
  const double weight = rank - static_cast<double>(below);
  const double low = at_rank(below);
  if (weight <= 0) return low;
  return low + weight * (at_rank(below + 1) - low);
}

}  // namespace quell::stats
