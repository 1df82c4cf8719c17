// SPDX-License-Identifier: Apache-2.0
#pragma once

// The source tree as text, for the tests that keep the rules of the house: which files there are,
// what a C++ file includes, and what it says in comments. The lexer knows just enough of C++ to
// tell code, comments and literals apart.

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace quell::house {

namespace fs = std::filesystem;

inline const fs::path& root() {
  static const fs::path path = QUELL_SOURCE_DIR;
  return path;
}

inline std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// A path of the tree as messages and rules write it: relative to the root, with slashes.
inline std::string place_of(const fs::path& path) {
  return path.lexically_relative(root()).generic_string();
}

/// All files of the tree, sorted, without builds and version control.
inline const std::vector<fs::path>& all_files() {
  static const std::vector<fs::path> files = [] {
    std::vector<fs::path> found;
    fs::recursive_directory_iterator walk(root()), end;
    for (; walk != end; ++walk) {
      const std::string name = walk->path().filename().string();
      // Builds lie in build*/ at the root, as .gitignore says; hidden folders hold tools, not
      // sources.
      const bool build = walk.depth() == 0 && name.rfind("build", 0) == 0;
      const bool hidden = name[0] == '.' && name != ".github" && name != ".ci";
      if (walk->is_directory() && (build || hidden)) {
        walk.disable_recursion_pending();
      } else if (walk->is_regular_file() && (name[0] != '.' || name == ".clang-format")) {
        found.push_back(walk->path());
      }
    }
    std::sort(found.begin(), found.end());
    return found;
  }();
  return files;
}

inline bool is_cpp(const fs::path& path) {
  const std::string extension = path.extension().string();
  return extension == ".hpp" || extension == ".cpp" || extension == ".h" || extension == ".c";
}

inline bool starts_with_any(std::string_view text, std::initializer_list<std::string_view> heads) {
  return std::any_of(heads.begin(), heads.end(),
                     [&](std::string_view head) { return text.starts_with(head); });
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::size_t start = 0;
  while (start < text.size()) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    lines.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return lines;
}

/// A C++ file in two texts of its own length, so that line numbers hold in both: `code` with
/// comments and the inside of literals blanked out, `comments` with everything else blanked out.
struct Lexed {
  std::string code;
  std::string comments;
};

inline Lexed lex(const std::string& text) {
  Lexed out{text, text};
  for (char& c : out.comments) {
    if (c != '\n') c = ' ';
  }
  const auto blank = [&](std::size_t begin, std::size_t end, bool comment) {
    for (std::size_t i = begin; i < std::min(end, text.size()); ++i) {
      if (text[i] == '\n') continue;
      out.code[i] = ' ';
      if (comment) out.comments[i] = text[i];
    }
  };
  const auto is_word = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
  };
  std::size_t i = 0;
  while (i < text.size()) {
    const char c = text[i];
    std::size_t end = i + 1;
    if (text.compare(i, 2, "//") == 0) {
      end = std::min(text.find('\n', i), text.size());
      blank(i, end, true);
    } else if (text.compare(i, 2, "/*") == 0) {
      const std::size_t close = text.find("*/", i + 2);
      end = close == std::string::npos ? text.size() : close + 2;
      blank(i, end, true);
    } else if (c == '"' && i > 0 && text[i - 1] == 'R') {
      const std::size_t open = text.find('(', i);
      const std::string close = ")" + text.substr(i + 1, open - i - 1) + "\"";
      const std::size_t at = open == std::string::npos ? open : text.find(close, open);
      end = at == std::string::npos ? text.size() : at + close.size();
      blank(i + 1, end - 1, false);
    } else if (c == '"' || (c == '\'' && (i == 0 || !is_word(text[i - 1])))) {
      // An apostrophe after a word character separates digits (or follows a literal's prefix, whose
      // contents do no harm here).
      while (end < text.size() && text[end] != c && text[end] != '\n') {
        end += text[end] == '\\' ? 2 : 1;
      }
      blank(i + 1, end, false);
      ++end;
    }
    i = end;
  }
  return out;
}

struct Include {
  std::string name;
  bool quoted = false;  // "name", else <name>
  std::size_t line = 0;
};

inline std::vector<Include> includes_of(const std::string& text) {
  std::vector<Include> found;
  const std::vector<std::string> raw = lines_of(text), code = lines_of(lex(text).code);
  for (std::size_t i = 0; i < code.size(); ++i) {
    std::size_t at = code[i].find_first_not_of(' ');
    if (at == std::string::npos || code[i][at] != '#') continue;
    at = code[i].find("include", at);
    if (at == std::string::npos) continue;
    const std::size_t open = raw[i].find_first_of("<\"", at);
    if (open == std::string::npos) continue;
    const char close = raw[i][open] == '<' ? '>' : '"';
    const std::size_t end = raw[i].find(close, open + 1);
    if (end == std::string::npos) continue;
    found.push_back({raw[i].substr(open + 1, end - open - 1), close == '"', i + 1});
  }
  return found;
}

}  // namespace quell::house
