// SPDX-License-Identifier: Apache-2.0

// Histograms and profiles: small pictures of which hundreds stand on a page, so what they draw is
// one path where it can be.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "report/svg.hpp"

namespace quell::report {
namespace {

// So wide that three stand beside each other on a page, and one fits on a telephone.
constexpr double kWidth = 290, kTop = 8, kHeight = 110, kRight = kWidth - 10;

/// Left of the scale: as much as its names need.
double left_of(const std::vector<std::string>& names) {
  return widest(names) + 8;
}

std::string scale(const std::vector<std::pair<double, std::string>>& marks, double left) {
  std::string out;
  for (const auto& [y, name] : marks) {
    out += fmt::format("<path class=\"grid\" d=\"M{:.1f} {:.1f}H{:.0f}\"/>", left, y, kRight);
    out += text_at(left - 5, y + 4, "end", name);
  }
  return out;
}

/// Names under an axis that do not touch: a name is left out where it would reach into the one
/// before.
std::string names_below(const std::vector<std::pair<double, std::string>>& marks, double left) {
  std::string out;
  double free = -HUGE_VAL;
  for (const auto& [x, name] : marks) {
    const double half = text_width(name) / 2;
    // The first and the last stay inside of the picture.
    const double at = std::clamp(x, std::max(half, left - 20), kWidth - half);
    if (at - half < free + 6) continue;
    free = at + half;
    out += text_at(at, kTop + kHeight + 15, "middle", name);
  }
  return out;
}

/// The whole picture: with the names of its curves, where there are several.
std::string with_names(std::string drawn, const std::vector<std::string>& names, double left,
                       const std::string& title) {
  double y = kTop + kHeight + 50;
  drawn += line_names(names, left, kWidth, y);
  const double width = std::max(kWidth, left + widest(names) + 40);
  return open_svg(width, y - 12, title) + drawn + "</svg>";
}

std::vector<std::string> names_of(const auto& curves) {
  std::vector<std::string> names;
  if (curves.size() > 1) {
    for (const auto& curve : curves) names.push_back(curve.name);
  }
  return names;
}

}  // namespace

Magnitudes magnitudes_of(const Profile& profile) {
  Magnitudes range{HUGE_VAL, 0};
  for (const Profile::Curve& curve : profile.curves) {
    for (const double value : curve.sorted) {
      if (!std::isfinite(value) || value <= 0) continue;
      range.low = std::min(range.low, value);
      range.high = std::max(range.high, value);
    }
  }
  if (!(range.high > 0)) return {};
  range.low = std::max(range.low, range.high * 1e-6);
  return range;
}

double Magnitudes::level(double value) const {
  if (!(value > low)) return 0;
  return high > low ? std::min(1.0, std::log(value / low) / std::log(high / low)) : 1;
}

std::string svg_of(const Histogram& histogram) {
  double largest = 0;
  for (const Histogram::Curve& curve : histogram.curves) {
    for (const double count : curve.counts) largest = std::max(largest, count);
  }
  const std::size_t bins = histogram.edges.empty() ? 0 : histogram.edges.size() - 1;
  const double bottom = kTop + kHeight;
  std::vector<std::pair<double, std::string>> counts;
  std::vector<std::string> names;
  for (const double count : log_ticks(1, std::max(largest, 1.0))) {
    names.push_back(short_number(count));
    counts.emplace_back(bottom - kHeight * count_level(count, largest), names.back());
  }
  const double left = left_of(names);
  const auto x_of = [&](std::size_t edge) {
    return left + (kRight - left) * static_cast<double>(edge) /
                      static_cast<double>(std::max<std::size_t>(bins, 1));
  };
  std::string out = scale(counts, left);
  for (std::size_t k = 0; k < histogram.curves.size(); ++k) {
    const std::vector<double>& values = histogram.curves[k].counts;
    std::string outline;
    for (std::size_t b = 0; b < std::min(bins, values.size()); ++b) {
      const double y = bottom - kHeight * count_level(values[b], largest);
      if (k != 0) {
        outline +=
            fmt::format("{}{:.1f} {:.1f}H{:.1f}", b == 0 ? "M" : "L", x_of(b), y, x_of(b + 1));
      } else if (values[b] > 0) {
        out += fmt::format(
            "<path class=\"bar\" d=\"M{:.1f} {:.0f}V{:.1f}H{:.1f}V{:.0f}\"><title>{} to {}: "
            "{:.0f}</title></path>",
            x_of(b), bottom, y, x_of(b + 1) - 0.5, bottom, short_number(histogram.edges[b]),
            short_number(histogram.edges[b + 1]), values[b]);
      }
    }
    if (k != 0) out += fmt::format("<path class=\"line {}\" d=\"{}\"/>", line_class(k), outline);
  }
  std::vector<std::pair<double, std::string>> magnitudes;
  if (bins != 0) {
    const double low = histogram.edges.front(), high = histogram.edges.back();
    for (const double tick : log_ticks(low, high, 4)) {
      magnitudes.emplace_back(left + (kRight - left) * std::log(tick / low) / std::log(high / low),
                              short_number(tick));
    }
  }
  out += names_below(magnitudes, left);
  out += text_at((left + kRight) / 2, bottom + 31, "middle", histogram.unit);
  return with_names(std::move(out), names_of(histogram.curves), left, histogram.title);
}

std::string svg_of(const Profile& profile, bool sorted) {
  const Magnitudes range = magnitudes_of(profile);
  const double bottom = kTop + kHeight;
  std::vector<std::pair<double, std::string>> marks;
  std::vector<std::string> names;
  for (const double tick : log_ticks(range.low, range.high)) {
    names.push_back(short_number(tick));
    marks.emplace_back(bottom - kHeight * range.level(tick), names.back());
  }
  const double left = left_of(names);
  const auto channels = static_cast<double>(std::max<std::size_t>(profile.channels, 1));
  const auto run = static_cast<double>(profile.run);
  const auto x_of = [&](double channel) {
    return left + (kRight - left) * std::min(channel, channels) / channels;
  };
  std::string out = scale(marks, left);
  for (std::size_t k = 0; k < profile.curves.size(); ++k) {
    const std::vector<double>& values =
        sorted ? profile.curves[k].sorted : profile.curves[k].by_channel;
    // Steps: a point stands for a run of channels. Coordinates count runs and half units from the
    // top, relative and whole, which takes half the bytes of absolute ones.
    std::string path;
    long at = 0;
    bool pen = false;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(values[i])) {
        pen = false;
        continue;
      }
      const long y = std::lround(2 * kHeight * (1 - range.level(values[i])));
      if (!pen) {
        path += fmt::format("M{} {}", i, y);
      } else if (y != at) {
        path += fmt::format("v{}", y - at);
      }
      path += "h1";
      at = y;
      pen = true;
    }
    out += fmt::format(
        "<path class=\"thin {}\" transform=\"matrix({:.4f} 0 0 .5 {:.1f} {:.0f})\" d=\"{}\"/>",
        line_class(k), (kRight - left) * run / channels, left, kTop, path);
    if (sorted || values.empty()) continue;
    // The largest show their number on hover, and in tables or facts beside.
    constexpr std::size_t kNamed = 4;
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (std::isfinite(values[i]) && values[i] > 0) order.push_back(i);
    }
    const std::size_t named = std::min(kNamed, order.size());
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(named),
                      order.end(), [&](std::size_t a, std::size_t b) {
                        return values[a] != values[b] ? values[a] > values[b] : a < b;
                      });
    for (std::size_t i = 0; i < named; ++i) {
      const std::size_t first = order[i] * profile.run;
      const std::size_t last = std::min(first + profile.run, profile.channels) - 1;
      out += fmt::format(
          "<circle class=\"dot {}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\"><title>{}: {}</title>"
          "</circle>",
          line_class(k), x_of(run * (static_cast<double>(order[i]) + 0.5)),
          bottom - kHeight * range.level(values[order[i]]),
          first == last ? fmt::format("channel {}", first)
                        : fmt::format("channels {} to {}", first, last),
          short_number(values[order[i]]));
    }
  }
  std::vector<std::pair<double, std::string>> places = {{left, "0"}};
  for (const double tick : ticks(0, channels)) {
    if (tick > 0) places.emplace_back(x_of(tick), short_number(tick));
  }
  out += names_below(places, left);
  out += text_at((left + kRight) / 2, bottom + 31, "middle",
                 (sorted ? "channels, the largest first  (" : "channel  (") + profile.unit + ")");
  return with_names(std::move(out), names_of(profile.curves), left, profile.title);
}

}  // namespace quell::report
