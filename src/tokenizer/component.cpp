// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/component.hpp"

#include "tokenizer/unicode.hpp"

namespace quell::tokenizer {
namespace {

std::string place(const io::Json& value, const std::string& file) {
  return value.line() == 0 ? file : file + ":" + std::to_string(value.line());
}

}  // namespace

Result<std::string> component_type(const io::Json& value, const std::string& file,
                                   std::string_view kind) {
  if (!value.is(io::Json::Kind::object)) {
    return Error{ErrorCode::parse,
                 place(value, file) + ": a " + std::string(kind) + " is not an object with a type",
                 file};
  }
  return io::JsonFields(value, file).text("type");
}

Error unsupported_component(const io::Json& value, const std::string& file, std::string_view kind,
                            std::string_view type, std::string_view supported) {
  return Error{ErrorCode::unsupported,
               place(value, file) + ": the " + std::string(kind) + " " + std::string(type) +
                   " is not supported; supported are " + std::string(supported),
               file};
}

Result<bool> boolean_member(const io::Json& value, const std::string& file, std::string_view name) {
  const io::JsonFields fields(value, file);
  QUELL_TRY(found, fields.optional_boolean(name));
  if (!found) return fields.wrong(name, "true or false");
  return *found;
}

Result<bool> boolean_member(const io::Json& value, const std::string& file, std::string_view name,
                            bool absent) {
  QUELL_TRY(found, io::JsonFields(value, file).optional_boolean(name));
  return found.value_or(absent);
}

Result<const std::vector<io::Json>*> array_member(const io::Json& value, const std::string& file,
                                                  std::string_view name) {
  const io::JsonFields fields(value, file);
  const io::Json* found = fields.find(name);
  if (found == nullptr || !found->is(io::Json::Kind::array)) return fields.wrong(name, "an array");
  return &found->items();
}

Result<char32_t> character_member(const io::Json& value, const std::string& file,
                                  std::string_view name) {
  const io::JsonFields fields(value, file);
  QUELL_TRY(text, fields.text(name));
  if (text.empty() || character_at(text, 0).bytes != text.size()) {
    return fields.wrong(name, "one character");
  }
  return character_at(text, 0).code;
}

Result<PatternText> pattern_member(const io::Json& value, const std::string& file,
                                   std::string_view name) {
  const io::JsonFields fields(value, file);
  const io::Json* found = fields.find(name);
  if (found != nullptr && found->is(io::Json::Kind::object) && found->members().size() == 1) {
    const auto& [kind, text] = found->members().front();
    if (text.is(io::Json::Kind::string) && (kind == "String" || kind == "Regex")) {
      return PatternText{text.as_string(), kind == "String"};
    }
  }
  return fields.wrong(name, "{\"String\": text} or {\"Regex\": text}");
}

}  // namespace quell::tokenizer
