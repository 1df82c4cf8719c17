// SPDX-License-Identifier: Apache-2.0

#include <string_view>

#include "quell/io/printable.hpp"
#include "quell/report/write.hpp"
#include "report/shades.hpp"
#include "report/svg.hpp"

namespace quell::report {
namespace {

/// Text from anywhere as text of Markdown: nothing in it is markup, a cell stays a cell.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : io::printable(text, 400)) {
    if (std::string_view("\\`*_{}[]<>#|~&").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string rule_of(const std::vector<Column>& columns) {
  std::string out = "|";
  for (const Column& column : columns) out += column.number ? " ---: |" : " --- |";
  return out + "\n";
}

std::string table_of(const std::vector<Column>& columns,
                     const std::vector<std::vector<std::string>>& rows) {
  std::string out = "|";
  for (const Column& column : columns) out += " " + escaped(column.name) + " |";
  out += "\n" + rule_of(columns);
  for (const auto& row : rows) {
    out += "|";
    for (const std::string& cell : row) out += " " + escaped(cell) + " |";
    out += "\n";
  }
  return out + "\n";
}

std::string facts_of(const Facts& facts) {
  std::string out;
  for (const auto& [label, text] : facts.lines) {
    out += "- " + escaped(label) + ": " + escaped(text) + "\n";
  }
  return out + "\n";
}

std::string heading(const std::string& title) {
  return title.empty() ? std::string() : "### " + escaped(title) + "\n\n";
}

struct Writer {
  std::string operator()(const Paragraph& paragraph) const {
    return escaped(paragraph.text) + "\n\n";
  }
  std::string operator()(const Facts& facts) const { return facts_of(facts); }
  std::string operator()(const Table& table) const {
    return heading(table.title) + table_of(table.columns, table.rows);
  }
  std::string operator()(const HeatStrip& strip) const {
    std::vector<Column> columns = {{strip.unit, false}};
    std::vector<std::vector<std::string>> rows;
    for (const std::string& column : strip.columns) columns.push_back({column, true});
    for (std::size_t r = 0; r < strip.rows.size(); ++r) {
      std::vector<std::string>& row = rows.emplace_back(1, strip.rows[r]);
      for (const double value : strip.values[r]) row.push_back(short_number(value));
    }
    return heading(strip.title) + table_of(columns, rows);
  }
  std::string operator()(const LinePlot& plot) const {
    std::vector<Column> columns = {{plot.x_name, false}};
    std::vector<std::vector<std::string>> rows;
    for (const LinePlot::Line& line : plot.lines) columns.push_back({line.name, true});
    for (std::size_t i = 0; i < plot.places.size(); ++i) {
      std::vector<std::string>& row = rows.emplace_back(1, plot.places[i]);
      for (const LinePlot::Line& line : plot.lines) row.push_back(short_number(line.values[i]));
    }
    return heading(plot.title + " (" + plot.y_name + ")") + table_of(columns, rows);
  }
  std::string operator()(const Histogram& histogram) const {
    return verbatim(shades_of(histogram));
  }
  std::string operator()(const Profile& profile) const { return verbatim(shades_of(profile)); }

 private:
  /// A block set off by four spaces, in which nothing is markup.
  static std::string verbatim(const std::string& lines) {
    std::string out;
    for (std::size_t at = 0; at < lines.size();) {
      const std::size_t end = lines.find('\n', at) + 1;
      out += "    " + lines.substr(at, end - at);
      at = end;
    }
    return out + "\n";
  }
};

}  // namespace

std::string write_markdown(const Document& document) {
  std::string out = "# " + escaped(document.title) + "\n\n**" + escaped(document.verdict) +
                    "**\n\n" + facts_of(document.facts) + facts_of(document.glance);
  for (const Section& section : document.sections) {
    out += "## " + escaped(section.title) + "\n\n";
    for (const Block& block : section.blocks) out += std::visit(Writer{}, block);
    for (const Page& page : section.pages) {
      out += "#### " + escaped(page.title) + "\n\n" + escaped(page.brief) + "\n\n";
      for (const Block& block : page.blocks) out += std::visit(Writer{}, block);
    }
  }
  return out + "---\n\n" + facts_of(document.provenance);
}

}  // namespace quell::report
