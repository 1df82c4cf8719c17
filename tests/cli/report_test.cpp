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

TEST(Report, ShowsAndComparesOutliers) {
  const TemporaryFolder folder;
  const std::string text = make_text(folder / "text.txt").string();
  const std::string model = make_model(folder / "model").string();
  const std::string a = (folder / "a.json").string(), b = (folder / "b.json").string();
  const auto measure = [&](const std::string& file, std::vector<std::string> more) {
    std::vector<std::string> arguments = {"outliers", model, "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Ended ended = quell(arguments);
    ASSERT_EQ(ended.code, 0) << ended.err;
    write_bytes(file, ended.out);
  };
  measure(a, {"--calib", text, "--seqlen", "64", "--samples", "3"});
  measure(b, {});
  const Ended one = quell({"report", a});
  EXPECT_EQ(one.code, 0) << one.err;
  EXPECT_NE(one.out.find("Attention"), std::string::npos) << one.out;
  EXPECT_NE(one.out.find("Range"), std::string::npos);
  const Ended same = quell({"report", a, a});
  EXPECT_NE(same.out.find("the same outliers in both"), std::string::npos) << same.out;
  const Ended two = quell({"report", a, b});
  EXPECT_EQ(two.code, 0) << two.err;
  EXPECT_NE(two.out.find("x median A"), std::string::npos) << two.out;
  const io::Json json = [&] {
    const Ended ended = quell({"report", a, b, "--format", "json"});
    auto parsed = io::parse_json(ended.out, "standard output");
    EXPECT_TRUE(parsed) << ended.out;
    return parsed ? *parsed : io::Json();
  }();
  ASSERT_NE(json.find("schema"), nullptr);
  EXPECT_EQ(json.find("schema")->as_integer(), 1);
  const std::string verdict = json.find("verdict")->as_string();
  EXPECT_NE(verdict.find("activations are not measured in both"), std::string::npos) << verdict;

  const std::string result = (folder / "result.json").string();
  write_bytes(result, "{\"quantize\":{\"modules\":[]}}");
  expect_error(quell({"report", a, result}), 2, {a, result, "two of a kind"});
}

TEST(Run, LeavesAReportThatVerifyKnows) {
  const SmallJob job;
  const std::string held_out = make_text(job.folder / "other.txt", 1500).string();
  const std::string output = job.path("out");
  const std::vector<std::string> run = {
      "run",       job.model, "-o",           output, "--calib",   job.text,
      "--text",    held_out,  "--seqlen",     "64",   "--samples", "4",
      "--context", "64",      "--group-size", "32",   "--method",  "rtn"};
  const io::Json json = quell_json(run);
  EXPECT_EQ(json.find("report")->as_string(), output + "/report.html");
  for (const char* key : {"outliers", "quantize", "verify", "eval"}) {
    EXPECT_NE(json.find(key), nullptr) << key;
  }
  const std::string html = read_bytes(output + "/report.html");
  for (const char* words : {"Against the original", "Where the loss is", "Attention", "Range",
                            "Coverage", "one by one", "Text fingerprint", "Model fingerprint"}) {
    EXPECT_NE(html.find(words), std::string::npos) << words;
  }
  EXPECT_NE(html.find(hash_of(*json.find("quantize"))), std::string::npos);
  const io::Json verified = quell_json({"verify", output});
  EXPECT_TRUE(verified.find("complete")->as_boolean());
  EXPECT_TRUE(verified.find("problems")->items().empty());
  std::vector<std::string> again = run;
  again.push_back("--force");
  const Ended ended = quell(again);
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.out.find("report.html"), std::string::npos) << ended.out;
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
