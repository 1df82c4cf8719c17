// SPDX-License-Identifier: Apache-2.0

// Outliers as JSON and back, and two of them side by side.

#include "quell/report/outlier_results.hpp"

#include <gtest/gtest.h>

#include <string>

#include "quell/report/write.hpp"
#include "report/made_up.hpp"

namespace quell::report {
namespace {

using namespace test;

io::Json json_of(const pipeline::OutlierReport& found) {
  return found.to_json([](std::int32_t id) { return "<token " + std::to_string(id) + ">"; });
}

OutlierResult read(const std::string& text) {
  auto json = io::parse_json(text, "test");
  EXPECT_TRUE(json) << text;
  auto result = read_outliers("file.json", *json);
  EXPECT_TRUE(result);
  return result ? *std::move(result) : OutlierResult();
}

TEST(OutlierResult, IsWhatWasWritten) {
  pipeline::OutlierReport found = made_up_outliers(3, 64);
  found.weights[1].nonfinite = 2;
  found.excluded = {{7, "layers.1.o_in"}};
  found.heads = {{1, 2, 0.5, 0.25, 0.125, true}, {2, 0, 0.1, 0, 0, false}};
  found.life_cycle.push_back(
      {pipeline::LifeCycleEvent::Kind::grown, 1, 7, 0, 1, 2.5f, 9.5f, 11, 3.0f, 0.5f, 0.75});
  const auto parsed = io::parse_json(json_of(found).dump(), "test");
  ASSERT_TRUE(parsed);
  ASSERT_TRUE(holds_outliers(*parsed));
  const auto result = read_outliers("file.json", *parsed);
  ASSERT_TRUE(result);
  // Writing what was read gives the same text: nothing is lost on the way.
  const auto again = result->found.to_json(
      [&](std::int32_t id) { return result->texts[static_cast<std::size_t>(id)]; });
  EXPECT_EQ(again.dump(1), parsed->dump(1));
  const std::string text = write_text(outlier_result_document("name", *result));
  EXPECT_NE(text.find("layers.1.down_in"), std::string::npos);
  EXPECT_NE(text.find("<token 1>"), std::string::npos);
}

TEST(OutlierResult, IsFoundInsideOfARun) {
  io::Json run = io::Json::object({{"quell_version", "9.9"}});
  run.set("outliers", json_of(made_up_outliers(2, 16)));
  ASSERT_TRUE(holds_outliers(run));
  const auto result = read_outliers("file.json", run);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->version, "9.9");
  EXPECT_EQ(result->found.weights.size(), 14U);
}

TEST(OutlierResult, TakesWhatIsMissingOrWrongAsNotMeasured) {
  for (const char* text : {
           "{\"tensors\":[]}",
           "{\"tensors\":[1,null,\"a\",[],{}]}",
           "{\"tensors\":[{\"name\":7,\"kind\":{},\"shape\":[1],\"absmax\":1e308,\"marked\":[]}]}",
           "{\"tensors\":[{\"marked\":{\"rows\":[3],\"elements\":{}}}],\"systematic\":[{}]}",
           "{\"tensors\":[],\"tokens\":-1,\"systematic\":[{\"kind\":\"channel\"}]}",
           "{\"tensors\":[],\"tokens\":9,\"systematic\":[{\"kind\":\"massive_activation\"}]}",
           "{\"tensors\":[],\"tokens\":9,\"sinks\":[{\"layer\":5}],\"first_token_mass\":[{}]}",
           "{\"tensors\":[],\"sinks\":[{\"layer\":4000000000}],\"life_cycle\":[{}],"
           "\"layers\":[{}]}",
       }) {
    const OutlierResult result = read(text);
    EXPECT_FALSE(write_html(outlier_result_document("name", result)).empty()) << text;
    EXPECT_FALSE(write_text(outlier_comparison_document("a", result, "b", result)).empty()) << text;
  }
  const auto none = io::parse_json("{\"tensors\":{}}", "test");
  ASSERT_TRUE(none);
  const auto refused = read_outliers("file.json", *none);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::parse);
  EXPECT_NE(refused.error().message.find("file.json"), std::string::npos);
}

TEST(OutlierComparison, SaysInOneLineWhatChanged) {
  OutlierResult a, b;
  a.texts = b.texts = {"<bos>", "the"};
  a.found = made_up_outliers(3, 64);
  b.found = a.found;
  EXPECT_EQ(outlier_comparison_document("a", a, "b", b).verdict,
            "from A to B: the same outliers in both");
  b.found.massive.clear();
  b.found.channels.clear();
  b.found.sinks.clear();
  const Document document = outlier_comparison_document("a", a, "b", b);
  EXPECT_EQ(document.verdict,
            "from A to B: massive activations 1 -> 0, systematic channels 1 -> 0, attention sinks "
            "1 -> 0");
  EXPECT_EQ(document.verdict.find('\n'), std::string::npos);
}

TEST(OutlierComparison, PutsTheLargestDifferenceFirst) {
  OutlierResult a, b;
  a.texts = b.texts = {"<bos>", "the"};
  a.found = made_up_outliers(2, 64);
  b.found = a.found;
  b.found.weights[5].median_abs /= 3;
  b.found.weights.erase(b.found.weights.begin() + 2);
  const Document document = outlier_comparison_document("a", a, "b", b);
  const Table* table = nullptr;
  for (const Block& block : document.sections.back().blocks) {
    if (const auto* found = std::get_if<Table>(&block)) table = found;
  }
  ASSERT_NE(table, nullptr);
  ASSERT_EQ(table->rows.size(), 14U);
  EXPECT_EQ(table->rows[0][0], a.found.weights[5].name);
  EXPECT_EQ(table->rows[13][0], a.found.weights[2].name) << "only A has it";
  EXPECT_EQ(table->rows[13][2], "-");
}

}  // namespace
}  // namespace quell::report
