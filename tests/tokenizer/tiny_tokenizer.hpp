// SPDX-License-Identifier: Apache-2.0
#pragma once

// Tokenizers for tests: tokenizer.json written into a fresh folder and read back.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "quell/tokenizer/tokenizer.hpp"

namespace quell::tokenizer {

/// A folder that is empty at first and gone afterwards.
class TinyFolder {
 public:
  TinyFolder() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    std::string name = std::string("quell_") + test->test_suite_name() + "_" + test->name();
    for (char& c : name) c = c == '/' ? '_' : c;
    path_ = std::filesystem::path(testing::TempDir()) / name;
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TinyFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  TinyFolder(const TinyFolder&) = delete;
  TinyFolder& operator=(const TinyFolder&) = delete;

  void write(const std::string& name, std::string_view bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Reads a tokenizer whose tokenizer.json is `json`.
inline Result<Tokenizer> tokenizer_from(std::string_view json) {
  const TinyFolder folder;
  folder.write("tokenizer.json", json);
  return Tokenizer::read(folder.path());
}

/// The texts of the ids of `text`, without what a post-processor adds.
inline std::vector<std::string> pieces_of(const Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.encode(text, /*add_special=*/false);
  if (!ids) return {"error: " + ids.error().message};
  std::vector<std::string> pieces;
  for (const std::int32_t id : *ids) pieces.emplace_back(tokenizer.piece(id));
  return pieces;
}

using Pieces = std::vector<std::string>;

}  // namespace quell::tokenizer
