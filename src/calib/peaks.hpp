// SPDX-License-Identifier: Apache-2.0
#pragma once

// Who is to blame for the scale of a token. A token x that is rounded with one scale has errors in
// proportion to its peak, max |x_c|, so channels that often hold the peak cost all others their
// resolution. The height of a peak is h = (m^2 / mean of x_c^2)^4: relative to the token, so that
// its size does not matter, and in a high power, since a few tokens with enormous peaks (those that
// all others attend to) do more harm than many with moderate ones. On an encoder whose int8 inputs
// lose 3.2 times what int8 weights do alone, one column chosen by the power 1, 2 or 4 of m^2 left
// 2.9, 1.4 and 1.0 times that.
//
// Removing one channel helps little where another is nearly as large, so blame is shared as costs
// are in the airport game (Littlechild and Owen 1973), whose Shapley value it is: with heights h_1
// >= h_2 >= ... of the channels, the step h_r - h_{r+1} falls to the r channels above it in equal
// parts.

#include <cstddef>
#include <span>

#include "quell/core/executor.hpp"
#include "quell/core/view.hpp"

namespace quell::calib {

/// Ranks of a token that are told apart; steps below them, which fall to ever more channels, are
/// left out.
inline constexpr std::size_t kPeakRanks = 32;

/// Adds to shares[c] what channel c has in the heights of the peaks of the rows of x [T, IC],
/// finite values. The sum over the rows is rounded to float32 before it is added, so that parts of
/// a corpus add up to the bits of a whole. Any number of threads gives the same.
void add_peak_shares(MatrixView<const float> x, std::span<double> shares, Executor& executor);

}  // namespace quell::calib
