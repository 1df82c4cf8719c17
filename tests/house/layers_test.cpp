// SPDX-License-Identifier: Apache-2.0

// Includes against the arrows of cmake/layers.txt, and third-party headers against the few places
// that may use them. The linker cannot keep these rules: a header of a forbidden module compiles
// fine.

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "sources.hpp"

namespace quell::house {
namespace {

using Arrows = std::map<std::string, std::set<std::string>>;

const Arrows& arrows() {
  static const Arrows parsed = [] {
    Arrows out;
    for (const std::string& line : lines_of(read(root() / "cmake/layers.txt"))) {
      if (line.empty() || line[0] == '#') continue;
      const std::size_t colon = line.find(':');
      if (colon == std::string::npos) continue;
      std::istringstream words(line.substr(colon + 1));
      std::set<std::string>& allowed = out[line.substr(0, colon)];
      for (std::string word; words >> word;) allowed.insert(word);
    }
    return out;
  }();
  return parsed;
}

/// The module that owns a file of the library; nothing for tests, benches, examples and the headers
/// that belong to all (version.hpp, the umbrella quell.hpp).
std::optional<std::string> module_of(const std::string& path) {
  if (path.starts_with("kernels/cuda/")) return "cuda";
  if (path.starts_with("kernels/")) return "kernels";
  if (path == "include/quell/quell.h") return "capi";
  for (const std::string_view head : {"include/quell/", "src/"}) {
    if (!path.starts_with(head)) continue;
    const std::string rest = path.substr(head.size());
    const std::size_t slash = rest.find('/');
    if (slash != std::string::npos) return rest.substr(0, slash);
  }
  return std::nullopt;
}

/// The file of the tree that a quoted include names.
std::optional<std::string> resolve(const fs::path& from, const std::string& name) {
  for (const fs::path& base : {from.parent_path(), root() / "include", root() / "src", root()}) {
    const fs::path path = (base / name).lexically_normal();
    if (fs::exists(path)) return place_of(path);
  }
  return std::nullopt;
}

std::string where(const fs::path& file, const Include& include) {
  return place_of(file) + ":" + std::to_string(include.line) + " includes " + include.name;
}

/// An ISA file holds one entry of a family: everything under a family's folder but its contract and
/// table.
bool is_isa_file(const std::string& path) {
  return path.starts_with("kernels/cpu/") && path.ends_with(".cpp") &&
         !path.ends_with("/table.cpp");
}

struct ThirdParty {
  std::string_view head;            // of the name between the brackets
  std::vector<std::string> places;  // path prefixes that may include it
};

const std::vector<ThirdParty>& third_party() {
  static const std::vector<ThirdParty> table = {
      {"Eigen/", {"src/linalg/", "bench/", "tests/linalg/", "tests/quant/"}},
      {"omp.h", {"src/core/executor_openmp.cpp"}},
      {"nlohmann/", {"src/io/", "tests/"}},
      {"pcre2.h", {"src/tokenizer/"}},
      {"utf8proc.h", {"src/tokenizer/"}},
      {"CLI/", {"src/cli/", "src/lab/"}},
      {"fmt/",
       {"src/quant/", "src/calib/", "src/pipeline/", "src/report/", "src/cli/", "src/lab/",
        "tests/", "bench/"}},
      {"gtest/", {"tests/"}},
      {"gmock/", {"tests/"}},
      {"benchmark/", {"bench/"}},
      {"cblas.h", {"bench/"}},
      {"oneapi/", {"bench/"}},
      // Intrinsics: kernels alone, and the places that measure machines.
      {"immintrin.h", {"kernels/", "bench/", "tests/laws/"}},
      {"arm_neon.h", {"kernels/"}},
      {"cpuid.h", {"kernels/", "bench/"}},
  };
  return table;
}

/// Standard and POSIX headers have no folder but the system's own (sys/, linux/, asm/).
bool is_system(const std::string& name) {
  return name.find('/') == std::string::npos || starts_with_any(name, {"sys/", "linux/", "asm/"});
}

TEST(Layers, TableNamesOnlyModulesOfLowerLines) {
  std::set<std::string> above;
  for (const std::string& line : lines_of(read(root() / "cmake/layers.txt"))) {
    if (line.empty() || line[0] == '#') continue;
    const std::string name = line.substr(0, line.find(':'));
    for (const std::string& other : arrows().at(name)) {
      EXPECT_TRUE(above.contains(other))
          << name << " may include " << other << ", which is no lower line";
    }
    above.insert(name);
  }
  EXPECT_GE(above.size(), 10u);
}

TEST(Layers, IncludesFollowTheArrows) {
  std::size_t checked = 0;
  for (const fs::path& file : all_files()) {
    const auto module = module_of(place_of(file));
    if (!is_cpp(file) || !module) continue;
    ASSERT_TRUE(arrows().contains(*module))
        << place_of(file) << ": cmake/layers.txt has no line for " << *module;
    for (const Include& include : includes_of(read(file))) {
      if (!include.quoted) {
        EXPECT_FALSE(include.name.starts_with("quell/"))
            << where(file, include) << ": our own headers are quoted";
        continue;
      }
      const auto target = resolve(file, include.name);
      ASSERT_TRUE(target) << where(file, include) << ", which is no file of the tree";
      ++checked;
      const auto other = module_of(*target);
      if (!other) {
        EXPECT_TRUE(*target == "include/quell/version.hpp")
            << where(file, include) << ": the library includes no umbrella, test or example";
        continue;
      }
      EXPECT_TRUE(*other == *module || arrows().at(*module).contains(*other))
          << where(file, include) << ", but " << *module << " may not include " << *other;
    }
  }
  EXPECT_GT(checked, 50u) << "the test has lost sight of the sources";
}

TEST(Layers, PublicHeadersIncludeOnlyPublicOnes) {
  for (const fs::path& file : all_files()) {
    if (!place_of(file).starts_with("include/")) continue;
    for (const Include& include : includes_of(read(file))) {
      if (include.quoted) {
        EXPECT_TRUE(include.name.starts_with("quell/")) << where(file, include);
      } else {
        EXPECT_TRUE(is_system(include.name)) << where(file, include) << ": no third party shows";
      }
    }
  }
}

TEST(Layers, ThirdPartyHeadersStayInTheirPlaces) {
  for (const fs::path& file : all_files()) {
    const std::string path = place_of(file);
    if (!is_cpp(file) || path.starts_with("examples/") || path.starts_with("tests/install/"))
      continue;
    for (const Include& include : includes_of(read(file))) {
      if (include.quoted) continue;
      bool known = false;
      for (const ThirdParty& rule : third_party()) {
        if (!include.name.starts_with(rule.head)) continue;
        known = true;
        EXPECT_TRUE(std::any_of(rule.places.begin(), rule.places.end(),
                                [&](const std::string& place) { return path.starts_with(place); }))
            << where(file, include) << ", which is not one of its places";
        EXPECT_FALSE(rule.head == "fmt/" && path.ends_with(".hpp")) << where(file, include);
      }
      EXPECT_TRUE(known || is_system(include.name))
          << where(file, include) << ", a library that tests/house/layers_test.cpp does not know";
    }
  }
}

TEST(Layers, LowModulesAvoidHeavyHeaders) {
  const std::set<std::string> heavy = {"iostream", "regex", "filesystem", "thread"};
  for (const fs::path& file : all_files()) {
    const std::string path = place_of(file);
    const auto module = module_of(path);
    if (!is_cpp(file) || !module) continue;
    const bool low = *module == "core" || *module == "stats" || *module == "grid";
    for (const Include& include : includes_of(read(file))) {
      EXPECT_FALSE(low && heavy.contains(include.name)) << where(file, include);
      EXPECT_FALSE(include.name == "iostream" || include.name == "regex")
          << where(file, include)
          << ": the library never prints, and patterns have their own matcher";
    }
  }
}

TEST(Layers, IsaFilesIncludeTheContractTheTargetAndIntrinsicsAlone) {
  // A template compiled for a wide instruction set may be the copy that the linker keeps for
  // everyone; so these files see no header that could hold one beyond plain C declarations.
  const std::set<std::string> containers = {"algorithm", "vector",     "string", "map",
                                            "memory",    "functional", "array",  "numeric"};
  std::size_t checked = 0;
  for (const fs::path& file : all_files()) {
    const std::string path = place_of(file);
    if (!is_isa_file(path)) continue;
    ++checked;
    for (const Include& include : includes_of(read(file))) {
      if (!include.quoted) {
        EXPECT_FALSE(containers.contains(include.name)) << where(file, include);
        continue;
      }
      const auto target = resolve(file, include.name);
      ASSERT_TRUE(target) << where(file, include);
      EXPECT_TRUE(target->ends_with("/contract.hpp") || target->ends_with("target.hpp") ||
                  target->starts_with("kernels/cpu/") || target->starts_with("include/quell/"))
          << where(file, include);
    }
  }
  EXPECT_TRUE(checked > 0 || !fs::exists(root() / "kernels/cpu"));
}

}  // namespace
}  // namespace quell::house
