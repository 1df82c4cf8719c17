// SPDX-License-Identifier: Apache-2.0

// `quell outliers` on models whose outliers are known: the demonstration model always, others where
// they are at hand.

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "cli/program.hpp"
#include "support/shared.hpp"

namespace quell::test {
namespace {

std::string demonstration() {
  return std::string(QUELL_SOURCE_DIR) + "/examples/models/books7m";
}
std::string demonstration_text() {
  return std::string(QUELL_SOURCE_DIR) + "/examples/text/evaluation.txt";
}

std::vector<const io::Json*> of_kind(const io::Json& report, const std::string& kind) {
  std::vector<const io::Json*> found;
  for (const io::Json& item : report.find("systematic")->items()) {
    if (item.find("kind")->as_string() == kind) found.push_back(&item);
  }
  return found;
}

std::set<std::int64_t> sink_layers(const io::Json& report) {
  std::set<std::int64_t> layers;
  for (const io::Json& sink : report.find("sinks")->items()) {
    if (sink.find("token_position")->as_integer() == 0) {
      layers.insert(sink.find("layer")->as_integer());
    }
  }
  return layers;
}

TEST(Outliers, OfTheDemonstrationModelAreTheOnesItGrew) {
  const io::Json report =
      quell_json({"outliers", demonstration(), "--calib", demonstration_text(), "--samples", "16"});
  const auto massive = of_kind(report, "massive_activation");
  ASSERT_FALSE(massive.empty());
  bool layer_1 = false;
  for (const io::Json* hit : massive) {
    EXPECT_EQ(hit->find("token_position")->as_integer(), 0);
    if (hit->find("place")->as_string() != "layers.1.down_in") continue;
    layer_1 = true;
    EXPECT_EQ(hit->find("channel")->as_integer(), 766);
    EXPECT_NEAR(std::abs(hit->find("value")->as_number()), 183.6, 0.5);
    EXPECT_GT(hit->find("ratio_to_median")->as_number(), 1200);
    EXPECT_EQ(hit->find("sequences")->as_integer(), 16);
  }
  EXPECT_TRUE(layer_1);
  std::set<std::int64_t> channels;
  for (const io::Json* channel : of_kind(report, "channel")) {
    channels.insert(channel->find("channel")->as_integer());
    EXPECT_EQ(channel->find("layers")->as_integer(), 8);
    EXPECT_EQ(channel->find("ratios")->items().size(), 8U);
  }
  EXPECT_TRUE(channels.contains(109) && channels.contains(158));
  EXPECT_EQ(sink_layers(report), (std::set<std::int64_t>{7}));
  // The neurons that lead their layers are the ones that write the channel.
  const auto& life = report.find("life_cycle")->items();
  ASSERT_GE(life.size(), 2U);
  EXPECT_EQ(life[0].find("event")->as_string(), "born");
  EXPECT_EQ(life[0].find("layer")->as_integer(), 0);
  EXPECT_EQ(life[0].find("channel")->as_integer(), 109);
  EXPECT_EQ(life[0].find("neuron")->as_integer(), 640);
  EXPECT_EQ(life[1].find("event")->as_string(), "grown");
  EXPECT_EQ(life[1].find("layer")->as_integer(), 1);
  EXPECT_EQ(life[1].find("neuron")->as_integer(), 766);
  double share = 0;
  for (const io::Json& block : report.find("layers")->items()) {
    share += block.find("sampling_probability")->as_number();
  }
  EXPECT_NEAR(share, 1, 1e-9);
  EXPECT_EQ(report.find("first_token_mass")->items().size(), 8U);
  EXPECT_EQ(report.find("tensors")->items().size(), 56U + 1 + 8 * 5);
}

TEST(Outliers, NeedNoText) {
  const io::Json report = quell_json({"outliers", demonstration()});
  EXPECT_EQ(report.find("tensors")->items().size(), 56U);
  EXPECT_EQ(report.find("tokens")->as_integer(), 0);
  EXPECT_TRUE(report.find("sinks")->items().empty());
  const Ended text = quell({"outliers", demonstration()});
  EXPECT_EQ(text.code, 0);
  EXPECT_NE(text.out.find("activations need text"), std::string::npos);
}

TEST(Outliers, AreTheSameForAnyNumberOfThreads) {
  const auto run = [&](const std::string& threads, const Environment& environment) {
    io::Json report = quell_json({"outliers", demonstration(), "--calib", demonstration_text(),
                                  "--samples", "3", "--threads", threads},
                                 environment);
    report.set("seconds", 0);
    report.set("peak_rss_bytes", 0);
    return report.dump();
  };
  const std::string one = run("1", {});
  EXPECT_EQ(run("3", {}), one);
  EXPECT_EQ(run("2", {{"QUELL_ISA", "avx2"}}), one);
}

TEST(Outliers, AreWrittenAsOneHtmlFile) {
  const TemporaryFolder folder;
  const std::string file = (folder / "report.html").string();
  const Ended ended = quell({"outliers", demonstration(), "--calib", demonstration_text(),
                             "--samples", "2", "--html", file});
  EXPECT_EQ(ended.code, 0) << ended.err;
  const std::string html = read_bytes(file);
  EXPECT_NE(html.find("layers.1.down_in"), std::string::npos);
  EXPECT_NE(html.find("&lt;|bos|&gt;"), std::string::npos);
  EXPECT_LT(html.size(), 5'000'000U);
  const Ended nowhere =
      quell({"outliers", demonstration(), "--html", (folder / "no/such/folder.html").string()});
  EXPECT_EQ(nowhere.code, 4);
  EXPECT_NE(nowhere.err.find("folder.html"), std::string::npos) << nowhere.err;
}

TEST(Outliers, FitOneScreen) {
  const Ended ended = quell({"outliers", demonstration(), "--calib", demonstration_text(),
                             "--samples", "8", "--what-if", "clip:alpha=2"});
  ASSERT_EQ(ended.code, 0) << ended.err;
  std::size_t lines = 0;
  for (std::size_t at = 0; at < ended.out.size(); ++lines) {
    const std::size_t end = ended.out.find('\n', at);
    EXPECT_LE(end - at, 80U) << ended.out.substr(at, end - at);
    for (; at < end; ++at) EXPECT_LT(static_cast<unsigned char>(ended.out[at]), 128);
    at = end + 1;
  }
  EXPECT_LE(lines, 23U) << ended.out;  // one line is the prompt's
  for (const char* word : {"Massive ", "Born ", "Channels ", "Sinks ", "Heads ", "What if ",
                           "Weights ", "Range ", "layers.1.down_in", "109", "--verbose"}) {
    EXPECT_NE(ended.out.find(word), std::string::npos) << word;
  }
}

TEST(Outliers, CountWeightsThatAreNotFinite) {
  const TemporaryFolder folder;
  const std::filesystem::path model = make_model(folder / "model");
  // The last element of the last tensor of a shard becomes an infinity (bfloat16 0x7F80).
  for (const auto& entry : std::filesystem::directory_iterator(model)) {
    if (entry.path().extension() != ".safetensors") continue;
    std::string bytes = read_bytes(entry.path());
    bytes[bytes.size() - 2] = '\x80';
    bytes[bytes.size() - 1] = '\x7F';
    write_bytes(entry.path(), bytes);
  }
  const io::Json report = quell_json({"outliers", model.string()});
  std::int64_t broken = 0;
  for (const io::Json& tensor : report.find("tensors")->items()) {
    broken += tensor.find("nonfinite")->as_integer();
  }
  EXPECT_GE(broken, 1);
  const Ended text = quell({"outliers", model.string()});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_NE(text.out.find("with values that are not finite"), std::string::npos) << text.out;
  const Ended all = quell({"outliers", model.string(), "--verbose"});
  EXPECT_NE(all.out.find("1 value not finite"), std::string::npos) << all.out;
}

TEST(Outliers, RefuseTextThatGivesNothing) {
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"outliers", demonstration(), "--calib",
                                          demonstration_text()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Ended ended = quell(arguments);
    EXPECT_EQ(ended.signal, 0);
    EXPECT_FALSE(ended.err.empty());
    return ended.code;
  };
  EXPECT_EQ(run({"--samples", "0"}), 2);
  EXPECT_EQ(run({"--max-tokens", "1"}), 3);
  EXPECT_EQ(run({"--seqlen", "1"}), 2);
}

TEST(Outliers, RefuseARuleThatDoesNotExist) {
  const Ended ended = quell({"outliers", demonstration(), "--rule", "mean"});
  EXPECT_EQ(ended.code, 2);
  EXPECT_NE(ended.err.find("systematic-outliers"), std::string::npos) << ended.err;
}

// ------------------------------------------------------------------ models with reference values

class SharedOutliers : public ::testing::TestWithParam<const char*> {};

double number(const io::Json& object, const char* key) {
  const io::Json* found = object.find(key);
  EXPECT_NE(found, nullptr) << key;
  return found == nullptr ? std::nan("") : found->as_number();
}

TEST_P(SharedOutliers, AgreeWithTheReferenceStatistics) {
  const auto model = shared_path(std::string("models/") + GetParam());
  if (!model) GTEST_SKIP() << "the shared models are not there";
  const io::Json report =
      quell_json({"outliers", model->string(), "--ids", (*model / "reference/ids.npy").string(),
                  "--max-tokens", "200"});
  std::map<std::string, const io::Json*> tensors;
  for (const io::Json& tensor : report.find("tensors")->items()) {
    tensors[tensor.find("name")->as_string()] = &tensor;
  }
  const std::string file = (*model / "reference/activation_stats.json").string();
  const auto reference = io::parse_json(read_bytes(file), file);
  ASSERT_TRUE(reference);
  ASSERT_FALSE(reference->items().empty());
  for (const io::Json& expected : reference->items()) {
    const std::int64_t layer = expected.find("layer")->as_integer();
    const std::string site = expected.find("site")->as_string();
    if (site == "attention") {
      const io::Json& mass =
          report.find("first_token_mass")->items()[static_cast<std::size_t>(layer)];
      const double mean = number(expected, "mass_on_first_token");
      EXPECT_NEAR(number(mass, "mean"), mean, 1e-3 * mean) << layer;
      const double head = number(expected, "largest_head");
      EXPECT_NEAR(number(mass, "largest_head"), head, 1e-3 * head) << layer;
      continue;
    }
    const std::string name =
        layer < 0 ? "embedding" : "layers." + std::to_string(layer) + "." + site;
    ASSERT_TRUE(tensors.contains(name)) << name;
    const io::Json& found = *tensors[name];
    const auto near = [&](const char* key, const char* reference_key) {
      const double value = number(expected, reference_key);
      EXPECT_NEAR(number(found, key), value, 1e-3 * std::abs(value)) << name << " " << key;
    };
    near("absmax", "max");
    near("median", "median");
    near("channel_ratio", "channel_ratio");
    near("excess_kurtosis", "kurtosis");
    EXPECT_EQ(number(found, "argmax_channel"), number(expected, "argmax_channel")) << name;
    EXPECT_EQ(number(found, "argmax_token"), number(expected, "argmax_token")) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SharedOutliers,
                         ::testing::Values("stories260K", "tiny1m", "babyllama105", "books7m"),
                         [](const auto& each) { return std::string(each.param); });

TEST(SharedOutliers, OfTiny1mBeginAtTheFirstToken) {
  const auto model = shared_path("models/tiny1m");
  const auto text = shared_path("text/tinystories-700.txt");
  if (!model || !text) GTEST_SKIP() << "the shared models are not there";
  const io::Json report =
      quell_json({"outliers", model->string(), "--calib", text->string(), "--documents"});
  const auto massive = of_kind(report, "massive_activation");
  ASSERT_EQ(massive.size(), 1U);
  EXPECT_EQ(massive[0]->find("place")->as_string(), "layers.0.down_in");
  EXPECT_EQ(massive[0]->find("channel")->as_integer(), 233);
  EXPECT_EQ(massive[0]->find("token_position")->as_integer(), 0);
  EXPECT_EQ(massive[0]->find("token")->as_string(), "<s>");
  EXPECT_NEAR(std::abs(massive[0]->find("value")->as_number()), 31.9, 0.1);
  const auto channels = of_kind(report, "channel");
  ASSERT_FALSE(channels.empty());
  EXPECT_EQ(channels[0]->find("channel")->as_integer(), 25);
  EXPECT_EQ(channels[0]->find("leads")->as_integer(), 4);
  EXPECT_EQ(sink_layers(report), (std::set<std::int64_t>{0, 1, 3}));
}

TEST(SharedOutliers, OfAnEncoderAreOneChannelThroughAllLayersAndANeuron) {
  const auto model = shared_path("models/minilm-l6");
  if (!model) GTEST_SKIP() << "the shared models are not there";
  const std::filesystem::path reference = *model / "reference";
  const io::Json report =
      quell_json({"outliers", model->string(), "--ids", (reference / "sentence_ids.npy").string(),
                  "--lengths", (reference / "sentence_lengths.npy").string(), "--samples", "1000"});
  EXPECT_EQ(report.find("tokens")->as_integer(), 28421);
  const auto channels = of_kind(report, "channel");
  ASSERT_EQ(channels.size(), 2U);
  EXPECT_EQ(channels[0]->find("channel")->as_integer(), 99);
  EXPECT_EQ(channels[0]->find("leads")->as_integer(), 6);
  EXPECT_EQ(channels[0]->find("token")->as_string(), "[CLS]");
  EXPECT_EQ(channels[1]->find("channel")->as_integer(), 157);
  const auto neurons = of_kind(report, "neuron");
  ASSERT_EQ(neurons.size(), 1U);
  EXPECT_EQ(neurons[0]->find("place")->as_string(), "layers.0.down_in");
  EXPECT_EQ(neurons[0]->find("channel")->as_integer(), 856);
  EXPECT_TRUE(report.find("life_cycle")->items().empty());

  std::map<std::string, const io::Json*> tensors;
  for (const io::Json& tensor : report.find("tensors")->items()) {
    tensors[tensor.find("name")->as_string()] = &tensor;
  }
  const std::string file = (reference / "activation_stats.json").string();
  const auto expected = io::parse_json(read_bytes(file), file);
  ASSERT_TRUE(expected);
  for (const io::Json& line : expected->items()) {
    const std::string name = "layers." + std::to_string(line.find("layer")->as_integer()) + "." +
                             line.find("site")->as_string();
    ASSERT_TRUE(tensors.contains(name)) << name;
    for (const auto& [key, reference_key] : {std::pair{"absmax", "max"},
                                             {"median", "median"},
                                             {"channel_ratio", "channel_ratio"},
                                             {"excess_kurtosis", "kurtosis"}}) {
      const double value = number(line, reference_key);
      EXPECT_NEAR(number(*tensors[name], key), value, 1e-3 * std::abs(value)) << name << key;
    }
  }
}

class WithoutOutliers : public ::testing::TestWithParam<const char*> {};

TEST_P(WithoutOutliers, HaveNoMassiveActivationAndNoSystematicChannel) {
  const auto model = shared_path(std::string("models/") + GetParam());
  const auto text = shared_path("text/tinystories-700.txt");
  if (!model || !text) GTEST_SKIP() << "the shared models are not there";
  const io::Json report =
      quell_json({"outliers", model->string(), "--calib", text->string(), "--documents"});
  EXPECT_TRUE(of_kind(report, "massive_activation").empty());
  EXPECT_TRUE(of_kind(report, "channel").empty());
  EXPECT_TRUE(sink_layers(report).empty());
}

INSTANTIATE_TEST_SUITE_P(Models, WithoutOutliers, ::testing::Values("stories260K", "babyllama105"),
                         [](const auto& each) { return std::string(each.param); });

}  // namespace
}  // namespace quell::test
