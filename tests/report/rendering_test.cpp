// SPDX-License-Identifier: Apache-2.0

// Pages as a browser lays them out: nothing overlaps, nothing is cut off, everything can be read,
// wide and narrow, light and dark. The check runs inside of headless Chromium, from a script that
// is put into the page for the test; without Chromium the test is skipped.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "quell/report/outlier_results.hpp"
#include "quell/report/results.hpp"
#include "quell/report/write.hpp"
#include "report/made_up.hpp"
#include "support/files.hpp"
#include "support/process.hpp"

namespace quell::test {
namespace {

// Boxes may touch: fonts differ between machines by less than a pixel at these sizes.
const char* const kCheck = R"js(
<script>
addEventListener('load', () => {
  const found = [];
  const say = (what, node) => {
    const text = (node.textContent || node.getAttribute('aria-label') || '').trim().slice(0, 60);
    if (found.length < 40) found.push(what + ': <' + node.tagName.toLowerCase() + '> ' + text);
  };
  document.querySelectorAll('details').forEach(d => { d.open = true; });
  const page = document.documentElement;
  if (page.scrollWidth > innerWidth) say('page wider than the window by ' +
                                         (page.scrollWidth - innerWidth), document.body);
  const box = node => node.getBoundingClientRect();
  const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
                            Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1.5;
  let texts = 0;
  document.querySelectorAll('svg').forEach(svg => {
    const outer = box(svg);
    const names = [...svg.querySelectorAll('text')];
    const boxes = names.map(box);
    texts += names.length;
    boxes.forEach((a, i) => {
      if (a.left < outer.left - 1 || a.right > outer.right + 1 || a.top < outer.top - 1 ||
          a.bottom > outer.bottom + 1) say('outside of its picture', names[i]);
      for (let k = i + 1; k < boxes.length; ++k) {
        if (overlap(a, boxes[k])) say('overlaps "' + names[k].textContent + '"', names[i]);
      }
    });
  });
  const blocks = [...document.body.querySelectorAll(
      'h1,h2,h3,p,dl,dt,dd,details,summary,section,.wide,.row,footer')];
  blocks.forEach(node => {
    const scrolls = node.classList.contains('wide');
    if (!scrolls && node.scrollWidth > node.clientWidth + 1 && node.clientWidth > 0) {
      say('cut off or sticks out by ' + (node.scrollWidth - node.clientWidth), node);
    }
    if (scrolls && node.scrollHeight > node.clientHeight + 1) say('cut off below', node);
    const siblings = [...node.parentElement.children].filter(e => blocks.includes(e));
    siblings.slice(siblings.indexOf(node) + 1).forEach(other => {
      if (overlap(box(node), box(other))) say('overlaps <' + other.tagName + '>', node);
    });
  });
  document.querySelectorAll('table').forEach(table => {
    if (!table.parentElement.classList.contains('wide')) say('does not scroll', table);
  });
  const channel = value => {
    const c = value / 255;
    return c <= 0.04045 ? c / 12.92 : Math.pow((c + 0.055) / 1.055, 2.4);
  };
  const numbers = colour => (colour.match(/[\d.]+/g) || []).map(Number);
  const luminance = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const background = node => {
    for (let at = node; at; at = at.parentElement) {
      const c = numbers(getComputedStyle(at).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const contrast = (colour, node) => {
    const a = luminance(numbers(colour)), b = luminance(background(node));
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  let read = 0;
  document.body.querySelectorAll('*').forEach(node => {
    const style = getComputedStyle(node);
    const own = [...node.childNodes].some(c => c.nodeType === 3 && c.textContent.trim());
    if (own && !['SCRIPT', 'PRE', 'title'].includes(node.tagName)) {
      ++read;
      const colour = node instanceof SVGElement ? style.fill : style.color;
      const ratio = contrast(colour, node);
      if (!(ratio >= 4.5)) say('contrast ' + ratio.toFixed(2), node);
    }
    if (node instanceof SVGElement && /\b(line|thin|dot)\b/.test(node.getAttribute('class') || '')) {
      const ratio = contrast(style.stroke, node);
      if (!(ratio >= 3)) say('contrast of a line ' + ratio.toFixed(2), node);
    }
  });
  parent.document.getElementById('checked').textContent =
      ['checked ' + innerWidth + ' wide, ' + texts + ' names, ' + read + ' texts, dark ' +
       matchMedia('(prefers-color-scheme:dark)').matches, ...found].join('\n');
});
</script></body>)js";

/// The path of Chromium, or empty.
std::string chromium() {
  const char* path = std::getenv("PATH");
  std::stringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    for (const char* name : {"chromium", "chromium-browser", "google-chrome"}) {
      const std::filesystem::path file = std::filesystem::path(folder) / name;
      std::error_code failure;
      if (std::filesystem::is_regular_file(file, failure)) return file.string();
    }
  }
  return {};
}

std::string as_attribute(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '&' ? "&amp;" : c == '"' ? "&quot;" : std::string(1, c);
  return out;
}

/// What the check found in a page; the first line says what it looked at. The page stands in a
/// frame, as a window of Chromium is at least 500 wide.
std::vector<std::string> look(const std::string& page, int width, bool dark) {
  const TemporaryFolder folder;
  const std::string file = (folder / "page.html").string();
  std::string html = page;
  html.replace(html.rfind("</body>"), std::string("</body>").size(), kCheck);
  write_bytes(file,
              "<!doctype html><html><head><meta charset=\"utf-8\">"
              "<meta name=\"color-scheme\" content=\"light dark\"></head><body>"
              "<pre id=\"checked\" hidden></pre><iframe style=\"border:0\" height=\"2000\" "
              "width=\"" +
                  std::to_string(width) + "\" srcdoc=\"" + as_attribute(html) +
                  "\"></iframe></body></html>");
  const Ended ended =
      run_process({"/usr/bin/env", "timeout", "120", chromium(), "--headless", "--no-sandbox",
                   "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                   "--user-data-dir=" + (folder / "profile").string(),
                   std::string("--blink-settings=preferredColorScheme=") + (dark ? "0" : "1"),
                   "--window-size=1400,2100", "--dump-dom", "file://" + file});
  EXPECT_EQ(ended.code, 0) << ended.err;
  std::vector<std::string> lines;
  const std::string begin = "<pre id=\"checked\" hidden=\"\">";
  const std::size_t at = ended.out.find(begin);
  if (at == std::string::npos) {
    ADD_FAILURE() << "the check did not run: " << ended.err;
    return lines;
  }
  const std::size_t start = at + begin.size();
  std::stringstream text(ended.out.substr(start, ended.out.find("</pre>", start) - start));
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

class Rendering : public ::testing::Test {
 protected:
  void SetUp() override {
    if (chromium().empty()) GTEST_SKIP() << "Chromium is not installed";
  }

  static void expect_readable(const std::string& name, const report::Document& document) {
    const std::string page = report::write_html(document);
    for (const int width : {1280, 400}) {
      for (const bool dark : {false, true}) {
        const std::vector<std::string> found = look(page, width, dark);
        ASSERT_FALSE(found.empty());
        EXPECT_TRUE(found[0].starts_with("checked " + std::to_string(width) + " wide")) << found[0];
        EXPECT_TRUE(found[0].ends_with(dark ? "dark true" : "dark false")) << found[0];
        EXPECT_EQ(found[0].find(" 0 texts"), std::string::npos) << found[0];
        for (std::size_t i = 1; i < found.size(); ++i) {
          ADD_FAILURE() << name << ", " << width << " wide, " << (dark ? "dark" : "light") << ": "
                        << found[i];
        }
      }
    }
  }
};

TEST_F(Rendering, TheCheckSeesWhatIsWrong) {
  const std::string head =
      "<!doctype html><html><head><style>body{margin:0;background:#fff;color:#000}"
      "</style></head><body>";
  const auto says = [&](const std::string& body, const std::string& what) {
    std::string all;
    for (const std::string& line : look(head + body + "</body></html>", 400, false)) {
      all += line + "\n";
    }
    EXPECT_NE(all.find(what), std::string::npos) << all;
  };
  const std::string svg =
      "<div class=\"wide\" style=\"overflow-x:auto\">"
      "<svg viewBox=\"0 0 100 50\" width=\"100\" height=\"50\">";
  says(svg + "<text x=\"5\" y=\"20\">one</text><text x=\"8\" y=\"20\">two</text></svg></div>",
       "overlaps \"two\"");
  says(svg + "<text x=\"90\" y=\"20\">sticks out</text></svg></div>", "outside of its picture");
  says("<p style=\"width:900px\">wide</p>", "page wider");
  says("<p style=\"width:50px;overflow:hidden;white-space:nowrap\">cut off at the edge</p>",
       "cut off");
  says("<p>one</p><p style=\"margin-top:-30px\">two</p>", "overlaps");
  says("<p style=\"color:#bbb\">pale</p>", "contrast");
  says("<table><tr><td>a table</td></tr></table>", "does not scroll");
}

TEST_F(Rendering, OfAnOutlierReportIsReadable) {
  const pipeline::OutlierReport found = made_up_outliers(4, 300);
  const pipeline::Sensitivity sensitivity = made_up_sensitivity(4);
  report::OutlierInputs inputs = inputs_of(found);
  inputs.sensitivity = &sensitivity;
  expect_readable("outliers", report::outlier_document(inputs));
}

TEST_F(Rendering, OfManyLayersIsReadable) {
  // Pages of modules are the same for any number of layers; what changes are strips and plots.
  const pipeline::OutlierReport found = made_up_outliers(80, 16);
  const pipeline::Sensitivity sensitivity = made_up_sensitivity(80);
  report::OutlierInputs inputs = inputs_of(found);
  inputs.sensitivity = &sensitivity;
  report::Document document = report::outlier_document(inputs);
  for (report::Section& section : document.sections) {
    if (section.pages.size() > 2) section.pages.resize(2);
  }
  expect_readable("many layers", document);
}

TEST_F(Rendering, OfAComparisonIsReadable) {
  report::OutlierResult a, b;
  a.texts = b.texts = {"<bos>", "a token that is long"};
  a.found = made_up_outliers(4, 64);
  b.found = made_up_outliers(3, 64);
  b.found.massive.clear();
  expect_readable("comparison", report::outlier_comparison_document("first", a, "second", b));
}

TEST_F(Rendering, OfHostileNamesIsReadable) {
  const std::string hostile = "<script>alert('x')</script>|`a`\n\x1b[31m\xE2\x80\xAE&\"" +
                              std::string(150, 'W') + "\xE6\xBC\xA2\xE5\xAD\x97";
  report::Document document;
  document.title = "Outliers of " + hostile;
  document.verdict = hostile;
  document.facts.lines = {{"Model", hostile}, {hostile, "text"}};
  report::HeatStrip strip{
      "A strip " + hostile, "times", {hostile, "b"}, {"0", "100000"}, {}, 1, 10};
  strip.values = {{1, 10}, {std::nan(""), 5}};
  report::LinePlot plot;
  plot.title = hostile;
  plot.x_name = "layer";
  plot.y_name = "percent";
  plot.places = {"0", "1", "2"};
  plot.lines = {
      {hostile, {1, 2, INFINITY}}, {"two", {3, std::nan(""), 0.25}}, {"three", {0, 0, 0}}};
  report::LinePlot logarithmic = plot;
  logarithmic.logarithmic = true;
  report::Histogram histogram{"", "|w|", {0.1, 1, 10}, {{"before", {1, 1e9}}, {"after", {7, 0}}}};
  report::Profile profile{
      "",
      "|x|",
      3,
      1,
      {{"before", {0, 1, 2}, {2, 1, 0}}, {hostile, {1e-9, 1e9, 2}, {1e9, 2, 1e-9}}}};
  report::Table table{"A table " + hostile, {{"name"}, {"value", true}}, {{hostile, "7.5"}}};
  report::Page page{hostile, hostile, {histogram, profile, report::Paragraph{hostile}}};
  document.sections = {
      {"Section " + hostile,
       {table, strip, plot, logarithmic, histogram, profile, report::Paragraph{hostile}},
       false,
       {page}}};
  document.provenance.lines = {{"Made by", hostile}};
  expect_readable("hostile", document);
}

}  // namespace
}  // namespace quell::test
