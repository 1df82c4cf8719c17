// SPDX-License-Identifier: Apache-2.0

// The pipeline of BERT: clean-up, ideographs, accents and case, words and punctuation, pieces of
// words, the tokens around a text, and the way back.

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "tokenizer/tiny_tokenizer.hpp"

namespace quell::tokenizer {
namespace {

/// A tokenizer.json in the style of BERT; `normalizer` and `model` are members added to theirs.
std::string bert_json(const std::string& normalizer = R"("lowercase":true,"strip_accents":null)",
                      const std::string& longest = "100") {
  std::string vocabulary = R"("[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3)";
  int id = 4;
  // U+4EAC and U+5317 are ideographs, U+2014 is a dash, U+00E9 and U+00C9 are e and E with acute.
  for (const char* piece : {"a",
                            "b",
                            "c",
                            "##b",
                            "##c",
                            "##bc",
                            "cafe",
                            "play",
                            "##ing",
                            "##ed",
                            "un",
                            "##play",
                            "!",
                            ".",
                            "'",
                            ",",
                            "don",
                            "t",
                            "\xE4\xBA\xAC",
                            "\xE5\x8C\x97",
                            "\xE2\x80\x94",
                            "caf\xC3\xA9",
                            "Caf\xC3\x89",
                            "$",
                            "s",
                            "hello",
                            "##\xE4\xBA\xAC"}) {
    vocabulary += std::string(",\"") + piece + "\":" + std::to_string(id++);
  }
  return R"({"version":"1.0","added_tokens":[)"
         R"({"id":1,"content":"[UNK]","special":true,"normalized":false},)"
         R"({"id":2,"content":"[CLS]","special":true,"normalized":false},)"
         R"({"id":3,"content":"[SEP]","special":true,"normalized":false}],)"
         R"("normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,)" +
         normalizer +
         R"(},"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":{"type":"TemplateProcessing",)"
         R"("single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},)"
         R"({"SpecialToken":{"id":"[SEP]","type_id":0}}],"special_tokens":{"[CLS]":{"id":"[CLS]","ids":[2],)"
         R"("tokens":["[CLS]"]},"[SEP]":{"id":"[SEP]","ids":[3],"tokens":["[SEP]"]}}},)"
         R"("decoder":{"type":"WordPiece","prefix":"##","cleanup":true},"model":{"type":"WordPiece",)"
         R"("unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":)" +
         longest + R"(,"vocab":{)" + vocabulary + "}}}";
}

Tokenizer bert(const std::string& json = bert_json()) {
  auto tokenizer = tokenizer_from(json);
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return *std::move(tokenizer);
}

TEST(Bert, LongestPieceFirstThenContinuations) {
  const Tokenizer tokenizer = bert();
  EXPECT_EQ(pieces_of(tokenizer, "abc"), (Pieces{"a", "##bc"}));
  EXPECT_EQ(pieces_of(tokenizer, "abb"), (Pieces{"a", "##b", "##b"}));
  EXPECT_EQ(pieces_of(tokenizer, "playing unplayed"),
            (Pieces{"play", "##ing", "un", "##play", "##ed"}));
  EXPECT_EQ(pieces_of(tokenizer, "a b c"), (Pieces{"a", "b", "c"}));
}

TEST(Bert, AWordWithoutAPieceSomewhereIsOneUnknown) {
  const Tokenizer tokenizer = bert();
  EXPECT_EQ(pieces_of(tokenizer, "ax"), (Pieces{"[UNK]"}));
  EXPECT_EQ(pieces_of(tokenizer, "xa b zz"), (Pieces{"[UNK]", "b", "[UNK]"}));
  EXPECT_EQ(pieces_of(tokenizer, "ax!"), (Pieces{"[UNK]", "!"}));
  // A continuation is no word and a word is no continuation.
  EXPECT_EQ(pieces_of(tokenizer, "ing"), (Pieces{"[UNK]"}));
  EXPECT_EQ(pieces_of(tokenizer, "aun"), (Pieces{"[UNK]"}));
}

