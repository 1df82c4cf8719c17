// SPDX-License-Identifier: Apache-2.0

// Whole tokenizers small enough to follow by hand.

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "tokenizer/pre_tokenizers.hpp"
#include "tokenizer/tiny_tokenizer.hpp"

namespace quell::tokenizer {
namespace {

std::string bpe(std::string_view vocab, std::string_view merges, std::string_view more = "",
                std::string_view around = "") {
  return "{\"model\": {\"type\": \"BPE\", \"vocab\": {" + std::string(vocab) + "}, \"merges\": [" +
         std::string(merges) + "]" + std::string(more) + "}" + std::string(around) + "}";
}

TEST(Bpe, MergesTheLowestRankFirstAndTheLeftmostAmongEquals) {
  const auto tokenizer =
      tokenizer_from(bpe(R"("a":0,"b":1,"c":2,"ab":3,"bc":4,"aa":5)", R"("b c","a b","a a")"));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(pieces_of(*tokenizer, "abc"), (Pieces{"a", "bc"}));
  EXPECT_EQ(pieces_of(*tokenizer, "aaa"), (Pieces{"aa", "a"}));
  EXPECT_EQ(pieces_of(*tokenizer, "aab"), (Pieces{"a", "ab"}));
  EXPECT_EQ(pieces_of(*tokenizer, ""), Pieces{});
}

TEST(Bpe, DropsUnknownCharactersWithoutAnUnknownToken) {
  const auto tokenizer = tokenizer_from(bpe(R"("a":0)", ""));
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(pieces_of(*tokenizer, "axa"), (Pieces{"a", "a"}));
}

TEST(Bpe, FusesUnknownCharactersOnlyWhenTold) {
  const std::string vocab = R"("?":0,"a":1)";
  const auto apart = tokenizer_from(bpe(vocab, "", R"(,"unk_token":"?")"));
  const auto fused = tokenizer_from(bpe(vocab, "", R"(,"unk_token":"?","fuse_unk":true)"));
  ASSERT_TRUE(apart && fused);
  EXPECT_EQ(pieces_of(*apart, "xyaz"), (Pieces{"?", "?", "a", "?"}));
  EXPECT_EQ(pieces_of(*fused, "xyaz"), (Pieces{"?", "a", "?"}));
}

TEST(Bpe, FallsBackToBytesWhenAllOfThemAreTokens) {
  const auto tokenizer = tokenizer_from(
      bpe(R"("?":0,"<0xC3>":1,"<0xA9>":2)", "", R"(,"unk_token":"?","byte_fallback":true)"));
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(pieces_of(*tokenizer, "\xC3\xA9"), (Pieces{"<0xC3>", "<0xA9>"}));
  EXPECT_EQ(pieces_of(*tokenizer, "\xC3\xA8"), (Pieces{"?"}));
}

TEST(Bpe, IgnoresMergesForAPieceThatIsAToken) {
  const std::string vocab = R"("a":0,"b":1,"c":2,"ab":3,"abc":4)";
  const auto merged = tokenizer_from(bpe(vocab, R"("a b")"));
  const auto ignored = tokenizer_from(bpe(vocab, R"("a b")", R"(,"ignore_merges":true)"));
  ASSERT_TRUE(merged && ignored);
  EXPECT_EQ(pieces_of(*merged, "abc"), (Pieces{"ab", "c"}));
  EXPECT_EQ(pieces_of(*ignored, "abc"), (Pieces{"abc"}));
}

TEST(Bpe, ReadsMergesAsPairsOfStringsWithSpacesInside) {
  const auto tokenizer = tokenizer_from(bpe(R"(" ":0,"a":1," a":2)", R"([" ","a"])"));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(pieces_of(*tokenizer, " a"), (Pieces{" a"}));
}

TEST(Bpe, CutsALongTextWhereNoMergeReachesAcross) {
  // The whole text is one piece. Words repeat, so every word must come out as it does by itself.
  const auto tokenizer =
      tokenizer_from(bpe(R"("_":0,"a":1,"b":2,"_a":3,"_ab":4,"bb":5,"?":6)",
                         R"("_ a","_a b","b b")", R"(,"unk_token":"?","fuse_unk":true)"));
  ASSERT_TRUE(tokenizer);
  std::string text;
  Pieces expected;
  for (int i = 0; i < 500; ++i) {
    text += "_abb_xx_abbb";
    for (const char* piece : {"_ab", "b", "_", "?", "_ab", "bb"}) expected.emplace_back(piece);
  }
  EXPECT_EQ(pieces_of(*tokenizer, text), expected);
}

TEST(Unigram, TakesTheLikeliestPathAndJoinsUnknownCharacters) {
  const auto tokenizer = tokenizer_from(
      R"({"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0],["a",0],["b",0],["c",0],["d",0],)"
      R"(["cd",1.0],["ab",2.0],["abc",5.0],["abcd",10.0]]}})");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(pieces_of(*tokenizer, "abcdacdxx"), (Pieces{"abcd", "a", "cd", "<unk>"}));
}

