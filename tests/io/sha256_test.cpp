// SPDX-License-Identifier: Apache-2.0
// Expected digests: the examples of FIPS 180-4 and of NIST's test vectors, and for the lengths
// around the padding, Python's hashlib.
#include "io/sha256.hpp"

#include <gtest/gtest.h>

#include <string>

#include "quell/io/output.hpp"
#include "support/files.hpp"

namespace quell::io {
namespace {

TEST(Sha256, OfThePublishedExamples) {
  EXPECT_EQ(sha256_hex(std::string_view()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex(std::string_view("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(
      sha256_hex(std::string_view("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, AroundTheLengthWhereThePaddingNeedsAnotherBlock) {
  const struct {
    std::size_t length;
    const char* digest;
  } kCases[] = {
      {1, "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"},
      {54, "45f316e10b2c99abf374b22bda893cf3300d77263f1e272349ed414680522952"},
      {55, "d5e285683cd4efc02d021a5c62014694958901005d6f71e89e0989fac77e4072"},
      {56, "04c26261370ee7541549d16dee320c723e3fd14671e66a099afe0a377c16888e"},
      {57, "ae14a2563ccf969d99aca69ce6bb74981f734bbf9f655f73b8f06db68cab5217"},
      {63, "75220b47218278e656f2013bb8f0c455a25eaf01e86c64924e9d48d89776d6f2"},
      {64, "7ce100971f64e7001e8fe5a51973ecdfe1ced42befe7ee8d5fd6219506b5393c"},
      {65, "9537c5fdf120482f7d58d25e9ed583f52c02b4e304ea814db1633ad565aed7e9"},
      {119, "000b48d4edf0fa7bee3c6236ecd2785baa5db4eeb8bb54341b029e0d9fa5fb0c"},
      {120, "13f05a0b594787f5ecd315edc96141bd3243203d1b7d4f0836f37308b276ba98"},
      {127, "70156a14adbabf98cff3a71c7084b417abf057a8efd27329ca36b7202c87d81f"},
      {128, "24da1b81d0b16df6428eee73c69fcb2a93c76bc6df706f0c6670fe6bfe800464"},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(sha256_hex(std::string(c.length, 'x')), c.digest) << c.length;
  }
}

TEST(Sha256, DoesNotDependOnHowBytesArrive) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 7);
  const std::string whole = sha256_hex(std::string_view(text));
  for (std::size_t piece = 1; piece < 200; ++piece) {
    Sha256 hash;
    for (std::size_t at = 0; at < text.size(); at += piece) {
      hash.update(std::as_bytes(std::span(text).subspan(at, std::min(piece, text.size() - at))));
      hash.update({});
    }
    EXPECT_EQ(hash.finish_hex(), whole) << piece;
  }
}

TEST(Sha256, OfAFileIsThatOfItsBytes) {
  const test::TemporaryFolder folder;
  // More than one piece, and not a multiple of a block.
  const std::string text(700'001, 'q');
  test::write_bytes(folder / "file", text);
  const auto digest = sha256_file(folder / "file");
  ASSERT_TRUE(digest.has_value());
  EXPECT_EQ(*digest, sha256_hex(std::string_view(text)));
  const auto missing = sha256_file(folder / "absent");
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code, ErrorCode::missing);
}

}  // namespace
}  // namespace quell::io