TEST(Bert, AWordAboveTheLimitOfCharactersIsUnknown) {
  const Tokenizer tokenizer = bert(bert_json(R"("lowercase":true)", "5"));
  EXPECT_EQ(pieces_of(tokenizer, "abbbb"), (Pieces{"a", "##b", "##b", "##b", "##b"}));
  EXPECT_EQ(pieces_of(tokenizer, "abbbbb"), (Pieces{"[UNK]"}));
  // Characters count, not bytes: five characters of two bytes are within the limit.
  const Tokenizer accents = bert(bert_json(R"("lowercase":false,"strip_accents":false)", "4"));
  EXPECT_EQ(pieces_of(accents, "caf\xC3\xA9"), (Pieces{"caf\xC3\xA9"}));
  EXPECT_EQ(pieces_of(bert(), "a" + std::string(99, 'b')).size(), 100u);
  EXPECT_EQ(pieces_of(bert(), "a" + std::string(100, 'b')), (Pieces{"[UNK]"}));
  EXPECT_EQ(pieces_of(bert(), std::string(5'000'000, 'b')), (Pieces{"[UNK]"}));
}

TEST(Bert, PunctuationStandsAloneWhetherAsciiOrNot) {
  const Tokenizer tokenizer = bert();
  EXPECT_EQ(pieces_of(tokenizer, "don't!."), (Pieces{"don", "'", "t", "!", "."}));
  EXPECT_EQ(pieces_of(tokenizer, "a$b"), (Pieces{"a", "$", "b"}));  // a symbol, but ASCII
  EXPECT_EQ(pieces_of(tokenizer,
                      "a\xE2\x80\x94"
                      "b"),
            (Pieces{"a", "\xE2\x80\x94", "b"}));
}

TEST(Bert, AccentsAndCapitalsGoTogetherUnlessToldOtherwise) {
  const std::string composed = "Caf\xC3\x89", decomposed = "Cafe\xCC\x81";
  const Tokenizer both = bert();
  EXPECT_EQ(pieces_of(both, composed), (Pieces{"cafe"}));
  EXPECT_EQ(pieces_of(both, decomposed), (Pieces{"cafe"}));
  const Tokenizer lower = bert(bert_json(R"("lowercase":true,"strip_accents":false)"));
  EXPECT_EQ(pieces_of(lower, composed), (Pieces{"caf\xC3\xA9"}));
  const Tokenizer neither = bert(bert_json(R"("lowercase":false,"strip_accents":null)"));
  EXPECT_EQ(pieces_of(neither, composed), (Pieces{composed}));
  EXPECT_EQ(pieces_of(neither, "HELLO hello"), (Pieces{"[UNK]", "hello"}));
}

TEST(Bert, EveryIdeographIsAWord) {
  const Tokenizer tokenizer = bert();
  EXPECT_EQ(pieces_of(tokenizer,
                      "\xE5\x8C\x97\xE4\xBA\xAC"
                      "a"),
            (Pieces{"\xE5\x8C\x97", "\xE4\xBA\xAC", "a"}));
  // Hiragana is not spaced: one word, without a piece.
  EXPECT_EQ(pieces_of(tokenizer, "\xE3\x81\x82\xE4\xBA\xAC"), (Pieces{"[UNK]", "\xE4\xBA\xAC"}));
}

TEST(Bert, ControlCharactersVanishAndSpacesOfAnyKindPart) {
  const Tokenizer tokenizer = bert();
  const std::string nul(1, '\0');
  EXPECT_EQ(pieces_of(tokenizer, "a" + nul +
                                     "b\x07"
                                     "c"),
            (Pieces{"a", "##bc"}));
  EXPECT_EQ(pieces_of(tokenizer,
                      "a\xEF\xBF\xBD"
                      "b"),
            (Pieces{"a", "##b"}));  // U+FFFD
  EXPECT_EQ(pieces_of(tokenizer,
                      "a\xE2\x80\x8B"
                      "b"),
            (Pieces{"a", "##b"}));  // U+200B, format
  EXPECT_EQ(pieces_of(tokenizer,
                      "a\xFF"
                      "b"),
            (Pieces{"a", "##b"}));  // malformed
  EXPECT_EQ(pieces_of(tokenizer, "a\tb\r\nc"), (Pieces{"a", "b", "c"}));
  EXPECT_EQ(pieces_of(tokenizer,
                      "a\xC2\xA0"
                      "b\xE3\x80\x80"
                      "c\xE2\x80\xA8"
                      "a"),
            (Pieces{"a", "b", "c", "a"}));  // no-break, ideographic, line separator
  EXPECT_EQ(pieces_of(tokenizer, " \t\n "), Pieces{});
}

