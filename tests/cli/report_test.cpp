// SPDX-License-Identifier: Apache-2.0

// `quell report` on real results, and on files that are none.

#include <gtest/gtest.h>

#include <string>

#include "cli/program.hpp"

namespace quell::test {
namespace {

struct TwoResults {
  TemporaryFolder folder;
  std::string a, b;

  TwoResults() {
    const std::string model = make_model(folder / "model").string();
    const std::string text = make_text(folder / "text.txt").string();
    a = (folder / "a").string();
    b = (folder / "b").string();
    for (const auto& [output, bits] : {std::pair{a, "4"}, {b, "3"}}) {
      quell_json({"quantize", model, "-o", output, "--calib", text, "--seqlen", "64", "--samples",
                  "4", "--bits", bits, "--group-size", "32", "--to", "quell"});
    }
  }
};

TEST(Report, ShowsAResultInTheTerminalAndAsAPage) {
  const TwoResults results;
  const Ended text = quell({"report", results.a});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_NE(text.out.find("geometric mean"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("down_proj"), std::string::npos);
  const std::string page = (results.folder / "page.html").string();
  EXPECT_EQ(quell({"report", results.a, "-o", page}).code, 0);
  const std::string html = read_bytes(page);
  EXPECT_TRUE(html.starts_with("<!doctype html>"));
  EXPECT_NE(html.find("<svg"), std::string::npos);
  const Ended markdown = quell({"report", results.a, "--format", "md"});
  EXPECT_TRUE(markdown.out.starts_with("# Result ")) << markdown.out;
}

TEST(Report, ComparesTwoResults) {
  const TwoResults results;
  const Ended text = quell({"report", results.a, results.b});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_NE(text.out.find("B has "), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("3.5 against 4.5 bits per weight"), std::string::npos) << text.out;
}

TEST(Report, RefusesWhatIsNoReport) {
  const TemporaryFolder folder;
  const std::string file = (folder / "quell-report.json").string();
  const auto refused = [&](const std::string& content, const std::string& says) {
    write_bytes(file, content);
    const Ended ended = quell({"report", folder.path().string()});
    EXPECT_EQ(ended.code, 3) << content;
    EXPECT_NE(ended.err.find(says), std::string::npos) << ended.err;
    EXPECT_TRUE(ended.out.empty());
  };
  refused("{}", "quantize");
  refused("{\"quantize\":{}}", "modules");
  refused("{\"quantize\":{\"modules\":[1]}}", "module");
  refused("{\"quantize\":", "quell-report.json");
  EXPECT_EQ(quell({"report", (folder / "nowhere").string()}).code, 3);
  write_bytes(file, "{\"quantize\":{\"modules\":[{\"name\":\"<b>x\",\"objective\":\"a\"}]}}");
  const Ended odd = quell({"report", file, "--format", "html"});
  EXPECT_EQ(odd.code, 0) << odd.err;
  EXPECT_NE(odd.out.find("&lt;b&gt;x"), std::string::npos);
  EXPECT_EQ(quell({"report", file, "--format", "pdf"}).code, 2);
}

}  // namespace
}  // namespace quell::test
