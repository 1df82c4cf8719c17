// SPDX-License-Identifier: Apache-2.0

// The multiple-choice knapsack behind bit allocation: one table over the budget, module by module.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "quell/pipeline/allocation.hpp"

namespace quell::pipeline {
namespace {

// Entries of the table of choices, a byte each, and of one row of it.
constexpr std::uint64_t kTable = 64u << 20;
constexpr std::uint64_t kRow = 1u << 18;

/// Spends what rounding has left: the step of best gain for its bits that fits, while there is one.
void spend(std::span<const std::vector<Option>> modules, std::uint64_t left,
           std::vector<std::size_t>& chosen) {
  for (;;) {
    std::size_t module = modules.size(), option = 0;
    double best = 0;
    for (std::size_t m = 0; m < modules.size(); ++m) {
      const Option& now = modules[m][chosen[m]];
      for (std::size_t o = 0; o < modules[m].size(); ++o) {
        const Option& other = modules[m][o];
        const double gain = now.damage - other.damage;
        if (!(gain > 0)) continue;
        const bool free = other.bits <= now.bits;
        if (!free && other.bits - now.bits > left) continue;
        const double rate = free ? std::numeric_limits<double>::infinity()
                                 : gain / static_cast<double>(other.bits - now.bits);
        if (rate > best) {
          best = rate;
          module = m;
          option = o;
        }
      }
    }
    if (module == modules.size()) return;
    left = left + modules[module][chosen[module]].bits - modules[module][option].bits;
    chosen[module] = option;
  }
}

}  // namespace

std::vector<std::size_t> choose_options(std::span<const std::vector<Option>> modules,
                                        std::uint64_t budget) {
  // Bits beyond each module's smallest option.
  std::vector<std::uint64_t> smallest;
  std::uint64_t divisor = 0, least = 0, most = 0;
  for (const std::vector<Option>& options : modules) {
    if (options.empty()) return {};
    std::uint64_t low = options[0].bits, high = options[0].bits;
    for (const Option& option : options) {
      low = std::min(low, option.bits);
      high = std::max(high, option.bits);
    }
    for (const Option& option : options) divisor = std::gcd(divisor, option.bits - low);
    smallest.push_back(low);
    least += low;
    most += high - low;
  }
  if (modules.empty() || least > budget) return {};
  const std::uint64_t room = std::min(budget - least, most);
  const std::uint64_t rows = std::max<std::uint64_t>(modules.size(), 1);
  const std::uint64_t places = std::clamp<std::uint64_t>(kTable / rows, 1, kRow);
  std::uint64_t unit = std::max<std::uint64_t>(divisor, 1);
  if (room / unit > places) unit = (room + places - 1) / places;
  const auto capacity = static_cast<std::size_t>(room / unit);

  constexpr double kNever = std::numeric_limits<double>::infinity();
  // damage[c]: the least of the modules so far within c units.
  std::vector<double> damage(capacity + 1, 0.0), next(capacity + 1);
  std::vector<std::vector<std::uint8_t>> taken;
  for (std::size_t m = 0; m < modules.size(); ++m) {
    std::fill(next.begin(), next.end(), kNever);
    std::vector<std::uint8_t> choice(capacity + 1, 0);
    for (std::size_t o = 0; o < modules[m].size(); ++o) {
      const std::uint64_t extra = modules[m][o].bits - smallest[m];
      const std::uint64_t cost = (extra + unit - 1) / unit;
      for (std::uint64_t c = cost; c <= capacity; ++c) {
        const double sum = damage[c - cost] + modules[m][o].damage;
        if (sum < next[c]) {
          next[c] = sum;
          choice[c] = static_cast<std::uint8_t>(o);
        }
      }
    }
    damage.swap(next);
    taken.push_back(std::move(choice));
  }
  std::vector<std::size_t> chosen(modules.size());
  std::uint64_t place = capacity, used = 0;
  for (std::size_t m = modules.size(); m-- > 0;) {
    chosen[m] = taken[m][place];
    const std::uint64_t extra = modules[m][chosen[m]].bits - smallest[m];
    place -= (extra + unit - 1) / unit;
    used += extra;
  }
  spend(modules, budget - least - used, chosen);
  return chosen;
}

}  // namespace quell::pipeline
