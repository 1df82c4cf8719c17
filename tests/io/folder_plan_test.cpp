// SPDX-License-Identifier: Apache-2.0

// Planned files: bytes known from the reference writer, shards, and that the reader accepts all.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "quell/io/json.hpp"
#include "quell/io/safetensors.hpp"
#include "support/files.hpp"
#include "support/safetensors_text.hpp"

namespace quell::io {
namespace {

constexpr std::uint64_t kNoLimit = 1ULL << 40;

TensorPlan tensor(std::string name, DType dtype, std::vector<std::uint64_t> shape) {
  TensorPlan plan;
  plan.name = std::move(name);
  plan.dtype = dtype;
  plan.shape = std::move(shape);
  return plan;
}

FolderPlan planned(std::vector<TensorPlan> tensors, std::uint64_t limit = kNoLimit,
                   std::span<const MetadataEntry> metadata = {}) {
  auto plan = plan_folder(std::move(tensors), limit, metadata);
  EXPECT_TRUE(plan.has_value()) << (plan ? "" : plan.error().message);
  return plan ? *std::move(plan) : FolderPlan{};
}

std::string fault(std::vector<TensorPlan> tensors, std::uint64_t limit = kNoLimit,
                  std::span<const MetadataEntry> metadata = {}) {
  const auto plan = plan_folder(std::move(tensors), limit, metadata);
  EXPECT_FALSE(plan.has_value());
  return plan ? std::string() : plan.error().message;
}

/// Writes the planned files, each tensor filled with the number of its position.
void write(const FolderPlan& plan, const std::filesystem::path& folder) {
  for (std::size_t s = 0; s < plan.shards.size(); ++s) {
    std::string bytes = plan.shards[s].header;
    bytes.resize(static_cast<std::size_t>(plan.shards[s].bytes), '?');
    for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
      const TensorPlan& item = plan.tensors[i];
      if (item.shard != s) continue;
      for (std::uint64_t b = 0; b < item.bytes; ++b) {
        char& byte = bytes[static_cast<std::size_t>(item.offset + b)];
        EXPECT_EQ(byte, '?') << "two tensors own this byte";
        byte = static_cast<char>(i);
      }
    }
    test::write_bytes(folder / plan.shards[s].file_name, bytes);
  }
  if (!plan.index_json.empty()) {
    test::write_bytes(folder / "model.safetensors.index.json", plan.index_json);
  }
}

/// The plan, written and read back: every tensor where it should be.
void expect_readable(const FolderPlan& plan) {
  const test::TemporaryFolder folder;
  write(plan, folder.path());
  const auto checkpoint = Checkpoint::open(folder.path());
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  EXPECT_TRUE(checkpoint->warnings().empty());
  ASSERT_EQ(checkpoint->tensors().size(), plan.tensors.size());
  EXPECT_EQ(checkpoint->total_bytes(), plan.total_bytes);
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    const TensorInfo* found = checkpoint->find(plan.tensors[i].name);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->dtype, plan.tensors[i].dtype);
    EXPECT_EQ(found->shape, plan.tensors[i].shape);
    EXPECT_EQ(found->bytes, plan.tensors[i].bytes);
    EXPECT_EQ(found->offset, plan.tensors[i].offset);
    EXPECT_EQ(checkpoint->files()[found->file].filename().string(),
              plan.shards[plan.tensors[i].shard].file_name);
    const auto value = checkpoint->read(found->name);
    ASSERT_TRUE(value.has_value());
    for (const std::byte byte : value->data()) {
      ASSERT_EQ(byte, static_cast<std::byte>(static_cast<char>(i)));
    }
  }
}

TEST(FolderPlan, WorkedExampleOfTheFormatIsByteIdentical) {
  // Made by safetensors 0.8.0 for Python: save_file of c, a, b in this order with {"format": "pt"}.
  const FolderPlan plan = planned(
      {tensor("c", DType::u8, {1}), tensor("a", DType::f16, {3}), tensor("b", DType::f32, {2})});
  ASSERT_EQ(plan.shards.size(), 1u);
  EXPECT_EQ(plan.shards[0].file_name, "model.safetensors");
  EXPECT_EQ(plan.shards[0].header, test::worked_example().substr(0, 208));
  EXPECT_EQ(plan.shards[0].bytes, 223u);
  EXPECT_EQ(plan.index_json, "");
  EXPECT_EQ(plan.total_bytes, 15u);
  EXPECT_EQ(plan.tensors[0].name, "c") << "the order given is kept";
  EXPECT_EQ(plan.tensors[0].offset, 222u);
  EXPECT_EQ(plan.tensors[1].offset, 216u);
  EXPECT_EQ(plan.tensors[2].offset, 208u);
}

