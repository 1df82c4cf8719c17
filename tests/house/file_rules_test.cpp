// SPDX-License-Identifier: Apache-2.0

// Rules about single files: length, first lines, names, and what comments may not say.

#include <gtest/gtest.h>

#include <set>

#include "sources.hpp"

namespace quell::house {
namespace {

const std::set<std::string> kForbiddenWords = {"utils",   "helpers",   "common", "misc", "base",
                                               "manager", "processor", "data",   "impl"};

bool is_script(const fs::path& path) {
  return path.extension() == ".sh" || place_of(path) == ".ci/run";
}

bool is_cmake(const fs::path& path) {
  return path.filename() == "CMakeLists.txt" || path.extension() == ".cmake";
}

bool is_code(const fs::path& path) {
  return is_cpp(path) || is_script(path) || is_cmake(path) || path.extension() == ".cu" ||
         path.extension() == ".cuh" || path.extension() == ".py";
}

/// Files made of prose or code, as opposed to models, vectors and pictures.
bool is_text(const fs::path& path) {
  static const std::set<std::string> extensions = {".md", ".txt", ".json", ".yml", ".yaml", ".in"};
  const std::string name = place_of(path);
  if (starts_with_any(name, {"examples/models/", "examples/text/", "tests/golden/"})) {
    return path.extension() == ".md";
  }
  return is_code(path) || extensions.contains(path.extension().string());
}

/// Words of a name: snake_case and PascalCase are cut alike, in lower case.
std::vector<std::string> words_of(const std::string& name) {
  std::vector<std::string> words(1);
  for (std::size_t i = 0; i < name.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(name[i]);
    const bool hump =
        std::isupper(c) && i > 0 && !std::isupper(static_cast<unsigned char>(name[i - 1]));
    if (c == '_' || c == '-' || c == '.' || hump) words.emplace_back();
    if (std::isalnum(c)) words.back() += static_cast<char>(std::tolower(c));
  }
  return words;
}

std::string at(const fs::path& file, std::size_t line) {
  return place_of(file) + ":" + std::to_string(line + 1) + ": ";
}

TEST(Lexer, TellsCodeCommentsAndLiteralsApart) {
  const std::string text =
      "int a = 1'000; // it's \"one\"\n"
      "const char* b = \"// no \\\" comment\"; /* two\nlines */ char c = '\"'; // end\n"
      "auto d = R\"x(// raw )\" )x\"; int e;\n";
  const Lexed lexed = lex(text);
  EXPECT_EQ(lexed.code.size(), text.size());
  EXPECT_EQ(lexed.code.find("comment"), std::string::npos);
  EXPECT_EQ(lexed.code.find("raw"), std::string::npos);
  EXPECT_NE(lexed.code.find("char c"), std::string::npos);
  EXPECT_NE(lexed.code.find("int e;"), std::string::npos);
  EXPECT_NE(lexed.comments.find("it's \"one\""), std::string::npos);
  EXPECT_NE(lexed.comments.find("lines */"), std::string::npos);
  EXPECT_NE(lexed.comments.find("// end"), std::string::npos);
  EXPECT_EQ(lexed.comments.find("no"), std::string::npos);
  EXPECT_EQ(words_of("JsonDataReader"), (std::vector<std::string>{"json", "data", "reader"}));
}

TEST(Files, HaveAtMostSixHundredLines) {
  std::size_t checked = 0;
  for (const fs::path& file : all_files()) {
    if (!is_code(file)) continue;
    const std::size_t lines = lines_of(read(file)).size();
    EXPECT_LE(lines, 600u) << place_of(file) << " holds more than one idea";
    ++checked;
  }
  EXPECT_GT(checked, 40u) << "the test has lost sight of the sources";
}

TEST(Files, OpenWithTheLicence) {
  const std::string tag = "SPDX-License-Identifier: Apache-2.0";
  for (const fs::path& file : all_files()) {
    const std::vector<std::string> lines = lines_of(read(file));
    if (is_cpp(file)) {
      ASSERT_FALSE(lines.empty()) << place_of(file) << " is empty";
      EXPECT_EQ(lines[0], "// " + tag) << place_of(file);
    } else if (is_script(file)) {
      ASSERT_GE(lines.size(), 2u) << place_of(file);
      EXPECT_EQ(lines[1], "# " + tag) << place_of(file);
    }
  }
}

TEST(Files, HeadersAreGuardedOnce) {
  for (const fs::path& file : all_files()) {
    if (file.extension() != ".hpp") continue;
    std::size_t guards = 0;
    for (const std::string& line : lines_of(read(file))) guards += line == "#pragma once";
    EXPECT_EQ(guards, 1u) << place_of(file);
  }
}

TEST(Files, AreNamedAfterTheirIdea) {
  for (const fs::path& file : all_files()) {
    if (!is_code(file)) continue;
    for (const std::string& word : words_of(file.stem().string())) {
      EXPECT_FALSE(kForbiddenWords.contains(word)) << place_of(file) << ": the word " << word;
    }
  }
}

TEST(Files, TypesAreNamedAfterTheirIdea) {
  for (const fs::path& file : all_files()) {
    if (!is_cpp(file)) continue;
    const std::vector<std::string> lines = lines_of(lex(read(file)).code);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      for (const std::string keyword : {"class ", "struct ", "enum class ", "union "}) {
        const std::size_t start = lines[i].find_first_not_of(' ');
        if (start == std::string::npos || lines[i].compare(start, keyword.size(), keyword) != 0)
          continue;
        std::size_t end = start + keyword.size();
        while (end < lines[i].size() &&
               (std::isalnum(static_cast<unsigned char>(lines[i][end])) || lines[i][end] == '_')) {
          ++end;
        }
        const std::string name =
            lines[i].substr(start + keyword.size(), end - start - keyword.size());
        for (const std::string& word : words_of(name)) {
          EXPECT_FALSE(kForbiddenWords.contains(word)) << at(file, i) << "the type " << name;
        }
      }
    }
  }
}

TEST(Files, CommentsAreAscii) {
  for (const fs::path& file : all_files()) {
    std::string text;
    if (is_cpp(file)) {
      text = lex(read(file)).comments;
    } else if (is_cmake(file) || is_script(file)) {
      text = read(file);
    }
    const std::vector<std::string> lines = lines_of(text);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      EXPECT_TRUE(std::all_of(lines[i].begin(), lines[i].end(),
                              [](char c) { return static_cast<unsigned char>(c) < 128; }))
          << at(file, i) << lines[i];
    }
  }
}

