// SPDX-License-Identifier: Apache-2.0

// Files that are wrong in one way each. Every case expects an error that names the file and the
// numbers; none may crash, hang or take much memory.

#include <gtest/gtest.h>

#include <ctime>
#include <random>

#include "io/safetensors_header.hpp"
#include "quell/io/safetensors.hpp"
#include "support/files.hpp"
#include "support/safetensors_text.hpp"

namespace quell::io {
namespace {

using test::entry;
using test::safetensors_bytes;
using namespace std::string_literals;

class Hostile : public ::testing::Test {
 protected:
  std::filesystem::path path() const { return folder_ / "model.safetensors"; }

  /// The error of a file with these bytes; checks that it names the file and is one line.
  Error fault(std::string_view bytes, ErrorCode code = ErrorCode::parse) {
    test::write_bytes(path(), bytes);
    return fault_of_file(code);
  }
  Error fault_of_file(ErrorCode code = ErrorCode::parse) {
    const auto checkpoint = Checkpoint::open(path());
    EXPECT_FALSE(checkpoint.has_value());
    if (checkpoint) return {};
    Error error = checkpoint.error();
    EXPECT_EQ(error.code, code) << error.message;
    EXPECT_EQ(error.file, path().string());
    EXPECT_EQ(error.message.find(path().string() + ": "), 0u) << error.message;
    EXPECT_EQ(error.message.find_first_of("\n\r\x1b"), std::string::npos) << error.message;
    return error;
  }
  /// The error of a file with this header and `size` bytes of values.
  Error header_fault(std::string_view header, std::size_t size = 0) {
    return fault(safetensors_bytes(header, std::string(size, '\0')));
  }