TEST(FolderPlan, HostileNamesAreEscapedAsByTheReferenceWriter) {
  // Made by the same writer from names with a quote, a backslash, controls, DEL, U+2028, a slash.
  const FolderPlan plan =
      planned({tensor("a\"\\\b\f\n\r\t\x01\x1f\x7f\xE2\x80\xA8/\xC3\xA9", DType::u8, {0})});
  const std::string expected =
      "{\"__metadata__\":{\"format\":\"pt\"},\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f\x7f"
      "\xE2\x80\xA8/\xC3\xA9\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}";
  EXPECT_EQ(plan.shards[0].header.substr(8, expected.size()), expected);
}

TEST(FolderPlan, SortsByRankThenByBytesOfTheName) {
  const FolderPlan plan = planned({tensor("b", DType::u8, {1}), tensor("a", DType::boolean, {1}),
                                   tensor("B", DType::u8, {1}), tensor("z", DType::i64, {1}),
                                   tensor("\xC3\xA9", DType::u8, {1}), tensor("y", DType::u64, {1}),
                                   tensor("f", DType::f32, {1}), tensor("i", DType::i32, {1}),
                                   tensor("h", DType::bf16, {1}), tensor("g", DType::f16, {1})});
  std::vector<std::pair<std::uint64_t, std::string>> order;
  for (const TensorPlan& item : plan.tensors) order.emplace_back(item.offset, item.name);
  std::sort(order.begin(), order.end());
  std::string names;
  for (const auto& [offset, name] : order) names += name;
  EXPECT_EQ(names,
            "yzfihgBb\xC3\xA9"
            "a");
  expect_readable(plan);
}

TEST(FolderPlan, AlignsEveryTensorToItsElement) {
  std::mt19937 random(3);
  for (int round = 0; round < 50; ++round) {
    std::vector<TensorPlan> tensors;
    for (unsigned i = 0; i < 1 + random() % 20; ++i) {
      const DType dtype = kDTypes[random() % kDTypes.size()].dtype;
      if (bits(dtype) < 8) continue;
      tensors.push_back(
          tensor("t" + std::to_string(random()), dtype, {random() % 5, random() % 5}));
    }
    const FolderPlan plan = planned(tensors);
    for (const TensorPlan& item : plan.tensors) {
      EXPECT_EQ(item.offset % (bits(item.dtype) / 8), 0u) << item.name;
    }
    EXPECT_EQ(plan.shards[0].header.size() % 8, 0u);
    expect_readable(plan);
  }
}

TEST(FolderPlan, MetadataHoldsFormatOnceAndFirst) {
  const std::vector<MetadataEntry> entries = {
      {"quantized_by", "quell \"1\""}, {"format", "np"}, {"z", ""}};
  const FolderPlan plan = planned({tensor("a", DType::u8, {1})}, kNoLimit, entries);
  const std::string expected =
      R"({"__metadata__":{"format":"pt","quantized_by":"quell \"1\"","z":""},"a":{)";
  EXPECT_EQ(plan.shards[0].header.substr(8, expected.size()), expected);
  const std::vector<MetadataEntry> twice = {{"k", "1"}, {"k", "2"}};
  EXPECT_NE(fault({}, kNoLimit, twice).find("\"k\" is given twice"), std::string::npos);
}

TEST(FolderPlan, NoTensorsMakeOneEmptyFile) {
  const FolderPlan plan = planned({});
  ASSERT_EQ(plan.shards.size(), 1u);
  EXPECT_EQ(plan.shards[0].bytes, plan.shards[0].header.size());
  expect_readable(plan);
}

TEST(FolderPlan, ShardsAreFilledInTheOrderGiven) {
  const FolderPlan plan =
      planned({tensor("m.0.w", DType::u8, {60}), tensor("m.1.w", DType::u8, {40}),
               tensor("m.2.w", DType::u8, {1}), tensor("m.3.w", DType::u8, {99})},
              100);
  ASSERT_EQ(plan.shards.size(), 2u) << "60 + 40 fill the first exactly, 1 + 99 the second";
  EXPECT_EQ(plan.shards[0].file_name, "model-00001-of-00002.safetensors");
  EXPECT_EQ(plan.shards[1].file_name, "model-00002-of-00002.safetensors");
  EXPECT_EQ(plan.tensors[1].shard, 0u);
  EXPECT_EQ(plan.tensors[2].shard, 1u);
  EXPECT_EQ(plan.tensors[3].shard, 1u);
  expect_readable(plan);
}

TEST(FolderPlan, LimitOfOneByteGivesEveryModuleItsShard) {
  const FolderPlan plan = planned(
      {tensor("a.w", DType::f32, {3}), tensor("b.w", DType::f32, {3}),
       tensor("b.s", DType::f32, {1}), tensor("c", DType::f32, {0}), tensor("d", DType::f32, {1})},
      1);
  ASSERT_EQ(plan.shards.size(), 3u);
  EXPECT_EQ(plan.tensors[2].shard, 1u);
  EXPECT_EQ(plan.tensors[3].shard, 1u) << "no bytes, so it fits into any shard";
  EXPECT_EQ(plan.tensors[4].shard, 2u);
  expect_readable(plan);
}

