// SPDX-License-Identifier: Apache-2.0
#pragma once

// Why this kernel: every family, every entry, what the machine has and what was chosen.

#include <string>
#include <string_view>
#include <vector>

#include "quell/kernels/isa.hpp"

namespace quell::kernels {

struct EntryReport {
  Isa isa;
  bool present = false;  // compiled in, and the machine (under the cap) has it
  bool chosen = false;
  std::string refused;   // the reason, empty if none
};
struct FamilyReport {
  std::string_view name;
  std::vector<EntryReport> entries;  // best first
};

std::vector<FamilyReport> explain();
/// Names of the CPU features that matter here, as detected (cap ignored).
std::vector<std::string_view> cpu_features();

}  // namespace quell::kernels
