// SPDX-License-Identifier: Apache-2.0

#include "report/svg.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "quell/io/printable.hpp"

namespace quell::report {
namespace {

// The scale runs from pale to dark through hues that differ in lightness first, which every kind of
// colour vision and a grey printer keep apart. Points of a smooth path in sRGB.
struct Colour {
  double r, g, b;
};
constexpr std::array<Colour, 6> kScale = {{{248, 245, 214},
                                           {199, 227, 180},
                                           {110, 189, 176},
                                           {45, 130, 170},
                                           {52, 66, 140},
                                           {38, 16, 70}}};

std::string colour_at(double level) {
  const double at = std::clamp(level, 0.0, 1.0) * static_cast<double>(kScale.size() - 1);
  const auto below = std::min(static_cast<std::size_t>(at), kScale.size() - 2);
  const double share = at - static_cast<double>(below);
  const Colour& a = kScale[below];
  const Colour& b = kScale[below + 1];
  const auto mix = [&](double x, double y) { return std::lround(x + (y - x) * share); };
  return fmt::format("#{:02x}{:02x}{:02x}", mix(a.r, b.r), mix(a.g, b.g), mix(a.b, b.b));
}

// Widths of text are estimated: 6.6 units a character at the size the style sheet sets.
constexpr double kCharacter = 6.6;

std::string text_at(double x, double y, std::string_view anchor, const std::string& text,
                    std::string_view extra = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>", x, y, anchor,
                     extra, escape_html(text));
}

double longest(const std::vector<std::string>& names) {
  std::size_t most = 0;
  for (const std::string& name : names) most = std::max(most, name.size());
  return static_cast<double>(most);
}

/// Every how many places a name is written so that names do not touch.
std::size_t name_step(const std::vector<std::string>& names, double width_of_place) {
  const double needed = (longest(names) + 1) * kCharacter;
  return std::max<std::size_t>(1, static_cast<std::size_t>(std::ceil(needed / width_of_place)));
}

/// Round numbers between low and high, four or so.
std::vector<double> ticks(double low, double high) {
  std::vector<double> found;
  const double raw = (high - low) / 4;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double multiple : {1.0, 2.0, 5.0}) {
    if (raw <= multiple * power) {
      step = multiple * power;
      break;
    }
  }
  for (double tick = std::ceil(low / step) * step; tick <= high + 1e-9 * step; tick += step) {
    found.push_back(std::abs(tick) < 1e-9 * step ? 0 : tick);
  }
  return found;
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : io::printable(text, 400)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string short_number(double value) {
  if (std::isnan(value)) return "-";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  const double magnitude = std::abs(value);
  if (magnitude >= 1e6 || (magnitude != 0 && magnitude < 1e-3)) return fmt::format("{:.3g}", value);
  if (magnitude >= 100) return fmt::format("{:.0f}", value);
  return fmt::format("{:.3g}", value);
}

double heat_level(const HeatStrip& strip, double value) {
  if (!(value > strip.low)) return 0;
  return std::min(1.0, std::log(value / strip.low) / std::log(strip.high / strip.low));
}

std::string svg_of(const HeatStrip& strip) {
  const double left = longest(strip.rows) * kCharacter + 10;
  const auto columns = static_cast<double>(std::max<std::size_t>(strip.columns.size(), 1));
  const double cell = std::clamp(640 / columns, 9.0, 56.0), high = 20;
  const double top = 4, plot_width = cell * columns;
  const double bottom = top + high * static_cast<double>(strip.rows.size());
  const double legend_top = bottom + 34,
               legend_width = std::max(200.0, std::min(plot_width, 320.0));
  const double width = left + std::max(plot_width, legend_width) + 30;
  std::string out = fmt::format(
      "<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\" "
      "style=\"width:{:.0f}px\">",
      width, legend_top + 30, escape_html(strip.title), width);
  for (std::size_t r = 0; r < strip.rows.size(); ++r) {
    const double y = top + high * static_cast<double>(r);
    out += text_at(left - 6, y + 14, "end", strip.rows[r]);
    for (std::size_t c = 0; c < strip.columns.size(); ++c) {
      const double value = strip.values[r][c];
      if (std::isnan(value)) continue;
      out += fmt::format(
          "<rect class=\"cell\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" "
          "fill=\"{}\"><title>{}, {}: {} {}</title></rect>",
          left + cell * static_cast<double>(c), y + 1, cell - 1, high - 2,
          colour_at(heat_level(strip, value)), escape_html(strip.rows[r]),
          escape_html(strip.columns[c]), short_number(value), escape_html(strip.unit));
    }
  }
  const std::size_t step = name_step(strip.columns, cell);
  for (std::size_t c = 0; c < strip.columns.size(); c += step) {
    out += text_at(left + cell * (static_cast<double>(c) + 0.5), bottom + 14, "middle",
                   strip.columns[c]);
  }
  constexpr std::size_t kSteps = 32;
  for (std::size_t i = 0; i < kSteps; ++i) {
    const double x = left + legend_width * static_cast<double>(i) / kSteps;
    out +=
        fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"9\" fill=\"{}\"/>",
                    x, legend_top, legend_width / kSteps + 0.5,
                    colour_at((static_cast<double>(i) + 0.5) / kSteps));
  }
  out += text_at(left, legend_top + 23, "start", short_number(strip.low));
  out += text_at(left + legend_width, legend_top + 23, "end", short_number(strip.high));
  out += text_at(left + legend_width / 2, legend_top + 23, "middle", strip.unit);
  return out + "</svg>";
}

