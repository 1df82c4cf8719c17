// SPDX-License-Identifier: Apache-2.0

// The choice of one option a module within a budget: cases by hand, then against every combination.

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

#include "quell/core/random.hpp"
#include "quell/pipeline/allocation.hpp"

namespace quell::pipeline {
namespace {

using Modules = std::vector<std::vector<Option>>;
using Chosen = std::vector<std::size_t>;

std::uint64_t bits_of(const Modules& modules, const Chosen& chosen) {
  std::uint64_t bits = 0;
  for (std::size_t m = 0; m < modules.size(); ++m) bits += modules[m][chosen[m]].bits;
  return bits;
}
double damage_of(const Modules& modules, const Chosen& chosen) {
  double damage = 0;
  for (std::size_t m = 0; m < modules.size(); ++m) damage += modules[m][chosen[m]].damage;
  return damage;
}

/// The least damage that any combination within the budget has.
double least_damage(const Modules& modules, std::uint64_t budget) {
  Chosen chosen(modules.size(), 0);
  double least = std::numeric_limits<double>::infinity();
  for (;;) {
    if (bits_of(modules, chosen) <= budget) least = std::min(least, damage_of(modules, chosen));
    std::size_t m = 0;
    while (m < modules.size() && ++chosen[m] == modules[m].size()) chosen[m++] = 0;
    if (m == modules.size()) return least;
  }
}

TEST(ChooseOptions, SpendsWhereItPays) {
  // The second module gains 8 for 10 bits, the first 3.
  const Modules modules = {{{20, 4}, {30, 1}}, {{20, 9}, {30, 1}}};
  EXPECT_EQ(choose_options(modules, 40), (Chosen{0, 0}));
  EXPECT_EQ(choose_options(modules, 49), (Chosen{0, 0}));
  EXPECT_EQ(choose_options(modules, 50), (Chosen{0, 1}));
  EXPECT_EQ(choose_options(modules, 60), (Chosen{1, 1}));
  EXPECT_EQ(choose_options(modules, 1000), (Chosen{1, 1}));
}

TEST(ChooseOptions, OfTooSmallABudgetOrNothingIsNothing) {
  const Modules modules = {{{20, 4}, {30, 1}}, {{20, 9}, {30, 1}}};
  EXPECT_TRUE(choose_options(modules, 39).empty());
  EXPECT_TRUE(choose_options(Modules{}, 39).empty());
  EXPECT_TRUE(choose_options(Modules{{}}, 39).empty());
}

// What a rule of steps by best gain for a bit gets wrong: it takes the small step first.
TEST(ChooseOptions, SeesPastTheBestFirstStep) {
  const Modules modules = {{{0, 10}, {6, 3}}, {{0, 10}, {10, 0}}};
  EXPECT_EQ(choose_options(modules, 10), (Chosen{0, 1}));
}

TEST(ChooseOptions, TakesAnOptionThatIsSmallerAndBetter) {
  const Modules modules = {{{30, 4}, {20, 1}, {40, 1}}};
  EXPECT_EQ(choose_options(modules, 40), (Chosen{1}));
}

TEST(ChooseOptions, IsTheBestOfAllCombinations) {
  const Random random(7);
  std::uint64_t drawn = 0;
  const auto below = [&](std::uint64_t n) { return random.below(drawn++, n); };
  for (int repeat = 0; repeat < 200; ++repeat) {
    Modules modules(1 + below(6));
    std::uint64_t least = 0, most = 0;
    for (std::vector<Option>& options : modules) {
      options.resize(1 + below(4));
      std::uint64_t low = ~std::uint64_t{0}, high = 0;
      for (Option& option : options) {
        option = {100 + 8 * below(50), static_cast<double>(below(1000))};
        low = std::min(low, option.bits);
        high = std::max(high, option.bits);
      }
      least += low;
      most += high;
    }
    const std::uint64_t budget = least + below(most - least + 10);
    const Chosen chosen = choose_options(modules, budget);
    ASSERT_EQ(chosen.size(), modules.size());
    EXPECT_LE(bits_of(modules, chosen), budget);
    EXPECT_EQ(damage_of(modules, chosen), least_damage(modules, budget)) << repeat;
  }
}

// Bits without a common divisor, too many for a table of single bits: rounded up, and the rest
// spent until no step fits.
TEST(ChooseOptions, LeavesNothingThatAStepFitsInto) {
  const Random random(8);
  std::uint64_t drawn = 0;
  Modules modules(300);
  std::uint64_t least = 0, most = 0;
  for (std::vector<Option>& options : modules) {
    const std::uint64_t unit = 1'000'003 + random.below(drawn++, 50'000'000);
    const double weight = 1.0 + static_cast<double>(random.below(drawn++, 1000));
    for (const std::uint64_t width : {2, 3, 4, 8}) {
      options.push_back({width * unit, weight / static_cast<double>(1u << (2 * width))});
    }
    least += options.front().bits;
    most += options.back().bits;
  }
  for (const double share : {0.01, 0.3, 0.77, 0.999}) {
    const auto budget =
        least + static_cast<std::uint64_t>(share * static_cast<double>(most - least));
    const Chosen chosen = choose_options(modules, budget);
    ASSERT_EQ(chosen.size(), modules.size());
    const std::uint64_t used = bits_of(modules, chosen);
    EXPECT_LE(used, budget);
    for (std::size_t m = 0; m < modules.size(); ++m) {
      if (chosen[m] + 1 == modules[m].size()) continue;
      const std::uint64_t step = modules[m][chosen[m] + 1].bits - modules[m][chosen[m]].bits;
      EXPECT_GT(step, budget - used) << share << " " << m;
    }
  }
}

}  // namespace
}  // namespace quell::pipeline
