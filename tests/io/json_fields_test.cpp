// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "quell/io/json.hpp"

namespace quell::io {
namespace {

class Fields : public ::testing::Test {
 protected:
  JsonFields fields(std::string_view text) {
    auto value = parse_json(text, "config.json");
    EXPECT_TRUE(value.has_value()) << text;
    value_ = *std::move(value);
    return JsonFields(value_, "config.json");
  }
  Json value_;
};

template <typename T>
std::string message(const Result<T>& result) {
  EXPECT_FALSE(result.has_value());
  return result ? std::string() : result.error().message;
}

TEST_F(Fields, GiveTypedValues) {
  const JsonFields config =
      fields(R"({"n": 4096, "eps": 1e-5, "one": 1, "s": "llama", "b": false})");
  EXPECT_EQ(*config.unsigned_integer("n", 1, 65536), 4096u);
  EXPECT_EQ(*config.number("eps"), 1e-5);
  EXPECT_EQ(*config.number("one"), 1.0);
  EXPECT_EQ(*config.text("s"), "llama");
  EXPECT_EQ(**config.optional_boolean("b"), false);
  EXPECT_EQ(config.file(), "config.json");
  EXPECT_EQ(&config.object(), &value_);
}

TEST_F(Fields, TakeAbsentAndNullOptionalsAsNothing) {
  const JsonFields config = fields(R"({"null": null})");
  for (const char* name : {"null", "absent"}) {
    EXPECT_FALSE(config.optional_unsigned(name, 0, 9)->has_value());
    EXPECT_FALSE(config.optional_number(name)->has_value());
    EXPECT_FALSE(config.optional_text(name)->has_value());
    EXPECT_FALSE(config.optional_boolean(name)->has_value());
    EXPECT_EQ(config.find(name), nullptr);
  }
}

TEST_F(Fields, NameMissingRequiredFields) {
  const JsonFields config = fields(R"({"null": null})");
  const auto absent = config.unsigned_integer("hidden_size", 1, 100);
  EXPECT_EQ(message(absent),
            "config.json: hidden_size is missing, expected an integer from 1 to 100");
  EXPECT_EQ(absent.error().code, ErrorCode::missing);
  EXPECT_EQ(message(config.number("eps")), "config.json: eps is missing, expected a number");
  EXPECT_EQ(message(config.text("model_type")),
            "config.json: model_type is missing, expected a string");
  EXPECT_EQ(message(config.text("null")),
            "config.json: null is null (line 1, column 10), expected a string");
}

TEST_F(Fields, RefuseNumbersOfTheWrongKind) {
  const char* values[] = {"\"64\"",
                          "-1",
                          "64.0",
                          "64.5",
                          "6.4e1",
                          "true",
                          "[64]",
                          "{}",
                          "0",
                          "101",
                          "18446744073709551616"};
  for (const char* value : values) {
    const JsonFields config = fields("{\n \"heads\": " + std::string(value) + "}");
    const auto result = config.unsigned_integer("heads", 1, 100);
    EXPECT_EQ(result.error().code, ErrorCode::parse);
    EXPECT_EQ(result.error().file, "config.json");
    const std::string text = message(result);
    EXPECT_EQ(text.find("config.json: heads is "), 0u) << text;
    EXPECT_NE(text.find(" (line 2, column 11), expected an integer from 1 to 100"),
              std::string::npos)
        << text;
    EXPECT_FALSE(config.optional_unsigned("heads", 1, 100).has_value());
  }
}

TEST_F(Fields, ShowWhatWasFound) {
  const JsonFields config = fields(R"({"a":"64","b":-1,"c":[1,2],"d":{},"e":6.5,"f":true})");
  EXPECT_NE(message(config.unsigned_integer("a", 0, 9)).find("a is \"64\""), std::string::npos);
  EXPECT_NE(message(config.unsigned_integer("b", 0, 9)).find("b is -1"), std::string::npos);
  EXPECT_NE(message(config.number("c")).find("c is a list of 2"), std::string::npos);
  EXPECT_NE(message(config.number("d")).find("d is an object"), std::string::npos);
  EXPECT_NE(message(config.text("e")).find("e is 6.5"), std::string::npos);
  EXPECT_NE(message(config.number("f")).find("f is true"), std::string::npos);
  EXPECT_NE(message(config.optional_boolean("b")).find("expected true or false"),
            std::string::npos);
}

TEST_F(Fields, KeepTheWholeUnsignedRange) {
  const JsonFields config = fields(R"({"seed": 18446744073709551615})");
  EXPECT_EQ(*config.unsigned_integer("seed", 0, ~std::uint64_t{0}), ~std::uint64_t{0});
}

TEST_F(Fields, EscapeAndShortenHostileStrings) {
  const JsonFields config = fields("{\"a\":\"\\u001b[2J" + std::string(10'000, 'x') + "\"}");
  const std::string text = message(config.number("a"));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_LT(text.size(), 200u);
}

}  // namespace
}  // namespace quell::io
