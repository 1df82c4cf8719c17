// SPDX-License-Identifier: Apache-2.0

#include "calib/peaks.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace quell::calib {
namespace {

struct Peak {
  float magnitude = 0;
  std::uint32_t channel = 0;
};

/// The channels of the largest magnitudes, descending; of equal ones the first.
void largest(std::span<const float> row, std::vector<Peak>& peaks) {
  const std::size_t wanted = std::min(kPeakRanks + 1, row.size());
  peaks.clear();
  for (std::size_t c = 0; c < row.size(); ++c) {
    const float magnitude = std::fabs(row[c]);
    if (peaks.size() == wanted && !(magnitude > peaks.back().magnitude)) continue;
    if (peaks.size() == wanted) peaks.pop_back();
    const auto place =
        std::upper_bound(peaks.begin(), peaks.end(), magnitude,
                         [](float value, const Peak& peak) { return value > peak.magnitude; });
    peaks.insert(place, {magnitude, static_cast<std::uint32_t>(c)});
  }
}

struct Share {
  std::uint32_t channel = 0;
  double value = 0;
};

}  // namespace

void add_peak_shares(MatrixView<const float> x, std::span<double> shares, Executor& executor) {
  const std::size_t ranks = std::min(kPeakRanks, x.cols());
  std::vector<Share> found(x.rows() * ranks);
  executor.run(x.rows(), 64, [&](std::size_t begin, std::size_t end, unsigned) {
    std::vector<Peak> peaks;
    for (std::size_t t = begin; t < end; ++t) {
      const auto row = x.row(t);
      double energy = 0;
      for (const float value : row) {
        energy += static_cast<double>(value) * static_cast<double>(value);
      }
      if (!(energy > 0)) continue;
      energy /= static_cast<double>(row.size());
      largest(row, peaks);
      const auto height = [&](std::size_t r) {
        const double m = r < peaks.size() ? static_cast<double>(peaks[r].magnitude) : 0.0;
        const double square = m * m / energy;
        return square * square * square * square;
      };
      double share = 0;
      for (std::size_t r = ranks; r-- > 0;) {
        share += (height(r) - height(r + 1)) / static_cast<double>(r + 1);
        found[t * ranks + r] = {peaks[r].channel, share};
      }
    }
  });
  std::vector<double> sums(shares.size());
  for (const Share& each : found) sums[each.channel] += each.value;
  for (std::size_t c = 0; c < shares.size(); ++c) {
    shares[c] += static_cast<double>(static_cast<float>(sums[c]));
  }
}

}  // namespace quell::calib
