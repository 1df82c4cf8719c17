// SPDX-License-Identifier: Apache-2.0

// `quell outliers --sensitivity`, judged by what `quantize` and `eval` make of the same plan:
// damage of all modules together, of all but one, and with the cure that was ranked first.

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "cli/program.hpp"
#include "support/shared.hpp"

namespace quell::test {
namespace {

using Arguments = std::vector<std::string>;

std::string source(const std::string& path) {
  return std::string(QUELL_SOURCE_DIR) + "/" + path;
}

struct Subject {
  std::string model, text;
  std::string tokens;   // that sensitivity uses and eval scores
  std::string context;  // divides them
  bool documents = false;

  Arguments outliers() const {
    Arguments arguments{"outliers",      model,          "--calib", text,
                        "--sensitivity", "--samples",    "99999",   "--seqlen",
                        context,         "--max-tokens", tokens};
    if (documents) arguments.push_back("--documents");
    return arguments;
  }
  /// Mean KL of a model quantized by plain rounding with the options given.
  double kl(const Arguments& options) const {
    const TemporaryFolder folder;
    const std::string out = (folder / "out").string();
    Arguments quantize{"quantize", model, "-o", out, "--method", "rtn", "--to", "quell"};
    quantize.insert(quantize.end(), options.begin(), options.end());
    const Ended ended = quell(quantize);
    EXPECT_EQ(ended.code, 0) << ended.err;
    Arguments eval{"eval", out,         "--against", model,          "--text",
                   text,   "--context", context,     "--max-tokens", tokens};
    if (documents) eval.push_back("--documents");
    return quell_json(eval).find("against")->find("kl_mean")->as_number();
  }
};

double number(const io::Json& json, const char* key) {
  return json.find(key)->as_number();
}

const io::Json* module_named(const io::Json& report, const std::string& name) {
  for (const io::Json& module : report.find("sensitivity")->items()) {
    if (module.find("name")->as_string() == name) return &module;
  }
  return nullptr;
}

void check(const Subject& subject, std::size_t modules) {
  const io::Json report = quell_json(subject.outliers());
  ASSERT_EQ(report.find("sensitivity")->items().size(), modules);
  const double together = number(report, "sensitivity_together");
  const double ratio = number(report, "sensitivity_sum_ratio");
  EXPECT_GT(ratio, 0.5);
  EXPECT_LT(ratio, 2.0);
  double sum = 0;
  const io::Json* worst = nullptr;
  for (const io::Json& module : report.find("sensitivity")->items()) {
    sum += number(module, "kl");
    // Noise of the same size does about the same: plain rounding errors have no direction.
    EXPECT_LT(number(module, "kl"), 3 * number(module, "noise_kl") + 1e-5);
    EXPECT_GT(number(module, "kl"), number(module, "noise_kl") / 3 - 1e-5);
    if (worst == nullptr || number(module, "kl") > number(*worst, "kl")) worst = &module;
  }
  EXPECT_NEAR(sum / together, ratio, 1e-9);

  // The same sums in another order: of float32 logits, 1e-6 of a mean of 1e-2.
  EXPECT_NEAR(subject.kl({}), together, 1e-4 * together);
  const std::string worst_name = worst->find("name")->as_string();
  EXPECT_NEAR(together - subject.kl({"--rule", worst_name + "=keep"}), number(*worst, "kept_gain"),
              1e-4 * together);

  // The first ranked action of those that a grid can express, and of all.
  const auto& actions = report.find("actions")->items();
  ASSERT_FALSE(actions.empty());
  const io::Json* first = nullptr;
  const io::Json* first_available = nullptr;
  for (const io::Json& action : actions) {
    const std::string& kind = action.find("kind")->as_string();
    const bool counted = kind == "bits" || kind == "direction" || kind == "kept_columns";
    if (first == nullptr && counted) first = &action;
    if (first_available == nullptr && action.find("available")->as_boolean() &&
        action.find("measured_gain")->kind() != io::Json::Kind::null) {
      first_available = &action;
    }
    EXPECT_GT(number(action, "gain"), 0.01 * together);
    EXPECT_NE(module_named(report, action.find("module")->as_string()), nullptr);
  }
  ASSERT_NE(first, nullptr);
  ASSERT_NE(first->find("measured_gain")->kind(), io::Json::Kind::null);
  EXPECT_LT(number(*first, "gain"), 2 * number(*first, "measured_gain"));
  EXPECT_GT(number(*first, "gain"), number(*first, "measured_gain") / 2);
  ASSERT_NE(first_available, nullptr);
  const double applied =
      together - subject.kl({"--rule", first_available->find("module")->as_string() + "=" +
                                           first_available->find("action")->as_string()});
  EXPECT_NEAR(applied, number(*first_available, "measured_gain"), 1e-4 * together);

  // Along the model the error is what came in, what is new, and what they do to each other.
  double before = 0;
  std::size_t blocks = 0;
  for (const io::Json& stage : report.find("propagation")->items()) {
    EXPECT_NEAR(number(stage, "a") + number(stage, "b") + number(stage, "c"), number(stage, "r"),
                1e-12);
    if (stage.find("kind")->as_string() != "block") {
      EXPECT_NEAR(number(stage, "g1") * number(stage, "g2"), number(stage, "gain"),
                  1e-9 * (1 + number(stage, "gain")));
      EXPECT_NEAR(number(stage, "g1"), 1, 0.2);
      continue;
    }
    EXPECT_NEAR(number(stage, "r_before"), before, 1e-6 * before);
    before = number(stage, "r");
    ++blocks;
  }
  EXPECT_EQ(blocks, modules / 7);
}

TEST(Sensitivity, OfTheDemonstrationModelIsWhatQuantizingItCosts) {
  check({source("examples/models/books7m"), source("examples/text/evaluation.txt"), "512", "128"},
        56);
}

TEST(Sensitivity, OfAModelWithOutliersIsWhatQuantizingItCosts) {
  const auto model = shared_path("models/tiny1m"), text = shared_path("text/tinystories-700.txt");
  if (!model || !text) GTEST_SKIP() << "models/tiny1m is not at hand";
  check({model->string(), text->string(), "4096", "128"}, 28);
}

TEST(Sensitivity, OfAnEncoderIsACosineError) {
  const auto model = shared_path("models/minilm-l6");
  if (!model) GTEST_SKIP() << "models/minilm-l6 is not at hand";
  const io::Json report = quell_json(
      {"outliers", model->string(), "--ids", (*model / "reference/sentence_ids.npy").string(),
       "--lengths", (*model / "reference/sentence_lengths.npy").string(), "--samples", "99999",
       "--sensitivity", "--sensitivity-tokens", "300"});
  ASSERT_EQ(report.find("sensitivity")->items().size(), 36U);
  for (const io::Json& module : report.find("sensitivity")->items()) {
    EXPECT_GT(number(module, "cosine_error"), 0);
    EXPECT_LT(number(module, "cosine_error"), 0.2);
    EXPECT_EQ(module.find("kl"), nullptr);
  }
  EXPECT_GT(number(report, "sensitivity_sum_ratio"), 0.5);
  EXPECT_LT(number(report, "sensitivity_sum_ratio"), 2);
}

TEST(Sensitivity, IsTheSameForAnyNumberOfThreadsAndInstructionSet) {
  const auto run = [](const std::string& threads, const Environment& environment) {
    io::Json report = quell_json({"outliers", source("examples/models/books7m"), "--calib",
                                  source("examples/text/evaluation.txt"), "--samples", "1",
                                  "--seqlen", "48", "--sensitivity", "--threads", threads},
                                 environment);
    report.set("seconds", 0);
    report.set("peak_rss_bytes", 0);
    return report.dump();
  };
  EXPECT_EQ(run("3", {{"QUELL_ISA", "avx2"}}), run("1", {}));
}

TEST(Sensitivity, SaysWhatItNeeds) {
  const std::string model = source("examples/models/books7m");
  const std::string text = source("examples/text/evaluation.txt");
  const Ended bare = quell({"outliers", model, "--sensitivity"});
  EXPECT_EQ(bare.code, 2);
  EXPECT_NE(bare.err.find("give --calib FILE"), std::string::npos) << bare.err;
  const Ended scheme =
      quell({"outliers", model, "--calib", text, "--sensitivity", "--scheme", "W5A16"});
  EXPECT_EQ(scheme.code, 2);
  EXPECT_NE(scheme.err.find("W5A16"), std::string::npos) << scheme.err;
  const Ended group =
      quell({"outliers", model, "--calib", text, "--sensitivity", "--group-size", "0"});
  EXPECT_EQ(group.code, 2);
  const Ended method =
      quell({"outliers", model, "--calib", text, "--sensitivity", "--method", "gtpq"});
  EXPECT_EQ(method.code, 2);
  EXPECT_NE(method.err.find("there are rtn"), std::string::npos) << method.err;
  for (const char* tokens : {"-3", "0", "1", "many"}) {
    const Ended few = quell(
        {"outliers", model, "--calib", text, "--sensitivity", "--sensitivity-tokens", tokens});
    EXPECT_EQ(few.code, 2) << tokens;
    EXPECT_NE(few.err.find("--sensitivity-tokens"), std::string::npos) << few.err;
  }
  for (const char* option : {"--samples", "--seed", "--max-tokens"}) {
    const Ended negative = quell({"outliers", model, "--calib", text, option, "-3"});
    EXPECT_EQ(negative.code, 2) << option;
    EXPECT_NE(negative.err.find(option), std::string::npos) << negative.err;
  }
  const Ended alone = quell({"outliers", model, "--scheme", "W4A16"});
  EXPECT_EQ(alone.code, 2);
  EXPECT_NE(alone.err.find("--sensitivity"), std::string::npos) << alone.err;
}

}  // namespace
}  // namespace quell::test
