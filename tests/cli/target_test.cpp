// SPDX-License-Identifier: Apache-2.0

// quantize --target-bpw and --target-size: the budget is met, and what cannot be met is said.

#include <cmath>

#include "program.hpp"

namespace quell::test {
namespace {

std::uint64_t bytes_of_weights(const std::string& folder) {
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") bytes += entry.file_size();
  }
  return bytes;
}

TEST(Target, OfBitsPerWeightIsMetFromBelow) {
  const SmallJob job;
  // 64 inputs and 160 in groups of 32: half a bit of scales. The smallest step, of a k or v of
  // 32 x 64 by one bit, is 2,048 of 3 * 43,008 weights: 0.016 bits.
  for (const double target : {2.6, 3.3, 4.5, 6.25}) {
    const std::string name = "out" + std::to_string(target);
    const io::Json done = quell_json(
        job.quantize(name, {"--method", "gptq", "--target-bpw", std::to_string(target)}));
    const double bits = done.find("bits_per_weight")->as_number();
    EXPECT_LE(bits, target);
    EXPECT_GE(bits, target - std::max(0.005 * target, 0.064)) << target;
    // Counted from the modules, as written.
    double sum = 0, weights = 0;
    for (const io::Json& module : done.find("modules")->items()) {
      const std::string of = module.find("name")->as_string();
      const double count =
          of.find("mlp") != std::string::npos ? 64.0 * 160
          : of.find("q_proj") != std::string::npos || of.find("o_proj") != std::string::npos
              ? 64.0 * 64
              : 64.0 * 32;
      sum += count * module.find("bits_per_weight")->as_number();
      weights += count;
    }
    EXPECT_NEAR(sum / weights, bits, 1e-3) << target;
  }
}

TEST(Target, OfASizeIsThatOfTheFiles) {
  const SmallJob job;
  const std::uint64_t plain = [&] {
    quell_json(job.quantize("plain", {"--method", "rtn", "--to", "quell"}));
    return bytes_of_weights(job.path("plain"));
  }();
  // The smallest step, of a k or v of 32 x 64 by one bit, is 256 bytes; headers differ by a few
  // letters for each of 42 tensors.
  for (const std::uint64_t target : {plain - 12'000, plain, plain + 20'000}) {
    const std::string name = "out" + std::to_string(target);
    quell_json(job.quantize(name, {"--method", "rtn", "--target-size", std::to_string(target)}));
    const std::uint64_t bytes = bytes_of_weights(job.path(name));
    EXPECT_LE(bytes, target);
    EXPECT_GE(bytes, target - 256 - 8 * 42) << target;
    EXPECT_EQ(quell({"verify", job.path(name)}).code, 0);
  }
}

TEST(Target, LeavesModulesThatRulesNameAlone) {
  const SmallJob job;
  const io::Json done = quell_json(
      job.quantize("out", {"--method", "rtn", "--target-bpw", "4", "--rule",
                           "*down_proj=int8full:sym:oc:g32", "--ignore", "*layers.0.*"}));
  EXPECT_EQ(done.find("modules")->items().size(), 14u);
  EXPECT_LE(done.find("bits_per_weight")->as_number(), 4.0);
  for (const io::Json& module : done.find("modules")->items()) {
    if (module.find("name")->as_string().find("down_proj") == std::string::npos) continue;
    EXPECT_EQ(module.find("grid")->as_string().substr(0, 8), "int8full");
  }
}

TEST(Target, ThatCannotBeMetIsRefusedWithTheNumbers) {
  const SmallJob job;
  expect_error(quell(job.quantize("a", {"--target-bpw", "2.1"})), 2,
               {"--target-bpw 2.100", "2.500", "longer groups"});
  expect_error(quell(job.quantize("b", {"--target-size", "10kB"})), 2,
               {"--target-size 10000", "bytes", "larger target"});
  expect_error(quell(job.quantize("c", {"--target-bpw", "4", "--target-size", "1MB"})), 2,
               {"--target-bpw", "--target-size", "exclude"});
  for (const std::string bad : {"0", "-3", "17", "nan"}) {
    expect_error(quell(job.quantize("d", {"--target-bpw=" + bad})), 2, {"--target-bpw", "16"});
  }
  expect_error(quell(job.quantize("e", {"--target-size", "4 pounds"})), 2, {"--target-size"});
  expect_error(
      quell({"quantize", job.model, "-o", job.path("f"), "--method", "rtn", "--target-bpw", "4"}),
      2, {"--calib"});
  for (const std::string name : {"a", "b", "c", "d", "e", "f"}) {
    EXPECT_FALSE(std::filesystem::exists(job.path(name))) << name;
  }
}

TEST(Target, BeyondTheLargestChoiceIsTheLargest) {
  const SmallJob job;
  const Ended ended =
      quell(job.quantize("out", {"--method", "rtn", "--target-bpw", "12", "--json"}));
  ASSERT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.err.find("the largest choice everywhere, 8.500"), std::string::npos) << ended.err;
}

// On a layout that holds 4 and 8 bits alone, those are what is chosen from.
TEST(Target, ChoosesFromWhatTheLayoutHolds) {
  const SmallJob job;
  const io::Json done = quell_json(
      job.quantize("out", {"--method", "rtn", "--target-bpw", "6", "--to", "compressed-tensors"}));
  const double bits = done.find("bits_per_weight")->as_number();
  EXPECT_LE(bits, 6.0);
  EXPECT_GE(bits, 5.8);
  EXPECT_EQ(quell({"verify", job.path("out")}).code, 0);
}

}  // namespace
}  // namespace quell::test
