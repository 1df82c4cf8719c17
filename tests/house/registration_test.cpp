// SPDX-License-Identifier: Apache-2.0

// Sources are listed in the build by name. A file that no list names compiles nowhere and its tests
// never run, which looks exactly like success; so every C++ file must be named by a build file
// above it.

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "sources.hpp"

namespace quell::house {
namespace {

bool is_build_file(const fs::path& path) {
  return path.filename() == "CMakeLists.txt" || path.extension() == ".cmake";
}

/// Everything in a build file that could name a source: words between blanks, parentheses and
/// quotes, outside comments.
std::vector<std::string> build_words(const std::string& text) {
  std::vector<std::string> words;
  for (std::string line : lines_of(text)) {
    line = line.substr(0, line.find('#'));
    for (std::size_t i = 0; i < line.size();) {
      const std::size_t start = line.find_first_not_of(" ()\";<>", i);
      if (start == std::string::npos) break;
      i = std::min(line.find_first_of(" ()\";<>", start), line.size());
      words.push_back(line.substr(start, i - start));
    }
  }
  return words;
}

/// Paths that build files name, relative to the root.
std::set<std::string> registered() {
  std::set<std::string> paths;
  for (const fs::path& file : all_files()) {
    if (!is_build_file(file)) continue;
    for (std::string word : build_words(read(file))) {
      for (const std::string variable :
           {"${CMAKE_CURRENT_SOURCE_DIR}/", "${CMAKE_CURRENT_LIST_DIR}/", "${quell_SOURCE_DIR}/",
            "${CMAKE_SOURCE_DIR}/", "${PROJECT_SOURCE_DIR}/"}) {
        if (!word.starts_with(variable)) continue;
        const bool here = variable.find("CURRENT") != std::string::npos;
        word = ((here ? file.parent_path() : root()) / word.substr(variable.size())).string();
      }
      paths.insert(place_of((file.parent_path() / word).lexically_normal()));
    }
  }
  return paths;
}

TEST(Registration, EverySourceIsInABuildList) {
  const std::set<std::string> named = registered();
  std::size_t checked = 0;
  for (const fs::path& file : all_files()) {
    const std::string extension = file.extension().string();
    if (extension != ".cpp" && extension != ".c" && extension != ".cu") continue;
    EXPECT_TRUE(named.contains(place_of(file))) << place_of(file) << " is named by no build file";
    ++checked;
  }
  EXPECT_GT(checked, 10u) << "the test has lost sight of the sources";
}

TEST(Registration, EveryTestFileIsATestOfTheBuild) {
  // A *_test.cpp outside tests/ would be compiled into the library.
  for (const fs::path& file : all_files()) {
    if (file.filename().string().ends_with("_test.cpp")) {
      EXPECT_TRUE(place_of(file).starts_with("tests/")) << place_of(file);
    }
  }
}

TEST(Registration, EveryFolderOfTestsIsAdded) {
  const std::string text = read(root() / "tests/CMakeLists.txt");
  const std::vector<std::string> words = build_words(text);
  for (const fs::path& file : all_files()) {
    const std::string path = place_of(file);
    if (!path.starts_with("tests/") || file.filename() != "CMakeLists.txt") continue;
    const std::string folder = path.substr(6, path.find('/', 6) - 6);
    if (path == "tests/CMakeLists.txt" || path != "tests/" + folder + "/CMakeLists.txt") continue;
    EXPECT_NE(std::find(words.begin(), words.end(), folder), words.end())
        << path << " is not added by tests/CMakeLists.txt";
  }
}

TEST(Registration, SourcesAreNotGlobbed) {
  for (const fs::path& file : all_files()) {
    const std::string path = place_of(file);
    // The one list that is made by looking: that every public header compiles alone.
    if (!is_build_file(file) || path.starts_with("tests/house/")) continue;
    for (const std::string& word : build_words(read(file))) {
      EXPECT_FALSE(word == "GLOB" || word == "GLOB_RECURSE") << path;
    }
  }
}

}  // namespace
}  // namespace quell::house