TEST(FolderPlan, ModulesStayTogetherEvenWhenGivenApart) {
  const FolderPlan plan = planned({tensor("l.0.q.weight_packed", DType::i32, {20}),
                                   tensor("l.0.k.weight_packed", DType::i32, {20}),
                                   tensor("l.0.q.weight_scale", DType::f16, {4}),
                                   tensor("l.0.k.weight_scale", DType::f16, {4})},
                                  90);
  ASSERT_EQ(plan.shards.size(), 2u);
  EXPECT_EQ(plan.tensors[0].shard, plan.tensors[2].shard);
  EXPECT_EQ(plan.tensors[1].shard, plan.tensors[3].shard);
  EXPECT_NE(plan.tensors[0].shard, plan.tensors[1].shard);
  expect_readable(plan);
}

TEST(FolderPlan, NamesWithoutADotAreModulesOfTheirOwn) {
  const FolderPlan plan = planned({tensor("a", DType::u8, {6}), tensor("b", DType::u8, {6})}, 10);
  EXPECT_EQ(plan.shards.size(), 2u);
}

TEST(FolderPlan, IndexCountsTensorBytesAndSortsNames) {
  const FolderPlan plan =
      planned({tensor("b.w", DType::u8, {10}), tensor("a.w", DType::u8, {10})}, 10);
  EXPECT_EQ(plan.index_json,
            "{\n  \"metadata\": {\n    \"total_size\": 20\n  },\n  \"weight_map\": {\n"
            "    \"a.w\": \"model-00002-of-00002.safetensors\",\n"
            "    \"b.w\": \"model-00001-of-00002.safetensors\"\n  }\n}\n");
}

TEST(FolderPlan, RandomFoldersAreReadBack) {
  std::mt19937 random(11);
  for (int round = 0; round < 30; ++round) {
    std::vector<TensorPlan> tensors;
    std::set<std::string> names;
    for (unsigned i = 0; i < random() % 40; ++i) {
      const std::string name =
          "l" + std::to_string(random() % 6) + ".w" + std::to_string(random() % 9);
      if (!names.insert(name).second) continue;
      const DType dtype = kDTypes[random() % kDTypes.size()].dtype;
      // A multiple of four elements fills whole bytes for every width.
      tensors.push_back(tensor(name, dtype, {4, random() % 7}));
    }
    expect_readable(planned(tensors, 1 + random() % 400));
  }
}

TEST(FolderPlan, RefusesWhatNoReaderCouldRead) {
  EXPECT_NE(
      fault({tensor("a", DType::u8, {1}), tensor("b", DType::u8, {1}), tensor("a", DType::u8, {1})})
          .find("tensor a is planned twice"),
      std::string::npos);
  EXPECT_NE(fault({tensor("", DType::u8, {1})}).find("no tensor can have"), std::string::npos);
  EXPECT_NE(fault({tensor("__metadata__", DType::u8, {1})}).find("no tensor can have"),
            std::string::npos);
  EXPECT_NE(fault({tensor("\xff", DType::u8, {1})}).find("not plain UTF-8"), std::string::npos);
  EXPECT_NE(fault({tensor(std::string(65'537, 'a'), DType::u8, {1})}).find("65537"),
            std::string::npos);
  EXPECT_NE(fault({tensor("a", DType::u8, {1, 1, 1, 1, 1, 1, 1, 1, 1})}).find("9 dimensions"),
            std::string::npos);
  EXPECT_NE(fault({tensor("a", DType::u8, {1ULL << 32, 1ULL << 32})}).find("overflows 64 bits"),
            std::string::npos);
  EXPECT_NE(fault({tensor("a", DType::u8, {1ULL << 48})}).find("more than the format allows"),
            std::string::npos);
  EXPECT_NE(fault({tensor("a", DType::u8, {1ULL << 48, 0})}).find("more than the format allows"),
            std::string::npos);
  EXPECT_NE(fault({tensor("a", DType::f4, {3})}).find("ends inside a byte"), std::string::npos);
  EXPECT_NE(fault({tensor("m.a", DType::u8, {1ULL << 47}), tensor("m.b", DType::u8, {1ULL << 47})})
                .find("larger than the format allows"),
            std::string::npos);
  EXPECT_NE(fault({tensor("a", DType::u8, {1})}, 0).find("shard limit is 0"), std::string::npos);
  EXPECT_EQ(planned({tensor("a", DType::u8, {1ULL << 47}), tensor("b", DType::u8, {1ULL << 47})},
                    ~std::uint64_t{0})
                .shards.size(),
            2u)
      << "a shard ends where offsets would pass the largest integer of the format";
}

TEST(FolderPlan, RefusesMoreShardsThanFiveDigitsCount) {
  std::vector<TensorPlan> tensors;
  for (int i = 0; i < 100'000; ++i) tensors.push_back(tensor(std::to_string(i), DType::u8, {1}));
  EXPECT_NE(fault(tensors, 1).find("needs more than 99999 shards"), std::string::npos);
  tensors.pop_back();
  EXPECT_EQ(planned(tensors, 1).shards.back().file_name, "model-99999-of-99999.safetensors");
}

}  // namespace
}  // namespace quell::io
