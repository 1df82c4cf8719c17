// SPDX-License-Identifier: Apache-2.0

// Writers give the same facts, and whatever a file put into a name stays text.

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "quell/report/write.hpp"

namespace quell::report {
namespace {

const std::string kHostile = "<script>alert('x')</script>|`a`\n\x1b[31m\xE2\x80\xAE&\"";

Document sample() {
  Document document;
  document.title = "Outliers of " + kHostile;
  document.verdict = "two <b>things</b> & more";
  document.facts.lines = {{"Model", kHostile}};
  Table table;
  table.title = "A table";
  table.columns = {{"name"}, {"value", true}};
  for (int r = 0; r < 30; ++r) table.rows.push_back({"row " + std::to_string(r) + kHostile, "7.5"});
  table.short_rows = 3;
  HeatStrip strip;
  strip.title = "A strip";
  strip.unit = "times";
  strip.rows = {"first" + kHostile, "second"};
  strip.columns = {"0", "1", "2"};
  strip.values = {{1, 31.6, 1000}, {std::nan(""), 5000, 0}};
  LinePlot plot;
  plot.title = "A plot";
  plot.x_name = "layer";
  plot.y_name = "percent";
  plot.places = {"0", "1", "2"};
  plot.lines = {{"one" + kHostile, {1, 2, INFINITY}}, {"two", {3, std::nan(""), 0.25}}};
  Histogram histogram;
  histogram.title = "A histogram" + kHostile;
  histogram.unit = "|w|";
  histogram.edges = {0.5, 1, 2, 4};
  histogram.curves = {{"before" + kHostile, {1, 1000, 0}}, {"after", {0, 1001, 0}}};
  Profile profile;
  profile.title = "A profile";
  profile.unit = "|x|";
  profile.channels = 5;
  profile.run = 2;
  profile.curves = {{"before" + kHostile, {1, 31.5, std::nan("")}, {31.5, 1, std::nan("")}}};
  document.sections = {{"Section " + kHostile,
                        {table, strip, plot, histogram, profile, Paragraph{kHostile}},
                        false,
                        {{"Page " + kHostile, "brief" + kHostile, {histogram, profile}}}}};
  document.provenance.lines = {{"Made by", kHostile}};
  return document;
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

TEST(Html, IsOneFileInWhichNothingRuns) {
  const std::string html = write_html(sample());
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("alert('x')"), std::string::npos);
  EXPECT_EQ(html.find("http"), std::string::npos);
  EXPECT_EQ(html.find("url("), std::string::npos);
  EXPECT_EQ(html.find('\x1b'), std::string::npos);
  EXPECT_EQ(html.find("\xE2\x80\xAE"), std::string::npos) << "a mark that reverses the text";
  EXPECT_NE(html.find("&lt;script&gt;"), std::string::npos);
  EXPECT_NE(html.find("two &lt;b&gt;things&lt;/b&gt; &amp; more"), std::string::npos);
}

TEST(Html, ClosesWhatItOpens) {
  const std::string html = write_html(sample());
  for (const std::string tag :
       {"html", "head", "body", "style", "section", "table", "thead", "tbody", "tr", "svg",
        "details", "summary", "dl", "footer", "p", "h1", "h2"}) {
    const std::size_t opened = count(html, "<" + tag + ">") + count(html, "<" + tag + " ");
    EXPECT_EQ(opened, count(html, "</" + tag + ">")) << tag;
    EXPECT_GT(opened, 0U) << tag;
  }
}

TEST(Html, ShowsEveryNumberOfAPicture) {
  const std::string html = write_html(sample());
  EXPECT_EQ(count(html, "class=\"cell\""), 5U);  // six less the missing one
  EXPECT_NE(html.find(", 1: 31.6 times"), std::string::npos);
  EXPECT_NE(html.find("5000 times"), std::string::npos);
  // Of the plot six less an infinity and a missing one; two of each of two profiles.
  EXPECT_EQ(count(html, "<circle"), 4U + 2 * 2);
  // Bars of the two bins that hold something, in two histograms.
  EXPECT_EQ(count(html, "class=\"bar\""), 2U * 2);
  EXPECT_NE(html.find("1 to 2: 1000"), std::string::npos);
  EXPECT_NE(html.find("channels 2 to 3: 31.5"), std::string::npos);
  EXPECT_EQ(html.find("nan"), std::string::npos);
  EXPECT_EQ(html.find("inf"), std::string::npos);
}

TEST(Text, IsPlainAsciiAndShort) {
  const std::string text = write_text(sample());
  for (const char c : text) EXPECT_TRUE(c == '\n' || (c >= ' ' && c <= '~')) << int{c};
  EXPECT_NE(text.find("... and 27 more"), std::string::npos);
  EXPECT_NE(text.find("|"), std::string::npos);
  EXPECT_NE(text.find("@"), std::string::npos);
}

TEST(Text, LeavesOutWhatIsLong) {
  Document document = sample();
  document.sections[0].long_form = true;
  EXPECT_EQ(write_text(document).find("A table"), std::string::npos);
  EXPECT_NE(write_html(document).find("A table"), std::string::npos);
}

TEST(Text, LeavesOutColumnsThatAreLongForm) {
  Document document;
  Table table;
  table.columns = {{"first"}, {"second", true, /*long_form=*/true}, {"third", true}};
  table.rows = {{"a", "hidden", "c"}};
  document.sections = {{"Section", {table}}};
  const std::string text = write_text(document);
  EXPECT_NE(text.find("  a          c\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("second"), std::string::npos);
  EXPECT_NE(write_markdown(document).find("hidden"), std::string::npos);
}

TEST(Text, ShowsASingleValueOfAHistogram) {
  Document document;
  Histogram histogram;
  histogram.unit = "|w|";
  histogram.edges = {1, 2, 4, 8, 16};
  histogram.curves = {{"w", {1e6, 0, 0, 1}}};
  document.sections = {{"Section", {histogram}}};
  EXPECT_NE(write_text(document).find("w |@  .|"), std::string::npos) << write_text(document);
}

TEST(Text, BreaksLinesAtEightyColumns) {
  Document document;
  std::string words;
  for (int i = 0; i < 60; ++i) words += "word" + std::to_string(i) + " ";
  document.verdict = words;
  const std::string text = write_text(document);
  std::size_t start = 0;
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', start)) {
    EXPECT_LE(end - start, 80U);
    start = end + 1;
  }
  EXPECT_NE(text.find("word59"), std::string::npos);
}

TEST(Markdown, SetsPicturesOfShadesOff) {
  const std::string text = write_markdown(sample());
  std::size_t start = 0, shades = 0;
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', start)) {
    const std::string line = text.substr(start, end - start);
    start = end + 1;
    if (line.find("before") == std::string::npos) continue;
    EXPECT_TRUE(line.starts_with("    ")) << line;
    ++shades;
  }
  EXPECT_EQ(shades, 4U);
}

TEST(WriteJson, HoldsTheDocumentWithASchema) {
  const Document document = sample();
  const auto json = io::parse_json(write_json(document).dump(1), "test");
  ASSERT_TRUE(json);
  EXPECT_EQ(json->members()[0].first, "schema");
  EXPECT_EQ(json->find("schema")->as_integer(), kDocumentSchema);
  EXPECT_EQ(json->find("title")->as_string(), document.title) << "as it came, not escaped";
  const io::Json& section = json->find("sections")->items()[0];
  std::vector<std::string> kinds;
  for (const io::Json& block : section.find("blocks")->items()) {
    kinds.push_back(block.find("kind")->as_string());
  }
  EXPECT_EQ(kinds, (std::vector<std::string>{"table", "heat_strip", "line_plot", "histogram",
                                             "profile", "paragraph"}));
  const io::Json& table = section.find("blocks")->items()[0];
  EXPECT_EQ(table.find("rows")->items().size(), 30U) << "all of them";
  const io::Json& strip = section.find("blocks")->items()[1];
  EXPECT_TRUE(strip.find("values")->items()[1].items()[0].is(io::Json::Kind::null));
  EXPECT_EQ(strip.find("values")->items()[1].items()[1].as_number(), 5000);
  const io::Json& page = section.find("pages")->items()[0];
  const io::Json& profile = page.find("blocks")->items()[1];
  EXPECT_EQ(profile.find("curves")->items()[0].find("sorted")->items()[0].as_number(), 31.5);
}

TEST(Markdown, KeepsCellsAndEscapesMarkup) {
  const std::string text = write_markdown(sample());
  EXPECT_EQ(text.find("<script"), text.find("\\<script\\>") == std::string::npos
                                      ? std::string::npos
                                      : text.find("\\<script") + 1);
  std::size_t start = 0;
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', start)) {
    const std::string line = text.substr(start, end - start);
    start = end + 1;
    if (!line.starts_with("| row")) continue;
    std::size_t bars = 0;
    for (std::size_t i = 0; i < line.size(); ++i) {
      bars += line[i] == '|' && (i == 0 || line[i - 1] != '\\') ? 1 : 0;
    }
    EXPECT_EQ(bars, 3U) << line;
  }
  EXPECT_NE(text.find("31.6"), std::string::npos);
}

TEST(Writers, TakeEmptyDocuments) {
  Document document;
  document.sections = {
      {"",
       {Table{}, HeatStrip{}, LinePlot{}, Histogram{}, Profile{}, Facts{}, Paragraph{}},
       false,
       {Page{}}}};
  EXPECT_FALSE(write_html(document).empty());
  EXPECT_FALSE(write_text(document).empty());
  EXPECT_FALSE(write_markdown(document).empty());
  EXPECT_FALSE(write_json(document).dump().empty());
}

}  // namespace
}  // namespace quell::report
