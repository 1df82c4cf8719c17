// SPDX-License-Identifier: Apache-2.0

// The tree and its text. Numbers are written without the locale: the shortest digits that read back
// as the same double, with a ".0" where they would otherwise read back as an integer.

#include <charconv>
#include <cmath>
#include <limits>

#include "io/json_text.hpp"
#include "quell/core/panic.hpp"
#include "quell/io/json.hpp"

namespace quell::io {
namespace {

template <typename Integer>
void write_integer(std::string& out, Integer value) {
  char digits[24];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

void write_real(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char digits[32];  // the shortest form of a double has at most 24 characters
  const std::string_view text(
      digits,
      static_cast<std::size_t>(std::to_chars(digits, digits + sizeof digits, value).ptr - digits));
  out += text;
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";
}

void write_break(std::string& out, int indent, int depth) {
  if (indent <= 0) return;
  out += '\n';
  out.append(static_cast<std::size_t>(indent) * static_cast<std::size_t>(depth), ' ');
}

struct JsonWriter {
  std::string& out;
  int indent;

  void write(const Json& value, int depth) {
    switch (value.kind()) {
      case Json::Kind::null:
        out += "null";
        return;
      case Json::Kind::boolean:
        out += value.as_boolean() ? "true" : "false";
        return;
      case Json::Kind::integer:
        write_integer(out, value.as_integer());
        return;
      case Json::Kind::real:
        if (const auto exact = value.as_unsigned()) {
          write_integer(out, *exact);
        } else {
          write_real(out, value.as_number());
        }
        return;
      case Json::Kind::string:
        append_json_string(out, value.as_string());
        return;
      case Json::Kind::array:
        write_array(value, depth);
        return;
      case Json::Kind::object:
        write_object(value, depth);
        return;
    }
  }

  void write_array(const Json& value, int depth) {
    out += '[';
    bool first = true;
    for (const Json& item : value.items()) {
      if (!first) out += ',';
      first = false;
      write_break(out, indent, depth + 1);
      write(item, depth + 1);
    }
    if (!first) write_break(out, indent, depth);
    out += ']';
  }

  void write_object(const Json& value, int depth) {
    out += '{';
    bool first = true;
    for (const auto& [name, member] : value.members()) {
      if (!first) out += ',';
      first = false;
      write_break(out, indent, depth + 1);
      append_json_string(out, name);
      out += indent > 0 ? ": " : ":";
      write(member, depth + 1);
    }
    if (!first) write_break(out, indent, depth);
    out += '}';
  }
};

}  // namespace

Json::Json(std::uint64_t value) {
  if (std::in_range<std::int64_t>(value)) {
    kind_ = Kind::integer;
    integer_ = static_cast<std::int64_t>(value);
  } else {
    kind_ = Kind::real;
    real_ = static_cast<double>(value);
    exact_unsigned_ = true;
    integer_ = static_cast<std::int64_t>(value);  // the same 64 bits
  }
}

Json Json::array(std::vector<Json> items) {
  Json value;
  value.kind_ = Kind::array;
  value.items_ = std::move(items);
  return value;
}

Json Json::object(std::vector<Member> members) {
  Json value;
  value.kind_ = Kind::object;
  value.members_ = std::move(members);
  return value;
}

double Json::as_number() const noexcept {
  return kind_ == Kind::integer ? static_cast<double>(integer_) : real_;
}

std::optional<std::uint64_t> Json::as_unsigned() const noexcept {
  if (kind_ == Kind::integer && integer_ >= 0) return static_cast<std::uint64_t>(integer_);
  if (kind_ == Kind::real && exact_unsigned_) return static_cast<std::uint64_t>(integer_);
  return std::nullopt;
}

const Json* Json::find(std::string_view name) const noexcept {
  for (const Member& member : members_) {
    if (member.first == name) return &member.second;
  }
  return nullptr;
}

void Json::set(std::string_view name, Json value) {
  if (kind_ == Kind::null) kind_ = Kind::object;
  QUELL_ASSERT(kind_ == Kind::object);
  for (Member& member : members_) {
    if (member.first == name) {
      member.second = std::move(value);
      return;
    }
  }
  members_.emplace_back(std::string(name), std::move(value));
}

void Json::push(Json value) {
  if (kind_ == Kind::null) kind_ = Kind::array;
  QUELL_ASSERT(kind_ == Kind::array);
  items_.push_back(std::move(value));
}

std::string Json::dump(int indent) const {
  std::string out;
  JsonWriter{out, indent}.write(*this, 0);
  return out;
}

}  // namespace quell::io
