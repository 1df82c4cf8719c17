// SPDX-License-Identifier: Apache-2.0
#include "quell/io/npy.hpp"

#include <gtest/gtest.h>

#include "support/files.hpp"
#include "support/shared.hpp"

namespace quell::io {
namespace {

using namespace std::string_literals;

/// A version 1 file as numpy.save writes it: the header ends with a line break, padded to 64 bytes.
std::string npy(std::string header, std::string_view values, char major = 1) {
  const std::size_t prefix = major == 1 ? 10 : 12;
  while ((prefix + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string bytes = "\x93NUMPY"s + major + '\0';
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i) {
    bytes += static_cast<char>((header.size() >> (8 * i)) & 255U);
  }
  return bytes + header + std::string(values);
}

constexpr const char* kHeader = "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }";
const std::string kValues = "\1\0\0\0\2\0\0\0\3\0\0\0\xff\xff\xff\xff\0\0\0\x80\0\1\0\0"s;

class Npy : public ::testing::Test {
 protected:
  Result<NpyInt32> read(std::string_view bytes) {
    test::write_bytes(folder_ / "ids.npy", bytes);
    return read_npy_int32(folder_ / "ids.npy");
  }
  std::string fault(std::string_view bytes, ErrorCode code = ErrorCode::parse) {
    const auto array = read(bytes);
    EXPECT_FALSE(array.has_value());
    if (array) return {};
    EXPECT_EQ(array.error().code, code) << array.error().message;
    EXPECT_EQ(array.error().file, (folder_ / "ids.npy").string());
    return array.error().message;
  }
  test::TemporaryFolder folder_;
};

#define EXPECT_SAYS(message, words) EXPECT_NE((message).find(words), std::string::npos) << (message)

TEST_F(Npy, ReadsWhatNumpyWrites) {
  for (const char major : {1, 2, 3}) {
    const auto array = read(npy(kHeader, kValues, major));
    ASSERT_TRUE(array.has_value()) << array.error().message;
    EXPECT_EQ(array->shape, (std::vector<std::uint64_t>{2, 3}));
    EXPECT_EQ(array->values, (std::vector<std::int32_t>{
                                 1, 2, 3, -1, std::numeric_limits<std::int32_t>::min(), 256}));
  }
}

TEST_F(Npy, ReadsVectorsScalarsAndEmptyArrays) {
  EXPECT_EQ(read(npy("{'descr': '<i4', 'fortran_order': False, 'shape': (6,), }", kValues))
                ->values.size(),
            6u);
  EXPECT_EQ(read(npy("{'descr': '<i4', 'fortran_order': False, 'shape': (), }",
                     std::string_view(kValues).substr(0, 4)))
                ->values,
            (std::vector<std::int32_t>{1}));
  const auto empty = read(npy("{'descr': '<i4', 'fortran_order': False, 'shape': (0, 7), }", ""));
  ASSERT_TRUE(empty.has_value());
  EXPECT_EQ(empty->shape.size(), 2u);
  EXPECT_TRUE(empty->values.empty());
}

TEST_F(Npy, AcceptsOtherSpellingsOfTheDictionary) {
  for (const char* header : {"{\"shape\":(2,3),\"fortran_order\":False,\"descr\":\"<i4\"}",
                             "{'shape': (2L, 3L,), 'descr': '<i4', 'fortran_order': False}"}) {
    EXPECT_TRUE(read(npy(header, kValues)).has_value()) << header;
  }
}

TEST_F(Npy, NamesOtherElementTypes) {
  const std::pair<const char*, const char*> types[] = {
      {"<i8", "int64"},         {"<f4", "float32"},    {"<u2", "uint16"},
      {"|O", "Python objects"}, {">i4", "big-endian"}, {"<U5", "element type '<U5'"}};
  for (const auto& [descr, name] : types) {
    const std::string message = fault(
        npy("{'descr': '" + std::string(descr) + "', 'fortran_order': False, 'shape': (2, 3), }",
            kValues),
        ErrorCode::unsupported);
    EXPECT_SAYS(message, name);
    EXPECT_SAYS(message, "expected int32; save it with .astype('<i4')");
  }
}

TEST_F(Npy, RefusesFortranOrderOfMatrices) {
  EXPECT_SAYS(fault(npy("{'descr': '<i4', 'fortran_order': True, 'shape': (2, 3), }", kValues),
                    ErrorCode::unsupported),
              "Fortran order");
  for (const char* shape : {"(6,)", "(1, 6)", "(6, 1)"}) {
    EXPECT_TRUE(
        read(npy("{'descr': '<i4', 'fortran_order': True, 'shape': " + std::string(shape) + ", }",
                 kValues))
            .has_value())
        << shape << ": both orders are the same";
  }
}

TEST_F(Npy, RefusesHeadersThatAreNone) {
  const char* headers[] = {
      "",
      "{",
      "{}",
      "[]",
      "{'descr': '<i4', 'fortran_order': False}",
      "{'descr': '<i4', 'shape': (2, 3)}",
      "{'fortran_order': False, 'shape': (2, 3)}",
      "{'descr': '<i4', 'descr': '<i4', 'fortran_order': False, 'shape': (2, 3)}",
      "{'descr': '<i4', 'fortran_order': 0, 'shape': (2, 3)}",
      "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (2, 3)}",
      "{'descr': '<i4', 'fortran_order': False, 'shape': (6)}",
      "{'descr': '<i4', 'fortran_order': False, 'shape': [2, 3]}",
      "{'descr': '<i4', 'fortran_order': False, 'shape': (2, -3)}",
      "{'descr': '<i4', 'fortran_order': False, 'shape': (2 3)}",
      "{'descr': '<i4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,2,3)}",
      "{'descr': '<i4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
      "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), 'x': 1}",
      "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3)} x",
      "{'descr': '<i4\\n', 'fortran_order': False, 'shape': (2, 3)}",
      "__import__('os')"};
  for (const char* header : headers) {
    EXPECT_SAYS(fault(npy(header, kValues)), "the header is not {'descr'");
  }
}

TEST_F(Npy, RefusesSizesThatDisagree) {
  EXPECT_SAYS(fault(npy(kHeader, kValues + "x")),
              "needs 24 bytes of elements, but the file has 25");
  EXPECT_SAYS(fault(npy(kHeader, "")), "needs 24 bytes of elements, but the file has 0");
  EXPECT_SAYS(
      fault(npy("{'descr': '<i4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", "")),
      "more elements than the limit");
  EXPECT_SAYS(fault(npy("{'descr': '<i4', 'fortran_order': False, 'shape': (2147483649,)}", "")),
              "more elements than the limit of 2147483648");
}

TEST_F(Npy, RefusesOtherFilesAndEveryPrefix) {
  EXPECT_SAYS(fault(""), "is no .npy file");
  EXPECT_SAYS(fault("PK\3\4 a zip of arrays"), "is no .npy file");
  EXPECT_SAYS(fault("\x93NUMPY\x04\0\x10\0"s), "version 4");
  EXPECT_SAYS(fault("\x93NUMPY\x01\0\xff\xff{}"s), "the header is cut off");
  EXPECT_SAYS(fault("\x93NUMPY\x02\0\xff\xff\xff\xff{}"s), "the header is cut off");
  EXPECT_SAYS(fault("\x93NUMPY\x02\0\x01\0\x01\0"s + std::string(65'537, ' ')),
              "has 65537 bytes, more than the limit of 65536");
  const std::string bytes = npy(kHeader, kValues);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    fault(std::string_view(bytes).substr(0, size));
  }
  EXPECT_EQ(read_npy_int32(folder_ / "absent.npy").error().code, ErrorCode::missing);
}

TEST_F(Npy, ReadsFloats) {
  test::write_bytes(
      folder_ / "x.npy",
      npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "\0\0\x80\x3f\0\0\0\xc0"s));
  const auto array = read_npy_float32(folder_ / "x.npy");
  ASSERT_TRUE(array.has_value());
  EXPECT_EQ(array->values, (std::vector<float>{1.0f, -2.0f}));
  EXPECT_SAYS(read_npy_float32(folder_ / "ids.npy").error().message, "no such file");
}

TEST(NpyOfModels, AreRead) {
  const auto reference = test::shared_path("models/tiny1m/reference");
  if (!reference) GTEST_SKIP() << "the shared models are not here";
  const auto ids = read_npy_int32(*reference / "ids.npy");
  ASSERT_TRUE(ids.has_value()) << ids.error().message;
  EXPECT_FALSE(ids->values.empty());
  const auto logits = read_npy_float32(*reference / "prompt_logits.npy");
  ASSERT_TRUE(logits.has_value()) << logits.error().message;
  EXPECT_EQ(logits->shape.size(), 2u);
}

}  // namespace
}  // namespace quell::io
