// SPDX-License-Identifier: Apache-2.0

// Folders of shards: which files are the checkpoint, what an index may say, where links may lead.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "quell/io/safetensors.hpp"
#include "support/files.hpp"
#include "support/safetensors_text.hpp"

namespace quell::io {
namespace {

namespace fs = std::filesystem;
using test::bytes_of_vectors;

class Folder : public ::testing::Test {
 protected:
  void shard(const std::string& name, const std::vector<std::string>& tensors, char fill = 1) {
    test::write_bytes(folder_ / name, bytes_of_vectors(tensors, 4, fill));
  }
  /// Pairs of tensor and file.
  void index(const std::vector<std::pair<std::string, std::string>>& map) {
    std::string text = "{\"metadata\":{\"total_size\":1,\"x\":null},\"weight_map\":{";
    for (const auto& [tensor, file] : map) {
      if (text.back() != '{') text += ',';
      text += '"' + tensor + "\":\"" + file + '"';
    }
    test::write_bytes(folder_ / "model.safetensors.index.json", text + "}}");
  }
  Checkpoint open(Checkpoint::Options options = {}) {
    auto checkpoint = Checkpoint::open(folder_.path(), options);
    EXPECT_TRUE(checkpoint.has_value()) << (checkpoint ? "" : checkpoint.error().message);
    return *std::move(checkpoint);
  }
  Error fault(ErrorCode code) {
    const auto checkpoint = Checkpoint::open(folder_.path());
    EXPECT_FALSE(checkpoint.has_value());
    if (checkpoint) return {};
    EXPECT_EQ(checkpoint.error().code, code) << checkpoint.error().message;
    EXPECT_EQ(checkpoint.error().message.find(checkpoint.error().file + ": "), 0u);
    return checkpoint.error();
  }

