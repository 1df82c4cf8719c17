// SPDX-License-Identifier: Apache-2.0

// How text becomes sequences, and sequences chunks.

#include "quell/calib/corpus.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "support/files.hpp"

namespace quell::calib {
namespace {

// A byte-level tokenizer without merges: every byte of plain ASCII is one token, BOS (id 0) in
// front.
std::filesystem::path byte_tokenizer(const test::TemporaryFolder& folder, bool bos = true) {
  std::string vocabulary = "\"<b>\":0,\"\xC4\xA0\":1,\"\xC4\x8A\":2";
  for (char c = 'a'; c <= 'z'; ++c)
    vocabulary += std::string(",\"") + c + "\":" + std::to_string(c - 'a' + 3);
  const std::string post =
      bos ? R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<b>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],)"
            R"("pair":[],"special_tokens":{"<b>":{"id":"<b>","ids":[0],"tokens":["<b>"]}}})"
          : "null";
  test::write_bytes(
      folder / "tokenizer.json",
      R"({"version":"1.0","added_tokens":[{"id":0,"content":"<b>","special":true,"normalized":false,)"
      R"("single_word":false,"lstrip":false,"rstrip":false}],"normalizer":null,"pre_tokenizer":)"
      R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},)"
      R"("post_processor":)" +
          post + R"(,"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{)" + vocabulary +
          R"(},"merges":[]}})");
  return folder.path();
}

Result<Corpus> cut(const std::string& text, CutOptions options, bool bos = true,
                   const std::string& name = "text.txt") {
  const test::TemporaryFolder folder;
  auto tokenizer = tokenizer::Tokenizer::read(byte_tokenizer(folder, bos));
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  const std::filesystem::path file = folder / name;
  test::write_bytes(file, text);
  return read_text({&file, 1}, *tokenizer, options);
}

using Lengths = std::vector<std::uint32_t>;

TEST(Corpus, WindowsOpenWithBosAndCoverTheStream) {
  const auto corpus = cut("abcdefghij", {.length = 4});
  ASSERT_TRUE(corpus) << corpus.error().message;
  EXPECT_EQ(corpus->lengths, (Lengths{4, 4, 4, 2}));  // BOS and three letters each, then the rest
  EXPECT_EQ(corpus->ids, (std::vector<std::int32_t>{0, 3, 4, 5, 0, 6, 7, 8, 0, 9, 10, 11, 0, 12}));
  EXPECT_EQ(corpus->scored(), 10u);
}

// The same alphabet between [C] (id 0) and [S] (id 29), as encoders have it.
Result<Corpus> cut_closed(const std::string& text, CutOptions options) {
  const test::TemporaryFolder folder;
  byte_tokenizer(folder);
  std::string json = test::read_bytes(folder / "tokenizer.json");
  const auto replace = [&](const std::string& from, const std::string& to) {
    ASSERT_NE(json.find(from), std::string::npos);
    json.replace(json.find(from), from.size(), to);
  };
  replace(R"({"Sequence":{"id":"A","type_id":0}})",
          R"({"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"<s>","type_id":0}})");
  replace(R"("special_tokens":{)",
          R"("special_tokens":{"<s>":{"id":"<s>","ids":[29],"tokens":["<s>"]},)");
  replace(R"("vocab":{)", R"("vocab":{"<s>":29,)");
  test::write_bytes(folder / "tokenizer.json", json);
  auto tokenizer = tokenizer::Tokenizer::read(folder.path());
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  const std::filesystem::path file = folder / "text.txt";
  test::write_bytes(file, text);
  options.closed = true;
  return read_text({&file, 1}, *tokenizer, options);
}

TEST(Corpus, ClosedWindowsAreTextsOfTheirOwn) {
  const auto corpus = cut_closed("abcde", {.length = 4});
  ASSERT_TRUE(corpus) << corpus.error().message;
  EXPECT_EQ(corpus->lengths, (Lengths{4, 4, 3}));
  EXPECT_EQ(corpus->ids, (std::vector<std::int32_t>{0, 3, 4, 29, 0, 5, 6, 29, 0, 7, 29}));
}

