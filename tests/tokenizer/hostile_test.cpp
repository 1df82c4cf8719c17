// SPDX-License-Identifier: Apache-2.0

// Files that lie and texts that are extreme: errors that name the place, never a crash.

#include <gtest/gtest.h>

#include <string>

#include "tokenizer/tiny_tokenizer.hpp"

namespace quell::tokenizer {
namespace {

struct Bad {
  const char* name;
  const char* json;
  ErrorCode code;
  const char* says;  // part of the message
};

class HostileFile : public testing::TestWithParam<Bad> {};

TEST_P(HostileFile, IsAnErrorThatNamesThePlace) {
  const Bad& bad = GetParam();
  const auto tokenizer = tokenizer_from(bad.json);
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().code, bad.code) << tokenizer.error().message;
  EXPECT_NE(tokenizer.error().message.find(bad.says), std::string::npos)
      << tokenizer.error().message;
  EXPECT_NE(tokenizer.error().message.find("tokenizer.json"), std::string::npos)
      << tokenizer.error().message;
}

constexpr auto kParse = ErrorCode::parse;
constexpr auto kMissing = ErrorCode::missing;
constexpr auto kUnsupported = ErrorCode::unsupported;
#define QUELL_BPE(vocab, merges) \
  "{\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[" merges "]}}"
#define QUELL_WITH(more) "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}," more "}"

INSTANTIATE_TEST_SUITE_P(
    Each, HostileFile,
    testing::Values(
        Bad{"Empty", "", kParse, ""}, Bad{"Array", "[]", kParse, ""},
        Bad{"NoModel", "{}", kMissing, "model"},
        Bad{"Version", R"({"version":"2.0","model":{}})", kUnsupported, "2.0"},
        Bad{"ModelType", R"({"model":{"type":"WordLevel"}})", kUnsupported, "WordLevel"},
        Bad{"NoVocab", R"({"model":{"type":"BPE","merges":[]}})", kMissing, "vocab"},
        Bad{"VocabIsArray", R"({"model":{"type":"BPE","vocab":[],"merges":[]}})", kParse, "vocab"},
        Bad{"NoMerges", R"({"model":{"type":"BPE","vocab":{}}})", kMissing, "merges"},
        Bad{"NegativeId", QUELL_BPE("\"a\":-1", ""), kParse, "-1"},
        Bad{"HugeId", QUELL_BPE("\"a\":4294967296", ""), kParse, "4294967296"},
        Bad{"IdBeyondInt32", QUELL_BPE("\"a\":2147483648", ""), kParse, "2147483648"},
        Bad{"IdBeyondInt64", QUELL_BPE("\"a\":18446744073709551616", ""), kParse, ""},
        Bad{"FractionId", QUELL_BPE("\"a\":1.5", ""), kParse, "integer"},
        Bad{"TextId", QUELL_BPE("\"a\":\"1\"", ""), kParse, "integer"},
        Bad{"SameIdTwice", QUELL_BPE("\"a\":0,\"b\":0", ""), kParse, "both"},
        Bad{"SameKeyTwice", QUELL_BPE("\"a\":0,\"a\":1", ""), kParse, ""},
        Bad{"MergeOfMissing", QUELL_BPE("\"a\":0", "\"a b\""), kParse, "\"b\""},
        Bad{"MergeResultMissing", QUELL_BPE("\"a\":0,\"b\":1", "\"a b\""), kParse, "\"ab\""},
        Bad{"MergeOfThree", QUELL_BPE("\"a\":0", "\"a a a\""), kParse, "merge 0"},
        Bad{"MergeOfOne", QUELL_BPE("\"a\":0", "\"a\""), kParse, "merge 0"},
        Bad{"MergeIsNumber", QUELL_BPE("\"a\":0", "7"), kParse, "merge 0"},
        Bad{"MergePairOfNumbers", QUELL_BPE("\"a\":0", "[1,2]"), kParse, "merge 0"},
        Bad{"UnknownNormalizer", QUELL_WITH("\"normalizer\":{\"type\":\"Shout\"}"), kUnsupported,
            "Shout"},
        Bad{"NormalizerIsText", QUELL_WITH("\"normalizer\":\"NFC\""), kParse, "normalizer"},
        Bad{"UnknownPreTokenizer", QUELL_WITH("\"pre_tokenizer\":{\"type\":\"Chop\"}"),
            kUnsupported, "Chop"},
        Bad{"NestedUnknown",
            QUELL_WITH("\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
                       "\"Chop\"}]}"),
            kUnsupported, "Chop"},
        Bad{"UnknownDecoder", QUELL_WITH("\"decoder\":{\"type\":\"CTC\"}"), kUnsupported, "CTC"},
        Bad{"UnknownPostProcessor", QUELL_WITH("\"post_processor\":{\"type\":\"Stamp\"}"),
            kUnsupported, "Stamp"},
        Bad{"NoType", QUELL_WITH("\"decoder\":{}"), kMissing, "type"},
        Bad{"BadPattern",
            QUELL_WITH(
                "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":"
                "\"Isolated\",\"invert\":false}"),
            kParse, "pattern"},
        Bad{"BadBehavior",
            QUELL_WITH(
                "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":"
                "\"Whole\",\"invert\":false}"),
            kParse, "behavior"},
        Bad{"MetaspaceTwoCharacters",
            QUELL_WITH("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}"), kParse,
            "replacement"},
        Bad{"TemplateOfMissing",
            QUELL_WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{"
                       "\"SpecialToken\":{"
                       "\"id\":\"x\"}}],\"special_tokens\":{}}"),
            kParse, "\"x\""},
        Bad{"TemplateIdTooLarge",
            QUELL_WITH("\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"a\",0],\"cls\":["
                       "\"b\",1]}"),
            kParse, "id 1"},
        Bad{"AddedIdNegative", QUELL_WITH("\"added_tokens\":[{\"id\":-1,\"content\":\"x\"}]"),
            kParse, "id"},
        Bad{"AddedIdHuge", QUELL_WITH("\"added_tokens\":[{\"id\":2000000000,\"content\":\"x\"}]"),
            kParse, "id"},
        Bad{"AddedContradictsVocab", QUELL_WITH("\"added_tokens\":[{\"id\":5,\"content\":\"a\"}]"),
            kParse, "\"a\""},
        Bad{"AddedTakesId", QUELL_WITH("\"added_tokens\":[{\"id\":0,\"content\":\"x\"}]"), kParse,
            "\"x\""},
        Bad{"AddedTwiceWithTwoIds",
            QUELL_WITH(
                "\"added_tokens\":[{\"id\":1,\"content\":\"x\"},{\"id\":2,\"content\":\"x\"}]"),
            kParse, "two ids"},
        Bad{"AddedNotArray", QUELL_WITH("\"added_tokens\":{}"), kParse, "added_tokens"},
        Bad{"UnigramUnkOutside", R"({"model":{"type":"Unigram","unk_id":1,"vocab":[["a",0]]}})",
            kParse, "unk_id"},
        Bad{"UnigramEntry", R"({"model":{"type":"Unigram","unk_id":0,"vocab":[["a"]]}})", kParse,
            "entry 0"},
        Bad{"WordPieceNoUnknown", R"({"model":{"type":"WordPiece","vocab":{}}})", kMissing,
            "unk_token"},
        Bad{"CharsmapNotBase64",
            QUELL_WITH("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"!!\"}"),
            kParse, "base64"}),
    [](const auto& each) { return std::string(each.param.name); });

TEST(HostileFile, AMissingFolderIsMissing) {
  const TinyFolder folder;
  const auto tokenizer = Tokenizer::read(folder.path());
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().code, ErrorCode::missing) << tokenizer.error().message;
}