  test::TemporaryFolder folder_;
};

#define EXPECT_SAYS(error, words) \
  EXPECT_NE((error).message.find(words), std::string::npos) << (error).message

TEST_F(Folder, IndexComesFirst) {
  shard("model-00001-of-00002.safetensors", {"a", "b"}, 'x');
  shard("model-00002-of-00002.safetensors", {"c"}, 'y');
  shard("model.safetensors", {"a"});
  index({{"c", "model-00002-of-00002.safetensors"},
         {"a", "model-00001-of-00002.safetensors"},
         {"b", "model-00001-of-00002.safetensors"}});
  const Checkpoint checkpoint = open();
  ASSERT_EQ(checkpoint.files().size(), 2u);
  EXPECT_EQ(checkpoint.files()[0].filename(), "model-00001-of-00002.safetensors");
  ASSERT_EQ(checkpoint.tensors().size(), 3u);
  EXPECT_EQ(checkpoint.find("c")->file, 1u);
  EXPECT_EQ(checkpoint.read("b")->data()[0], std::byte{'x'});
  EXPECT_EQ(checkpoint.read("c")->data()[3], std::byte{'y'});
  ASSERT_EQ(checkpoint.warnings().size(), 1u);
  EXPECT_NE(checkpoint.warnings()[0].find("model.safetensors: not named in"), std::string::npos);
}

TEST_F(Folder, SingleFileComesSecond) {
  shard("model.safetensors", {"a"});
  shard("extra.safetensors", {"b"});
  EXPECT_EQ(open().tensors().size(), 1u);
}

TEST_F(Folder, ElseAllFilesButTheForeignOnes) {
  shard("part2.safetensors", {"b"});
  shard("part1.safetensors", {"a"});
  shard("consolidated.00.safetensors", {"a", "b"});
  shard("adapter_model.safetensors", {"lora"});
  shard("optimizer.safetensors", {"m"});
  shard(".hidden.safetensors", {"h"});
  test::write_bytes(folder_ / "pytorch_model.bin", "PK");
  const Checkpoint checkpoint = open();
  ASSERT_EQ(checkpoint.files().size(), 2u);
  EXPECT_EQ(checkpoint.files()[0].filename(), "part1.safetensors");
  EXPECT_EQ(checkpoint.tensors().size(), 2u);
}

TEST_F(Folder, WithoutWeightsSaysWhatIsThere) {
  EXPECT_SAYS(fault(ErrorCode::missing), "no weights found, expected model.safetensors.index.json");
  shard("adapter_model.safetensors", {"lora"});
  EXPECT_SAYS(fault(ErrorCode::missing), "holds only an adapter");
  test::write_bytes(folder_ / "training_args.bin", "x");
  EXPECT_SAYS(fault(ErrorCode::missing), "holds only an adapter");
  test::write_bytes(folder_ / "model.gguf", "GGUF");
  fs::remove(folder_ / "adapter_model.safetensors");
  EXPECT_SAYS(fault(ErrorCode::unsupported), "GGUF");
  for (const char* name : {"pytorch_model-00001-of-00002.bin", "model.pt", "model.pth"}) {
    test::write_bytes(folder_ / name, "x");
    EXPECT_SAYS(fault(ErrorCode::unsupported),
                "pickled weights are not read; convert to safetensors");
    fs::remove(folder_ / name);
  }
}

TEST_F(Folder, S24ShardThatIsAbsent) {
  shard("one.safetensors", {"a"});
  index({{"a", "one.safetensors"}, {"b", "two.safetensors"}});
  const Error error = fault(ErrorCode::missing);
  EXPECT_SAYS(error, "two.safetensors: no such file");
  EXPECT_SAYS(error, "index.json names it");
}

TEST_F(Folder, S24TensorThatIsAbsentFromItsShard) {
  shard("one.safetensors", {"a"});
  index({{"a", "one.safetensors"}, {"b", "one.safetensors"}});
  const Error error = fault(ErrorCode::missing);
  EXPECT_SAYS(error, "one.safetensors: tensor b is not in the file, but the index says so");
  EXPECT_EQ(error.tensor, "b");
}

TEST_F(Folder, S24TensorInAnotherShard) {
  shard("one.safetensors", {"a"});
  shard("two.safetensors", {"b"});
  index({{"a", "two.safetensors"}, {"b", "one.safetensors"}});
  EXPECT_SAYS(fault(ErrorCode::parse),
              "tensor a is said to be in two.safetensors, but it is in one.safetensors");
}

TEST_F(Folder, S24TensorInTwoShards) {
  shard("one.safetensors", {"a", "b"});
  shard("two.safetensors", {"b"});
  index({{"a", "one.safetensors"}, {"b", "two.safetensors"}});
  Error error = fault(ErrorCode::parse);
  EXPECT_SAYS(error, "tensor b is in two files");
  EXPECT_SAYS(error, "one.safetensors");
  EXPECT_SAYS(error, "two.safetensors");
  fs::remove(folder_ / "model.safetensors.index.json");
  EXPECT_SAYS(fault(ErrorCode::parse), "tensor b is in two files");
}

TEST_F(Folder, S24FileOrTensorThatTheIndexDoesNotNameIsAWarning) {
  shard("one.safetensors", {"a", "b"});
  shard("statistics.safetensors", {"s"});
  index({{"a", "one.safetensors"}});
  const Checkpoint checkpoint = open();
  EXPECT_EQ(checkpoint.tensors().size(), 2u);
  ASSERT_EQ(checkpoint.warnings().size(), 2u);
  EXPECT_NE(checkpoint.warnings()[0].find("statistics.safetensors: not named"), std::string::npos);
  EXPECT_NE(checkpoint.warnings()[1].find("tensor b is in the file but not in the index"),
            std::string::npos);
}

TEST_F(Folder, S25IndexThatLeavesTheFolder) {
  const test::TemporaryFolder elsewhere;
  test::write_bytes(elsewhere / "secret.safetensors", bytes_of_vectors({"a"}, 4));
  for (const std::string& name :
       {"../" + elsewhere.path().filename().string() + "/secret.safetensors",
        (elsewhere / "secret.safetensors").string(), std::string("sub/one.safetensors"),
        std::string("./one.safetensors"), std::string(".."), std::string("."), std::string(""),
        std::string("..\\\\one.safetensors"), std::string("one\\u0000.safetensors"),
        std::string(300, 'x')}) {
    index({{"a", name}});
    const Error error = fault(ErrorCode::parse);
    EXPECT_SAYS(error, "outside the model directory");
    EXPECT_EQ(error.tensor, "a");
  }
}

TEST_F(Folder, S25LinkThatLeavesTheFolder) {
  const test::TemporaryFolder elsewhere;
  test::write_bytes(elsewhere / "blob", bytes_of_vectors({"a"}, 4));
  fs::create_symlink(elsewhere / "blob", folder_ / "model.safetensors");
  const Error error = fault(ErrorCode::parse);
  EXPECT_SAYS(error, "outside the model directory");
  EXPECT_SAYS(error, "blob");
  EXPECT_EQ(open({.allow_links_outside = true}).tensors().size(), 1u);
  EXPECT_TRUE(Checkpoint::open(folder_ / "model.safetensors").has_value())
      << "a file that the user names may be a link";

  index({{"a", "model.safetensors"}});
  EXPECT_SAYS(fault(ErrorCode::parse), "outside the model directory");
  EXPECT_EQ(open({.allow_links_outside = true}).tensors().size(), 1u);
}

TEST_F(Folder, S25LinkedIndexThatLeavesTheFolder) {
  const test::TemporaryFolder elsewhere;
  shard("one.safetensors", {"a"});
  index({{"a", "one.safetensors"}});
  fs::rename(folder_ / "model.safetensors.index.json", elsewhere / "index");
  fs::create_symlink(elsewhere / "index", folder_ / "model.safetensors.index.json");
  EXPECT_SAYS(fault(ErrorCode::parse), "outside the model directory");
  EXPECT_EQ(open({.allow_links_outside = true}).tensors().size(), 1u);
}

TEST_F(Folder, S25LinksInsideTheFolderAreFollowed) {
  fs::create_directory(folder_ / "blobs");
  test::write_bytes(folder_ / "blobs" / "0", bytes_of_vectors({"a"}, 4));
  fs::create_symlink("blobs/0", folder_ / "model.safetensors");
  EXPECT_EQ(open().tensors().size(), 1u);
  const test::TemporaryFolder elsewhere;
  fs::create_directory_symlink(folder_.path(), elsewhere / "model");
  EXPECT_TRUE(Checkpoint::open(elsewhere / "model").has_value()) << "the folder may be a link";
}

TEST_F(Folder, LinksThatLeadNowhereOrInCircles) {
  fs::create_symlink("gone", folder_ / "model.safetensors");
  EXPECT_SAYS(fault(ErrorCode::missing), "the link leads nowhere");
  fs::remove(folder_ / "model.safetensors");
  fs::create_symlink("model.safetensors", folder_ / "model.safetensors");
  EXPECT_SAYS(fault(ErrorCode::missing), "the link leads nowhere");
}

TEST_F(Folder, ShardThatIsNoFile) {
  fs::create_directory(folder_ / "one.safetensors");
  index({{"a", "one.safetensors"}});
  EXPECT_SAYS(fault(ErrorCode::parse), "one.safetensors: is a folder");
  fs::remove(folder_ / "one.safetensors");
  ASSERT_EQ(::mkfifo((folder_ / "one.safetensors").c_str(), 0600), 0);
  EXPECT_SAYS(fault(ErrorCode::parse), "a device, pipe or socket");
}

TEST_F(Folder, IndexThatIsNoIndex) {
  const struct {
    const char* text;
    const char* says;
  } cases[] = {{"", "is empty"},
               {"[]", "weight_map is missing"},
               {"{}", "weight_map is missing"},
               {"{\"weight_map\":[]}", "weight_map is not an object"},
               {"{\"weight_map\":{}}", "weight_map is not an object"},
               {"{\"weight_map\":{\"a\":1}}", "tensor a has no file name (line 1, column 20)"},
               {"{\"weight_map\":{\"a\":\"x\",\"a\":\"x\"}}", "duplicate key \"a\""},
               {"{\"weight_map\":{\"a\":\"x\"}", "line 1"},
               {"\xEF\xBB\xBF{}", "byte-order mark"}};
  for (const auto& item : cases) {
    test::write_bytes(folder_ / "model.safetensors.index.json", item.text);
    const Error error = fault(ErrorCode::parse);
    EXPECT_SAYS(error, item.says);
    EXPECT_SAYS(error, "model.safetensors.index.json: ");
  }
  index({{"a", "pytorch_model.bin"}});
  EXPECT_SAYS(fault(ErrorCode::unsupported), "pickled weights are not read");
}

TEST_F(Folder, BrokenShardIsNamed) {
  shard("one.safetensors", {"a"});
  test::write_bytes(folder_ / "two.safetensors", "");
  index({{"a", "one.safetensors"}, {"b", "two.safetensors"}});
  EXPECT_SAYS(fault(ErrorCode::parse), "two.safetensors: the file is empty");
}

TEST_F(Folder, TwoHundredShardsWorkWithFewDescriptors) {
  std::vector<std::pair<std::string, std::string>> map;
  for (int i = 0; i < 200; ++i) {
    const std::string name = "model-" + std::to_string(i) + ".safetensors";
    shard(name, {"t" + std::to_string(i)}, static_cast<char>(i));
    map.emplace_back("t" + std::to_string(i), name);
  }
  index(map);
  struct ::rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  struct ::rlimit few = before;
  few.rlim_cur = 64;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  {
    const Checkpoint checkpoint = open();
    EXPECT_EQ(checkpoint.files().size(), 200u);
    // The host takes every descriptor that is left; ours are given back for each new file.
    std::vector<int> taken;
    for (int fd = ::open("/dev/null", O_RDONLY); fd >= 0; fd = ::open("/dev/null", O_RDONLY)) {
      taken.push_back(fd);
    }
    for (int round = 0; round < 2; ++round) {
      for (int i = 0; i < 200; ++i) {
        const auto value = checkpoint.read("t" + std::to_string(i));
        ASSERT_TRUE(value.has_value()) << value.error().message;
        EXPECT_EQ(value->data()[0], static_cast<std::byte>(static_cast<char>(i)));
      }
    }
    for (const int fd : taken) ::close(fd);
  }
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST_F(Folder, S27ShardReplacedAfterOpening) {
  // More shards than stay open, so that the first one is opened again.
  std::vector<std::pair<std::string, std::string>> map;
  for (int i = 0; i < 40; ++i) {
    const std::string name = "m" + std::to_string(i) + ".safetensors";
    shard(name, {"t" + std::to_string(i)});
    map.emplace_back("t" + std::to_string(i), name);
  }
  index(map);
  const Checkpoint checkpoint = open();
  test::write_bytes(folder_ / "new", bytes_of_vectors({"t0"}, 4, 'n'));
  fs::rename(folder_ / "new", folder_ / "m0.safetensors");
  const auto value = checkpoint.read("t0");
  ASSERT_FALSE(value.has_value());
  EXPECT_EQ(value.error().code, ErrorCode::parse);
  EXPECT_SAYS(value.error(), "input changed while being read");
  fs::remove(folder_ / "m1.safetensors");
  EXPECT_EQ(checkpoint.read("t1").error().code, ErrorCode::missing);
  EXPECT_TRUE(checkpoint.read("t2").has_value());
}

}  // namespace
}  // namespace quell::io
