// SPDX-License-Identifier: Apache-2.0

// A fuzz target without the fuzzer: its seeds, all their prefixes, and random edits of them. Finds
// what was found before, on any compiler; the fuzzer finds what is new.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "fuzz/target.hpp"

namespace quell::fuzz {
namespace {

void run(std::string_view input) {
  // An exact copy on the heap, so that the address sanitizer sees a read past the end.
  const std::vector<std::uint8_t> bytes(input.begin(), input.end());
  EXPECT_EQ(LLVMFuzzerTestOneInput(bytes.data(), bytes.size()), 0);
}

TEST(FuzzTarget, SurvivesItsSeeds) {
  run("");
  ASSERT_FALSE(seeds().empty());
  for (const std::string& seed : seeds()) run(seed);
}

TEST(FuzzTarget, SurvivesEveryPrefixOfItsSeeds) {
  for (const std::string& seed : seeds()) {
    // About 500 prefixes of each, all of them for short seeds.
    const std::size_t step = std::max<std::size_t>(1, seed.size() / 500);
    for (std::size_t size = 0; size < seed.size(); size += step) {
      run(std::string_view(seed).substr(0, size));
    }
  }
}

TEST(FuzzTarget, SurvivesRandomEditsOfItsSeeds) {
  const std::vector<std::string> all = seeds();
  std::mt19937 random(20240501);
  const auto below = [&](std::size_t count) { return static_cast<std::size_t>(random()) % count; };
  for (int round = 0; round < 3000; ++round) {
    std::string input = all[below(all.size())];
    for (std::size_t edits = 1 + below(4); edits > 0 && !input.empty(); --edits) {
      const std::size_t at = below(input.size());
      switch (below(4)) {
        case 0:
          input[at] = static_cast<char>(random());
          break;
        case 1:
          input.erase(at, 1 + below(8));
          break;
        case 2:
          input.insert(at, input.substr(below(input.size()), 1 + below(16)));
          break;
        default: {
          const std::string& other = all[below(all.size())];
          if (!other.empty()) input[at] = other[below(other.size())];
        }
      }
    }
    run(input);
  }
}

}  // namespace
}  // namespace quell::fuzz