TEST(Corpus, AClosedDocumentIsCutBeforeItIsClosed) {
  const auto corpus =
      cut_closed("abcde\n<|endoftext|>\nf\n<|endoftext|>\n\n", {.length = 5, .documents = true});
  ASSERT_TRUE(corpus) << corpus.error().message;
  EXPECT_EQ(corpus->ids, (std::vector<std::int32_t>{0, 3, 4, 5, 29, 0, 8, 29}));
  EXPECT_EQ(corpus->lengths, (Lengths{5, 3}));
}

TEST(Corpus, ClosedTextsKeepToTheLimitOfTokensAndStayClosed) {
  const std::string text = "abcde\n<|endoftext|>\nfgh\n<|endoftext|>\nij";
  for (const std::uint64_t limit : {9u, 10u}) {
    const auto corpus = cut_closed(text, {.length = 6, .documents = true, .max_tokens = limit});
    ASSERT_TRUE(corpus) << corpus.error().message;
    EXPECT_EQ(corpus->lengths, (Lengths{6, static_cast<std::uint32_t>(limit - 6)}));
    EXPECT_EQ(corpus->ids.back(), 29);
  }
  // Two tokens left are not enough for a text between two others.
  const auto corpus = cut_closed(text, {.length = 6, .documents = true, .max_tokens = 8});
  ASSERT_TRUE(corpus) << corpus.error().message;
  EXPECT_EQ(corpus->lengths, (Lengths{6}));
}

TEST(Corpus, AClosedTextNeedsRoomBetweenItsEnds) {
  const auto corpus = cut_closed("abc", {.length = 2});
  ASSERT_FALSE(corpus);
  EXPECT_EQ(corpus.error().code, ErrorCode::usage);
  EXPECT_NE(corpus.error().message.find("at least 3 tokens"), std::string::npos)
      << corpus.error().message;
}

TEST(Corpus, WindowsWithoutBosAreTheStream) {
  const auto corpus = cut("abcdefghi", {.length = 4}, false);
  ASSERT_TRUE(corpus) << corpus.error().message;
  EXPECT_EQ(corpus->lengths, (Lengths{4, 4}));  // the ninth token alone would predict nothing
}

TEST(Corpus, DocumentsStandBetweenMarkersWithoutTheirLastNewline) {
  const auto corpus = cut("ab\n<|endoftext|>\ncd\ne\n<|endoftext|>\n<|endoftext|>\nf",
                          {.length = 10, .documents = true});
  ASSERT_TRUE(corpus) << corpus.error().message;
  EXPECT_EQ(corpus->lengths, (Lengths{3, 5, 2}));
  EXPECT_EQ(corpus->ids, (std::vector<std::int32_t>{0, 3, 4, 0, 5, 6, 2, 7, 0, 8}));
}

TEST(Corpus, AMarkerInsideALineIsText) {
  const auto corpus = cut("a <|endoftext|>\nb", {.length = 99, .documents = true});
  ASSERT_TRUE(corpus) << corpus.error().message;
  EXPECT_EQ(corpus->sequences(), 1u);
}

TEST(Corpus, DocumentsAreCutToTheLength) {
  const auto corpus = cut("abcdefgh\n<|endoftext|>\nab", {.length = 4, .documents = true});
  ASSERT_TRUE(corpus) << corpus.error().message;
  EXPECT_EQ(corpus->lengths, (Lengths{4, 3}));
}

TEST(Corpus, JsonLinesGiveOneDocumentPerTextField) {
  const auto corpus = cut("{\"text\": \"ab\"}\n\n{\"text\": \"cde\", \"x\": 1}\n",
                          {.length = 9, .documents = true}, true, "t.jsonl");
  ASSERT_TRUE(corpus) << corpus.error().message;
  EXPECT_EQ(corpus->lengths, (Lengths{3, 4}));
  const auto bad =
      cut("{\"text\": \"ab\"}\n{\"txt\": 1}\n", {.length = 9, .documents = true}, true, "t.jsonl");
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().message.find("line 2"), std::string::npos) << bad.error().message;
}

