// SPDX-License-Identifier: Apache-2.0

// tokenizer.model: files written here field by field, and the one of a shared model.

#include <gtest/gtest.h>

#include <bit>
#include <filesystem>
#include <string>

#include "quell/io/json.hpp"
#include "support/shared.hpp"
#include "tokenizer/sentencepiece_file.hpp"
#include "tokenizer/tiny_tokenizer.hpp"

namespace quell::tokenizer {
namespace {

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}
std::string number(unsigned field, std::uint64_t value) {
  return varint(field << 3) + varint(value);
}
std::string text(unsigned field, const std::string& bytes) {
  return varint(field << 3 | 2) + varint(bytes.size()) + bytes;
}
std::string piece(const std::string& content, float score, unsigned type = 1) {
  std::string bytes = text(1, content) + varint(2 << 3 | 5);
  const auto bits = std::bit_cast<std::uint32_t>(score);
  for (unsigned k = 0; k < 4; ++k) bytes.push_back(static_cast<char>(bits >> 8 * k));
  return text(1, bytes + number(3, type));
}

const std::string kMark = "\xE2\x96\x81";

/// unk, <s>, </s>, then the pieces; `kind` 1 Unigram, 2 BPE.
std::string model(const std::string& pieces, unsigned kind, const std::string& normalizer = "") {
  return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + pieces +
         text(2, number(3, kind)) + text(3, normalizer);
}

Result<Tokenizer> read(const std::string& bytes, const std::string& config = "") {
  const TinyFolder folder;
  folder.write("tokenizer.model", bytes);
  if (!config.empty()) folder.write("tokenizer_config.json", config);
  return Tokenizer::read(folder.path());
}

TEST(SentencePiece, BpeMergesTheHighestScoreFirst) {
  const auto tokenizer =
      read(model(piece("ab", -1) + piece("bc", 0) + piece("abc", -2) + piece(kMark, -3) +
                     piece("a", -4) + piece("b", -5) + piece("c", -6),
                 2));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->model_type(), "BPE");
  EXPECT_EQ(pieces_of(*tokenizer, "abc"), (Pieces{kMark, "abc"}));  // a bc, then abc
  EXPECT_EQ(pieces_of(*tokenizer, "abb"), (Pieces{kMark, "ab", "b"}));
  EXPECT_EQ(pieces_of(*tokenizer, "  a   b "), (Pieces{kMark, "a", kMark, "b"}));
  EXPECT_EQ(pieces_of(*tokenizer, "xyz"), (Pieces{kMark, "<unk>"}));
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(*tokenizer->encode("a"), (std::vector<std::int32_t>{1, 6, 7}));
}

TEST(SentencePiece, TakesAnUnusedPieceApartAgain) {
  const auto tokenizer = read(model(piece("ab", 0, 5) + piece("abc", -1) + piece("a", -2) +
                                        piece("b", -3) + piece("c", -4) + piece(kMark, -5),
                                    2));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(pieces_of(*tokenizer, "abc"), (Pieces{kMark, "abc"}));
  EXPECT_EQ(pieces_of(*tokenizer, "abb"), (Pieces{kMark, "a", "b", "b"}));
}

TEST(SentencePiece, BpeNeverMergesUserDefinedPieces) {
  const auto tokenizer = read(model(
      piece("ab", -9, 4) + piece("abc", 0) + piece("a", -1) + piece("c", -3) + piece(kMark, -4),
      2));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(pieces_of(*tokenizer, "abca"), (Pieces{kMark, "ab", "c", "a"}));
}

TEST(SentencePiece, UnigramPrefersUserDefinedPieces) {
  // Two bytes at the highest score, less 0.1: -2.1 against -1 - 5.
  const auto tokenizer =
      read(model(piece("ab", -9, 4) + piece("a", -1) + piece("b", -5) + piece(kMark, -4), 1));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(pieces_of(*tokenizer, "abb"), (Pieces{kMark, "ab", "b"}));
}

