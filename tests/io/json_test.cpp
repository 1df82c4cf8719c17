// SPDX-License-Identifier: Apache-2.0
#include "quell/io/json.hpp"

#include <gtest/gtest.h>

#include <clocale>
#include <cmath>
#include <limits>

#include "support/files.hpp"

namespace quell::io {
namespace {

using namespace std::string_literals;
using Kind = Json::Kind;

Json parsed(std::string_view text) {
  auto value = parse_json(text, "t.json");
  EXPECT_TRUE(value.has_value()) << text << ": " << (value ? "" : value.error().message);
  return value ? *std::move(value) : Json();
}

std::string fault(std::string_view text, JsonLimits limits = {}) {
  const auto value = parse_json(text, "t.json", limits);
  EXPECT_FALSE(value.has_value()) << text;
  if (value) return {};
  EXPECT_EQ(value.error().code, ErrorCode::parse);
  EXPECT_EQ(value.error().file, "t.json");
  return value.error().message;
}

TEST(Json, ReadsEveryKind) {
  const Json value =
      parsed(R"({"n":null,"t":true,"f":false,"i":-7,"r":2.5,"s":"x","a":[1,2],"o":{}})");
  ASSERT_TRUE(value.is(Kind::object));
  ASSERT_EQ(value.members().size(), 8u);
  EXPECT_TRUE(value.find("n")->is(Kind::null));
  EXPECT_TRUE(value.find("t")->as_boolean());
  EXPECT_FALSE(value.find("f")->as_boolean());
  EXPECT_EQ(value.find("i")->as_integer(), -7);
  EXPECT_EQ(value.find("r")->as_number(), 2.5);
  EXPECT_EQ(value.find("s")->as_string(), "x");
  ASSERT_EQ(value.find("a")->items().size(), 2u);
  EXPECT_EQ(value.find("a")->items()[1].as_integer(), 2);
  EXPECT_TRUE(value.find("o")->is(Kind::object));
  EXPECT_EQ(value.find("absent"), nullptr);
  EXPECT_EQ(parsed(" 3 ").as_integer(), 3);
}

TEST(Json, KeepsTheOrderOfMembers) {
  const Json value = parsed(R"({"z":1,"a":2,"m":3})");
  EXPECT_EQ(value.dump(), R"({"z":1,"a":2,"m":3})");
}

TEST(Json, TellsWhereEachValueStarts) {
  const Json value =
      parsed("{\n  \"a\": [10, 2.5,\n\ttrue],\n  \"b\" : \"x\\n\\u00e9y\", \"c\":{}}");
  EXPECT_EQ(value.line(), 1u);
  EXPECT_EQ(value.column(), 1u);
  const Json& a = *value.find("a");
  EXPECT_EQ(a.line(), 2u);
  EXPECT_EQ(a.column(), 8u);
  EXPECT_EQ(a.items()[0].column(), 9u);
  EXPECT_EQ(a.items()[1].column(), 13u);
  EXPECT_EQ(a.items()[2].line(), 3u);
  EXPECT_EQ(a.items()[2].column(), 2u);
  EXPECT_EQ(value.find("b")->line(), 4u);
  EXPECT_EQ(value.find("b")->column(), 9u);
  EXPECT_EQ(value.find("c")->column(), 27u);
  const Json nested = parsed("[[1],[2]]");
  EXPECT_EQ(nested.items()[1].column(), 6u);
  EXPECT_EQ(nested.items()[1].items()[0].column(), 7u);
}

TEST(Json, KeepsIntegersExact) {
  EXPECT_EQ(parsed("9223372036854775807").as_integer(), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(parsed("-9223372036854775808").as_integer(), std::numeric_limits<std::int64_t>::min());
  EXPECT_TRUE(parsed("0").is(Kind::integer));
  const Json large = parsed("18446744073709551615");
  EXPECT_TRUE(large.is(Kind::real));
  EXPECT_EQ(large.as_unsigned(), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(large.dump(), "18446744073709551615");
  EXPECT_EQ(large.as_number(), 18446744073709551616.0);
  EXPECT_EQ(parsed("18446744073709551616").as_unsigned(), std::nullopt);
  EXPECT_EQ(parsed("-1").as_unsigned(), std::nullopt);
  EXPECT_EQ(parsed("1.0").as_unsigned(), std::nullopt);
  EXPECT_TRUE(parsed("1e3").is(Kind::real));
  EXPECT_EQ(Json(std::numeric_limits<std::uint64_t>::max()).dump(), "18446744073709551615");
}

TEST(Json, RefusesNumbersBeyondADouble) {
  EXPECT_NE(fault("{\"a\": 1e400}").find("1e400"), std::string::npos);
  EXPECT_NE(fault("[-1e999]").find("line 1"), std::string::npos);
  EXPECT_EQ(parsed("1e-400").as_number(), 0.0) << "too small is zero, as everywhere";
  EXPECT_EQ(parsed("1.7976931348623157e308").as_number(), std::numeric_limits<double>::max());
}

TEST(Json, RefusesWhatIsNoNumber) {
  for (const char* text : {"01", "+1", "1.", ".5", "1e", "0x10", "NaN", "Infinity", "-Infinity",
                           "-", "1_000", "--1"}) {
    fault(text);
  }
}

TEST(Json, RefusesWhatIsNoJson) {
  EXPECT_EQ(fault(""), "t.json: is empty, expected JSON");
  for (const char* text : {" ",
                           "{",
                           "[",
                           "{\"a\":1",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{\"a\":1,}",
                           "[1,]",
                           "[1 2]",
                           "{a:1}",
                           "{'a':1}",
                           "nul",
                           "truefalse",
                           "\"abc",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "\"\\ud800\"",
                           "\"\\ud800\\u0041\"",
                           "\"\\udc00\"",
                           "\"a\nb\"",
                           "// c\n1",
                           "/* c */1",
                           "1 1",
                           "{}x",
                           "]"}) {
    const std::string message = fault(text);
    EXPECT_NE(message.find("line "), std::string::npos) << message;
    EXPECT_EQ(message.find("json.exception"), std::string::npos) << message;
  }
}

TEST(Json, NamesLineAndColumnOfASyntaxError) {
  const std::string message = fault("{\n  \"a\": 1,\n  \"b\": tru\n}");
  EXPECT_NE(message.find("t.json: line 3, column 11"), std::string::npos) << message;
}

TEST(Json, NamesDuplicateKeysAndBothPlaces) {
  const std::string message = fault("{\"x\":{\n\"dtype\":1,\n  \"dtype\":2}}");
  EXPECT_NE(message.find("line 3, column 3"), std::string::npos) << message;
  EXPECT_NE(message.find("duplicate key \"dtype\", first at line 2, column 1"), std::string::npos)
      << message;
  EXPECT_EQ(parsed("[{\"a\":1},{\"a\":2}]").items().size(), 2u);
  EXPECT_NE(fault("{\"\":1,\"\":2}").find("duplicate"), std::string::npos);
  EXPECT_NE(fault("{\"a\":1,\"\\u0061\":2}").find("duplicate"), std::string::npos)
      << "equal once unescaped";
}

TEST(Json, RefusesByteOrderMarkNulAndBrokenUtf8ByByte) {
  EXPECT_NE(fault("\xEF\xBB\xBF{}").find("a byte-order mark at byte 0"), std::string::npos);
  EXPECT_NE(fault("{\"a\":\0 1}"s).find("a NUL byte at byte 5"), std::string::npos);
  EXPECT_NE(fault("[1]\0"s).find("a NUL byte at byte 3"), std::string::npos);
  EXPECT_NE(fault("[\"\xff\"]").find("not UTF-8 at byte 2"), std::string::npos);
  EXPECT_NE(fault("[\"long enough for the fast path\xC3\"]").find("not UTF-8 at byte 31"),
            std::string::npos);
  EXPECT_NE(fault("\xFF\xFE{\0}\0"s).find("not UTF-8 at byte 0"), std::string::npos) << "UTF-16";
  EXPECT_EQ(parsed("\"\\u0000\"").as_string(), "\0"s) << "an escaped NUL is a value";
}

TEST(Json, FindsABadByteAtEveryPosition) {
  for (std::size_t at = 0; at < 40; ++at) {
    for (const char bad : {'\0', '\xff', '\x80'}) {
      std::string text = '"' + std::string(38, 'x') + '"';
      text[at] = bad;
      EXPECT_NE(fault(text).find(" at byte " + std::to_string(at) + " "), std::string::npos) << at;
    }
  }
}

TEST(Json, LimitsDepthWithoutUsingTheStack) {
  EXPECT_EQ(parsed(std::string(64, '[') + std::string(64, ']')).items().size(), 1u);
  EXPECT_NE(fault(std::string(65, '[') + std::string(65, ']')).find("depth"), std::string::npos);
  EXPECT_NE(fault(std::string(100'000, '[')).find("depth"), std::string::npos);
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_NE(fault(objects).find("depth"), std::string::npos);
}

TEST(Json, LimitsBytesAndValues) {
  JsonLimits limits;
  limits.bytes = 10;
  EXPECT_NE(fault("[1,2,3,4,5]", limits).find("11 bytes, more than the limit of 10"),
            std::string::npos);
  limits = {};
  limits.values = 3;
  EXPECT_NE(fault("[1,2,3]", limits).find("more values"), std::string::npos);
  EXPECT_TRUE(parse_json("[1,2]", "t.json", limits).has_value());
}

TEST(Json, EscapesWhatErrorsShow) {
  const std::string message = fault("{\"\\u001b[31m\":1,\"\\u001b[31m\":2}");
  EXPECT_NE(message.find("\\x1b[31m"), std::string::npos) << message;
  EXPECT_EQ(message.find('\x1b'), std::string::npos);
  EXPECT_LT(fault("[" + std::string(100'000, '9') + "e999]").size(), 500u);
}

TEST(Json, WritesAndReadsBackTheSame) {
  const std::string text =
      R"({"a":[1,-2,3.5,1.0,1e+300,true,null,"x\"\\\b\f\n\r\t\u0001é漢"],"":{},"e":[]})";
  const Json value = parsed(text);
  EXPECT_EQ(value.dump(), text);
  EXPECT_EQ(parsed(value.dump(2)).dump(), text);
}

TEST(Json, IndentsLikeOtherWriters) {
  const Json value = parsed(R"({"a":{"b":[1,2],"c":[]},"d":{}})");
  EXPECT_EQ(value.dump(2),
            "{\n  \"a\": {\n    \"b\": [\n      1,\n      2\n    ],\n    \"c\": []\n  },\n"
            "  \"d\": {}\n}");
}

TEST(Json, WritesDoublesShortestAndAsReals) {
  EXPECT_EQ(Json(0.1).dump(), "0.1");
  EXPECT_EQ(Json(1.0).dump(), "1.0") << "a real stays a real";
  EXPECT_EQ(Json(-0.0).dump(), "-0.0");
  EXPECT_EQ(Json(1e22).dump(), "1e+22");
  EXPECT_EQ(Json(5e-324).dump(), "5e-324");
  EXPECT_EQ(Json(std::numeric_limits<double>::infinity()).dump(), "null");
  EXPECT_EQ(Json(std::nan("")).dump(), "null");
  for (double value : {1.0 / 3, 1e-310, 123456789.125, -2.2250738585072014e-308}) {
    EXPECT_EQ(parsed(Json(value).dump()).as_number(), value);
  }
}

TEST(Json, DoesNotDependOnTheLocale) {
  const char* comma = std::setlocale(LC_NUMERIC, "de_DE.UTF-8");
  EXPECT_EQ(parsed("2.5").as_number(), 2.5);
  EXPECT_EQ(Json(2.5).dump(), "2.5");
  std::setlocale(LC_NUMERIC, "C");
  if (comma == nullptr) GTEST_SKIP() << "no locale with a decimal comma on this machine";
}

TEST(Json, WritesOnlyUtf8) {
  EXPECT_EQ(Json("a\xffz").dump(), "\"a\xEF\xBF\xBDz\"");
  EXPECT_EQ(Json("\x7f\xE2\x80\xA8").dump(), "\"\x7f\xE2\x80\xA8\"");
}

TEST(Json, BuildsObjectsAndLists) {
  Json value;
  value.set("a", 1);
  value.set("b", "two");
  value.set("a", 3u);
  Json list;
  list.push(true);
  list.push(nullptr);
  value.set("c", std::move(list));
  value.set("d", Json::array());
  value.set("e", Json::object({{"x", 0.5}}));
  EXPECT_EQ(value.dump(), R"({"a":3,"b":"two","c":[true,null],"d":[],"e":{"x":0.5}})");
  EXPECT_EQ(value.line(), 0u) << "not from text";
}

TEST(ReadJson, NamesTheFile) {
  const test::TemporaryFolder folder;
  const auto missing = read_json(folder / "config.json");
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code, ErrorCode::missing);
  EXPECT_NE(missing.error().message.find("config.json: no such file"), std::string::npos);

  test::write_bytes(folder / "config.json", "");
  const auto empty = read_json(folder / "config.json");
  ASSERT_FALSE(empty.has_value());
  EXPECT_EQ(empty.error().code, ErrorCode::parse);
  EXPECT_NE(empty.error().message.find("config.json: is empty"), std::string::npos);

  test::write_bytes(folder / "config.json", "{\"a\": 1}");
  const auto value = read_json(folder / "config.json");
  ASSERT_TRUE(value.has_value());
  EXPECT_EQ(value->find("a")->as_integer(), 1);

  const auto directory = read_json(folder.path());
  ASSERT_FALSE(directory.has_value());
  EXPECT_NE(directory.error().message.find("is a folder"), std::string::npos);
}

TEST(ReadJson, RefusesAGigabyteBeforeReadingIt) {
  const test::TemporaryFolder folder;
  test::write_bytes(folder / "config.json", "{");
  std::filesystem::resize_file(folder / "config.json", 1'000'000'000);
  const auto value = read_json(folder / "config.json");
  ASSERT_FALSE(value.has_value());
  EXPECT_EQ(value.error().code, ErrorCode::parse);
  EXPECT_NE(value.error().message.find("1000000000 bytes, more than the limit of 100000000"),
            std::string::npos)
      << value.error().message;
}

}  // namespace
}  // namespace quell::io
