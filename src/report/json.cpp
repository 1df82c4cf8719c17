// SPDX-License-Identifier: Apache-2.0

// The JSON writer: the document as it is, pictures as their numbers. Texts stay as they came; a
// reader that shows them escapes them.

#include "quell/report/write.hpp"

namespace quell::report {
namespace {

io::Json list_of(const std::vector<std::string>& texts) {
  io::Json list = io::Json::array();
  for (const std::string& text : texts) list.push(text);
  return list;
}

io::Json list_of(const std::vector<double>& values) {
  io::Json list = io::Json::array();
  for (const double value : values) list.push(value);
  return list;
}

template <typename T>
io::Json rows_of(const std::vector<std::vector<T>>& rows) {
  io::Json list = io::Json::array();
  for (const auto& row : rows) list.push(list_of(row));
  return list;
}

io::Json lines_of(const Facts& facts) {
  io::Json list = io::Json::array();
  for (const auto& [label, text] : facts.lines) list.push(io::Json::array({label, text}));
  return list;
}

struct Writer {
  io::Json operator()(const Paragraph& paragraph) const {
    return io::Json::object({{"kind", "paragraph"}, {"text", paragraph.text}});
  }
  io::Json operator()(const Facts& facts) const {
    return io::Json::object({{"kind", "facts"}, {"lines", lines_of(facts)}});
  }
  io::Json operator()(const Table& table) const {
    io::Json columns = io::Json::array();
    for (const Column& column : table.columns) {
      columns.push(io::Json::object({{"name", column.name}, {"number", column.number}}));
    }
    return io::Json::object({{"kind", "table"},
                             {"title", table.title},
                             {"columns", std::move(columns)},
                             {"rows", rows_of(table.rows)}});
  }
  io::Json operator()(const HeatStrip& strip) const {
    return io::Json::object({{"kind", "heat_strip"},
                             {"title", strip.title},
                             {"unit", strip.unit},
                             {"rows", list_of(strip.rows)},
                             {"columns", list_of(strip.columns)},
                             {"values", rows_of(strip.values)},
                             {"low", strip.low},
                             {"high", strip.high}});
  }
  io::Json operator()(const LinePlot& plot) const {
    io::Json lines = io::Json::array();
    for (const LinePlot::Line& line : plot.lines) {
      lines.push(io::Json::object({{"name", line.name}, {"values", list_of(line.values)}}));
    }
    io::Json json = io::Json::object({{"kind", "line_plot"},
                                      {"title", plot.title},
                                      {"x_name", plot.x_name},
                                      {"y_name", plot.y_name},
                                      {"places", list_of(plot.places)},
                                      {"lines", std::move(lines)}});
    if (plot.level_name.empty()) return json;
    json.set("level", plot.level);
    json.set("level_name", plot.level_name);
    return json;
  }
  io::Json operator()(const Histogram& histogram) const {
    io::Json curves = io::Json::array();
    for (const Histogram::Curve& curve : histogram.curves) {
      curves.push(io::Json::object({{"name", curve.name}, {"counts", list_of(curve.counts)}}));
    }
    return io::Json::object({{"kind", "histogram"},
                             {"title", histogram.title},
                             {"unit", histogram.unit},
                             {"edges", list_of(histogram.edges)},
                             {"curves", std::move(curves)}});
  }
  io::Json operator()(const Profile& profile) const {
    io::Json curves = io::Json::array();
    for (const Profile::Curve& curve : profile.curves) {
      curves.push(io::Json::object({{"name", curve.name},
                                    {"by_channel", list_of(curve.by_channel)},
                                    {"sorted", list_of(curve.sorted)}}));
    }
    return io::Json::object({{"kind", "profile"},
                             {"title", profile.title},
                             {"unit", profile.unit},
                             {"channels", static_cast<std::uint64_t>(profile.channels)},
                             {"run", static_cast<std::uint64_t>(profile.run)},
                             {"curves", std::move(curves)}});
  }
};

io::Json blocks_of(const std::vector<Block>& blocks) {
  io::Json list = io::Json::array();
  for (const Block& block : blocks) list.push(std::visit(Writer{}, block));
  return list;
}

}  // namespace

io::Json write_json(const Document& document) {
  io::Json sections = io::Json::array();
  for (const Section& section : document.sections) {
    io::Json pages = io::Json::array();
    for (const Page& page : section.pages) {
      pages.push(io::Json::object(
          {{"title", page.title}, {"brief", page.brief}, {"blocks", blocks_of(page.blocks)}}));
    }
    sections.push(io::Json::object({{"title", section.title},
                                    {"blocks", blocks_of(section.blocks)},
                                    {"pages", std::move(pages)}}));
  }
  return io::Json::object({{"schema", kDocumentSchema},
                           {"title", document.title},
                           {"verdict", document.verdict},
                           {"facts", lines_of(document.facts)},
                           {"glance", lines_of(document.glance)},
                           {"sections", std::move(sections)},
                           {"provenance", lines_of(document.provenance)}});
}

}  // namespace quell::report
