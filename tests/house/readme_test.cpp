// SPDX-License-Identifier: Apache-2.0

// The README is code too: a block of C++ stands, word for word, in a program of examples/ that is
// built and run; a block of shell is run by readme_commands.sh, or each of its lines stands in a
// script that the tests or the demonstration run. Links lead to files that exist.

#include <gtest/gtest.h>

#include "sources.hpp"

namespace quell::house {
namespace {

struct Block {
  std::string language;
  std::size_t line = 0;  // of the opening fence, from 1
  std::vector<std::string> lines;
};

std::string without_trailing_blanks(std::string line) {
  line.erase(line.find_last_not_of(" \t") + 1);
  return line;
}

std::vector<Block> blocks_of(const std::string& text) {
  std::vector<Block> blocks;
  bool inside = false;
  const std::vector<std::string> lines = lines_of(text);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].starts_with("```")) {
      if (!inside) blocks.push_back({without_trailing_blanks(lines[i].substr(3)), i + 1, {}});
      inside = !inside;
    } else if (inside) {
      blocks.back().lines.push_back(without_trailing_blanks(lines[i]));
    }
  }
  EXPECT_FALSE(inside) << "a fence is never closed";
  return blocks;
}

/// Lines of a file without their indentation and trailing blanks, so that a block may show the
/// inside of a function flush left.
std::vector<std::string> flush(const std::vector<std::string>& lines) {
  std::vector<std::string> out;
  for (const std::string& line : lines) {
    const std::size_t start = line.find_first_not_of(" \t");
    out.push_back(start == std::string::npos ? "" : without_trailing_blanks(line.substr(start)));
  }
  return out;
}

bool contains_run(const std::vector<std::string>& text, const std::vector<std::string>& run) {
  return std::search(text.begin(), text.end(), run.begin(), run.end()) != text.end();
}

std::string readme() {
  return read(root() / "README.md");
}

TEST(Readme, CppBlocksStandInExamples) {
  for (const Block& block : blocks_of(readme())) {
    if (block.language != "cpp") continue;
    bool found = false;
    for (const fs::path& file : all_files()) {
      const std::string path = place_of(file);
      if (file.extension() != ".cpp" || !starts_with_any(path, {"examples/", "tests/install/"}))
        continue;
      found = found || contains_run(flush(lines_of(read(file))), flush(block.lines));
    }
    EXPECT_TRUE(found) << "README.md:" << block.line << ": no example holds this block";
  }
}

TEST(Readme, CMakeBlocksStandInConsumers) {
  for (const Block& block : blocks_of(readme())) {
    if (block.language != "cmake") continue;
    bool found = false;
    for (const fs::path& file : all_files()) {
      if (!place_of(file).starts_with("tests/install/") || file.filename() != "CMakeLists.txt")
        continue;
      found = found || contains_run(flush(lines_of(read(file))), flush(block.lines));
    }
    EXPECT_TRUE(found) << "README.md:" << block.line
                       << ": no consumer in tests/install holds this block";
  }
}

TEST(Readme, ShellBlocksAreRun) {
  // `sh` blocks are run by readme_commands.sh. `bash` blocks set up, build and install: lines of
  // scripts.
  std::vector<std::string> scripts;
  for (const fs::path& file : all_files()) {
    const std::string path = place_of(file);
    if (file.extension() != ".sh" && path != ".ci/run" && path != ".github/workflows/ci.yml")
      continue;
    for (std::string line : flush(lines_of(read(file)))) {
      if (line.starts_with("- ")) line = line.substr(2);
      if (line.starts_with("run: ")) line = line.substr(5);
      scripts.push_back(line);
    }
  }
  for (const Block& block : blocks_of(readme())) {
    if (block.language != "bash") continue;
    for (const std::string& line : block.lines) {
      std::string command = line.substr(0, line.find(" #"));
      command = without_trailing_blanks(command);
      if (command.empty() || command.starts_with("#")) continue;
      EXPECT_NE(std::find(scripts.begin(), scripts.end(), command), scripts.end())
          << "README.md:" << block.line << ": no script runs: " << command;
    }
  }
}

TEST(Readme, BlocksHaveAKnownLanguage) {
  for (const Block& block : blocks_of(readme())) {
    // `text` is what a command printed, or a picture.
    const std::vector<std::string> known = {"cpp", "cmake", "sh", "bash", "text"};
    EXPECT_NE(std::find(known.begin(), known.end(), block.language), known.end())
        << "README.md:" << block.line << ": language '" << block.language << "'";
  }
}

TEST(Readme, LinksLeadToFiles) {
  for (const fs::path& file : all_files()) {
    if (file.extension() != ".md") continue;
    const std::string text = read(file);
    for (std::size_t at = text.find("]("); at != std::string::npos; at = text.find("](", at + 1)) {
      std::string target = text.substr(at + 2, text.find(')', at) - at - 2);
      target = target.substr(0, target.find('#'));
      if (target.empty() || target.find(':') != std::string::npos) continue;
      EXPECT_TRUE(fs::exists(file.parent_path() / target))
          << place_of(file) << " links to " << target;
    }
  }
}

}  // namespace
}  // namespace quell::house
