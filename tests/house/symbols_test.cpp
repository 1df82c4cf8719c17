// SPDX-License-Identifier: Apache-2.0

// What the compiled objects of the kernels export, and with which flags the library was compiled.
// An object for one instruction set may show the linker its entry and nothing else: a weak symbol
// in it (an inline function, a template) could become the program's only copy, full of instructions
// that other machines lack.

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <map>

#include "sources.hpp"

namespace quell::house {
namespace {

/// The standard output of a shell command.
std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return text;
  std::array<char, 4096> block;
  for (std::size_t n; (n = std::fread(block.data(), 1, block.size(), pipe)) > 0;) {
    text.append(block.data(), n);
  }
  EXPECT_EQ(pclose(pipe), 0) << command;
  return text;
}

/// The objects of the kernels' ISA files: name `family/isa` and path.
std::map<std::string, fs::path> isa_objects() {
  std::map<std::string, fs::path> objects;
  for (const std::string& line : lines_of(read(QUELL_KERNEL_OBJECTS))) {
    const std::size_t start = line.find("/cpu/");
    if (start == std::string::npos) continue;
    const std::string rest = line.substr(start + 5);
    const std::string name = rest.substr(0, rest.find('.'));
    if (name.find('/') == std::string::npos || name.ends_with("/table")) continue;
    objects[name] = line;
  }
  return objects;
}

TEST(Symbols, EveryKernelObjectExportsItsEntryAlone) {
  const std::map<std::string, fs::path> objects = isa_objects();
  if (objects.empty()) GTEST_SKIP() << "no kernel family is compiled yet";
  for (const auto& [name, path] : objects) {
    std::vector<std::string> exported;
    const std::string command =
        std::string(QUELL_NM) + " -C --defined-only '" + path.string() + "'";
    for (const std::string& line : lines_of(output_of(command))) {
      // "address type name"; a capital type is visible to the linker, W V u are merged by it.
      const std::size_t type = line.find(' ') + 1;
      if (type == 0 || type + 2 > line.size()) continue;
      const char kind = line[type];
      const std::string symbol = line.substr(type + 2);
      // A pointer to the personality routine is emitted by compilers per object, as data without
      // code.
      if (symbol.starts_with("DW.ref.")) continue;
      EXPECT_FALSE(kind == 'W' || kind == 'V' || kind == 'u' || kind == 'w' || kind == 'v')
          << name << " has the weak symbol " << symbol;
      if (kind == 'T' || kind == 'D' || kind == 'R' || kind == 'B') exported.push_back(symbol);
    }
    std::string list;
    for (const std::string& symbol : exported) list += "\n  " + symbol;
    EXPECT_EQ(exported.size(), 1u) << name << " exports:" << list;
  }
}

TEST(Symbols, TheRuntimeHasNoStaticConstructors) {
  // Objects that register themselves vanish from static libraries, and run before main does.
  for (const std::string& line : lines_of(read(QUELL_KERNEL_OBJECTS))) {
    const std::string command = std::string(QUELL_NM) + " '" + line + "'";
    EXPECT_EQ(output_of(command).find("_GLOBAL__sub_I"), std::string::npos) << line;
  }
}

// Flags that change results or raise the machine that is needed; a host builds with its own flags,
// and two builds of the same version must give the same bits.
const std::vector<std::string> kForbiddenFlags = {"-march",
                                                  "-mtune",
                                                  "-mcpu",
                                                  "-mavx",
                                                  "-mfma",
                                                  "-msse4",
                                                  "-ffast-math",
                                                  "-Ofast",
                                                  "-funsafe-math",
                                                  "-fassociative-math",
                                                  "-freciprocal-math",
                                                  "-ffinite-math",
                                                  "-ffp-contract=fast"};

TEST(Flags, OfTheBuildFilesChangeNoArithmetic) {
  for (const fs::path& file : all_files()) {
    const std::string path = place_of(file);
    // Contenders in bench/ get the best flags of their compilers, so that they are beaten fairly.
    if (path.starts_with("bench/")) continue;
    const bool build = file.filename() == "CMakeLists.txt" || file.extension() == ".cmake" ||
                       path == "CMakePresets.json";
    if (!build) continue;
    const std::string text = read(file);
    for (const std::string& flag : kForbiddenFlags) {
      EXPECT_EQ(text.find(flag), std::string::npos) << path << " has " << flag;
    }
  }
}

TEST(Flags, OfEveryLibraryFileForbidInferredFusion) {
  const fs::path commands = fs::path(QUELL_BUILD_DIR) / "compile_commands.json";
  if (!fs::exists(commands)) GTEST_SKIP() << "this generator writes no compile_commands.json";
  std::size_t checked = 0;
  // One object per file: lines "command": ... and "file": ..., in this order.
  std::string command;
  for (const std::string& line : lines_of(read(commands))) {
    if (line.find("\"command\":") != std::string::npos) command = line;
    const std::size_t at = line.find("\"file\": \"");
    if (at == std::string::npos) continue;
    const std::string path = line.substr(at + 9, line.find('"', at + 9) - at - 9);
    const std::string name = place_of(path);
    if (!starts_with_any(name, {"src/", "kernels/"})) continue;
    EXPECT_NE(command.find("-ffp-contract=off"), std::string::npos) << name;
    for (const std::string& flag : kForbiddenFlags) {
      EXPECT_EQ(command.find(" " + flag), std::string::npos)
          << name << " is compiled with " << flag;
    }
    ++checked;
  }
  EXPECT_GT(checked, 0u);
}

TEST(Flags, AreNotSetInsideSources) {
  for (const fs::path& file : all_files()) {
    if (!is_cpp(file) || place_of(file).starts_with("tests/house/")) continue;
    const std::string code = lex(read(file)).code;
    for (const std::string word :
         {"GCC optimize", "fp_contract", "float_control", "STDC FENV_ACCESS"}) {
      EXPECT_EQ(code.find(word), std::string::npos) << place_of(file) << " has " << word;
    }
  }
}

}  // namespace
}  // namespace quell::house