TEST(Bert, ATextStandsBetweenClsAndSep) {
  const Tokenizer tokenizer = bert();
  using Ids = std::vector<std::int32_t>;
  const auto ids = tokenizer.encode("a b");
  ASSERT_TRUE(ids);
  EXPECT_EQ(*ids, (Ids{2, 4, 5, 3}));
  EXPECT_EQ(*tokenizer.encode(""), (Ids{2, 3}));
  EXPECT_EQ(*tokenizer.encode("a b", false), (Ids{4, 5}));
  EXPECT_EQ(tokenizer.with_special({4, 5}), *ids);
  EXPECT_EQ(tokenizer.with_special({}), (Ids{2, 3}));
  EXPECT_EQ(tokenizer.bos(), 2);
  EXPECT_EQ(tokenizer.model_type(), "WordPiece");
  // Special tokens in a text are those tokens, as in the reference.
  EXPECT_EQ(*tokenizer.encode("a[SEP]b", false), (Ids{4, 3, 5}));
}

TEST(Bert, DecodingJoinsPiecesAndPunctuation) {
  const Tokenizer tokenizer = bert();
  for (const auto& [text, decoded] :
       {std::pair<std::string, std::string>{"Playing, unplayed!", "playing, unplayed!"},
        {"abc  b", "abc b"},
        {"don't a's.", "don ' t a ' s."},
        {"a $ b", "a $ b"}}) {
    const auto ids = tokenizer.encode(text);
    ASSERT_TRUE(ids);
    EXPECT_EQ(tokenizer.decode(*ids), decoded);
  }
  const std::vector<std::int32_t> around = {2, 4, 3};
  EXPECT_EQ(tokenizer.decode(around, /*keep_special=*/true), "[CLS] a [SEP]");
  const std::vector<std::int32_t> lone = {7};  // a continuation that continues nothing
  EXPECT_EQ(tokenizer.decode(lone), "##b");
}

TEST(Bert, WithoutAnUnknownTokenAnUnknownWordIsAnError) {
  std::string json = bert_json();
  const std::string named = R"("unk_token":"[UNK]")";
  json.replace(json.find(named), named.size(), R"("unk_token":"<none>")");
  const Tokenizer tokenizer = bert(json);
  EXPECT_EQ(pieces_of(tokenizer, "abc"), (Pieces{"a", "##bc"}));
  const auto ids = tokenizer.encode("hello xyz");
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::missing);
  EXPECT_NE(ids.error().message.find("xyz"), std::string::npos) << ids.error().message;
  EXPECT_NE(ids.error().message.find("<none>"), std::string::npos) << ids.error().message;
}

struct Bad {
  const char* name;
  std::string from, to;
  ErrorCode code;
  const char* says;
};

TEST(Bert, DamagedFilesAreErrorsThatNameThePlace) {
  const Bad kBad[] = {
      {"no prefix", R"("continuing_subword_prefix":"##",)", "", ErrorCode::missing,
       "continuing_subword_prefix"},
      {"negative limit", R"("max_input_chars_per_word":100)", R"("max_input_chars_per_word":-1)",
       ErrorCode::parse, "max_input_chars_per_word"},
      {"limit is text", R"("max_input_chars_per_word":100)", R"("max_input_chars_per_word":"9")",
       ErrorCode::parse, "max_input_chars_per_word"},
      {"unknown is a number", R"("unk_token":"[UNK]")", R"("unk_token":1)", ErrorCode::parse,
       "unk_token"},
      {"clean_text is text", R"("clean_text":true)", R"("clean_text":"yes")", ErrorCode::parse,
       "clean_text"},
      {"no clean_text", R"("clean_text":true,)", "", ErrorCode::missing, "clean_text"},
      {"accents is a number", R"("strip_accents":null)", R"("strip_accents":1)", ErrorCode::parse,
       "strip_accents"},
      {"id twice", R"("b":5)", R"("b":4)", ErrorCode::parse, "both"},
      {"template names nothing", R"("special_tokens":{"[CLS]")", R"("special_tokens":{"[cls]")",
       ErrorCode::parse, "[CLS]"},
      {"template id outside", R"("ids":[3])", R"("ids":[3000])", ErrorCode::parse, "3000"}};
  for (const Bad& bad : kBad) {
    SCOPED_TRACE(bad.name);
    std::string json = bert_json();
    const std::size_t at = json.find(bad.from);
    ASSERT_NE(at, std::string::npos);
    json.replace(at, bad.from.size(), bad.to);
    const auto tokenizer = tokenizer_from(json);
    ASSERT_FALSE(tokenizer);
    EXPECT_EQ(tokenizer.error().code, bad.code) << tokenizer.error().message;
    EXPECT_NE(tokenizer.error().message.find(bad.says), std::string::npos)
        << tokenizer.error().message;
  }
}

}  // namespace
}  // namespace quell::tokenizer
