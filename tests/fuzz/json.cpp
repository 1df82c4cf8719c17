// SPDX-License-Identifier: Apache-2.0

// JSON text: what is parsed and written must parse to the same, compact and indented, and every
// value must know a place inside the text.

#include "quell/io/json.hpp"

#include <cmath>

#include "fuzz/target.hpp"

namespace {

using namespace quell;
using fuzz::require;

void check_same(const io::Json& a, const io::Json& b) {
  require(a.kind() == b.kind(), "a kind survives writing");
  switch (a.kind()) {
    case io::Json::Kind::boolean:
      require(a.as_boolean() == b.as_boolean(), "flags survive");
      break;
    case io::Json::Kind::integer:
      require(a.as_integer() == b.as_integer(), "integers survive");
      break;
    case io::Json::Kind::real:
      require(a.as_number() == b.as_number() &&
                  std::signbit(a.as_number()) == std::signbit(b.as_number()) &&
                  a.as_unsigned() == b.as_unsigned(),
              "reals survive");
      break;
    case io::Json::Kind::string:
      require(a.as_string() == b.as_string(), "strings survive");
      break;
    default:
      break;
  }
  require(a.items().size() == b.items().size(), "lists survive");
  for (std::size_t i = 0; i < a.items().size(); ++i) check_same(a.items()[i], b.items()[i]);
  require(a.members().size() == b.members().size(), "objects survive");
  for (std::size_t i = 0; i < a.members().size(); ++i) {
    require(a.members()[i].first == b.members()[i].first, "names survive");
    check_same(a.members()[i].second, b.members()[i].second);
  }
}

void check_places(const io::Json& value, std::string_view text) {
  require(value.line() >= 1 && value.column() >= 1, "a parsed value has a place");
  std::size_t start = 0;
  for (std::uint32_t line = 1; line < value.line(); ++line) {
    start = text.find('\n', start);
    require(start != text.npos, "the line of a value exists");
    ++start;
  }
  const std::size_t at = start + value.column() - 1;
  require(at < text.size(), "the column of a value exists");
  using Kind = io::Json::Kind;
  const char first = text[at];
  const bool fits = value.is(Kind::object)    ? first == '{'
                    : value.is(Kind::array)   ? first == '['
                    : value.is(Kind::string)  ? first == '"'
                    : value.is(Kind::null)    ? first == 'n'
                    : value.is(Kind::boolean) ? first == 't' || first == 'f'
                                              : first == '-' || (first >= '0' && first <= '9');
  require(fits, "a value starts where it says");
  for (const io::Json& item : value.items()) check_places(item, text);
  for (const auto& [name, member] : value.members()) {
    require(value.find(name) == &member, "names are unique");
    check_places(member, text);
  }
}

}  // namespace

std::vector<std::string> quell::fuzz::seeds() {
  return {
      R"({"n":null,"t":true,"f":false,"i":-7,"r":2.5e-3,"s":"x\n\u00e9","a":[1,[2]],"o":{"":{}}})",
      "[]",
      " {\r\n\t\"a\" : [ 1 , 2.0 ] }\n",
      "[0,-0,-0.0,1e5,1E+5,18446744073709551615,9223372036854775808,-9223372036854775808]",
      R"(["\ud83d\ude00","\\\/\b\f\n\r\t\"","漢"])",
      "{\"a\":1,\"a\":2}",
      "\xEF\xBB\xBF{}",
      "[[[[[[[[[[]]]]]]]]]]",
      "1e400",
      "\"\xff\""};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  const auto value = io::parse_json(text, "fuzz.json");
  if (!value) {
    require(value.error().code == ErrorCode::parse, "bad text is a parse error");
    require(value.error().message.find('\n') == std::string::npos, "an error is one line");
    return 0;
  }
  check_places(*value, text);
  for (const int indent : {0, 2}) {
    const std::string written = value->dump(indent);
    const auto again = io::parse_json(written, "again.json");
    require(again.has_value(), "what is written can be read");
    check_same(*value, *again);
    require(again->dump(indent) == written, "writing twice gives the same bytes");
  }
  return 0;
}
