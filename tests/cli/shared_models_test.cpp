// SPDX-License-Identifier: Apache-2.0

// Trained models end to end: known losses of plain rounding, and what feedback is worth.

#include <gtest/gtest.h>

#include <cstring>

#include "program.hpp"
#include "support/shared.hpp"

namespace quell::test {
namespace {

// The first `count` values of an int32 .npy file of one dimension, as such a file.
void head_of_npy(const std::filesystem::path& from, const std::filesystem::path& to,
                 std::size_t count) {
  const std::string bytes = read_bytes(from);
  std::uint16_t header = 0;
  std::memcpy(&header, bytes.data() + 8, 2);
  std::string text =
      "{'descr': '<i4', 'fortran_order': False, 'shape': (" + std::to_string(count) + ",), }";
  while ((10 + text.size() + 1) % 64 != 0) text += ' ';
  text += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  out += static_cast<char>(text.size());
  out += '\0';
  write_bytes(to, out + text + bytes.substr(10u + header, 4 * count));
}

struct KnownLoss {
  const char* model;
  double row, group32;  // mean NLL of the first 16 sequences, from the models' own pages
};

class SharedModel : public ::testing::TestWithParam<KnownLoss> {};

TEST_P(SharedModel, RoundingOnTheDefaultGridHasItsKnownLoss) {
  const auto model = shared_path(std::string("models/") + GetParam().model);
  if (!model) GTEST_SKIP() << "the shared models are not here";
  const TemporaryFolder folder;
  const std::filesystem::path reference = *model / "reference";
  const std::string lengths = read_bytes(reference / "story_lengths.npy");
  std::uint16_t header = 0;
  std::memcpy(&header, lengths.data() + 8, 2);
  std::size_t tokens = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    std::int32_t length = 0;
    std::memcpy(&length, lengths.data() + 10 + header + 4 * i, 4);
    tokens += static_cast<std::size_t>(length);
  }
  head_of_npy(reference / "story_ids.npy", folder / "ids.npy", tokens);
  head_of_npy(reference / "story_lengths.npy", folder / "lengths.npy", 16);
  for (const auto& [group, expected] :
       {std::pair("-1", GetParam().row), std::pair("32", GetParam().group32)}) {
    const std::string output = (folder / (std::string("out") + group)).string();
    quell_json({"quantize", model->string(), "-o", output, "--method", "rtn", "--group-size", group,
                "--scale-type", "f16", "--to", "quell"});
    const io::Json result = quell_json({"eval", output, "--ids", (folder / "ids.npy").string(),
                                        "--lengths", (folder / "lengths.npy").string()});
    EXPECT_NEAR(result.find("nll")->as_number(), expected, 0.001) << group;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SharedModel,
                         ::testing::Values(KnownLoss{"stories260K", 1.5104, 1.4630},
                                           KnownLoss{"tiny1m", 1.2130, 1.1696},
                                           KnownLoss{"babyllama105", 0.6825, 0.6616},
                                           KnownLoss{"books7m", 3.7893, 3.7893}),
                         [](const auto& each) { return std::string(each.param.model); });

TEST(DemonstrationModel, FeedbackHasAtMostSixTenthsOfTheDivergenceOfRounding) {
  const TemporaryFolder folder;
  const std::string examples = std::string(QUELL_SOURCE_DIR) + "/examples/";
  const std::string model = examples + "models/books7m";
  const auto kl = [&](const std::string& method) {
    const std::string output = (folder / method).string();
    quell_json({"quantize", model, "-o", output, "--method", method, "--group-size", "32",
                "--samples", "32", "--calib", examples + "text/calibration.txt"});
    const io::Json result = quell_json({"eval", output, "--against", model, "--text",
                                        examples + "text/evaluation.txt", "--max-tokens", "8192"});
    return result.find("against")->find("kl_mean")->as_number();
  };
  EXPECT_LE(kl("gptq"), 0.6 * kl("rtn"));
}

}  // namespace
}  // namespace quell::test
