// SPDX-License-Identifier: Apache-2.0
// What verify_folder finds: files that are missing, short, long, changed, left over or not
// finished.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "io/folder_work.hpp"
#include "io/manifest.hpp"
#include "quell/io/output.hpp"
#include "support/files.hpp"

namespace quell::io {
namespace {

using test::TemporaryFolder;

class Verify : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto hash = test::do_work(out_);
    ASSERT_TRUE(hash.has_value()) << hash.error().message;
    hash_ = *hash;
  }
  VerifyReport report() const {
    auto result = verify_folder(out_);
    EXPECT_TRUE(result.has_value());
    return result ? *result : VerifyReport{};
  }
  // Some problem names this file and says this.
  void expect_problem(const std::string& file, const std::string& text) const {
    const VerifyReport found = report();
    for (const std::string& problem : found.problems) {
      if (problem.find((out_ / file).string()) != std::string::npos &&
          problem.find(text) != std::string::npos) {
        return;
      }
    }
    std::string all;
    for (const std::string& problem : found.problems) all += "\n  " + problem;
    ADD_FAILURE() << "no problem about " << file << " that says " << text << "; found:" << all;
  }
  void edit(const std::string& file, std::size_t at) const {
    std::string bytes = test::read_bytes(out_ / file);
    bytes.at(at) = static_cast<char>(bytes.at(at) ^ 4);
    test::write_bytes(out_ / file, bytes);
  }

  TemporaryFolder base_;
  std::filesystem::path out_ = base_ / "out";
  std::string hash_;
};

TEST_F(Verify, FindsNothingInAFinishedFolder) {
  const VerifyReport found = report();
  EXPECT_TRUE(found.complete);
  EXPECT_TRUE(found.problems.empty()) << found.problems.front();
  EXPECT_EQ(found.tensors_checked, 10U);
  EXPECT_EQ(found.hash, hash_);
}

TEST_F(Verify, NamesAMissingFile) {
  std::filesystem::remove(out_ / "model-00002-of-00003.safetensors");
  expect_problem("model-00002-of-00003.safetensors", "is missing");
  EXPECT_FALSE(report().complete);
}

TEST_F(Verify, NamesAFileThatLostOrGainedBytes) {
  const auto file = out_ / "model-00001-of-00003.safetensors";
  const auto size = std::filesystem::file_size(file);
  std::filesystem::resize_file(file, size - 1);
  expect_problem("model-00001-of-00003.safetensors", "has " + std::to_string(size - 1) + " bytes");
  EXPECT_FALSE(report().complete);
  std::filesystem::resize_file(file, size + 1);
  expect_problem("model-00001-of-00003.safetensors", "has " + std::to_string(size + 1) + " bytes");
}

TEST_F(Verify, NamesTheShardOfAFlippedBit) {
  const auto size = std::filesystem::file_size(out_ / "model-00003-of-00003.safetensors");
  edit("model-00003-of-00003.safetensors", size - 5);
  expect_problem("model-00003-of-00003.safetensors", "was changed");
  EXPECT_EQ(report().tensors_checked, 8U);
}

TEST_F(Verify, NamesAnEditedConfig) {
  edit("config.json", 5);
  expect_problem("config.json", "was changed");
}

TEST_F(Verify, NamesAFileLeftOver) {
  test::write_bytes(out_ / "model-00004-of-00003.safetensors", "stale");
  expect_problem("model-00004-of-00003.safetensors", "not in the manifest");
}

TEST_F(Verify, KnowsAFileThatWasAddedLater) {
  for (const char* text : {"first", "second, in its place"}) {
    const Status added = add_to_finished(out_, "report.html", text);
    ASSERT_TRUE(added.has_value()) << added.error().message;
    EXPECT_EQ(test::read_bytes(out_ / "report.html"), text);
    const VerifyReport found = report();
    EXPECT_TRUE(found.complete);
    EXPECT_TRUE(found.problems.empty()) << found.problems.front();
    EXPECT_EQ(found.hash, hash_) << "the result is the same";
  }
  test::write_bytes(out_ / "report.html", "edited");
  expect_problem("report.html", "bytes, the manifest says");
  // A new run takes it away with what else was ours.
  const auto again = test::do_work(out_, {.options = {.force = true}});
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_FALSE(std::filesystem::exists(out_ / "report.html"));
  EXPECT_TRUE(report().problems.empty());
}