TEST(Unigram, WithoutAnUnknownTokenSaysWhichCharacterIsMissing) {
  const auto tokenizer = tokenizer_from(R"({"model":{"type":"Unigram","vocab":[["a",-1]]}})");
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(pieces_of(*tokenizer, "aa"), (Pieces{"a", "a"}));
  const auto ids = tokenizer->encode("ax");
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::missing);
  EXPECT_NE(ids.error().message.find("\"x\""), std::string::npos);
}

TEST(WordPiece, TakesTheLongestPiecesOrNothing) {
  const auto tokenizer = tokenizer_from(
      R"({"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",)"
      R"("max_input_chars_per_word":8,"vocab":{"[UNK]":0,"un":1,"##aff":2,"##able":3,"a":4}},)"
      R"("pre_tokenizer":{"type":"BertPreTokenizer"},"decoder":{"type":"WordPiece","prefix":"##","cleanup":true}})");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(pieces_of(*tokenizer, "unaff a"), (Pieces{"un", "##aff", "a"}));
  EXPECT_EQ(pieces_of(*tokenizer, "unaffx"), (Pieces{"[UNK]"}));
  EXPECT_EQ(pieces_of(*tokenizer, "unaffable"), (Pieces{"[UNK]"}));  // nine characters
  const std::vector<std::int32_t> ids = {1, 2, 4};
  EXPECT_EQ(tokenizer->decode(ids), "unaff a");
}

class Collect final : public PieceSink {
 public:
  Status take(std::string_view piece) override { return pieces.emplace_back(piece), ok(); }
  Pieces pieces;
};

Pieces cut(std::string_view json, std::string_view text, bool from_start = true) {
  const auto value = io::parse_json(json, "test");
  if (!value) return {value.error().message};
  const auto pre = PreTokenizer::read(*value, "test");
  if (!pre) return {pre.error().message};
  PreTokenizer::Scratch scratch;
  Collect sink;
  if (const auto done = pre->cut(text, from_start, scratch, sink); !done)
    return {done.error().message};
  return sink.pieces;
}

TEST(PreTokenizer, HasFiveWaysToCut) {
  const auto split = [](std::string_view behavior, std::string_view invert = "false") {
    return cut("{\"type\":\"Split\",\"pattern\":{\"String\":\"-\"},\"behavior\":\"" +
                   std::string(behavior) + "\",\"invert\":" + std::string(invert) + "}",
               "the-final--countdown-");
  };
  EXPECT_EQ(split("Removed"), (Pieces{"the", "final", "countdown"}));
  EXPECT_EQ(split("Isolated"), (Pieces{"the", "-", "final", "-", "-", "countdown", "-"}));
  EXPECT_EQ(split("MergedWithPrevious"), (Pieces{"the-", "final-", "-", "countdown-"}));
  EXPECT_EQ(split("MergedWithNext"), (Pieces{"the", "-final", "-", "-countdown", "-"}));
  EXPECT_EQ(split("Contiguous"), (Pieces{"the", "-", "final", "--", "countdown", "-"}));
  EXPECT_EQ(split("Removed", "true"), (Pieces{"-", "-", "-", "-"}));
}

TEST(PreTokenizer, MetaspaceMarksWordsByItsScheme) {
  const auto meta = [](std::string_view scheme, std::string_view text, bool from_start) {
    return cut("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"" +
                   std::string(scheme) + "\"}",
               text, from_start);
  };
  EXPECT_EQ(meta("always", "a  b", false), (Pieces{"_a", "_", "_b"}));
  EXPECT_EQ(meta("first", "a b", true), (Pieces{"_a", "_b"}));
  EXPECT_EQ(meta("first", "a b", false), (Pieces{"a", "_b"}));
  EXPECT_EQ(meta("never", "a b", true), (Pieces{"a", "_b"}));
  EXPECT_EQ(meta("always", " a", true), (Pieces{"_a"}));
}

TEST(PreTokenizer, CutsDigitsPunctuationAndSpace) {
  EXPECT_EQ(cut(R"({"type":"Digits","individual_digits":true})", "a12"), (Pieces{"a", "1", "2"}));
  EXPECT_EQ(cut(R"({"type":"Digits","individual_digits":false})", "a12"), (Pieces{"a", "12"}));
  EXPECT_EQ(cut(R"({"type":"Punctuation"})", "a,.b"), (Pieces{"a", ",", ".", "b"}));
  EXPECT_EQ(cut(R"({"type":"WhitespaceSplit"})", " a,b  c\n"), (Pieces{"a,b", "c"}));
  EXPECT_EQ(cut(R"({"type":"Whitespace"})", " a,b  c\n"), (Pieces{"a", ",", "b", "c"}));
}

TEST(PreTokenizer, ByteLevelSpellsBytesAsLetters) {
  EXPECT_EQ(cut(R"({"type":"ByteLevel","add_prefix_space":true})", "a \xC3\xA9\n"),
            (Pieces{"\xC4\xA0"
                    "a",
                    "\xC4\xA0\xC3\x83\xC2\xA9", "\xC4\x8A"}));
}

constexpr std::string_view kAdded =
    R"({"model":{"type":"BPE","vocab":{"a":0,"b":1," ":2,"<":3,"s":4,">":5},"merges":[]},"added_tokens":[)"
    R"({"id":6,"content":"<s>","special":true,"normalized":false},)"
    R"({"id":7,"content":"<s>b","special":false,"normalized":false},)"
    R"({"id":8,"content":"bb","single_word":true,"special":false,"normalized":false},)"
    R"({"id":20,"content":"L","lstrip":true,"rstrip":true,"special":false,"normalized":false}],)"
    R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},)"
    R"({"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[6],"tokens":["<s>"]}}},)"
    R"("decoder":{"type":"Fuse"}})";