TEST(HostileFile, FlippedBytesNeverCrash) {
  const std::string good =
      R"({"version":"1.0","added_tokens":[{"id":6,"content":"<s>","special":true,"normalized":true,"lstrip":true}],)"
      R"("normalizer":{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Prepend","prepend":"_"},)"
      R"({"type":"Replace","pattern":{"Regex":"\\s{2,}"},"content":" "}]},)"
      R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"[^\\s\\p{L}&&[^x]]+|\\w"},)"
      R"("behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":true,"use_regex":true}]},)"
      R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],)"
      R"("special_tokens":{"<s>":{"id":"<s>","ids":[6],"tokens":["<s>"]}}},"decoder":{"type":"ByteLevel"},)"
      R"("model":{"type":"BPE","unk_token":"u","byte_fallback":true,"vocab":{"a":0,"b":1,"ab":2,"u":3,"_":4,"_a":5},)"
      R"("merges":["a b",["_","a"]]}})";
  std::uint32_t state = 7;
  const auto next = [&] { return state = state * 1664525u + 1013904223u, state >> 8; };
  int read = 0;
  for (int round = 0; round < 1000; ++round) {
    std::string json = good;
    const int changes = 1 + static_cast<int>(next() % 3);
    for (int k = 0; k < changes; ++k) {
      const std::size_t at = next() % json.size();
      if (next() % 3 == 0) {
        json.erase(at, 1 + next() % 8);
      } else {
        json[at] = static_cast<char>(next() % 3 == 0 ? next() % 128 : good[next() % good.size()]);
      }
    }
    const auto tokenizer = tokenizer_from(json);
    if (!tokenizer) continue;
    ++read;
    const auto ids = tokenizer->encode("ab  a\xC3\xA9<s>b x1");
    if (!ids) continue;
    for (const std::int32_t id : *ids) EXPECT_LT(static_cast<std::uint32_t>(id), tokenizer->size());
    (void)tokenizer->decode(*ids, true);
  }
  EXPECT_GT(read, 50);
}

constexpr std::string_view kByteLevel =
    R"({"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)"
    R"("decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0,"aa":1,"aaaa":2,"b":3,"ab":4},)"
    R"("merges":["a a","aa aa","a b"]}})";

TEST(HostileText, TenMegabytesWithoutASpaceAreOnePiece) {
  const auto tokenizer = tokenizer_from(kByteLevel);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const std::string text(10'000'000, 'a');
  const auto ids = tokenizer->encode(text);
  ASSERT_TRUE(ids) << ids.error().message;
  EXPECT_EQ(ids->size(), 2'500'000u);
  EXPECT_EQ(tokenizer->decode(*ids), text);
}

TEST(HostileText, TenMegabytesOfSpaceOrMalformedBytesPass) {
  const auto tokenizer = tokenizer_from(kByteLevel);
  ASSERT_TRUE(tokenizer);
  EXPECT_TRUE(tokenizer->encode(std::string(10'000'000, ' ')));
  EXPECT_TRUE(tokenizer->encode(std::string(10'000'000, '\n') + "a"));
  EXPECT_TRUE(tokenizer->encode(std::string(10'000'000, '\xFF')));
  EXPECT_TRUE(tokenizer->encode(std::string(1'000'000, '\0')));
}

}  // namespace
}  // namespace quell::tokenizer
