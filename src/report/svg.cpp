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

}  // namespace

double text_width(std::string_view text) {
  // Widths of a wide sans serif (DejaVu Sans) at 11 units, which others seldom exceed.
  constexpr std::string_view kNarrow = "iljI.,:;'|!()[]{}frt \\/-\"";
  constexpr std::string_view kWide = "mwMW@%+=<>#~^OQGNDH";
  double width = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 && byte < 0xC0) continue;  // inside a code point
    width += byte >= 0x80                      ? 12
             : kNarrow.find(c) != kNarrow.npos ? 4.8
             : kWide.find(c) != kWide.npos     ? 11
                                               : 7.6;
  }
  return width;
}

double widest(const std::vector<std::string>& texts) {
  double most = 0;
  for (const std::string& text : texts) most = std::max(most, text_width(io::printable(text)));
  return most;
}

std::string text_at(double x, double y, std::string_view anchor, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>", x, y, anchor,
                     escape_html(text));
}

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

std::vector<double> log_ticks(double low, double high, int most) {
  std::vector<double> found;
  const double slack = 1e-9;
  const int first = static_cast<int>(std::ceil(std::log10(low) - slack));
  const int last = static_cast<int>(std::floor(std::log10(high) + slack));
  if (last - first >= 1) {
    const int step = (last - first) / most + 1;
    for (int power = first; power <= last; power += step) found.push_back(std::pow(10, power));
    return found;
  }
  for (int power = first - 1; power <= last; ++power) {
    for (const double multiple : {1.0, 2.0, 5.0}) {
      const double tick = multiple * std::pow(10, power);
      if (tick >= low * (1 - slack) && tick <= high * (1 + slack)) found.push_back(tick);
    }
  }
  if (found.size() < 2) found = high > low * 1.05 ? std::vector{low, high} : std::vector{high};
  return found;
}

std::string open_svg(double width, double height, const std::string& title) {
  return fmt::format(
      "<svg viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\" aria-label=\"{2}\" "
      "style=\"width:{0:.0f}px\">",
      width, height, escape_html(title));
}

std::string line_class(std::size_t n) {
  return "c" + std::to_string(n % 6);
}

std::string line_names(const std::vector<std::string>& names, double left, double right,
                       double& y) {
  constexpr double kSample = 32, kGap = 18, kRow = 18;
  const double width = widest(names) + kSample + kGap;
  const auto columns = std::max<std::size_t>(1, static_cast<std::size_t>((right - left) / width));
  std::string out;
  for (std::size_t n = 0; n < names.size(); ++n) {
    if (n != 0 && n % columns == 0) y += kRow;
    const double x = left + width * static_cast<double>(n % columns);
    out += fmt::format(
        "<line class=\"line {}\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>",
        line_class(n), x, x + kSample - 6, y - 4, y - 4);
    out += text_at(x + kSample, y, "start", names[n]);
  }
  if (!names.empty()) y += kRow;
  return out;
}

namespace {

/// Every how many places a name is written so that names do not touch.
std::size_t name_step(const std::vector<std::string>& names, double width_of_place) {
  const double needed = widest(names) + 8;
  return std::max<std::size_t>(1, static_cast<std::size_t>(std::ceil(needed / width_of_place)));
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

double count_level(double count, double largest) {
  return largest > 0 && count > 0 ? std::log1p(count) / std::log1p(largest) : 0;
}

std::string svg_of(const HeatStrip& strip) {
  const double left = widest(strip.rows) + 10;
  const auto columns = static_cast<double>(std::max<std::size_t>(strip.columns.size(), 1));
  const double cell = std::clamp(640 / columns, 9.0, 56.0), high = 20;
  const double top = 4, plot_width = cell * columns;
  const double bottom = top + high * static_cast<double>(strip.rows.size());
  const double legend_top = bottom + 34;
  const std::string low_name = short_number(strip.low), high_name = short_number(strip.high);
  const double legend_width =
      std::max({200.0, std::min(plot_width, 320.0),
                text_width(low_name) + text_width(high_name) + text_width(strip.unit) + 40});
  const double width = left + std::max(plot_width, legend_width) + 12;
  std::string out = open_svg(width, legend_top + 30, strip.title);
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
  const double middle =
      (left + text_width(low_name) + left + legend_width - text_width(high_name)) / 2;
  out += text_at(left, legend_top + 23, "start", low_name);
  out += text_at(left + legend_width, legend_top + 23, "end", high_name);
  out += text_at(middle, legend_top + 23, "middle", strip.unit);
  return out + "</svg>";
}

std::string svg_of(const LinePlot& plot) {
  const auto shown = [&](double value) {
    return std::isfinite(value) && (!plot.logarithmic || value > 0);
  };
  double low = plot.logarithmic ? HUGE_VAL : 0, high = plot.logarithmic ? 0 : 0;
  const auto reach = [&](double value) {
    if (!shown(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  };
  std::vector<std::string> names;
  for (const LinePlot::Line& line : plot.lines) {
    names.push_back(line.name);
    for (const double value : line.values) reach(value);
  }
  if (!plot.level_name.empty()) reach(plot.level);
  if (plot.logarithmic) {
    if (!(high > 0)) low = high = 1;
    low /= 1.2;
    high *= 1.2;
  } else {
    if (!(high > low)) high = low + 1;
    high += 0.05 * (high - low);
  }
  const double left = 52, top = 10, plot_width = 620, plot_height = 190;
  const double right = left + plot_width, bottom = top + plot_height;
  const auto x_of = [&](std::size_t i) {
    const auto n = static_cast<double>(plot.places.size());
    return left + plot_width * (static_cast<double>(i) + 0.5) / std::max(n, 1.0);
  };
  const auto y_of = [&](double value) {
    const double share = plot.logarithmic ? std::log(value / low) / std::log(high / low)
                                          : (value - low) / (high - low);
    return bottom - plot_height * share;
  };
  std::string out;
  for (const double tick : plot.logarithmic ? log_ticks(low, high) : ticks(low, high)) {
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
  if (!plot.level_name.empty() && shown(plot.level)) {
    const double y = y_of(plot.level);
    out += fmt::format(
        "<line class=\"level\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", left,
        right, y, y);
  }
  for (std::size_t l = 0; l < plot.lines.size(); ++l) {
    const LinePlot::Line& line = plot.lines[l];
    std::string points, dots;
    for (std::size_t i = 0; i < line.values.size(); ++i) {
      const double value = line.values[i];
      if (!shown(value)) continue;
      points += fmt::format("{:.1f},{:.1f} ", x_of(i), y_of(value));
      dots += fmt::format(
          "<circle class=\"dot {}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\">"
          "<title>{}, {} {}: {}</title></circle>",
          line_class(l), x_of(i), y_of(value), escape_html(line.name), escape_html(plot.x_name),
          escape_html(plot.places[i]), short_number(value));
    }
    out += fmt::format("<polyline class=\"line {}\" points=\"{}\"/>", line_class(l), points) + dots;
  }
  if (!plot.level_name.empty() && shown(plot.level)) {
    // After the lines, on a rim of the page's colour: it stays readable where they cross it.
    out += "<g class=\"rim\">" + text_at(left + 4, y_of(plot.level) - 4, "start", plot.level_name) +
           "</g>";
  }
  double y = bottom + 52;
  out += line_names(names, left, right, y);
  const double width = std::max(right, left + widest(names) + 32);
  return open_svg(width + 14, y - 10, plot.title) + out + "</svg>";
}

}  // namespace quell::report