TEST(AddedTokens, MatchLeftmostLongestWithTheirFlags) {
  const auto tokenizer = tokenizer_from(kAdded);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(pieces_of(*tokenizer, "a<s>a"), (Pieces{"a", "<s>", "a"}));
  EXPECT_EQ(pieces_of(*tokenizer, "<s>ba"), (Pieces{"<s>b", "a"}));
  EXPECT_EQ(pieces_of(*tokenizer, "<sa"), (Pieces{"<", "s", "a"}));
  EXPECT_EQ(pieces_of(*tokenizer, "bb abb bb"), (Pieces{"bb", " ", "a", "b", "b", " ", "bb"}));
  EXPECT_EQ(pieces_of(*tokenizer, "a  L\n a"), (Pieces{"a", "L", "a"}));
}

TEST(AddedTokens, KeepTheirIdsOverGaps) {
  const auto tokenizer = tokenizer_from(kAdded);
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->size(), 21u);
  EXPECT_EQ(tokenizer->id("L"), 20);
  EXPECT_EQ(tokenizer->piece(20), "L");
  EXPECT_EQ(tokenizer->piece(12), "");
  EXPECT_EQ(tokenizer->piece(-1), "");
  EXPECT_EQ(tokenizer->piece(2'000'000'000), "");
  EXPECT_EQ(tokenizer->id("nothing"), std::nullopt);
  EXPECT_EQ(tokenizer->bos(), 6);
  EXPECT_EQ(tokenizer->model_type(), "BPE");
}

TEST(Tokenizer, SurroundsATextOnlyWhenAsked) {
  const auto tokenizer = tokenizer_from(kAdded);
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(*tokenizer->encode("a"), (std::vector<std::int32_t>{6, 0}));
  EXPECT_EQ(*tokenizer->encode("a", false), (std::vector<std::int32_t>{0}));
  EXPECT_EQ(*tokenizer->encode(""), (std::vector<std::int32_t>{6}));
}

TEST(Tokenizer, LeavesSpecialTokensOutOfTextUnlessAsked) {
  const auto tokenizer = tokenizer_from(kAdded);
  ASSERT_TRUE(tokenizer);
  const std::vector<std::int32_t> ids = {6, 0, 20, 12, -5, 999};
  EXPECT_EQ(tokenizer->decode(ids), "aL");
  EXPECT_EQ(tokenizer->decode(ids, true), "<s>aL");
}

TEST(Tokenizer, TakesTheBosFromItsConfigWhereTheFileIsSilent) {
  const TinyFolder folder;
  folder.write("tokenizer.json", R"({"model":{"type":"BPE","vocab":{"a":0,"<s>":1},"merges":[]}})");
  folder.write("tokenizer_config.json", R"({"add_bos_token":true,"bos_token":{"content":"<s>"}})");
  const auto tokenizer = Tokenizer::read(folder.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(*tokenizer->encode("a"), (std::vector<std::int32_t>{1, 0}));
  EXPECT_EQ(tokenizer->bos(), 1);
}

TEST(Tokenizer, GivesTheSameIdsToManyThreads) {
  const auto tokenizer = tokenizer_from(kAdded);
  ASSERT_TRUE(tokenizer);
  std::string text;
  for (int i = 0; i < 5000; ++i) text += i % 7 == 0 ? "<s>" : i % 3 == 0 ? "ab " : "bb";
  const auto expected = *tokenizer->encode(text);
  std::vector<std::vector<std::int32_t>> found(4);
  std::vector<std::thread> threads;
  for (auto& ids : found) {
    threads.emplace_back([&] {
      for (int round = 0; round < 20; ++round) ids = *tokenizer->encode(text);
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& ids : found) EXPECT_EQ(ids, expected);
}

TEST(Decoder, JoinsBytesAndStripsTheFirstSpace) {
  const auto tokenizer = tokenizer_from(
      R"({"model":{"type":"BPE","vocab":{"_a":0,"<0xC3>":1,"<0xA9>":2,"b":3},"merges":[]},"decoder":)"
      R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"_"},"content":" "},)"
      R"({"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}})");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->decode(std::vector<std::int32_t>{0, 1, 2, 0}), "a\xC3\xA9 a");
  EXPECT_EQ(tokenizer->decode(std::vector<std::int32_t>{1, 3, 1, 1}),
            "\xEF\xBF\xBD"
            "b\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(tokenizer->decode({}), "");
}

}  // namespace
}  // namespace quell::tokenizer
