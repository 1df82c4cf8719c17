// SPDX-License-Identifier: Apache-2.0

// A model of the size of a small real one, in a budget: the peak stays below it and the bytes are
// those of an unlimited run. Four blocks in every test run; all 22 where the argument says so.

#include <gtest/gtest.h>

#include <cstdlib>

#include "program.hpp"

namespace quell::test {
namespace {

void quantize_in_budget(const std::string& layers, const std::string& budget, double budget_bytes) {
  const TemporaryFolder folder;
  const std::string model =
      make_model(folder / "model", {layers, "2048", "32", "4", "5632", "32000", "4"}).string();
  const std::string text = make_text(folder / "text.txt", 4000).string();
  const auto arguments = [&](const std::string& output) {
    return std::vector<std::string>{"quantize", model, "-o",        (folder / output).string(),
                                    "--calib",  text,  "--samples", "8",
                                    "--seqlen", "512"};
  };
  auto tight = arguments("tight");
  tight.insert(tight.end(), {"--max-memory", budget});
  const io::Json limited = quell_json(tight);
  std::filesystem::remove_all(folder / "tight");
  const io::Json free = quell_json(arguments("free"));
  EXPECT_EQ(hash_of(limited), hash_of(free));
  const double peak = limited.find("peak_rss_bytes")->as_number();
  EXPECT_LT(peak, budget_bytes);
  std::printf("%s blocks: %.1f s, peak %.0f MB of %s, phases %s\n", layers.c_str(),
              limited.find("seconds")->as_number(), peak / 1e6, budget.c_str(),
              limited.find("phases")->dump().c_str());
  const io::Json plan = [&] {
    auto dry = tight;
    dry.push_back("--dry-run");
    return quell_json(dry);
  }();
  // The promise of the plan: never more than 5 % above the prediction.
  EXPECT_LT(peak, 1.05 * plan.find("peak_memory_bytes")->as_number());
}

#if defined(QUELL_LARGE_MODEL)
TEST(Memory, AModelOfABillionParametersFitsInItsBudget) {
  quantize_in_budget("22", "1500MB", 1.5e9);
}
#else
TEST(Memory, AModelOfFourWideBlocksFitsInItsBudget) {
  quantize_in_budget("4", "1500MB", 1.5e9);
}
#endif

}  // namespace
}  // namespace quell::test
