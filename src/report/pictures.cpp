// SPDX-License-Identifier: Apache-2.0

#include "report/pictures.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace quell::report {

std::optional<std::pair<std::size_t, std::string>> layer_and_role(std::string_view name) {
  std::size_t begin = 0;
  while (begin <= name.size()) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    const std::string part(name.substr(begin, end - begin));
    // A layer's number has at most five digits; more would be a hash or a date.
    const bool digits = !part.empty() && part.size() < 6 &&
                        part.find_first_not_of("0123456789") == std::string::npos;
    if (digits && end < name.size()) {
      return std::pair{static_cast<std::size_t>(std::stoul(part)),
                       std::string(name.substr(end + 1))};
    }
    begin = end + 1;
  }
  return std::nullopt;
}

std::vector<std::string> layer_names(std::size_t layers) {
  std::vector<std::string> names;
  for (std::size_t l = 0; l < layers; ++l) names.push_back(std::to_string(l));
  return names;
}

PlaceAxis::PlaceAxis(std::span<const std::string> names) {
  for (const std::string& name : names) {
    auto place = layer_and_role(name);
    if (!place) continue;
    column_of_.emplace(place->first, 0);
    if (row_of_.emplace(place->second, rows_.size()).second) {
      rows_.push_back(std::move(place->second));
    }
  }
  for (auto& [layer, column] : column_of_) {
    column = columns_.size();
    columns_.push_back(std::to_string(layer));
  }
}

HeatStrip PlaceAxis::strip(std::string title, std::string unit, double low, double high) const {
  HeatStrip strip;
  strip.title = std::move(title);
  strip.unit = std::move(unit);
  strip.rows = rows_;
  strip.columns = columns_;
  strip.values.assign(rows_.size(), std::vector<double>(columns_.size(), std::nan("")));
  strip.low = low;
  strip.high = high;
  return strip;
}

void PlaceAxis::set(HeatStrip& strip, const std::string& name, double value) const {
  const auto place = layer_and_role(name);
  if (!place) return;
  const auto row = row_of_.find(place->second);
  const auto column = column_of_.find(place->first);
  if (row == row_of_.end() || column == column_of_.end()) return;
  strip.values[row->second][column->second] = value;
}

Histogram histogram_of(std::string title, std::string unit,
                       std::span<const std::pair<std::string, const stats::LogHistogram*>> curves,
                       std::size_t most_bins) {
  Histogram picture;
  picture.title = std::move(title);
  picture.unit = std::move(unit);
  // Bins have the same edges in every histogram: a number for each, from the logarithm of its edge.
  constexpr int kPerOctave = stats::detail::kBinsPerOctave;
  const auto first_of = [](const stats::LogHistogram& h) {
    return static_cast<int>(std::lround(kPerOctave * std::log2(h.edge(0))));
  };
  int begin = std::numeric_limits<int>::max(), end = std::numeric_limits<int>::min();
  for (const auto& [name, histogram] : curves) {
    if (histogram->counts().empty()) continue;
    begin = std::min(begin, first_of(*histogram));
    end = std::max(end, first_of(*histogram) + static_cast<int>(histogram->counts().size()));
  }
  if (begin >= end || most_bins == 0) return picture;
  int width = 1;
  const auto bin_of = [&](int number) {  // floor, so that wider bins do not depend on the curves
    return number >= 0 ? number / width : -((-number + width - 1) / width);
  };
  while (static_cast<std::size_t>(bin_of(end - 1) - bin_of(begin) + 1) > most_bins) width *= 2;
  const int low = bin_of(begin), bins = bin_of(end - 1) - low + 1;
  for (int b = 0; b <= bins; ++b) {
    picture.edges.push_back(std::exp2(static_cast<double>((low + b) * width) / kPerOctave));
  }
  for (const auto& [name, histogram] : curves) {
    if (histogram->counts().empty()) continue;
    Histogram::Curve& curve = picture.curves.emplace_back();
    curve.name = name;
    curve.counts.assign(static_cast<std::size_t>(bins), 0);
    int number = first_of(*histogram);
    for (const std::uint64_t count : histogram->counts()) {
      curve.counts[static_cast<std::size_t>(bin_of(number++) - low)] += static_cast<double>(count);
    }
  }
  return picture;
}

Profile profile_of(std::string title, std::string unit,
                   std::span<const std::pair<std::string, std::span<const double>>> curves,
                   std::size_t most_points) {
  Profile picture;
  picture.title = std::move(title);
  picture.unit = std::move(unit);
  for (const auto& [name, values] : curves) {
    picture.channels = std::max(picture.channels, values.size());
  }
  if (picture.channels == 0 || most_points == 0) return picture;
  picture.run = (picture.channels + most_points - 1) / most_points;
  const auto reduced = [&](std::span<const double> values) {
    std::vector<double> points;
    for (std::size_t at = 0; at < values.size(); at += picture.run) {
      double largest = std::nan("");
      for (const double value : values.subspan(at, std::min(picture.run, values.size() - at))) {
        largest = std::fmax(largest, value);  // which prefers a number to NaN
      }
      points.push_back(largest);
    }
    return points;
  };
  for (const auto& [name, values] : curves) {
    if (values.empty()) continue;
    std::vector<double> order(values.begin(), values.end());
    std::sort(order.begin(), order.end(), [](double a, double b) {
      // NaN last, so that the order is one.
      return std::isnan(b) ? !std::isnan(a) : a > b;
    });
    picture.curves.push_back({name, reduced(values), reduced(order)});
  }
  return picture;
}

}  // namespace quell::report
