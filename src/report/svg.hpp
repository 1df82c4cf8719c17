// SPDX-License-Identifier: Apache-2.0
#pragma once

// Pictures as SVG elements. Colours come from the page's style sheet by class (lines, text) or from
// one fixed scale (heat), so that they hold in light and dark and on paper.

#include <string>
#include <string_view>

#include "quell/report/document.hpp"

namespace quell::report {

/// For text between tags and in attributes.
std::string escape_html(std::string_view text);
/// Four digits without an exponent where that is short.
std::string short_number(double value);
/// Where a value lies on a strip's logarithmic scale: 0 at `low` and below, 1 at `high` and above.
double heat_level(const HeatStrip& strip, double value);

std::string svg_of(const HeatStrip& strip);
std::string svg_of(const LinePlot& plot);

}  // namespace quell::report
