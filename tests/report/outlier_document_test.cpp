// SPDX-License-Identifier: Apache-2.0

// What the outlier report says of made-up measurements: dangers, coverage, pages, sensitivity.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "quell/report/outliers.hpp"
#include "quell/report/write.hpp"
#include "report/made_up.hpp"
#include "report/sensitivity.hpp"

namespace quell::report {
namespace {

using namespace test;

const Section* section_of(const Document& document, const std::string& title) {
  for (const Section& section : document.sections) {
    if (section.title == title) return &section;
  }
  return nullptr;
}

template <typename Kind>
const Kind* first_of(const Section* section) {
  if (section == nullptr) return nullptr;
  for (const Block& block : section->blocks) {
    if (const auto* found = std::get_if<Kind>(&block)) return found;
  }
  return nullptr;
}

TEST(Range, IsOneSentenceWhereNothingIsWrong) {
  const pipeline::OutlierReport found = made_up_outliers(2, 64);
  const Document document = outlier_document(inputs_of(found));
  const Section* range = section_of(document, "Range");
  ASSERT_NE(range, nullptr);
  ASSERT_EQ(range->blocks.size(), 1U);
  ASSERT_NE(first_of<Paragraph>(range), nullptr);
  EXPECT_NE(first_of<Paragraph>(range)->text.find("All values are finite"), std::string::npos);
}

TEST(Glance, FitsAScreenWithTheWorstOfEachKind) {
  const pipeline::OutlierReport found = made_up_outliers(32, 64);
  const pipeline::Sensitivity sensitivity = made_up_sensitivity(32);
  OutlierInputs inputs = inputs_of(found);
  inputs.sensitivity = &sensitivity;
  const std::string screen = write_screen(outlier_document(inputs));
  EXPECT_LE(std::count(screen.begin(), screen.end(), '\n'), 22) << screen;
  std::size_t begin = 0;
  for (std::size_t end; (end = screen.find('\n', begin)) != std::string::npos; begin = end + 1) {
    EXPECT_LE(end - begin, 80U) << screen;
  }
  for (const char* label : {"Damage ", "Do ", "Weights ", "Range "}) {
    EXPECT_NE(screen.find(label), std::string::npos) << screen;
  }
  EXPECT_EQ(screen.find("self_attn.q_proj |"),
            std::string::npos);  // pictures are for the long form
}

TEST(Glance, NamesTheBestActionThatCanBeTakenToday) {
  const pipeline::OutlierReport found = made_up_outliers(2, 64);
  pipeline::Sensitivity sensitivity = made_up_sensitivity(2);
  pipeline::Cure later, today;
  later.module = today.module = "a.b";
  later.action = "inputs rotated in blocks of 128";
  later.gain = 2;
  today.action = "int8full:sym:oc:g32";
  today.available = true;
  today.gain = 1;
  today.bytes = 1'500'000;
  sensitivity.cures = {later, today};
  OutlierInputs inputs = inputs_of(found);
  inputs.sensitivity = &sensitivity;
  const auto line = [&] {
    for (const auto& [label, text] : outlier_document(inputs).glance.lines) {
      if (label == "Do") return text;
    }
    return std::string();
  };
  EXPECT_EQ(line(), "--rule a.b=int8full:sym:oc:g32: 1 less damage for 1.5 MB");
  sensitivity.cures = {later};
  EXPECT_EQ(line(), "inputs rotated in blocks of 128 in a.b (not yet): 2 less damage for nothing");
  sensitivity.cures.clear();
  EXPECT_EQ(line(), "");
}

TEST(Range, ListsOnlyTheTensorsInDanger) {
  pipeline::OutlierReport found = made_up_outliers(3, 64);
  found.weights[0].nonfinite = 3;
  found.weights[2].fp16_overflow = 2;
  found.weights[4].fp16_subnormal = 4096 * 64 / 5;   // a fifth
  found.weights[5].fp16_subnormal = 4096 * 64 / 50;  // as every matrix has
  found.weights[6].zero_columns = 1;
  found.activations[1].absmax = 70000;
  const Document document = outlier_document(inputs_of(found));
  const Table* table = first_of<Table>(section_of(document, "Range"));
  ASSERT_NE(table, nullptr);
  ASSERT_EQ(table->rows.size(), 5U);
  EXPECT_EQ(table->rows[0][0], found.weights[0].name);
  EXPECT_EQ(table->rows[0][1], "3");
  EXPECT_EQ(table->rows[1][2], "2");
  EXPECT_EQ(table->rows[2][3], "20 %");
  EXPECT_EQ(table->rows[3][5], "1");
  EXPECT_EQ(table->rows[4][0], found.activations[1].name);
  EXPECT_EQ(table->rows[4][2], "yes");
}

TEST(Coverage, SaysWhenAWideInputHasMoreChannelsThanTokens) {
  pipeline::OutlierReport found = made_up_outliers(2, 64);
  OutlierInputs inputs = inputs_of(found);
  const auto text = [&] {
    return first_of<Paragraph>(section_of(outlier_document(inputs), "Coverage"))->text;
  };
  EXPECT_NE(text().find("full rank"), std::string::npos) << text();
  found.excluded = {{7, "layers.1.o_in"}};
  EXPECT_NE(text().find("1 more left out"), std::string::npos) << text();
  EXPECT_NE(text().find("sequence 7, from layers.1.o_in on"), std::string::npos) << text();
  found.tokens = 63;
  EXPECT_NE(text().find("rank 63 at most"), std::string::npos) << text();
  EXPECT_NE(text().find("damping"), std::string::npos) << text();
}

TEST(Pages, ThereIsOneForEveryTensor) {
  const pipeline::OutlierReport found = made_up_outliers(2, 1000);
  const pipeline::Sensitivity sensitivity = made_up_sensitivity(2);
  OutlierInputs inputs = inputs_of(found);
  inputs.sensitivity = &sensitivity;
  const Document document = outlier_document(inputs);
  const Section* weights = section_of(document, "Weight matrices, one by one");
  ASSERT_NE(weights, nullptr);
  ASSERT_EQ(weights->pages.size(), 14U);
  EXPECT_EQ(weights->pages[13].title, module_name(1, "mlp.down_proj"));
  EXPECT_NE(weights->pages[13].brief.find("damage 0.03"), std::string::npos)
      << weights->pages[13].brief;
  bool histogram = false, profile = false;
  for (const Block& block : weights->pages[13].blocks) {
    histogram = histogram || std::holds_alternative<Histogram>(block);
    if (const auto* found_profile = std::get_if<Profile>(&block)) {
      profile = true;
      EXPECT_EQ(found_profile->channels, 1000U);
      EXPECT_LE(found_profile->curves[0].by_channel.size(), 256U);
    }
  }
  EXPECT_TRUE(histogram && profile);
  const Section* activations = section_of(document, "Activations, one by one");
  ASSERT_NE(activations, nullptr);
  EXPECT_EQ(activations->pages.size(), 11U);
  EXPECT_EQ(write_text(document).find("one by one"), std::string::npos);
  EXPECT_NE(write_html(document).find("one by one"), std::string::npos);
}

// What a user opens must stay small: 224 matrices and 161 activations of 4,096 channels, and twice
// as many layers, which have fewer points each.
TEST(Pages, KeepAReportBelowFiveMegabytes) {
  for (const std::size_t layers : {std::size_t{32}, std::size_t{80}}) {
    const pipeline::OutlierReport found = made_up_outliers(layers, 4096);
    const pipeline::Sensitivity sensitivity = made_up_sensitivity(layers);
    OutlierInputs inputs = inputs_of(found);
    inputs.sensitivity = &sensitivity;
    const std::string html = write_html(outlier_document(inputs));
    EXPECT_LT(html.size(), 5'000'000U) << layers << " layers";
    EXPECT_GT(html.size(), 500'000U) << "where are the pages?";
    RecordProperty("bytes_of_" + std::to_string(layers) + "_layers", std::to_string(html.size()));
  }
}

TEST(Verdict, NamesTheFewModulesThatDoTheDamage) {
  const pipeline::OutlierReport found = made_up_outliers(4, 64);
  const pipeline::Sensitivity sensitivity = made_up_sensitivity(4);
  OutlierInputs inputs = inputs_of(found);
  inputs.sensitivity = &sensitivity;
  const std::string verdict = outlier_document(inputs).verdict;
  // 0.03 of 0.03 + 27 parts of 0.02 / 28.
  EXPECT_NE(verdict.find("61 % of the damage from 1 of 28 modules: keep " +
                         module_name(1, "mlp.down_proj") + " high"),
            std::string::npos)
      << verdict;
}

TEST(Verdict, NamesNoModuleWhereTheDamageIsEven) {
  pipeline::Sensitivity sensitivity = made_up_sensitivity(4);
  for (pipeline::ModuleSensitivity& module : sensitivity.modules) module.damage = 0.001;
  EXPECT_NE(damage_clause(sensitivity).find("50 % of the damage from 14 of 28 modules, too many"),
            std::string::npos)
      << damage_clause(sensitivity);
  for (pipeline::ModuleSensitivity& module : sensitivity.modules) module.damage = -1e-9;
  EXPECT_NE(damage_clause(sensitivity).find("no single module"), std::string::npos);
  sensitivity.modules.clear();
  EXPECT_NE(damage_clause(sensitivity).find("no single module"), std::string::npos);
}

TEST(Sensitivity, StandsOnTheAxisOfTheWeights) {
  const pipeline::OutlierReport found = made_up_outliers(4, 64);
  pipeline::Sensitivity sensitivity = made_up_sensitivity(4);
  // Modules that are not quantized leave a gap, not another axis.
  std::erase_if(sensitivity.modules, [](const auto& module) {
    return module.name == module_name(0, "self_attn.q_proj");
  });
  OutlierInputs inputs = inputs_of(found);
  inputs.sensitivity = &sensitivity;
  const Document document = outlier_document(inputs);
  const auto* damage = first_of<HeatStrip>(section_of(document, "Which modules hurt"));
  const auto* severity = first_of<HeatStrip>(section_of(document, "Weights"));
  ASSERT_NE(damage, nullptr);
  ASSERT_NE(severity, nullptr);
  EXPECT_EQ(damage->rows, severity->rows);
  EXPECT_EQ(damage->columns, severity->columns);
  EXPECT_TRUE(std::isnan(damage->values[0][0]));
  EXPECT_EQ(damage->values[6][1], 0.03);
  EXPECT_EQ(damage->high, 0.1) << "the power of ten above the largest";
  const auto* table = first_of<Table>(section_of(document, "Which modules hurt"));
  ASSERT_NE(table, nullptr);
  EXPECT_EQ(table->rows[0][0], module_name(1, "mlp.down_proj"));
  EXPECT_EQ(table->rows[0][3], "20") << "times the noise";
}

TEST(Sensitivity, SaysWhetherModulesHurtIndependently) {
  const PlaceAxis axis(std::vector<std::string>{});
  pipeline::Sensitivity sensitivity = made_up_sensitivity(2);
  const auto sentence = [&] {
    return std::get<Paragraph>(sensitivity_sections(sensitivity, axis)[0].blocks[0]).text;
  };
  EXPECT_NE(sentence().find("nearly independently"), std::string::npos) << sentence();
  sensitivity.together = 0.01;
  EXPECT_NE(sentence().find("cancel"), std::string::npos) << sentence();
  sensitivity.together = 1;
  EXPECT_NE(sentence().find("add to each other"), std::string::npos) << sentence();
  sensitivity.together = 0;
  EXPECT_NE(sentence().find("no damage"), std::string::npos) << sentence();
}

TEST(Sensitivity, RanksActionsAndSaysWhichCannotBeDoneYet) {
  const PlaceAxis axis(std::vector<std::string>{});
  const std::vector<Section> sections = sensitivity_sections(made_up_sensitivity(2), axis);
  ASSERT_GE(sections.size(), 3U);
  const auto* table = first_of<Table>(&sections[1]);
  ASSERT_NE(table, nullptr);
  ASSERT_EQ(table->rows.size(), 3U);
  EXPECT_EQ(table->rows[0],
            (std::vector<std::string>{"int4:sym:ic:g128", module_name(1, "mlp.down_proj"), "0.006",
                                      "0", "free", "-", "yes"}));
  // 0.024 nats for 0.3 MB are 0.08 for each MB.
  EXPECT_EQ(table->rows[1],
            (std::vector<std::string>{"41 columns kept in f16", module_name(1, "mlp.down_proj"),
                                      "0.024", "0.3", "0.08", "0.0235", "not yet"}));
}

TEST(Sensitivity, TellsOfEveryModuleWhatEachKindOfActionLeaves) {
  const PlaceAxis axis(std::vector<std::string>{});
  const std::vector<Section> sections = sensitivity_sections(made_up_sensitivity(2), axis);
  const auto* table = std::get_if<Table>(&sections[1].blocks.back());
  ASSERT_NE(table, nullptr);
  ASSERT_EQ(table->rows.size(), 14U);
  EXPECT_EQ(table->columns.size(), 7U);
  EXPECT_EQ(table->columns[4].name, "kept columns");
  EXPECT_EQ(table->rows[0], (std::vector<std::string>{module_name(0, "self_attn.q_proj"), "0.004",
                                                      "0.8", "-", "-", "-", "-"}));
}

TEST(Sensitivity, OfAnEncoderIsACosineError) {
  pipeline::Sensitivity sensitivity = made_up_sensitivity(2);
  sensitivity.encoder = true;
  const PlaceAxis axis(std::vector<std::string>{});
  Document document;
  document.sections = sensitivity_sections(sensitivity, axis);
  const std::string text = write_text(document);
  EXPECT_NE(text.find("cosine error"), std::string::npos);
  EXPECT_EQ(text.find("KL"), std::string::npos) << text;
  EXPECT_EQ(text.find("nats"), std::string::npos) << text;
}

TEST(Sensitivity, ShowsHowTheErrorTravels) {
  const PlaceAxis axis(std::vector<std::string>{});
  const std::vector<Section> sections = sensitivity_sections(made_up_sensitivity(3), axis);
  ASSERT_GE(sections.size(), 3U);
  const auto* plot = first_of<LinePlot>(&sections[2]);
  ASSERT_NE(plot, nullptr);
  EXPECT_EQ(plot->places, (std::vector<std::string>{"0", "1", "2"}));
  // R = A + B + C = 0.004 + 0.003 + 0.0002 behind the last block.
  EXPECT_NEAR(plot->lines[0].values[2], 0.0072, 1e-12);
  const auto* table = first_of<Table>(&sections[2]);
  ASSERT_NE(table, nullptr);
  EXPECT_EQ(table->rows.size(), 21U);
  EXPECT_EQ(table->rows[0][0], module_name(1, "mlp.down_proj")) << "the largest R first";
}

}  // namespace
}  // namespace quell::report
