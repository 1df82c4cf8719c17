// SPDX-License-Identifier: Apache-2.0

#include "report/shades.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "quell/io/printable.hpp"
#include "report/svg.hpp"

namespace quell::report {
namespace {

constexpr std::size_t kPlaces = 64;

/// A curve as one line. `level_of` of the largest value of each run of neighbours.
template <typename Level>
std::string line_of(const std::string& name, const std::vector<double>& values, Level level_of) {
  std::string out = "  " + io::printable(name) + (name.empty() ? "|" : " |");
  const std::size_t run = std::max<std::size_t>(1, (values.size() + kPlaces - 1) / kPlaces);
  for (std::size_t at = 0; at < values.size(); at += run) {
    double largest = std::nan("");
    for (std::size_t i = at; i < std::min(at + run, values.size()); ++i) {
      largest = std::fmax(largest, values[i]);
    }
    out += std::isnan(largest) ? '?' : shade_of(level_of(largest));
  }
  return out + "|\n";
}

std::string headline(const std::string& title, const std::string& rest) {
  return (title.empty() ? "" : io::printable(title) + "  ") + "(" + rest + ")\n";
}

}  // namespace

char shade_of(double level) {
  constexpr std::string_view kShades = " .:-=+*#%@";
  const double share = level > 0 ? std::min(level, 1.0) : 0;  // and 0 for NaN
  return kShades[static_cast<std::size_t>(std::lround(9 * share))];
}

std::string shades_of(const Histogram& histogram) {
  if (histogram.curves.empty() || histogram.edges.empty()) return {};
  double largest = 0;
  for (const Histogram::Curve& curve : histogram.curves) {
    for (const double count : curve.counts) largest = std::max(largest, count);
  }
  std::string out = headline(histogram.title, io::printable(histogram.unit) + " from " +
                                                  short_number(histogram.edges.front()) + " to " +
                                                  short_number(histogram.edges.back()) + "; @ " +
                                                  short_number(largest) + " values, log scales");
  for (const Histogram::Curve& curve : histogram.curves) {
    // A bin that holds a single value is an outlier to be seen: the palest shade but not blank.
    out += line_of(curve.name, curve.counts, [&](double count) {
      return count > 0 ? std::max(1.0 / 9, count_level(count, largest)) : 0;
    });
  }
  return out;
}

std::string shades_of(const Profile& profile) {
  if (profile.curves.empty()) return {};
  const Magnitudes range = magnitudes_of(profile);
  std::string out =
      headline(profile.title, io::printable(profile.unit) + " of " +
                                  std::to_string(profile.channels) + " channels; blank " +
                                  short_number(range.low) + ", @ " + short_number(range.high));
  for (const Profile::Curve& curve : profile.curves) {
    out += line_of(curve.name, curve.by_channel, [&](double value) { return range.level(value); });
  }
  return out;
}

}  // namespace quell::report
