// SPDX-License-Identifier: Apache-2.0

// Typed access to the members of an object.

#include "io/fault.hpp"
#include "quell/io/json.hpp"

namespace quell::io {
namespace {

// Long enough for every number and flag, short enough for one line.
constexpr std::size_t kShownValue = 60;

std::string shown(const Json& value) {
  switch (value.kind()) {
    case Json::Kind::object:
      return "an object";
    case Json::Kind::array:
      return "a list of " + std::to_string(value.items().size());
    case Json::Kind::string:
      return '"' + printable(value.as_string(), kShownValue) + '"';
    default:
      return value.dump();
  }
}

std::string range_text(std::uint64_t low, std::uint64_t high) {
  return "an integer from " + std::to_string(low) + " to " + std::to_string(high);
}

}  // namespace

const Json* JsonFields::find(std::string_view name) const noexcept {
  const Json* value = object_->find(name);
  return value == nullptr || value->is(Json::Kind::null) ? nullptr : value;
}

Error JsonFields::wrong(std::string_view name, std::string_view expected) const {
  const Json* value = object_->find(name);
  std::string text = printable(name);
  if (value == nullptr) {
    text += " is missing, expected ";
    text += expected;
    return file_fault(ErrorCode::missing, file_, text);
  }
  text += " is " + shown(*value);
  if (value->line() != 0) {
    text += " (line " + std::to_string(value->line()) + ", column " +
            std::to_string(value->column()) + ")";
  }
  text += ", expected ";
  text += expected;
  return file_fault(ErrorCode::parse, file_, text);
}

Result<std::optional<std::uint64_t>> JsonFields::optional_unsigned(std::string_view name,
                                                                   std::uint64_t low,
                                                                   std::uint64_t high) const {
  const Json* value = find(name);
  if (value == nullptr) return std::optional<std::uint64_t>();
  const auto number = value->as_unsigned();
  if (!number || *number < low || *number > high) return wrong(name, range_text(low, high));
  return number;
}

Result<std::uint64_t> JsonFields::unsigned_integer(std::string_view name, std::uint64_t low,
                                                   std::uint64_t high) const {
  QUELL_TRY(value, optional_unsigned(name, low, high));
  if (!value) return wrong(name, range_text(low, high));
  return *value;
}

Result<std::optional<double>> JsonFields::optional_number(std::string_view name) const {
  const Json* value = find(name);
  if (value == nullptr) return std::optional<double>();
  if (!value->is_number()) return wrong(name, "a number");
  return std::optional<double>(value->as_number());
}

Result<double> JsonFields::number(std::string_view name) const {
  QUELL_TRY(value, optional_number(name));
  if (!value) return wrong(name, "a number");
  return *value;
}

Result<std::optional<std::string>> JsonFields::optional_text(std::string_view name) const {
  const Json* value = find(name);
  if (value == nullptr) return std::optional<std::string>();
  if (!value->is(Json::Kind::string)) return wrong(name, "a string");
  return std::optional<std::string>(value->as_string());
}

Result<std::string> JsonFields::text(std::string_view name) const {
  QUELL_TRY(value, optional_text(name));
  if (!value) return wrong(name, "a string");
  return *std::move(value);
}

Result<std::optional<bool>> JsonFields::optional_boolean(std::string_view name) const {
  const Json* value = find(name);
  if (value == nullptr) return std::optional<bool>();
  if (!value->is(Json::Kind::boolean)) return wrong(name, "true or false");
  return std::optional<bool>(value->as_boolean());
}

}  // namespace quell::io
