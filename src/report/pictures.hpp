// SPDX-License-Identifier: Apache-2.0
#pragma once

// Pictures made from measurements: which modules stand where on a strip, histograms of fewer bins,
// profiles of fewer channels.

#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quell/report/document.hpp"
#include "quell/stats/histogram.hpp"

namespace quell::report {

/// Layers from left to right, what a module does in its layer from top to bottom. Strips of one
/// axis can be compared place by place.
class PlaceAxis {
 public:
  /// From module names. The first part of a name that is a number is the layer, what follows it the
  /// row; names without such a part have no place. Rows come in order of first appearance.
  explicit PlaceAxis(std::span<const std::string> names);

  bool empty() const noexcept { return rows_.empty(); }
  /// An empty strip: values are set with `set`.
  HeatStrip strip(std::string title, std::string unit, double low, double high) const;
  /// Nothing where the name has no place on this axis.
  void set(HeatStrip& strip, const std::string& name, double value) const;

 private:
  std::vector<std::string> rows_, columns_;
  std::map<std::string, std::size_t, std::less<>> row_of_;
  std::map<std::size_t, std::size_t> column_of_;  // by layer
};

/// The layer and what the name says after it, as above.
std::optional<std::pair<std::size_t, std::string>> layer_and_role(std::string_view name);

/// "0", "1", ...: as many as there are layers.
std::vector<std::string> layer_names(std::size_t layers);

/// Curves over each other, at most `most_bins` bins (neighbours are added up).
Histogram histogram_of(std::string title, std::string unit,
                       std::span<const std::pair<std::string, const stats::LogHistogram*>> curves,
                       std::size_t most_bins);

/// Curves of the same channels, at most `most_points` points each. A curve without channels is left
/// out.
Profile profile_of(std::string title, std::string unit,
                   std::span<const std::pair<std::string, std::span<const double>>> curves,
                   std::size_t most_points);

}  // namespace quell::report