TEST(Files, CommentsPromiseNothing) {
  // Written in two parts, so that this file keeps its own rule.
  const std::vector<std::string> promises = {
      "TO"
      "DO",
      "FIX"
      "ME",
      "XX"
      "X",
      "HA"
      "CK"};
  for (const fs::path& file : all_files()) {
    if (!is_code(file)) continue;
    const std::string text = read(file);
    const std::vector<std::string> lines = lines_of(is_cpp(file) ? lex(text).comments : text);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      for (const std::string& promise : promises) {
        EXPECT_EQ(lines[i].find(promise), std::string::npos) << at(file, i) << lines[i];
      }
    }
  }
}

TEST(Files, NameNoPlaceOfOneMachine) {
  // Paths of somebody's machine, in code or prose; the system's own (/usr, /proc, /tmp, /dev) are
  // fine.
  const std::vector<std::string> places = {
      "/"
      "work",
      "/"
      "home/",
      "/"
      "root/"};
  for (const fs::path& file : all_files()) {
    if (!is_text(file)) continue;
    const std::vector<std::string> lines = lines_of(read(file));
    for (std::size_t i = 0; i < lines.size(); ++i) {
      for (const std::string& place : places) {
        std::size_t found = lines[i].find(place);
        for (; found != std::string::npos; found = lines[i].find(place, found + 1)) {
          const unsigned char before =
              found == 0 ? ' ' : static_cast<unsigned char>(lines[i][found - 1]);
          const std::size_t end = found + place.size();
          const unsigned char after =
              end < lines[i].size() ? static_cast<unsigned char>(lines[i][end]) : ' ';
          // In the middle of a longer path or word it is something else.
          const bool begins = !std::isalnum(before) && before != '_' && before != '.' &&
                              before != '}' && before != ')';
          const bool ends =
              place.back() == '/' || (!std::isalnum(after) && after != '_' && after != '-');
          EXPECT_FALSE(begins && ends) << at(file, i) << lines[i];
        }
      }
    }
  }
}

TEST(Files, EndWithOneNewline) {
  for (const fs::path& file : all_files()) {
    if (!is_code(file)) continue;
    const std::string text = read(file);
    ASSERT_FALSE(text.empty()) << place_of(file);
    EXPECT_TRUE(text.back() == '\n' && (text.size() < 2 || text[text.size() - 2] != '\n'))
        << place_of(file);
    EXPECT_EQ(text.find('\r'), std::string::npos) << place_of(file);
    EXPECT_EQ(text.find('\t'), std::string::npos) << place_of(file);
  }
}

}  // namespace
}  // namespace quell::house
