// SPDX-License-Identifier: Apache-2.0

// The terminal writer: columns of ASCII, no colour, so it needs no terminal at all.

#include <algorithm>
#include <cmath>

#include "quell/io/printable.hpp"
#include "quell/report/write.hpp"
#include "report/shades.hpp"
#include "report/svg.hpp"

namespace quell::report {
namespace {

constexpr std::size_t kLabel = 12;  // width of the labels of facts, if none is longer
constexpr std::size_t kWidth = 80;

std::string padded(const std::string& text, std::size_t width, bool right) {
  if (text.size() >= width) return text;
  const std::string space(width - text.size(), ' ');
  return right ? space + text : text + space;
}

/// Breaks at spaces; lines after the first begin with `indent` spaces.
std::string wrapped(const std::string& text, std::size_t used, std::size_t indent) {
  std::string out;
  std::size_t column = used, at = 0;
  while (at < text.size()) {
    std::size_t end = text.find(' ', at);
    if (end == std::string::npos) end = text.size();
    const std::string word = text.substr(at, end - at);
    if (column > indent && column + word.size() + 1 > kWidth) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (at != 0) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    at = end + 1;
  }
  return out + "\n";
}

std::string text_of(const Facts& facts) {
  std::size_t width = kLabel;
  for (const auto& [label, text] : facts.lines) width = std::max(width, label.size() + 2);
  std::string out;
  for (const auto& [label, text] : facts.lines) {
    out += padded(io::printable(label), width, false) +
           wrapped(io::printable(text, 1000), width, width);
  }
  return out;
}

struct Writer {
  std::string operator()(const Paragraph& paragraph) const {
    return wrapped(io::printable(paragraph.text, 4000), 0, 0);
  }
  std::string operator()(const Facts& facts) const { return text_of(facts); }

  std::string operator()(const Table& table) const {
    const std::size_t shown = std::min(table.rows.size(), table.short_rows);
    if (shown == 0) return {};
    std::vector<std::vector<std::string>> cells;
    std::vector<std::size_t> widths, places;
    for (std::size_t c = 0; c < table.columns.size(); ++c) {
      if (table.columns[c].long_form) continue;
      places.push_back(c);
      widths.push_back(io::printable(table.columns[c].name).size());
    }
    for (std::size_t r = 0; r < shown; ++r) {
      std::vector<std::string>& row = cells.emplace_back();
      for (std::size_t p = 0; p < places.size(); ++p) {
        row.push_back(io::printable(table.rows[r][places[p]]));
        widths[p] = std::max(widths[p], row.back().size());
      }
    }
    std::string out = table.title.empty() ? "" : io::printable(table.title) + "\n";
    const auto line = [&](auto text_at) {
      std::string row = " ";
      for (std::size_t p = 0; p < places.size(); ++p) {
        row += " " + padded(text_at(p), widths[p], table.columns[places[p]].number);
        if (p + 1 < places.size()) row += " ";
      }
      row.erase(row.find_last_not_of(' ') + 1);
      out += row + "\n";
    };
    line([&](std::size_t p) { return io::printable(table.columns[places[p]].name); });
    for (const auto& row : cells) line([&](std::size_t p) { return row[p]; });
    if (shown < table.rows.size()) {
      out += "  ... and " + std::to_string(table.rows.size() - shown) + " more\n";
    }
    return out;
  }

  std::string operator()(const HeatStrip& strip) const {
    std::size_t width = 0;
    std::vector<std::string> names;
    for (const std::string& row : strip.rows) {
      names.push_back(io::printable(row));
      width = std::max(width, names.back().size());
    }
    std::string out = wrapped(io::printable(strip.title) + " (" + io::printable(strip.unit) +
                                  "; blank " + short_number(strip.low) + " or less, @ " +
                                  short_number(strip.high) + " or more)",
                              0, 0);
    for (std::size_t r = 0; r < strip.rows.size(); ++r) {
      out += "  " + padded(names[r], width, false) + " |";
      for (const double value : strip.values[r]) {
        out += std::isnan(value) ? '?' : shade_of(heat_level(strip, value));
      }
      out += "|\n";
    }
    return out;
  }

  std::string operator()(const LinePlot& plot) const {
    std::size_t width = 0;
    for (const LinePlot::Line& line : plot.lines) {
      width = std::max(width, io::printable(line.name).size());
    }
    std::string out = io::printable(plot.title) + "  (" + io::printable(plot.y_name) + ", by " +
                      io::printable(plot.x_name) + ")\n";
    for (const LinePlot::Line& line : plot.lines) {
      std::string values;
      for (const double value : line.values) {
        values += (values.empty() ? "" : " ") + short_number(value);
      }
      out += "  " + padded(io::printable(line.name), width, false) + "  " +
             wrapped(values, width + 4, width + 4);
    }
    return out;
  }

  std::string operator()(const Histogram& histogram) const { return shades_of(histogram); }
  std::string operator()(const Profile& profile) const { return shades_of(profile); }
};

std::string opening_of(const Document& document) {
  return text_of(document.facts) + padded("Verdict", kLabel, false) +
         wrapped(io::printable(document.verdict, 1000), kLabel, kLabel);
}

}  // namespace

std::string write_screen(const Document& document) {
  if (document.glance.lines.empty()) return write_text(document);
  return opening_of(document) + "\n" + text_of(document.glance);
}

std::string write_text(const Document& document) {
  std::string out = opening_of(document);
  for (const Section& section : document.sections) {
    if (section.long_form) continue;
    out += "\n" + io::printable(section.title) + "\n";
    for (const Block& block : section.blocks) out += std::visit(Writer{}, block);
  }
  return out;
}

}  // namespace quell::report
