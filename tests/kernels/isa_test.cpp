// SPDX-License-Identifier: Apache-2.0

#include "quell/kernels/isa.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "kernels/detect.hpp"
#include "quell/kernels/explain.hpp"

namespace quell::kernels {
namespace {

TEST(Isa, NamesParseBack) {
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512vnni, Isa::avx512bf16,
                        Isa::amx, Isa::neon, Isa::neondot}) {
    EXPECT_EQ(parse_isa(to_string(isa)), isa);
  }
  EXPECT_EQ(parse_isa("AVX2"), std::nullopt);
  EXPECT_EQ(parse_isa(""), std::nullopt);
}

TEST(Isa, ListOfNamesHoldsEveryOneAndParsesBack) {
  std::istringstream list(isa_names());
  std::set<Isa> named;
  for (std::string word; std::getline(list >> std::ws, word, ',');) {
    const auto isa = parse_isa(word);
    ASSERT_TRUE(isa) << word;
    named.insert(*isa);
  }
  EXPECT_EQ(named.size(), 8u);
}

TEST(Isa, Bf16VectorsPayOnProcessorsOfOneVendor) {
  // cpuid tells it in ebx, edx and ecx, first letter lowest.
  const auto pay = [](const char* vendor) {
    const auto letters = [vendor](int at) {
      unsigned word = 0;
      for (int i = 0; i < 4; ++i) word |= static_cast<unsigned>(vendor[at + i]) << 8 * i;
      return word;
    };
    return bf16_vectors_pay(letters(0), letters(4), letters(8));
  };
  EXPECT_TRUE(pay("AuthenticAMD"));
  EXPECT_FALSE(pay("GenuineIntel"));
  EXPECT_FALSE(pay("AuthenticAMd"));
}

TEST(Isa, CapOnlyLowers) {
  set_isa_cap(Isa::neondot);  // the highest: whatever QUELL_ISA says, the machine decides
  EXPECT_TRUE(has(Isa::scalar));
  const bool wide = has(Isa::avx512), medium = has(Isa::avx2);
  EXPECT_TRUE(medium || !wide);
  set_isa_cap(Isa::scalar);
  EXPECT_TRUE(has(Isa::scalar));
  EXPECT_FALSE(has(Isa::avx2));
  set_isa_cap(Isa::avx2);
  EXPECT_EQ(has(Isa::avx2), medium);
  EXPECT_FALSE(has(Isa::avx512));
  set_isa_cap(Isa::avx512vnni);
  EXPECT_FALSE(has(Isa::amx));
  EXPECT_FALSE(has(Isa::avx512bf16));
  set_isa_cap(Isa::amx);
  EXPECT_TRUE(has(Isa::avx512vnni) || !has(Isa::avx512bf16));
  EXPECT_TRUE(has(Isa::avx512vnni) || !has(Isa::amx));
  set_isa_cap(Isa::neondot);
  EXPECT_EQ(has(Isa::avx512), wide);
  clear_isa_cap();
}

TEST(Isa, EnvironmentSetsTheCapAndAnUnknownWordDoesNot) {
  const char* before = std::getenv("QUELL_ISA");
  const std::string kept = before != nullptr ? before : "";
  setenv("QUELL_ISA", "scalar", 1);
  clear_isa_cap();
  EXPECT_FALSE(has(Isa::avx2));
  EXPECT_TRUE(has(Isa::scalar));
  unsetenv("QUELL_ISA");
  clear_isa_cap();
  const bool medium = has(Isa::avx2);
  setenv("QUELL_ISA", "fastest", 1);
  clear_isa_cap();
  EXPECT_EQ(has(Isa::avx2), medium);
  unsetenv("QUELL_ISA");
  if (before != nullptr) setenv("QUELL_ISA", kept.c_str(), 1);
  clear_isa_cap();
}

TEST(Explain, ChoosesTheBestPresentEntryOfEveryFamilyAndSaysWhyNotTheOthers) {
  for (const Isa cap : {Isa::scalar, Isa::avx2, Isa::avx512vnni, Isa::neon, Isa::neondot}) {
    set_isa_cap(cap);
    for (const FamilyReport& family : explain()) {
      ASSERT_FALSE(family.entries.empty());
      EXPECT_EQ(family.entries.back().isa, Isa::scalar) << family.name;
      bool chosen = false;
      for (const EntryReport& entry : family.entries) {
        EXPECT_EQ(entry.present, has(entry.isa));
        // Some processors have the instruction and are faster without it.
        const bool slow = entry.isa == Isa::avx512bf16 && !bf16_vectors_pay();
        EXPECT_EQ(entry.chosen, entry.present && !slow && !chosen) << family.name;
        EXPECT_EQ(entry.refused.empty(), entry.chosen) << family.name;
        chosen = chosen || entry.chosen;
      }
      EXPECT_TRUE(chosen) << family.name;
    }
  }
  clear_isa_cap();
}

TEST(Explain, ReadmeListsWhatTheTablesHold) {
  // Lines of the README's table: | `family` | scalar | avx2 | avx512 | ... |, "yes" where an entry
  // is.
  std::map<std::string, std::set<std::string>> listed;
  std::ifstream readme(std::string(QUELL_SOURCE_DIR) + "/kernels/README.md");
  ASSERT_TRUE(readme.is_open());
  const char* columns[] = {"scalar",     "avx2", "avx512", "avx512vnni",
                           "avx512bf16", "amx",  "neon",   "neondot"};
  for (std::string line; std::getline(readme, line);) {
    if (line.rfind("| `", 0) != 0) continue;
    std::istringstream cells(line);
    std::string cell;
    std::getline(cells, cell, '|');
    std::getline(cells, cell, '|');
    const std::string family = cell.substr(2, cell.find('`', 2) - 2);
    for (const char* column : columns) {
      std::getline(cells, cell, '|');
      const std::string isa = column;
      [[maybe_unused]] const bool arm = isa.starts_with("neon");
      // A build holds the entries of its own architecture.
#if defined(__x86_64__)
      if (arm) continue;
#elif defined(__aarch64__)
      if (!arm && isa != "scalar") continue;
#endif
      if (cell.find("yes") != std::string::npos) listed[family].insert(isa);
    }
  }
  std::map<std::string, std::set<std::string>> held;
  for (const FamilyReport& family : explain()) {
    for (const EntryReport& entry : family.entries) {
      held[std::string(family.name)].insert(std::string(to_string(entry.isa)));
    }
  }
#if defined(__x86_64__) || defined(__aarch64__)
  EXPECT_EQ(listed, held);
#endif
}

TEST(CpuFeatures, IgnoreTheCap) {
  const auto before = cpu_features();
  set_isa_cap(Isa::scalar);
  EXPECT_EQ(cpu_features(), before);
  clear_isa_cap();
}

}  // namespace
}  // namespace quell::kernels