  test::TemporaryFolder folder_;
};

/// Every tensor lies inside the file and they fill it.
void expect_inside(const SafetensorsHeader& header) {
  std::uint64_t total = 0;
  for (const TensorInfo& tensor : header.tensors) {
    EXPECT_GE(tensor.offset, 208u);
    EXPECT_LE(tensor.offset + tensor.bytes, 223u);
    total += tensor.bytes;
  }
  EXPECT_EQ(total, 15u);
}

#define EXPECT_SAYS(error, words) \
  EXPECT_NE((error).message.find(words), std::string::npos) << (error).message

TEST_F(Hostile, S01EmptyFile) {
  EXPECT_SAYS(fault(""), "the file is empty");
}

TEST_F(Hostile, S02NoHeaderLength) {
  for (std::size_t size = 1; size < 8; ++size) {
    const Error error = fault(std::string(size, '\1'));
    EXPECT_SAYS(error, "the header length is missing");
    EXPECT_SAYS(error, "has " + std::to_string(size) + " bytes, expected at least 8");
  }
}

TEST_F(Hostile, S03HeaderLongerThanTheFile) {
  const Error error = fault(test::length_bytes(101) + std::string(100, ' '));
  EXPECT_SAYS(error, "the header length is 101, but the file has only 108 bytes");
  EXPECT_SAYS(fault(test::length_bytes(1)), "the header length is 1, but the file has only 8");
}

TEST_F(Hostile, S04LargestHeaderLength) {
  EXPECT_SAYS(fault(std::string(16, '\xff')), "the header length is 18446744073709551615");
  EXPECT_SAYS(fault(test::length_bytes(~std::uint64_t{0} - 7) + "{}"), "18446744073709551608");
  EXPECT_SAYS(fault(test::length_bytes(std::uint64_t{1} << 63) + "{}"), "9223372036854775808");
}

TEST_F(Hostile, S05HeaderOverTheLimit) {
  test::write_bytes(path(), test::length_bytes(100'000'001) + "{}");
  std::filesystem::resize_file(path(), 100'000'009);
  const Error error = fault_of_file();
  EXPECT_SAYS(error, "the header length is 100000001, more than the limit of 100000000");
}

TEST_F(Hostile, S06HeaderThatIsNotPlainUtf8) {
  EXPECT_SAYS(header_fault("{\"a\xff\":1}"), "byte 11 of the file: not UTF-8");
  EXPECT_SAYS(header_fault("{\"a\0\":1}"s), "byte 11 of the file: a NUL byte");
  EXPECT_SAYS(header_fault("\xEF\xBB\xBF{}"), "byte 8 of the file: a byte-order mark");
  EXPECT_SAYS(header_fault("{}\0\0\0\0\0\0"s), "byte 10 of the file: a NUL byte");
}

TEST_F(Hostile, S07HeaderThatIsNoObject) {
  EXPECT_SAYS(header_fault("{"), "byte 9 of the file");
  EXPECT_SAYS(header_fault("{\"a\": tru}"), "byte 17 of the file");
  EXPECT_SAYS(header_fault("{\"abc"), "byte 13 of the file");
  EXPECT_SAYS(header_fault("{} {}"), "byte 11 of the file");
  EXPECT_SAYS(header_fault("[]"), "expected an object, found a list");
  EXPECT_SAYS(header_fault("\"x\""), "expected an object, found a string");
  EXPECT_SAYS(header_fault("null"), "expected an object, found null");
  EXPECT_SAYS(header_fault("12"), "expected an object, found a number");
  EXPECT_SAYS(header_fault("        "), "not JSON");
  EXPECT_SAYS(header_fault(""), "not JSON");
  EXPECT_SAYS(header_fault("{}x"), "not JSON");
}

TEST_F(Hostile, S08NestedVeryDeep) {
  std::string deep = "{\"a\":{\"x\":" + std::string(100'000, '[');
  EXPECT_SAYS(header_fault(deep), "depth");
  deep = "{\"a\":";
  for (int i = 0; i < 100'000; ++i) deep += "{\"x\":";
  EXPECT_SAYS(header_fault(deep), "depth");
  EXPECT_SAYS(header_fault(std::string(100'000, '[')), "expected an object");
}

TEST_F(Hostile, S09DuplicateNamesAndKeys) {
  const std::string empty = entry("a", "U8", "[0]", 0, 0);
  Error error = header_fault("{" + empty + "," + entry("b", "U8", "[0]", 0, 0) + "," + empty + "}");
  EXPECT_SAYS(error, "tensor a is in the header twice");
  EXPECT_EQ(error.tensor, "a");
  EXPECT_SAYS(header_fault("{\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}," +
                           empty + "}"),
              "tensor a is in the header twice");
  EXPECT_SAYS(header_fault(R"({"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})"),
              "tensor a has the duplicate key \"dtype\"");
  EXPECT_SAYS(header_fault(R"({"a":{"dtype":"U8","shape":[0],"shape":[0],"data_offsets":[0,0]}})"),
              "duplicate key \"shape\"");
  EXPECT_SAYS(header_fault(R"({"a":{"x":1,"x":2,"dtype":"U8","shape":[0],"data_offsets":[0,0]}})"),
              "duplicate key \"x\"");
  EXPECT_SAYS(header_fault(R"({"__metadata__":{},"__metadata__":{}})"), "duplicate key");
  EXPECT_SAYS(header_fault(R"({"__metadata__":{"k":"1","l":"","k":"2"}})"), "duplicate key \"k\"");
}

TEST_F(Hostile, S10MetadataThatIsNotText) {
  for (const char* value : {"1", "-1", "1.5", "true", "null", "[]", "{}"}) {
    EXPECT_SAYS(header_fault("{\"__metadata__\":{\"k\":" + std::string(value) + "}}"),
                "under \"k\", expected a string");
  }
  for (const char* value : {"1", "\"x\"", "[]", "true"}) {
    EXPECT_SAYS(header_fault("{\"__metadata__\":" + std::string(value) + "}"),
                "expected an object");
  }
}

TEST_F(Hostile, S11OffsetsThatAreNoOffsets) {
  const auto with_offsets = [&](const std::string& offsets) {
    const Error error =
        header_fault(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + offsets + "}}", 4);
    EXPECT_EQ(error.tensor, offsets == "[0,1e400]" ? "" : "a") << offsets;
    return error;
  };
  EXPECT_SAYS(with_offsets("[4,0]"), "ends at byte 0 of the data, before its start at 4");
  EXPECT_SAYS(with_offsets("[-1,3]"), "has -1 in its data_offsets, expected an unsigned integer");
  EXPECT_SAYS(with_offsets("[0,4.0]"), "has 4.0 in its data_offsets");
  EXPECT_SAYS(with_offsets("[0,4e0]"), "has 4e0 in its data_offsets");
  EXPECT_SAYS(with_offsets("[0,9223372036854775812]"), "9223372036854775812");
  EXPECT_SAYS(with_offsets("[0,18446744073709551620]"), "in its data_offsets");
  EXPECT_SAYS(with_offsets("[0,281474976710656]"), "more than the largest integer");
  EXPECT_SAYS(with_offsets("[0,1e400]"), "1e400");
  EXPECT_SAYS(with_offsets("[0,\"4\"]"), "has a string in its data_offsets");
  EXPECT_SAYS(with_offsets("[0,null]"), "has null in its data_offsets");
  EXPECT_SAYS(with_offsets("[0,[4]]"), "has a list in its data_offsets");
  EXPECT_SAYS(with_offsets("[0]"), "has 1 numbers in its data_offsets, expected 2");
  EXPECT_SAYS(with_offsets("[]"), "has 0 numbers in its data_offsets");
  EXPECT_SAYS(with_offsets("[0,4,4]"), "has more than 2 numbers");
  EXPECT_SAYS(with_offsets("4"), "has a number as its data_offsets");
  EXPECT_SAYS(with_offsets("{}"), "has an object as its data_offsets");
}

TEST_F(Hostile, S11ShapesThatAreNoShapes) {
  const auto with_shape = [&](const std::string& shape) {
    return header_fault(R"({"a":{"dtype":"U8","shape":)" + shape + R"(,"data_offsets":[0,4]}})", 4);
  };
  EXPECT_SAYS(with_shape("[-4]"), "has -4 in its shape");
  EXPECT_SAYS(with_shape("[4.0]"), "has 4.0 in its shape");
  EXPECT_SAYS(with_shape("[1,1,1,1,1,1,1,1,4]"), "has more than 8 numbers in its shape");
  EXPECT_SAYS(with_shape("4"), "has a number as its shape");
  EXPECT_SAYS(with_shape("\"4\""), "has a string as its shape");
  EXPECT_SAYS(with_shape("null"), "has null as its shape");
}

TEST_F(Hostile, MembersMissing) {
  EXPECT_SAYS(header_fault(R"({"a":{"shape":[0],"data_offsets":[0,0]}})"), "tensor a has no dtype");
  EXPECT_SAYS(header_fault(R"({"a":{"dtype":"U8","data_offsets":[0,0]}})"),
              "tensor a has no shape");
  EXPECT_SAYS(header_fault(R"({"a":{"dtype":"U8","shape":[0]}})"), "tensor a has no data_offsets");
  EXPECT_SAYS(header_fault(R"({"a":{}})"), "tensor a has no dtype");
  EXPECT_SAYS(header_fault(R"({"a":[]})"), "tensor a is a list, expected an object");
  EXPECT_SAYS(header_fault(R"({"a":null})"), "tensor a is null, expected an object");
}

TEST_F(Hostile, S12OverlapNamesBothTensors) {
  const Error error = header_fault(
      "{" + entry("first", "U8", "[8]", 0, 8) + "," + entry("second", "U8", "[8]", 4, 12) + "}",
      12);
  EXPECT_SAYS(error,
              "tensor second starts at byte 4 of the data and overlaps tensor first, which "
              "ends at 8");
  EXPECT_EQ(error.tensor, "second");
  EXPECT_SAYS(
      header_fault("{" + entry("a", "U8", "[8]", 0, 8) + "," + entry("b", "U8", "[8]", 0, 8) + "}",
                   8),
      "overlaps tensor a");
  EXPECT_SAYS(
      header_fault("{" + entry("a", "U8", "[8]", 0, 8) + "," + entry("z", "U8", "[0]", 4, 4) + "}",
                   8),
      "overlaps tensor a");
}

TEST_F(Hostile, S13HoleIsNamed) {
  EXPECT_SAYS(
      header_fault("{" + entry("a", "U8", "[4]", 0, 4) + "," + entry("b", "U8", "[4]", 8, 12) + "}",
                   12),
      "tensor b starts at byte 8 of the data, but tensor a before it ends at 4: a gap of 4 "
      "bytes");
  EXPECT_SAYS(header_fault("{" + entry("a", "U8", "[4]", 1, 5) + "}", 5),
              "the data starts at 0: a gap of 1 bytes");
}

TEST_F(Hostile, S14BytesAfterTheLastTensor) {
  EXPECT_SAYS(header_fault("{" + entry("a", "U8", "[4]", 0, 4) + "}", 5),
              "the tensors end at byte 4 of the data, but the file holds 5: 1 bytes belong to no "
              "tensor");
  EXPECT_SAYS(header_fault("{}", 3), "3 bytes belong to no tensor");
}

TEST_F(Hostile, S15BytesMissing) {
  const Error error = header_fault(
      "{" + entry("a", "U8", "[4]", 0, 4) + "," + entry("b", "U8", "[4]", 4, 8) + "}", 7);
  EXPECT_SAYS(error,
              "tensor b ends at byte 8 of the data, but the file holds only 7: it is cut off");
}

TEST_F(Hostile, S16ShapeAndBytesDisagree) {
  EXPECT_SAYS(
      header_fault("{" + entry("a", "F32", "[2,3]", 0, 20) + "}", 20),
      "tensor a of dtype F32 and shape [2, 3] needs 24 bytes, but its data_offsets span 20");
  EXPECT_SAYS(header_fault("{" + entry("a", "F32", "[]", 0, 8) + "}", 8), "needs 4 bytes");
  EXPECT_SAYS(header_fault("{" + entry("a", "F32", "[0]", 0, 8) + "}", 8), "needs 0 bytes");
}

TEST_F(Hostile, S17ShapeThatOverflows) {
  EXPECT_SAYS(header_fault("{" + entry("a", "U8", "[4294967296,4294967296,2]", 0, 0) + "}"),
              "overflows 64 bits");
  EXPECT_SAYS(header_fault("{" + entry("a", "F64", "[4294967296,536870912]", 0, 0) + "}"),
              "overflows 64 bits");
  EXPECT_SAYS(
      header_fault("{" + entry("a", "U8", "[0,281474976710655,281474976710655]", 0, 0) + "}"),
      "overflows 64 bits");
  EXPECT_SAYS(header_fault("{" + entry("a", "U8", "[2,18446744073709551614]", 0, 0) + "}"),
              "more than the largest integer");
}

TEST_F(Hostile, S18UnknownDtypeListsTheKnown) {
  for (const char* dtype : {"f32", "F128", "", "BF16 ", "Q4_K"}) {
    const Error error = header_fault("{" + entry("a", dtype, "[1]", 0, 4) + "}", 4);
    EXPECT_SAYS(error, "unknown dtype \""s + dtype + "\", expected one of BOOL, ");
    EXPECT_SAYS(error, "U64");
  }
  EXPECT_SAYS(header_fault(R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", 4),
              "has a number as its dtype, expected a string");
}

TEST_F(Hostile, S19SubByteShapesThatEndInsideAByte) {
  EXPECT_SAYS(header_fault("{" + entry("a", "F4", "[3]", 0, 2) + "}", 2),
              "has 12 bits and ends inside a byte");
  EXPECT_SAYS(header_fault("{" + entry("a", "F4", "[]", 0, 1) + "}", 1), "ends inside a byte");
  EXPECT_SAYS(header_fault("{" + entry("a", "F6_E2M3", "[2]", 0, 2) + "}", 2),
              "ends inside a byte");
}

TEST_F(Hostile, S21NamesOverTheLimitsAndEscapes) {
  EXPECT_SAYS(header_fault("{" + entry("", "U8", "[1]", 0, 1) + "}", 1), "an empty name");
  const Error error =
      header_fault("{" + entry(std::string(65'537, 'n'), "U8", "[1]", 0, 1) + "}", 1);
  EXPECT_SAYS(error, "has 65537 bytes, more than the limit of 65536");
  EXPECT_LT(error.message.size(), 400u);
  EXPECT_SAYS(header_fault("{" + entry("\\u001b[31m\\n../x", "U8", "[2]", 0, 1) + "}", 1),
              "tensor \\x1b[31m\\n../x of dtype");
  EXPECT_SAYS(header_fault("{" + entry("\\ud800", "U8", "[1]", 0, 1) + "}", 1), "not JSON");
}

TEST_F(Hostile, S22MillionsOfTensorsAreRefusedQuickly) {
  std::string header = "{";
  header.reserve(100'000'000);
  for (int i = 0; i < 1'700'000; ++i) {
    header += "\"" + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)";
  }
  header.back() = '}';
  ASSERT_LE(header.size(), 100'000'000u);
  test::write_bytes(path(), safetensors_bytes(header));
  // Time of this process, so that a busy machine changes nothing.
  const std::clock_t start = std::clock();
  const Error error = fault_of_file();
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  EXPECT_SAYS(error, "more tensors than the limit of 500000 in a file");
  RecordProperty("seconds", std::to_string(seconds));
  // Two seconds are the promise (it takes 0.8); sanitizers are allowed ten times as long.
  EXPECT_LT(seconds, 20.0);
}

TEST_F(Hostile, S22AsManyTensorsAsAllowedAreRead) {
  std::string header = "{";
  for (int i = 0; i < 500'000; ++i) {
    header += "\"" + std::to_string(i) + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" +
              std::to_string(i) + "," + std::to_string(i + 1) + "]},";
  }
  header.back() = '}';
  test::write_bytes(path(), safetensors_bytes(header, std::string(500'000, 'x')));
  const auto checkpoint = Checkpoint::open(path());
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  EXPECT_EQ(checkpoint->tensors().size(), 500'000u);
  EXPECT_NE(checkpoint->find("499999"), nullptr);
}

TEST_F(Hostile, S23PointersAndPagesInsteadOfWeights) {
  Error error =
      fault("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4976698672\n");
  EXPECT_SAYS(error, "git-lfs pointer file");
  EXPECT_SAYS(error, "download");
  for (const char* page : {"<!DOCTYPE html><html>", "<html><body>404", "\n  <HTML lang=en>",
                           "<?xml version=\"1.0\"?><Error>", "\xEF\xBB\xBF<!doctype html>"}) {
    error = fault(page);
    EXPECT_SAYS(error, "web page");
    EXPECT_SAYS(error, "download again");
  }
}

TEST_F(Hostile, C09PickledWeightsAreNeverRead) {
  const std::string said = "pickled weights are not read; convert to safetensors";
  EXPECT_SAYS(fault("\x80\x02}q\x01(X\x01\0\0\0aK\x01u."s, ErrorCode::unsupported), said);
  EXPECT_SAYS(fault("PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0archive/data.pkl"s, ErrorCode::unsupported),
              said);
  std::string tar = "weights" + std::string(250, '\0') + "ustar\0"s + std::string(249, '\0');
  EXPECT_SAYS(fault(tar, ErrorCode::unsupported), said);
  EXPECT_SAYS(fault("\x1f\x8b\x08\0\0\0\0\0\0\x03zip"s, ErrorCode::unsupported), said);
  EXPECT_SAYS(fault("GGUF\x03\0\0\0\0\0\0\0"s, ErrorCode::unsupported), "GGUF");
  EXPECT_SAYS(fault("\x89HDF\r\n\x1a\n\0\0\0\0"s, ErrorCode::unsupported), "HDF5");
  for (const char* name : {"pytorch_model.bin", "model.pt", "model.pth", "x.CKPT", "x.pkl"}) {
    test::write_bytes(folder_ / name, "anything");
    const auto checkpoint = Checkpoint::open(folder_ / name);
    ASSERT_FALSE(checkpoint.has_value());
    EXPECT_EQ(checkpoint.error().code, ErrorCode::unsupported);
    EXPECT_SAYS(checkpoint.error(), said);
  }
}

TEST_F(Hostile, PathsThatAreNoFiles) {
  EXPECT_SAYS(fault_of_file(ErrorCode::missing), "no such file");
  const auto device = Checkpoint::open("/dev/null");
  ASSERT_FALSE(device.has_value());
  EXPECT_EQ(device.error().code, ErrorCode::parse);
  EXPECT_SAYS(device.error(), "a device, pipe or socket");
  const auto nul = Checkpoint::open(std::filesystem::path("a\0b"s));
  ASSERT_FALSE(nul.has_value());
  EXPECT_SAYS(nul.error(), "a\\x00b");
}

TEST_F(Hostile, EveryPrefixOfAValidFileIsRefused) {
  const std::string bytes = test::worked_example();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    fault(std::string_view(bytes).substr(0, size));
  }
  fault(bytes + "x");
}

TEST_F(Hostile, NoBitFlipOfTheLengthIsAccepted) {
  const std::string bytes = test::worked_example();
  for (std::size_t bit = 0; bit < 64; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    fault(flipped);
  }
}

// The header alone, from memory, for the many cases.
constexpr std::size_t kHeaderEnd = 208, kValueBytes = 15;

TEST(HostileHeader, NoBitFlipCrashes) {
  const std::string bytes = test::worked_example();
  std::size_t refused = 0;
  for (std::size_t bit = 64; bit < 8 * kHeaderEnd; ++bit) {
    std::string flipped = bytes.substr(0, kHeaderEnd);
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const auto header =
        parse_safetensors_header(std::string_view(flipped).substr(8), kValueBytes, "f");
    refused += header ? 0 : 1;
    if (header) expect_inside(*header);
  }
  // Flips in names, in metadata and in the padding are not errors of the format.
  EXPECT_GT(refused, 1200u);
}

TEST(HostileHeader, RandomEditsNeverCrash) {
  const std::string bytes = test::worked_example();
  const std::string letters = "{}[]\",:0123456789-.eE\\untrfalse \n\xff\xC3";
  std::mt19937 random(7);
  for (int round = 0; round < 100'000; ++round) {
    std::string edited = bytes.substr(8, kHeaderEnd - 8);
    for (unsigned edits = 1 + random() % 4; edits > 0; --edits) {
      edited[random() % edited.size()] = letters[random() % letters.size()];
    }
    const auto header = parse_safetensors_header(edited, kValueBytes, "f");
    if (header) expect_inside(*header);
  }
}

}  // namespace
}  // namespace quell::io
