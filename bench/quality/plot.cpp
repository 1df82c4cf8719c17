// SPDX-License-Identifier: Apache-2.0

#include "quality/plot.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "report/svg.hpp"

namespace quell::bench {
namespace {

// Pixels of one picture and around it; the names stand to the right of the last.
constexpr double kWidth = 320, kHeight = 300, kLeft = 60, kTop = 40, kBottom = 50, kNames = 170;

// Colours that are told apart without red against green, and a dash for every round through them.
constexpr const char* kColours[] = {"#0072b2", "#d55e00", "#009e73",
                                    "#cc79a7", "#56b4e9", "#222222"};
constexpr const char* kDashes[] = {"none", "6 3", "2 3"};

std::string style_of(std::size_t method) {
  constexpr std::size_t kCount = std::size(kColours);
  return std::string("stroke=\"") + kColours[method % kCount] + "\" stroke-dasharray=\"" +
         kDashes[method / kCount % std::size(kDashes)] + "\"";
}

std::string pair_of(double x, double y) {
  char text[64];
  std::snprintf(text, sizeof text, "%.1f,%.1f", x, y);
  return text;
}

std::string line_of(double x1, double y1, double x2, double y2, const std::string& style) {
  return "<path d=\"M" + pair_of(x1, y1) + " L" + pair_of(x2, y2) + "\" fill=\"none\" " + style +
         "/>\n";
}

}  // namespace

std::string svg_of(const std::vector<QualityPlot>& plots) {
  std::set<std::string> names;
  for (const QualityPlot& plot : plots) {
    for (const auto& [name, points] : plot.curves) names.insert(name);
  }
  const double width = static_cast<double>(plots.size()) * (kLeft + kWidth) + kNames;
  const double height =
      std::max(kTop + kHeight + kBottom, kTop + 20 * static_cast<double>(names.size()));
  char head[256];
  std::snprintf(head, sizeof head,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
                "font-family=\"sans-serif\" font-size=\"12\">\n"
                "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
                width, height);
  std::string svg = head;
  for (std::size_t p = 0; p < plots.size(); ++p) {
    const QualityPlot& plot = plots[p];
    double low_x = 1e300, high_x = 0, low_y = 1e300, high_y = 0;
    for (const auto& [name, points] : plot.curves) {
      for (const auto& [x, y] : points) {
        low_x = std::min(low_x, x);
        high_x = std::max(high_x, x);
        low_y = std::min(low_y, y);
        high_y = std::max(high_y, y);
      }
    }
    if (high_x == 0 || !(low_y > 0)) continue;
    low_x -= 0.2;
    high_x += 0.2;
    low_y /= 1.3;
    high_y *= 1.3;
    const double left = static_cast<double>(p) * (kLeft + kWidth) + kLeft;
    const auto at_x = [&](double x) {
      return left + (x - low_x) / (high_x - low_x) * (kWidth - 20);
    };
    const auto at_y = [&](double y) {
      return kTop + kHeight * (1 - std::log(y / low_y) / std::log(high_y / low_y));
    };
    for (const double x : report::ticks(low_x, high_x)) {
      svg += line_of(at_x(x), kTop, at_x(x), kTop + kHeight, "stroke=\"#dddddd\"");
      svg += report::text_at(at_x(x), kTop + kHeight + 16, "middle", report::short_number(x));
    }
    for (const double y : report::log_ticks(low_y, high_y)) {
      svg += line_of(left, at_y(y), left + kWidth - 20, at_y(y), "stroke=\"#dddddd\"");
      svg += report::text_at(left - 4, at_y(y) + 4, "end", report::short_number(y));
    }
    svg += report::text_at(left + kWidth / 2, 20, "middle", plot.title);
    svg += report::text_at(left + kWidth / 2, kTop + kHeight + 36, "middle", "bits per weight");
    if (p == 0) svg += report::text_at(8, 20, "start", "KL, nats per token");
    std::size_t method = 0;
    for (const std::string& name : names) {
      const std::string style = style_of(method++);
      const auto curve = plot.curves.find(name);
      if (curve == plot.curves.end()) continue;
      auto points = curve->second;
      std::sort(points.begin(), points.end());
      std::string path;
      for (const auto& [x, y] : points) {
        path += (path.empty() ? "M" : " L") + pair_of(at_x(x), at_y(y));
        char dot[96];
        std::snprintf(dot, sizeof dot, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"none\" ",
                      at_x(x), at_y(y));
        svg += dot + style + "/>\n";
      }
      svg += "<path d=\"" + path + "\" fill=\"none\" " + style + "/>\n";
    }
  }
  const double names_left = width - kNames + 10;
  std::size_t method = 0;
  for (const std::string& name : names) {
    const double y = kTop + 20 * static_cast<double>(method);
    svg += line_of(names_left, y, names_left + 24, y, style_of(method++));
    svg += report::text_at(names_left + 30, y + 4, "start", name);
  }
  return svg + "</svg>\n";
}

Status write_file(const std::filesystem::path& file, const std::string& text) {
  std::FILE* out = std::fopen(file.c_str(), "wb");
  const bool written =
      out != nullptr && std::fwrite(text.data(), 1, text.size(), out) == text.size();
  const bool closed = out != nullptr && std::fclose(out) == 0;
  if (written && closed) return ok();
  return Error{ErrorCode::resource, file.string() + " could not be written"};
}

}  // namespace quell::bench
