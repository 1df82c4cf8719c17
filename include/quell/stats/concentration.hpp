// SPDX-License-Identifier: Apache-2.0
#pragma once

// How few channels carry the energy of a matrix. The energy of a channel is e = sum x^2 over its
// elements. Of n channels,
//
//     participation_ratio  (sum e)^2 / sum e^2     n if all are equal, 1 if one has all of it, k if
//                                                  k have equal shares: a number of channels
//     top_share(k)         energy of the k largest / sum e
//
// (Bell and Dean, "Atomic vibrations in vitreous silica", 1970; the inverse of the concentration
// index of Herfindahl.) A channel with as much energy as all others together brings it down to 4 at
// most. Energies that are not finite or not above 0 count as 0. Both are 0 if there is no energy.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "quell/stats/channels.hpp"

namespace quell::stats {

/// sum x^2 of the finite elements of each channel.
inline std::vector<double> channel_energies(const ChannelProfiles& profiles);

/// Between 1 and n.
inline double participation_ratio(std::span<const double> energies) noexcept;

/// Between 0 and 1; 1 for k >= n.
inline double top_share(std::span<const double> energies, std::size_t k);

// ------------------------------------------------------------------ definitions

namespace detail {

inline double usable_energy(double energy) noexcept {
  return std::isfinite(energy) && energy > 0 ? energy : 0;
}

inline double largest_energy(std::span<const double> energies) noexcept {
  double largest = 0;
  for (const double energy : energies) largest = std::max(largest, usable_energy(energy));
  return largest;
}

}  // namespace detail

inline std::vector<double> channel_energies(const ChannelProfiles& profiles) {
  std::vector<double> energies;
  energies.reserve(profiles.size());
  for (const ChannelProfile& channel : profiles.channels()) {
    const Moments& m = channel.moments;
    energies.push_back(static_cast<double>(m.count()) * (m.mean() * m.mean() + m.variance()));
  }
  return energies;
}

inline double participation_ratio(std::span<const double> energies) noexcept {
  // In units of the largest, so that no square overflows or vanishes.
  const double unit = detail::largest_energy(energies);
  if (!(unit > 0)) return 0;
  double sum = 0, squares = 0;
  for (const double energy : energies) {
    const double e = detail::usable_energy(energy) / unit;
    sum += e;
    squares += e * e;
  }
  return sum / squares * sum;
}

inline double top_share(std::span<const double> energies, std::size_t k) {
  const double unit = detail::largest_energy(energies);
  if (!(unit > 0)) return 0;
  std::vector<double> sorted(energies.size());
  std::transform(energies.begin(), energies.end(), sorted.begin(),
                 [unit](double energy) { return detail::usable_energy(energy) / unit; });
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  double top = 0, sum = 0;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    sum += sorted[i];
    if (i < k) top = sum;
  }
  return top / sum;
}

}  // namespace quell::stats
