// SPDX-License-Identifier: Apache-2.0
#pragma once

// Pictures as SVG elements. Colours come from the page's style sheet by class (lines, text) or from
// one fixed scale (heat), so that they hold in light and dark and on paper.

#include <string>
#include <string_view>
#include <vector>

#include "quell/report/document.hpp"

namespace quell::report {

/// For text between tags and in attributes.
std::string escape_html(std::string_view text);
/// Four digits without an exponent where that is short.
std::string short_number(double value);
/// Where a value lies on a strip's logarithmic scale: 0 at `low` and below, 1 at `high` and above.
double heat_level(const HeatStrip& strip, double value);
/// log(1 + count) over log(1 + largest count), so that a single value among millions shows.
double count_level(double count, double largest);
/// The smallest and the largest magnitude above zero that a profile's scale shows: at most six
/// decades below the largest. Both 1 where there is none.
struct Magnitudes {
  double low = 1, high = 1;
  /// From 0 at `low` and below to 1 at `high`.
  double level(double value) const;
};
Magnitudes magnitudes_of(const Profile& profile);

std::string svg_of(const HeatStrip& strip);
std::string svg_of(const LinePlot& plot);
std::string svg_of(const Histogram& histogram);
/// Two pictures beside each other: channels as they stand, and sorted.
std::string svg_of(const Profile& profile, bool sorted);

// Parts of pictures.
/// An estimate, a little above, of what a text takes at the size the style sheet sets.
double text_width(std::string_view text);
double widest(const std::vector<std::string>& texts);
std::string text_at(double x, double y, std::string_view anchor, const std::string& text);
/// Round numbers between two, about four; on a logarithmic scale at most `most` powers of ten, or
/// multiples of them where there are too few.
std::vector<double> ticks(double low, double high);
std::vector<double> log_ticks(double low, double high, int most = 6);
std::string open_svg(double width, double height, const std::string& title);
/// A class for the n-th line: lines differ by colour and by dash, so none needs colour vision.
std::string line_class(std::size_t n);
/// The names of lines under a plot, as many in a row as fit between two edges. `y` is moved below.
std::string line_names(const std::vector<std::string>& names, double left, double right, double& y);

}  // namespace quell::report