TEST(Corpus, MaxTokensStopsInsideASequence) {
  const auto corpus = cut("abcdefghij", {.length = 4, .max_tokens = 6});
  ASSERT_TRUE(corpus) << corpus.error().message;
  EXPECT_EQ(corpus->lengths, (Lengths{4, 2}));
}

TEST(Corpus, BinaryDataIsRefusedWithItsOffset) {
  const auto corpus = cut(std::string("ab\0c", 4), {.length = 4});
  ASSERT_FALSE(corpus);
  EXPECT_EQ(corpus.error().code, ErrorCode::parse);
  EXPECT_NE(corpus.error().message.find("offset 2"), std::string::npos);
}

Corpus counted(std::initializer_list<std::uint32_t> lengths) {
  Corpus corpus;
  corpus.lengths = lengths;
  corpus.ids.resize(std::accumulate(lengths.begin(), lengths.end(), 0u));
  std::iota(corpus.ids.begin(), corpus.ids.end(), 0);
  return corpus;
}

TEST(Sample, KeepsOrderAndRepeatsForASeed) {
  const Corpus all = counted({1, 2, 3, 4, 5, 6, 7, 8});
  const Corpus a = sample(all, 3, 0), b = sample(all, 3, 0), c = sample(all, 3, 1);
  EXPECT_EQ(a.ids, b.ids);
  EXPECT_EQ(a.sequences(), 3u);
  EXPECT_TRUE(std::is_sorted(a.ids.begin(), a.ids.end()));
  EXPECT_NE(a.ids, c.ids);
}

TEST(Sample, TakesAllAndSaysSoWhereThereAreFewer) {
  const Corpus some = sample(counted({2, 2}), 5, 0);
  EXPECT_EQ(some.sequences(), 2u);
  ASSERT_EQ(some.notes.size(), 1u);
  EXPECT_NE(some.notes[0].find("2 sequences, 5"), std::string::npos);
}

TEST(Chunks, HoldWholeSequencesUpToTheLimit) {
  const Corpus corpus = counted({1000, 1000, 100, 3000, 2048, 1});
  const std::vector<Chunk> cuts = chunks(corpus);
  ASSERT_EQ(cuts.size(), 5u);
  EXPECT_EQ(cuts[0].sequences, 2u);  // 2,100 would be too many
  EXPECT_EQ(cuts[1].tokens, 100u);
  EXPECT_EQ(cuts[2].tokens, 3000u);  // longer than the limit: alone
  EXPECT_EQ(cuts[3].tokens, 2048u);
  EXPECT_EQ(cuts[4].first_token, 7148u);
}

TEST(Beginning, TakesWholeSequencesAndCutsOnlyTheFirst) {
  const auto counted = [](std::vector<std::uint32_t> lengths) {
    Corpus corpus;
    corpus.lengths = std::move(lengths);
    corpus.ids.resize(std::accumulate(corpus.lengths.begin(), corpus.lengths.end(), 0u));
    std::iota(corpus.ids.begin(), corpus.ids.end(), 0);
    return corpus;
  };
  const Corpus corpus = counted({5, 3, 4});
  EXPECT_EQ(beginning(corpus, 100).lengths, (Lengths{5, 3, 4}));
  EXPECT_EQ(beginning(corpus, 12).lengths, (Lengths{5, 3, 4}));
  EXPECT_EQ(beginning(corpus, 11).lengths, (Lengths{5, 3}));  // never a part of a later one
  EXPECT_EQ(beginning(corpus, 5).lengths, (Lengths{5}));
  EXPECT_EQ(beginning(corpus, 4).lengths, (Lengths{4}));
  EXPECT_EQ(beginning(corpus, 0).lengths, (Lengths{2}));  // one to look at, one to predict
  EXPECT_EQ(beginning(corpus, 4).ids, (std::vector<std::int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(beginning(corpus, 8).ids.size(), 8u);
  EXPECT_TRUE(beginning(Corpus(), 8).ids.empty());
}

}  // namespace
}  // namespace quell::calib