TEST(SentencePiece, KeepsSpacesWhenTheFileSaysSo) {
  const auto tokenizer =
      read(model(piece(kMark, -1) + piece("a", -2), 1, number(3, 0) + number(4, 0)));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(pieces_of(*tokenizer, "a  a "), (Pieces{"a", kMark, kMark, "a", kMark}));
  const auto ids = tokenizer->encode("a  a ");
  EXPECT_EQ(tokenizer->decode(*ids), "a  a ");
}

TEST(SentencePiece, ReadsBosAndEosFromItsConfig) {
  const std::string bytes = model(piece(kMark, -1) + piece("a", -2), 1);
  const auto tokenizer = read(bytes, R"({"add_bos_token":false,"add_eos_token":true})");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(*tokenizer->encode("a"), (std::vector<std::int32_t>{3, 4, 2}));
  EXPECT_EQ(tokenizer->bos(), std::nullopt);
}

TEST(SentencePiece, RefusesWhatItCannotRead) {
  EXPECT_EQ(read("").error().code, ErrorCode::parse);
  EXPECT_EQ(read("not a model").error().code, ErrorCode::parse);
  EXPECT_EQ(read(model(piece("a", 0), 3)).error().code, ErrorCode::unsupported);
  EXPECT_EQ(read(model(piece("a", 0) + piece("a", 0), 1)).error().code, ErrorCode::parse);
  EXPECT_EQ(read(model(piece("", 0), 1)).error().code, ErrorCode::parse);
  EXPECT_EQ(read(model(piece("\xFF", 0), 1)).error().code, ErrorCode::parse);
  EXPECT_EQ(read(model(piece(std::string(1025, 'a'), 0), 1)).error().code, ErrorCode::parse);
  EXPECT_EQ(read(model(piece("a", std::bit_cast<float>(0x7FC00000u)), 1)).error().code,
            ErrorCode::parse);
  EXPECT_EQ(read(model("", 1) + text(2, number(35, 1))).error().code,
            ErrorCode::parse);                                    // no byte pieces
  EXPECT_EQ(read(piece("a", 0)).error().code, ErrorCode::parse);  // no unknown piece
}

TEST(SentencePiece, FlippedAndCutBytesNeverCrash) {
  const std::string good =
      model(piece("ab", -1) + piece("a", -2) + piece("b", -3) + piece(kMark, -4), 2,
            text(2, std::string("\x04\0\0\0\0\0\0\0x", 9)));
  std::uint32_t state = 3;
  const auto next = [&] { return state = state * 1664525u + 1013904223u, state >> 8; };
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = good.substr(0, round % 4 == 0 ? next() % good.size() : good.size());
    for (unsigned k = next() % 3; k > 0 && !bytes.empty(); --k) {
      bytes[next() % bytes.size()] = static_cast<char>(next());
    }
    const auto source = parse_sentencepiece(bytes, "f");
    if (!source) {
      EXPECT_EQ(source.error().code, ErrorCode::parse);
    }
    if (round % 10 != 0) continue;
    const auto tokenizer = read(bytes);
    if (tokenizer) (void)tokenizer->encode("ab b  ax");
  }
}

TEST(SentencePiece, AgreesWithTheTokenizerJsonOfTheSameModel) {
  const auto source = test::shared_path("models/babyllama105");
  if (!source) GTEST_SKIP() << "the shared model babyllama105 is not here";
  const TinyFolder folder;
  std::filesystem::copy_file(*source / "tokenizer.model", folder.path() / "tokenizer.model");
  const auto tokenizer = Tokenizer::read(folder.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto reference = io::read_json(*source / "reference" / "reference.json");
  ASSERT_TRUE(reference);
  for (const io::Json& sample : reference->find("tokenizer_samples")->items()) {
    std::vector<std::int32_t> expected;
    for (const io::Json& id : sample.find("ids")->items()) {
      expected.push_back(static_cast<std::int32_t>(id.as_integer()));
    }
    EXPECT_EQ(*tokenizer->encode(sample.find("text")->as_string()), expected);
  }
}

}  // namespace
}  // namespace quell::tokenizer
