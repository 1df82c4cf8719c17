// SPDX-License-Identifier: Apache-2.0
#pragma once

// One profile per channel of a matrix, and one of the whole. A channel is a column of X [T, IC], a
// column of W [OC, IC] (input channel) or a row of W (output channel). An outlier channel shows as
// a largest magnitude, or a root mean square, many times the median over all channels:
// `channel_ratio`.
//
// Elements that are not finite are counted and left out of everything else, so that a damaged model
// can still be looked at.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/core/view.hpp"
#include "quell/stats/magnitude.hpp"
#include "quell/stats/moments.hpp"

namespace quell::stats {

/// Which lines of a matrix are its channels.
enum class Lines : std::uint8_t { rows, columns };

struct ChannelProfile {
  Moments moments;
  double max_abs = 0;
  double sum_abs = 0;
  std::uint64_t argmax_abs = 0;  // position of the first largest |x| along the channel
  std::uint64_t nonfinite = 0;   // NaN and infinities, not counted in `moments`

  double mean_abs() const noexcept {
    return moments.count() > 0 ? sum_abs / static_cast<double>(moments.count()) : 0;
  }
  /// The same channel over more elements, which follow these; `first` is the position of their
  /// start.
  void merge(const ChannelProfile& later, std::uint64_t first) noexcept;
};

class ChannelProfiles {
 public:
  ChannelProfiles() = default;
  explicit ChannelProfiles(std::vector<ChannelProfile> channels) : channels_(std::move(channels)) {}

  std::size_t size() const noexcept { return channels_.size(); }
  std::span<const ChannelProfile> channels() const noexcept { return channels_; }
  const ChannelProfile& operator[](std::size_t channel) const { return channels_[channel]; }

  /// All elements of all channels; merged in index order.
  Moments overall() const noexcept;
  double max_abs() const noexcept;
  std::uint64_t nonfinite() const noexcept;
  /// Medians over channels.
  double median_max_abs() const;
  double median_root_mean_square() const;
  /// max_abs of each channel over their median: 1 is ordinary. 0 / 0 is 0.
  std::vector<double> max_abs_ratios() const;

 private:
  std::vector<ChannelProfile> channels_;
};

/// Profiles of all rows or all columns. The same bits for any number of threads: a channel is
/// gathered by one thread, in chunks of 4,096 elements merged in order.
inline ChannelProfiles profile_channels(MatrixView<const float> x, Lines lines, Executor& executor);

/// The median of any values, which are taken by copy; 0 of none.
inline double median(std::vector<double> values);

// ------------------------------------------------------------------ definitions

inline void ChannelProfile::merge(const ChannelProfile& later, std::uint64_t first) noexcept {
  moments.merge(later.moments);
  if (later.max_abs > max_abs) {
    max_abs = later.max_abs;
    argmax_abs = first + later.argmax_abs;
  }
  sum_abs += later.sum_abs;
  nonfinite += later.nonfinite;
}

inline Moments ChannelProfiles::overall() const noexcept {
  Moments all;
  for (const ChannelProfile& channel : channels_) all.merge(channel.moments);
  return all;
}

inline double ChannelProfiles::max_abs() const noexcept {
  double largest = 0;
  for (const ChannelProfile& channel : channels_) largest = std::max(largest, channel.max_abs);
  return largest;
}

inline std::uint64_t ChannelProfiles::nonfinite() const noexcept {
  std::uint64_t count = 0;
  for (const ChannelProfile& channel : channels_) count += channel.nonfinite;
  return count;
}

inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const std::size_t half = values.size() / 2;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(half);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 != 0) return *middle;
  // Halves before adding: the sum of two huge values would overflow.
  return *std::max_element(values.begin(), middle) / 2 + *middle / 2;
}

inline double ChannelProfiles::median_max_abs() const {
  std::vector<double> values;
  values.reserve(channels_.size());
  for (const ChannelProfile& channel : channels_) values.push_back(channel.max_abs);
  return median(std::move(values));
}

inline double ChannelProfiles::median_root_mean_square() const {
  std::vector<double> values;
  values.reserve(channels_.size());
  for (const ChannelProfile& channel : channels_) {
    values.push_back(channel.moments.root_mean_square());
  }
  return median(std::move(values));
}

inline std::vector<double> ChannelProfiles::max_abs_ratios() const {
  const double middle = median_max_abs();
  std::vector<double> ratios;
  ratios.reserve(channels_.size());
  for (const ChannelProfile& channel : channels_) {
    const double infinite = channel.max_abs > 0 ? std::numeric_limits<double>::infinity() : 0;
    ratios.push_back(middle > 0 ? channel.max_abs / middle : infinite);
  }
  return ratios;
}

namespace detail {

// The finite values of a chunk are moved to its front; the profile is of the chunk alone.
inline ChannelProfile profile_chunk(std::span<float> values) noexcept {
  ChannelProfile profile;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float value = values[i];
    if (!std::isfinite(value)) {
      ++profile.nonfinite;
      continue;
    }
    const double magnitude = std::fabs(static_cast<double>(value));
    if (magnitude > profile.max_abs) {
      profile.max_abs = magnitude;
      profile.argmax_abs = i;
    }
    profile.sum_abs += magnitude;
    values[kept++] = value;
  }
  profile.moments.add(std::span<const float>(values.first(kept)));
  return profile;
}

}  // namespace detail

inline ChannelProfiles profile_channels(MatrixView<const float> x, Lines lines,
                                        Executor& executor) {
  const bool by_rows = lines == Lines::rows;
  const std::size_t count = by_rows ? x.rows() : x.cols();
  const std::size_t length = by_rows ? x.cols() : x.rows();
  std::vector<ChannelProfile> channels(count);
  // Columns are copied sixteen at a time, one cache line of a row, so that no line is read twice.
  const std::size_t together = by_rows ? 1 : 16;
  executor.run(count, together, [&](std::size_t begin, std::size_t end, unsigned) {
    std::vector<float> chunk(together * kMomentsChunk);
    for (std::size_t first = begin; first < end; first += together) {
      const std::size_t width = std::min(together, end - first);
      for (std::size_t start = 0; start < length; start += kMomentsChunk) {
        const std::size_t n = std::min(kMomentsChunk, length - start);
        if (by_rows) {
          std::copy_n(x.row(first).data() + start, n, chunk.data());
        } else {
          for (std::size_t i = 0; i < n; ++i) {
            const float* src = x.row(start + i).data() + first;
            for (std::size_t c = 0; c < width; ++c) chunk[c * kMomentsChunk + i] = src[c];
          }
        }
        for (std::size_t c = 0; c < width; ++c) {
          channels[first + c].merge(detail::profile_chunk({chunk.data() + c * kMomentsChunk, n}),
                                    start);
        }
      }
    }
  });
  return ChannelProfiles(std::move(channels));
}

}  // namespace quell::stats