std::string svg_of(const LinePlot& plot) {
  double low = 0, high = 0;
  for (const LinePlot::Line& line : plot.lines) {
    for (const double value : line.values) {
      if (!std::isfinite(value)) continue;
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  if (!plot.level_name.empty()) {
    high = std::max(high, plot.level);
    low = std::min(low, plot.level);
  }
  if (!(high > low)) high = low + 1;
  high *= 1.05;
  const double left = 52, top = 10, plot_width = 620, plot_height = 190;
  const double right = left + plot_width, bottom = top + plot_height;
  const auto rows = static_cast<double>((plot.lines.size() + 2) / 3);
  const double height = bottom + 44 + 18 * rows;
  const auto x_of = [&](std::size_t i) {
    const auto n = static_cast<double>(plot.places.size());
    return left + plot_width * (static_cast<double>(i) + 0.5) / std::max(n, 1.0);
  };
  const auto y_of = [&](double value) {
    const double share = (value - low) / (high - low);
    return bottom - plot_height * share;
  };
  std::string out = fmt::format(
      "<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\" "
      "style=\"width:{:.0f}px\">",
      right + 14, height, escape_html(plot.title), right + 14);
  for (const double tick : ticks(low, high)) {
    out += fmt::format(
        "<line class=\"grid\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", left,
        right, y_of(tick), y_of(tick));
    out += text_at(left - 6, y_of(tick) + 4, "end", short_number(tick));
  }
  const std::size_t step = name_step(
      plot.places, plot_width / static_cast<double>(std::max<std::size_t>(plot.places.size(), 1)));
  for (std::size_t i = 0; i < plot.places.size(); i += step) {
    out += text_at(x_of(i), bottom + 16, "middle", plot.places[i]);
  }
  out +=
      text_at((left + right) / 2, bottom + 33, "middle", plot.x_name + "  (" + plot.y_name + ")");
  if (!plot.level_name.empty()) {
    const double y = y_of(plot.level);
    out += fmt::format(
        "<line class=\"level\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", left,
        right, y, y);
    out += text_at(left + 4, y - 4, "start", plot.level_name);
  }
  for (std::size_t l = 0; l < plot.lines.size(); ++l) {
    const LinePlot::Line& line = plot.lines[l];
    // Lines differ by colour and by dash and by mark, so none needs colour vision.
    const std::size_t style = l % 6;
    std::string points;
    for (std::size_t i = 0; i < line.values.size(); ++i) {
      const double value = line.values[i];
      if (!std::isfinite(value)) continue;
      points += fmt::format("{:.1f},{:.1f} ", x_of(i), y_of(value));
    }
    out += fmt::format("<polyline class=\"line c{}\" points=\"{}\"/>", style, points);
    for (std::size_t i = 0; i < line.values.size(); ++i) {
      const double value = line.values[i];
      if (!std::isfinite(value)) continue;
      out += fmt::format(
          "<circle class=\"dot c{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\">"
          "<title>{}, {} {}: {}</title></circle>",
          style, x_of(i), y_of(value), escape_html(line.name), escape_html(plot.x_name),
          escape_html(plot.places[i]), short_number(value));
    }
    const double x = left + plot_width / 3 * static_cast<double>(l % 3);
    const double y = bottom + 52 + 18 * static_cast<double>(l / 3);
    out += fmt::format(
        "<line class=\"line c{}\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" "
        "y2=\"{:.1f}\"/>",
        style, x, x + 26, y - 4, y - 4);
    out += text_at(x + 32, y, "start", line.name);
  }
  return out + "</svg>";
}

}  // namespace quell::report
