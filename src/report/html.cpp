// SPDX-License-Identifier: Apache-2.0

// The HTML writer: one file, its style inside, no scripts. Long tables and pages are folded; on
// paper the tables are open, and of a page stands its brief line (hundreds of pages with pictures
// are a book).

#include <utility>

#include "quell/report/write.hpp"
#include "report/svg.hpp"

namespace quell::report {
namespace {

// Six line colours that stay apart for every common kind of colour vision (after Okabe and Ito,
// "Color Universal Design", 2008), darkened for white and lightened for black.
constexpr const char* kStyle = R"(
:root{color-scheme:light dark;--text:#1c1e21;--soft:#5b6168;--page:#fff;--box:#f6f7f8;--edge:#d9dce0;--shade:#0003;
--c0:#0072b2;--c1:#b34700;--c2:#00795a;--c3:#8a3b78;--c4:#8a6d00;--c5:#444}
@media(prefers-color-scheme:dark){:root{--text:#e7e9ec;--soft:#a3a9b1;--page:#15171a;--box:#1e2125;--edge:#383d44;--shade:#000b;
--c0:#56b4e9;--c1:#f0a35e;--c2:#3cc79f;--c3:#dd9acb;--c4:#e9cf4f;--c5:#c9ccd1}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.2rem;max-width:60rem;color:var(--text);background:var(--page);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.2rem;margin:2.2rem 0 .5rem;border-bottom:1px solid var(--edge)}
h3{font-size:1rem;margin:1.4rem 0 .3rem}
.verdict{font-size:1.1rem;padding:.7rem 1rem;background:var(--box);border-left:4px solid var(--c0);border-radius:3px}
dl{display:grid;grid-template-columns:fit-content(40%) 1fr;gap:.1rem 1rem;margin:.8rem 0}
dt{color:var(--soft)}dd{margin:0}
.wide{overflow-x:auto;margin:.4rem 0;background:linear-gradient(90deg,var(--page) 40%,transparent) 0 0/2.4rem 100% local,
linear-gradient(270deg,var(--page) 40%,transparent) calc(100% + 2px) 0/2.4rem 100% local,linear-gradient(90deg,var(--shade),transparent) 0 0/.7rem 100%,
linear-gradient(270deg,var(--shade),transparent) 100% 0/.7rem 100%;background-repeat:no-repeat}
.row{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem}.row>.wide{max-width:100%}
table{border-collapse:collapse;font-size:.88rem}
th,td{padding:.22rem .7rem .22rem 0;text-align:left;border-bottom:1px solid var(--edge);white-space:nowrap}
th{color:var(--soft);font-weight:600}
.number{text-align:right;font-variant-numeric:tabular-nums}
summary{cursor:pointer;font-weight:600;margin:1.4rem 0 .3rem}
.page{border-bottom:1px solid var(--edge)}.page>summary{margin:.3rem 0}
.brief{color:var(--soft);font-weight:400;font-size:.88rem;margin-left:.6rem}
svg{display:block;height:auto;font:11px system-ui,"DejaVu Sans",sans-serif}
svg text{fill:var(--text)}.rim{paint-order:stroke;stroke:var(--page);stroke-width:3}.grid{stroke:var(--edge)}.level{stroke:var(--soft);stroke-dasharray:5 4}
.cell:hover{stroke:var(--text);stroke-width:2}
.line{fill:none;stroke-width:2}.thin{fill:none;stroke-width:1.2;stroke-dasharray:none;vector-effect:non-scaling-stroke}.bar{fill:var(--c0)}.bar:hover{fill:var(--c1)}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1);stroke-dasharray:7 3}.c2{stroke:var(--c2);stroke-dasharray:2 3}
.c3{stroke:var(--c3);stroke-dasharray:9 3 2 3}.c4{stroke:var(--c4);stroke-dasharray:12 4}.c5{stroke:var(--c5)}
.dot{fill:var(--page);stroke-width:2;stroke-dasharray:none}
footer{margin-top:2.5rem;font-size:.88rem;color:var(--soft)}
@media print{body{max-width:none;padding:0}svg{max-width:100%}.wide{overflow:visible}h2,h3,summary{break-after:avoid}
svg,tr{break-inside:avoid}th,td{white-space:normal}.folded::details-content{content-visibility:visible;block-size:auto}}
)";

// A longer table shows its first rows; the others open on demand.
constexpr std::size_t kLongTable = 16, kFirstRows = 8;

/// Escaped; lines may break behind the separators of paths and module names, but not in numbers.
std::string breakable(const std::string& text) {
  const std::string escaped = escape_html(text);
  const auto is_digit = [&](std::size_t i) {
    return i < escaped.size() && escaped[i] >= '0' && escaped[i] <= '9';
  };
  std::string out;
  for (std::size_t i = 0; i < escaped.size(); ++i) {
    const char c = escaped[i];
    out += c;
    const bool point = c == '.' && i != 0 && is_digit(i - 1) && is_digit(i + 1);
    if ((c == '/' || c == '.' || c == '_') && !point) out += "<wbr>";
  }
  return out;
}

std::string html_of(const Facts& facts) {
  std::string out = "<dl>";
  for (const auto& [label, text] : facts.lines) {
    out += "<dt>" + escape_html(label) + "</dt><dd>" + breakable(text) + "</dd>";
  }
  return out + "</dl>\n";
}

std::string heading(const std::string& title) {
  return title.empty() ? std::string() : "<h3>" + escape_html(title) + "</h3>\n";
}

struct Writer {
  std::string operator()(const Paragraph& paragraph) const {
    return "<p>" + escape_html(paragraph.text) + "</p>\n";
  }
  std::string operator()(const Facts& facts) const { return html_of(facts); }
  std::string operator()(const Table& table) const {
    const std::size_t rows = table.rows.size();
    if (rows <= kLongTable) return heading(table.title) + rows_of(table, 0, rows);
    // What a terminal leaves out altogether is there to look something up in.
    if (table.short_rows == 0 && !table.title.empty()) {
      return folded(escape_html(table.title) + " (" + std::to_string(rows) + " rows)",
                    rows_of(table, 0, rows));
    }
    return heading(table.title) + rows_of(table, 0, kFirstRows) +
           folded(std::to_string(rows - kFirstRows) + " more rows",
                  rows_of(table, kFirstRows, rows));
  }
  std::string operator()(const HeatStrip& strip) const {
    return heading(strip.title) + scrolling(svg_of(strip)) + "\n";
  }
  std::string operator()(const LinePlot& plot) const {
    return heading(plot.title) + scrolling(svg_of(plot)) + "\n";
  }
  std::string operator()(const Histogram& histogram) const {
    return heading(histogram.title) + row(small_pictures(histogram));
  }
  std::string operator()(const Profile& profile) const {
    return heading(profile.title) + row(small_pictures(profile));
  }

