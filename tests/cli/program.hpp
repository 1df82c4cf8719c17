// SPDX-License-Identifier: Apache-2.0
#pragma once

// The program under test, small models and texts to run it on.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <vector>

#include "quell/io/json.hpp"
#include "support/files.hpp"
#include "support/process.hpp"

namespace quell::test {

inline Ended quell(std::vector<std::string> arguments, const Environment& environment = {}) {
  arguments.insert(arguments.begin(), QUELL_PROGRAM);
  return run_process(arguments, environment);
}

/// Runs with --json and returns the parsed result; a failure shows what the program said.
inline io::Json quell_json(std::vector<std::string> arguments,
                           const Environment& environment = {}) {
  arguments.push_back("--json");
  const Ended ended = quell(arguments, environment);
  EXPECT_EQ(ended.code, 0) << ended.err;
  auto json = io::parse_json(ended.out, "standard output");
  EXPECT_TRUE(json) << ended.out;
  return json ? *std::move(json) : io::Json();
}

inline std::string hash_of(const io::Json& json) {
  const io::Json* hash = json.find("hash");
  EXPECT_NE(hash, nullptr);
  return hash != nullptr ? hash->as_string() : std::string();
}

/// A Llama with random weights: 3 blocks, hidden 64, 4 heads over 2, 160, vocabulary 300, two
/// shards.
inline std::filesystem::path make_model(const std::filesystem::path& folder,
                                        std::vector<std::string> shape = {"3", "64", "4", "2",
                                                                          "160", "300", "2"}) {
  shape.insert(shape.begin(), {QUELL_MAKE_LLAMA, folder.string()});
  const Ended ended = run_process(shape);
  EXPECT_EQ(ended.code, 0) << ended.err;
  return folder;
}

/// Some text: words that repeat in no simple period.
inline std::filesystem::path make_text(const std::filesystem::path& file,
                                       std::size_t words = 3000) {
  constexpr const char* kWords[] = {"the",  "small", "river", "ran",    "down",  "to",    "a",
                                    "grey", "sea",   "and",   "nobody", "spoke", "until", "night"};
  std::string text;
  unsigned state = 12345;
  for (std::size_t i = 0; i < words; ++i) {
    state = state * 1103515245u + 12345u;
    text += kWords[(state >> 16) % 14];
    text += i % 11 == 10 ? ".\n" : " ";
  }
  write_bytes(file, text);
  return file;
}

/// The usual small job: the model, its text, and the options that make it quick.
struct SmallJob {
  TemporaryFolder folder;
  std::string model = make_model(folder / "model").string();
  std::string text = make_text(folder / "text.txt").string();
  std::string method;  // empty: the default one

  std::string path(const std::string& name) const { return (folder / name).string(); }
  std::vector<std::string> quantize(const std::string& output,
                                    std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"quantize", model, "-o",       path(output),
                                          "--calib",  text,  "--seqlen", "64"};
    const auto given = [&](const std::string& option) {
      return std::find(more.begin(), more.end(), option) != more.end();
    };
    if (!given("--samples")) arguments.insert(arguments.end(), {"--samples", "8"});
    if (!given("--group-size")) arguments.insert(arguments.end(), {"--group-size", "32"});
    if (!method.empty()) arguments.insert(arguments.end(), {"--method", method});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
};

inline void expect_error(const Ended& ended, int code, std::initializer_list<std::string> words) {
  EXPECT_EQ(ended.code, code) << ended.err;
  for (const std::string& word : words) {
    EXPECT_NE(ended.err.find(word), std::string::npos) << "no \"" << word << "\" in: " << ended.err;
  }
}

}  // namespace quell::test