TEST_F(Verify, AddsNoFileInPlaceOfTheResult) {
  const std::string before = test::read_bytes(out_ / "config.json");
  for (const char* name : {"config.json", "quell.manifest", "../outside", ""}) {
    const Status added = add_to_finished(out_, name, "text");
    ASSERT_FALSE(added.has_value()) << name;
    EXPECT_EQ(added.error().code, ErrorCode::usage) << name;
  }
  EXPECT_EQ(test::read_bytes(out_ / "config.json"), before);
  EXPECT_TRUE(report().problems.empty());
  const Status absent = add_to_finished(base_ / "absent", "report.html", "text");
  ASSERT_FALSE(absent.has_value());
  EXPECT_EQ(absent.error().code, ErrorCode::missing);
}

TEST_F(Verify, NamesALeftOverTemporaryFile) {
  test::write_bytes(out_ / ".quell-0123456789abcdef-00001.part", "stale");
  expect_problem(".quell-0123456789abcdef-00001.part", "temporary");
}

TEST_F(Verify, NamesAFolderOrALinkInPlaceOfAFile) {
  std::filesystem::remove(out_ / "tokenizer.json");
  test::write_bytes(base_ / "elsewhere", "{}\n");
  std::filesystem::create_symlink(base_ / "elsewhere", out_ / "tokenizer.json");
  expect_problem("tokenizer.json", "not a regular file");
}

TEST_F(Verify, SeesEveryFlippedBitOfTheManifest) {
  const std::string manifest = test::read_bytes(out_ / "quell.manifest");
  for (std::size_t at = 0; at < manifest.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = manifest;
      changed[at] = static_cast<char>(changed[at] ^ (1 << bit));
      const auto entries = parse_manifest(changed, "quell.manifest");
      if (!entries) continue;
      // What parses may differ in white space, or in a file that is listed but not counted: then
      // the comparison with the files finds it.
      const auto before = parse_manifest(manifest, "quell.manifest");
      ASSERT_TRUE(before.has_value());
      if (manifest_text(*entries) == manifest_text(*before)) continue;
      test::write_bytes(out_ / "quell.manifest", changed);
      EXPECT_FALSE(report().problems.empty()) << at << " " << bit;
    }
  }
}

TEST_F(Verify, RefusesAManifestThatNamesFilesOutside) {
  std::string manifest = test::read_bytes(out_ / "quell.manifest");
  std::vector<ManifestEntry> entries = {{"../secret", 1, std::string(64, 'a'), true}};
  test::write_bytes(out_ / "quell.manifest", manifest_text(entries));
  expect_problem("quell.manifest", "plain file name");
  EXPECT_FALSE(report().complete);
}

TEST_F(Verify, SaysThatAFolderWithoutManifestIsNotFinished) {
  std::filesystem::remove(out_ / "quell.manifest");
  expect_problem("quell.manifest", "is missing");
  EXPECT_FALSE(report().complete);
  EXPECT_TRUE(report().hash.empty());
}

TEST_F(Verify, SaysThatARunHasNotFinished) {
  const auto partial = base_ / "partial";
  ASSERT_TRUE(test::do_work(partial, {.stop_after = 2}).has_value());
  const auto found = verify_folder(partial);
  ASSERT_TRUE(found.has_value());
  EXPECT_FALSE(found->complete);
  bool told = false;
  for (const std::string& problem : found->problems) {
    told |= problem.find("to resume") != std::string::npos;
  }
  EXPECT_TRUE(told);
}

TEST_F(Verify, IgnoresTheLockOfADeadProcess) {
  test::write_bytes(out_ / ".quell-lock", "{\"pid\":1,\"host\":\"x\",\"started\":\"2020\"}");
  EXPECT_TRUE(report().complete);
  EXPECT_TRUE(report().problems.empty());
}

TEST(VerifyFolder, RefusesWhatIsNotAFolder) {
  const TemporaryFolder base;
  test::write_bytes(base / "file", "x");
  const auto file = verify_folder(base / "file");
  ASSERT_FALSE(file.has_value());
  EXPECT_EQ(file.error().code, ErrorCode::usage);
  const auto absent = verify_folder(base / "absent");
  ASSERT_FALSE(absent.has_value());
  EXPECT_EQ(absent.error().code, ErrorCode::missing);
}

}  // namespace
}  // namespace quell::io
