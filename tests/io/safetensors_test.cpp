// SPDX-License-Identifier: Apache-2.0

// One file: what is accepted, read and converted. What is refused is in safetensors_hostile_test.

#include "quell/io/safetensors.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <thread>

#include "support/files.hpp"
#include "support/safetensors_text.hpp"
#include "support/shared.hpp"

namespace quell::io {
namespace {

using test::entry;
using test::safetensors_bytes;
using namespace std::string_view_literals;

class Safetensors : public ::testing::Test {
 protected:
  Checkpoint open(std::string_view bytes) {
    test::write_bytes(path(), bytes);
    auto checkpoint = Checkpoint::open(path());
    EXPECT_TRUE(checkpoint.has_value()) << (checkpoint ? "" : checkpoint.error().message);
    return *std::move(checkpoint);
  }
  std::filesystem::path path() const { return folder_ / "model.safetensors"; }

  test::TemporaryFolder folder_;
};

TEST_F(Safetensors, WorkedExampleOfTheFormatIsRead) {
  const std::string bytes = test::worked_example();
  ASSERT_EQ(bytes.size(), 223u);
  EXPECT_EQ(bytes[0], '\xC8');
  const Checkpoint checkpoint = open(bytes);
  ASSERT_EQ(checkpoint.tensors().size(), 3u);
  EXPECT_EQ(checkpoint.total_bytes(), 15u);
  ASSERT_EQ(checkpoint.metadata().size(), 1u);
  EXPECT_EQ(checkpoint.metadata()[0].key, "format");
  EXPECT_EQ(checkpoint.metadata()[0].value, "pt");
  ASSERT_EQ(checkpoint.files().size(), 1u);
  EXPECT_TRUE(checkpoint.warnings().empty());

  const TensorInfo& a = checkpoint.tensors()[0];
  EXPECT_EQ(a.name, "a") << "sorted by name, not by offset";
  EXPECT_EQ(a.dtype, DType::f16);
  EXPECT_EQ(a.shape, (std::vector<std::uint64_t>{3}));
  EXPECT_EQ(a.offset, 216u);
  EXPECT_EQ(a.bytes, 6u);

  const auto b = checkpoint.read_floats("b");
  ASSERT_TRUE(b.has_value());
  EXPECT_EQ(b->rows(), 1u);
  ASSERT_EQ(b->cols(), 2u);
  EXPECT_EQ((*b)(0, 0), 1.0f);
  EXPECT_EQ((*b)(0, 1), 2.0f);
  const auto halves = checkpoint.read_floats("a");
  ASSERT_TRUE(halves.has_value());
  EXPECT_EQ((*halves)(0, 2), 3.0f);
  const auto c = checkpoint.read("c");
  ASSERT_TRUE(c.has_value());
  EXPECT_EQ(c->dtype, DType::u8);
  ASSERT_EQ(c->data().size(), 1u);
  EXPECT_EQ(c->data()[0], std::byte{255});
}

TEST_F(Safetensors, EmptyFileOfTheFormatHasNoTensors) {
  const Checkpoint checkpoint = open("\x08\0\0\0\0\0\0\0{}      "sv);
  EXPECT_TRUE(checkpoint.tensors().empty());
  EXPECT_EQ(checkpoint.find("a"), nullptr);
  EXPECT_EQ(checkpoint.total_bytes(), 0u);
}

TEST_F(Safetensors, WhiteSpaceAroundTheHeaderIsAccepted) {
  open(safetensors_bytes("\t\n{}\r "));
  const Checkpoint checkpoint =
      open(safetensors_bytes("  \n{" + entry("a", "U8", "[1]", 0, 1) + "}\t\r\n ", "x"));
  EXPECT_EQ(checkpoint.tensors().size(), 1u);
}

TEST_F(Safetensors, UnknownMembersOfATensorAreIgnored) {
  const Checkpoint checkpoint = open(safetensors_bytes(
      R"({"a":{"note":{"x":"y"},"dtype":"U8","tags":[1,"b",null,-2.5],"shape":[1],"data_offsets":[0,1],"z":true}})",
      "x"));
  ASSERT_NE(checkpoint.find("a"), nullptr);
  EXPECT_EQ(checkpoint.find("a")->shape.size(), 1u);
}

TEST_F(Safetensors, MetadataMayBeNull) {
  EXPECT_TRUE(open(safetensors_bytes(R"({"__metadata__":null})")).metadata().empty());
  EXPECT_TRUE(open(safetensors_bytes(R"({"__metadata__":{}})")).metadata().empty());
}

TEST_F(Safetensors, EmptyTensorsAndScalarsAreAccepted) {
  const Checkpoint checkpoint = open(safetensors_bytes(
      "{" + entry("scalar", "F32", "[]", 0, 4) + "," + entry("empty", "F32", "[2,0]", 0, 0) + "," +
          entry("late", "F32", "[0]", 4, 4) + "," + entry("byte", "U8", "[]", 4, 5) + "}",
      "\0\0\x80\x3f\x07"sv));
  EXPECT_EQ(checkpoint.tensors().size(), 4u);
  const auto scalar = checkpoint.read_floats("scalar");
  ASSERT_TRUE(scalar.has_value());
  EXPECT_EQ(scalar->rows(), 1u);
  EXPECT_EQ(scalar->cols(), 1u);
  EXPECT_EQ((*scalar)(0, 0), 1.0f);
  const auto empty = checkpoint.read_floats("empty");
  ASSERT_TRUE(empty.has_value());
  EXPECT_EQ(empty->rows(), 2u);
  EXPECT_EQ(empty->cols(), 0u);
  EXPECT_EQ(checkpoint.read("empty")->shape, (std::vector<std::uint64_t>{2, 0}));
}

TEST_F(Safetensors, EveryDtypeIsReadWithItsSize) {
  std::string header;
  std::uint64_t cursor = 0;
  for (const DTypeInfo& type : kDTypes) {
    // Eight elements of any width fill whole bytes.
    header += header.empty() ? "{" : ",";
    header += entry(type.name, type.name, "[2,4]", cursor, cursor + type.bits);
    cursor += type.bits;
  }
  const Checkpoint checkpoint =
      open(safetensors_bytes(header + "}", std::string(static_cast<std::size_t>(cursor), '\0')));
  ASSERT_EQ(checkpoint.tensors().size(), kDTypes.size());
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    EXPECT_EQ(to_string(tensor.dtype), tensor.name);
    EXPECT_EQ(tensor.bytes, bits(tensor.dtype));
  }
}

TEST_F(Safetensors, FourBitElementsMayFillWholeBytesOnly) {
  EXPECT_EQ(
      open(safetensors_bytes("{" + entry("a", "F4", "[1,2]", 0, 1) + "}", "x")).tensors()[0].bytes,
      1u);
  EXPECT_EQ(open(safetensors_bytes("{" + entry("a", "F6_E3M2", "[4]", 0, 3) + "}", "xyz"))
                .tensors()[0]
                .bytes,
            3u);
}

TEST_F(Safetensors, NamesAreOpaque) {
  const std::string names[] = {
      "../../etc/passwd", "/etc/passwd", "a\\nb",   "\\u001b[31mred", "C:\\\\x",
      "\xE6\xBC\xA2.w",   " ",           "\\u0000", "__metadata",     "..",
      "a\\\"quote"};
  for (const std::string& name : names) {
    const Checkpoint checkpoint =
        open(safetensors_bytes("{" + entry(name, "U8", "[1]", 0, 1) + "}", "x"));
    const std::string found = checkpoint.tensors()[0].name;
    EXPECT_TRUE(checkpoint.read(found).has_value());
  }
  const std::string longest(65'536, 'n');
  EXPECT_EQ(open(safetensors_bytes("{" + entry(longest, "U8", "[1]", 0, 1) + "}", "x"))
                .find(longest)
                ->bytes,
            1u);
}

TEST_F(Safetensors, FindsEachOfManyNames) {
  std::vector<std::string> names;
  for (int i = 0; i < 1000; ++i) names.push_back("t" + std::to_string(i * 7919 % 1000));
  const Checkpoint checkpoint = open(test::bytes_of_vectors(names, 3));
  for (const std::string& name : names) {
    ASSERT_NE(checkpoint.find(name), nullptr) << name;
    EXPECT_EQ(checkpoint.find(name)->name, name);
  }
  EXPECT_EQ(checkpoint.find("t"), nullptr);
  EXPECT_EQ(checkpoint.find("t9999"), nullptr);
  EXPECT_EQ(checkpoint.find(""), nullptr);
}

TEST_F(Safetensors, PartsOfATensorAreRead) {
  const Checkpoint checkpoint =
      open(safetensors_bytes("{" + entry("a", "U8", "[6]", 0, 6) + "}", "abcdef"));
  const TensorInfo& a = *checkpoint.find("a");
  char part[3] = {};
  ASSERT_TRUE(checkpoint.read(a, 2, std::as_writable_bytes(std::span<char>(part))).has_value());
  EXPECT_EQ(std::string_view(part, 3), "cde");
  ASSERT_TRUE(checkpoint.read(a, 6, {}).has_value());

  const auto beyond = checkpoint.read(a, 4, std::as_writable_bytes(std::span<char>(part)));
  ASSERT_FALSE(beyond.has_value());
  EXPECT_EQ(beyond.error().code, ErrorCode::shape);
  EXPECT_EQ(beyond.error().tensor, "a");
  EXPECT_FALSE(
      checkpoint.read(a, ~std::uint64_t{0}, std::as_writable_bytes(std::span<char>(part))));
  const auto wrong = checkpoint.read(a, std::as_writable_bytes(std::span<char>(part)));
  ASSERT_FALSE(wrong.has_value());
  EXPECT_NE(wrong.error().message.find("has 6 bytes, but room was given for 3"), std::string::npos);
}

TEST_F(Safetensors, AbsentTensorIsNamed) {
  const Checkpoint checkpoint = open(test::worked_example());
  for (const ErrorCode code :
       {checkpoint.read("q\n").error().code, checkpoint.read_floats("q\n").error().code}) {
    EXPECT_EQ(code, ErrorCode::missing);
  }
  EXPECT_NE(checkpoint.read("q\n").error().message.find(
                "model.safetensors: tensor q\\n is not in the checkpoint"),
            std::string::npos);
}

TEST_F(Safetensors, IntegersAreNoFloats) {
  const auto floats = open(test::worked_example()).read_floats("c");
  ASSERT_FALSE(floats.has_value());
  EXPECT_EQ(floats.error().code, ErrorCode::unsupported);
  EXPECT_EQ(floats.error().tensor, "c");
  EXPECT_NE(floats.error().message.find("dtype U8"), std::string::npos);
}

TEST_F(Safetensors, FloatsAreFlattenedToRows) {
  const Checkpoint checkpoint = open(
      safetensors_bytes("{" + entry("a", "F32", "[2,3,4]", 0, 96) + "}", std::string(96, '\0')));
  const auto floats = checkpoint.read_floats("a");
  ASSERT_TRUE(floats.has_value());
  EXPECT_EQ(floats->rows(), 2u);
  EXPECT_EQ(floats->cols(), 12u);
}

TEST_F(Safetensors, EveryFloatTypeIsConverted) {
  // One and minus two in each type, from the tables of the formats.
  const struct {
    const char* dtype;
    std::string_view bytes;
    float second;
  } cases[] = {{"F64", "\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\xc0"sv, -2.0f},
               {"F32", "\0\0\x80\x3f\0\0\0\xc0"sv, -2.0f},
               {"F16", "\0\x3c\0\xc0"sv, -2.0f},
               {"BF16", "\x80\x3f\0\xc0"sv, -2.0f},
               {"F8_E4M3", "\x38\xc0"sv, -2.0f},
               {"F8_E5M2", "\x3c\xc0"sv, -2.0f},
               {"F8_E4M3FNUZ", "\x40\xc8"sv, -2.0f},
               {"F8_E5M2FNUZ", "\x40\xc4"sv, -2.0f},
               {"F8_E8M0", "\x7f\x80"sv, 2.0f}};
  for (const auto& item : cases) {
    const Checkpoint checkpoint = open(safetensors_bytes(
        "{" + entry("a", item.dtype, "[2]", 0, item.bytes.size()) + "}", item.bytes));
    const auto floats = checkpoint.read_floats("a");
    ASSERT_TRUE(floats.has_value()) << item.dtype;
    EXPECT_EQ((*floats)(0, 0), 1.0f) << item.dtype;
    EXPECT_EQ((*floats)(0, 1), item.second) << item.dtype;
  }
}

TEST_F(Safetensors, DoublesAreRoundedToNearestEven) {
  const double values[] = {0.1, 1.0 + std::ldexp(1.0, -24), 1e300, -0.0,
                           std::numeric_limits<double>::quiet_NaN()};
  const Checkpoint checkpoint = open(
      safetensors_bytes("{" + entry("a", "F64", "[5]", 0, 40) + "}",
                        std::string_view(reinterpret_cast<const char*>(values), sizeof values)));
  const auto floats = checkpoint.read_floats("a");
  ASSERT_TRUE(floats.has_value());
  EXPECT_EQ((*floats)(0, 0), 0.1f);
  EXPECT_EQ((*floats)(0, 1), 1.0f) << "a tie goes to the even fraction";
  EXPECT_EQ((*floats)(0, 2), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::signbit((*floats)(0, 3)));
  EXPECT_TRUE(std::isnan((*floats)(0, 4)));
}

TEST_F(Safetensors, ConversionInWindowsEqualsTheWhole) {
  // 1.5 million bf16 values: more than two of the windows in which narrow types are read.
  constexpr std::size_t kCount = 1'500'000;
  std::string values(kCount * 2, '\0');
  for (std::size_t i = 0; i < kCount; ++i) {
    values[2 * i] = static_cast<char>(i % 251);
    values[2 * i + 1] = static_cast<char>(0x3f - i % 3);
  }
  const Checkpoint checkpoint = open(
      safetensors_bytes("{" + entry("a", "BF16", "[3,500000]", 0, values.size()) + "}", values));
  const auto floats = checkpoint.read_floats("a");
  ASSERT_TRUE(floats.has_value());
  for (std::size_t i = 0; i < kCount; ++i) {
    const std::uint32_t low = static_cast<unsigned char>(values[2 * i]);
    const std::uint32_t high = static_cast<unsigned char>(values[2 * i + 1]);
    ASSERT_EQ(floats->data()[i], std::bit_cast<float>(high << 24 | low << 16)) << i;
  }
}

TEST_F(Safetensors, ThreadsReadAtTheSameTime) {
  std::vector<std::string> names;
  for (char c = 'a'; c <= 'z'; ++c) names.emplace_back(1, c);
  const Checkpoint checkpoint = open(test::bytes_of_vectors(names, 10'000, 'v'));
  std::vector<int> good(4, 0);
  {
    std::vector<std::jthread> threads;
    for (int& count : good) {
      threads.emplace_back([&] {
        for (const TensorInfo& tensor : checkpoint.tensors()) {
          const auto value = checkpoint.read(tensor.name);
          count += value && value->data()[9'999] == std::byte{'v'} ? 1 : 0;
        }
      });
    }
  }
  EXPECT_EQ(good, std::vector<int>(4, 26));
}

TEST_F(Safetensors, ShrunkFileIsAnErrorNotASignal) {
  const Checkpoint checkpoint = open(test::bytes_of_vectors({"a", "b"}, 100'000));
  std::filesystem::resize_file(path(), 150'000);
  const auto value = checkpoint.read("b");
  ASSERT_FALSE(value.has_value());
  EXPECT_EQ(value.error().code, ErrorCode::parse);
  EXPECT_EQ(value.error().tensor, "b");
  EXPECT_NE(value.error().message.find("input changed while being read"), std::string::npos)
      << value.error().message;
  EXPECT_NE(value.error().message.find("150000"), std::string::npos);
}

TEST_F(Safetensors, RewrittenFileIsAnError) {
  const std::string bytes = test::bytes_of_vectors({"a", "b"}, 1000);
  const Checkpoint checkpoint = open(bytes);
  ASSERT_TRUE(checkpoint.read("a").has_value());
  std::filesystem::last_write_time(
      path(), std::filesystem::last_write_time(path()) + std::chrono::seconds(5));
  const auto value = checkpoint.read("a");
  ASSERT_FALSE(value.has_value());
  EXPECT_EQ(value.error().code, ErrorCode::parse);
  EXPECT_NE(value.error().message.find("input changed while being read"), std::string::npos);
}

TEST_F(Safetensors, HugeTensorsAreAddressedWith64Bits) {
  // 70,000 x 70,000 bytes in a sparse file: element numbers pass 2^32.
  const std::uint64_t size = 70'000ULL * 70'000ULL;
  const std::string header =
      safetensors_bytes("{" + entry("a", "U8", "[70000,70000]", 0, size) + "}");
  test::write_bytes(path(), header);
  std::error_code error;
  std::filesystem::resize_file(path(), header.size() + size, error);
  if (error) GTEST_SKIP() << "no sparse files here: " << error.message();
  {
    std::fstream file(path(), std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(header.size() + size - 1));
    file.put('z');
  }
  const auto checkpoint = Checkpoint::open(path());
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  EXPECT_EQ(checkpoint->total_bytes(), size);
  char last[2] = {};
  ASSERT_TRUE(checkpoint->read(checkpoint->tensors()[0], size - 2,
                               std::as_writable_bytes(std::span<char>(last))));
  EXPECT_EQ(last[0], '\0');
  EXPECT_EQ(last[1], 'z');
}

TEST(SafetensorsOfModels, AreReadWhole) {
  const auto models = test::shared_path("models");
  if (!models) GTEST_SKIP() << "the shared models are not here";
  std::size_t opened = 0;
  for (const auto& model : std::filesystem::directory_iterator(*models)) {
    if (!std::filesystem::exists(model.path() / "model.safetensors")) continue;
    const auto checkpoint = Checkpoint::open(model.path());
    ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
    std::uint64_t total = 0;
    for (const TensorInfo& tensor : checkpoint->tensors()) {
      total += tensor.bytes;
      EXPECT_TRUE(checkpoint->read(tensor.name).has_value()) << tensor.name;
    }
    EXPECT_EQ(total, checkpoint->total_bytes());
    ++opened;
  }
  EXPECT_GT(opened, 0u);
}

}  // namespace
}  // namespace quell::io