  static std::string small_pictures(const Histogram& histogram) {
    return histogram.curves.empty() ? "" : scrolling(svg_of(histogram));
  }
  static std::string small_pictures(const Profile& profile) {
    if (profile.curves.empty()) return {};
    return scrolling(svg_of(profile, false)) + scrolling(svg_of(profile, true));
  }
  static std::string row(const std::string& pictures) {
    return pictures.empty() ? "" : "<div class=\"row\">" + pictures + "</div>\n";
  }

 private:
  static std::string folded(const std::string& summary, const std::string& content) {
    return "<details class=\"folded\"><summary>" + summary + "</summary>" + content +
           "</details>\n";
  }

  static std::string rows_of(const Table& table, std::size_t begin, std::size_t end) {
    // One that can be wider than the page scrolls by itself, so it can be reached by keyboard.
    std::string out = "<div class=\"wide\" tabindex=\"0\"><table><thead><tr>";
    const auto cell = [](const char* tag, const Column& column, const std::string& text) {
      return std::string("<") + tag + (column.number ? " class=\"number\">" : ">") +
             escape_html(text) + "</" + tag + ">";
    };
    for (const Column& column : table.columns) out += cell("th", column, column.name);
    out += "</tr></thead><tbody>\n";
    for (std::size_t r = begin; r < end; ++r) {
      const std::vector<std::string>& row = table.rows[r];
      out += "<tr>";
      for (std::size_t c = 0; c < row.size(); ++c) out += cell("td", table.columns[c], row[c]);
      out += "</tr>\n";
    }
    return out + "</tbody></table></div>\n";
  }

  static std::string scrolling(const std::string& picture) {
    return "<div class=\"wide\" tabindex=\"0\">" + picture + "</div>";
  }
};

std::string html_of(const Page& page) {
  std::string out = "<details class=\"page\"><summary>" + breakable(page.title) +
                    " <span class=\"brief\">" + escape_html(page.brief) + "</span></summary>\n";
  // Small pictures without a title of their own stand beside each other.
  std::string pictures;
  for (const Block& block : page.blocks) {
    const auto* histogram = std::get_if<Histogram>(&block);
    const auto* profile = std::get_if<Profile>(&block);
    if (histogram != nullptr && histogram->title.empty()) {
      pictures += Writer::small_pictures(*histogram);
    } else if (profile != nullptr && profile->title.empty()) {
      pictures += Writer::small_pictures(*profile);
    } else {
      out += Writer::row(std::exchange(pictures, {})) + std::visit(Writer{}, block);
    }
  }
  return out + Writer::row(pictures) + "</details>\n";
}

}  // namespace

std::string write_html(const Document& document) {
  std::string out =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>" +
      escape_html(document.title) + "</title>\n<style>" + kStyle + "</style></head><body>\n<h1>" +
      breakable(document.title) + "</h1>\n";
  out += "<p class=\"verdict\">" + escape_html(document.verdict) + "</p>\n" +
         html_of(document.facts) + html_of(document.glance);
  for (const Section& section : document.sections) {
    out += "<section><h2>" + escape_html(section.title) + "</h2>\n";
    for (const Block& block : section.blocks) out += std::visit(Writer{}, block);
    for (const Page& page : section.pages) out += html_of(page);
    out += "</section>\n";
  }
  out += "<footer>" + html_of(document.provenance) + "</footer>\n</body></html>\n";
  return out;
}

}  // namespace quell::report
