// SPDX-License-Identifier: Apache-2.0
#pragma once

// JSON as data. Values are parsed behind our own checks (byte-order mark, UTF-8, size, depth,
// duplicate keys), so that a config, a tokenizer, a recipe and an index are all read the same way
// and every error says where. Written JSON keeps the order of members.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quell/core/result.hpp"

namespace quell::io {

class Json {
 public:
  enum class Kind { null, boolean, integer, real, string, array, object };
  using Member = std::pair<std::string, Json>;

  Json() = default;
  Json(std::nullptr_t) {}                                              // NOLINT
  Json(bool value) : kind_(Kind::boolean), boolean_(value) {}          // NOLINT
  Json(double value) : kind_(Kind::real), real_(value) {}              // NOLINT
  Json(std::int64_t value) : kind_(Kind::integer), integer_(value) {}  // NOLINT
  Json(int value) : Json(static_cast<std::int64_t>(value)) {}          // NOLINT
  Json(unsigned value) : Json(static_cast<std::int64_t>(value)) {}     // NOLINT
  /// Above 2^63 - 1 the kind is `real`, but as_unsigned() and dump() keep every digit.
  Json(std::uint64_t value);                                                   // NOLINT
  Json(std::string value) : kind_(Kind::string), string_(std::move(value)) {}  // NOLINT
  Json(std::string_view value) : Json(std::string(value)) {}                   // NOLINT
  Json(const char* value) : Json(std::string(value)) {}                        // NOLINT
  static Json array(std::vector<Json> items = {});
  static Json object(std::vector<Member> members = {});

  Kind kind() const noexcept { return kind_; }
  bool is(Kind kind) const noexcept { return kind_ == kind; }
  bool is_number() const noexcept { return is(Kind::integer) || is(Kind::real); }

  bool as_boolean() const noexcept { return boolean_; }
  std::int64_t as_integer() const noexcept { return integer_; }
  double as_number() const noexcept;
  /// Exactly, if the value is an integer from 0 to 2^64 - 1 (written without fraction or exponent).
  std::optional<std::uint64_t> as_unsigned() const noexcept;
  const std::string& as_string() const noexcept { return string_; }
  const std::vector<Json>& items() const noexcept { return items_; }
  std::vector<Json>& items() noexcept { return items_; }
  const std::vector<Member>& members() const noexcept { return members_; }
  std::vector<Member>& members() noexcept { return members_; }

  /// The member with this name, or null if there is none or this is no object.
  const Json* find(std::string_view name) const noexcept;
  /// Sets or replaces a member of an object (or of a null, which becomes one); keeps the order.
  void set(std::string_view name, Json value);
  void push(Json value);

  /// Where the value starts in its text, from 1; 0 for values not parsed from text.
  std::uint32_t line() const noexcept { return line_; }
  std::uint32_t column() const noexcept { return column_; }
  void place(std::uint32_t line, std::uint32_t column) noexcept { line_ = line, column_ = column; }

  /// Compact for indent = 0. Non-finite numbers become null, integers stay integers, and a double
  /// is written with the fewest digits that read back as itself.
  std::string dump(int indent = 0) const;

 private:
  Kind kind_ = Kind::null;
  bool boolean_ = false;
  bool exact_unsigned_ = false;  // a real whose exact value is in the 64 bits of integer_
  std::uint32_t line_ = 0, column_ = 0;
  std::int64_t integer_ = 0;
  double real_ = 0;
  std::string string_;
  std::vector<Json> items_;
  std::vector<Member> members_;
};

struct JsonLimits {
  std::uint64_t bytes = 100'000'000;
  int depth = 64;
  // A value in memory takes about 130 bytes, so "[0,0,0" would grow 65-fold: 4 million values are
  // 520 MB. The largest tokenizers (262 thousand tokens, 515 thousand merges as pairs) have half.
  std::uint64_t values = 4'000'000;
};

/// Parses one value with nothing but white space around it. `name` is what errors call the text (a
/// file). Errors (parse): not UTF-8, a byte-order mark, a NUL byte, duplicate keys, depth, size,
/// numbers outside the range of a double; each with line and column or byte offset.
Result<Json> parse_json(std::string_view text, std::string_view name, JsonLimits limits = {});
/// Reads a regular file and parses it. Errors: missing, resource, parse.
Result<Json> read_json(const std::filesystem::path& path, JsonLimits limits = {});

/// Typed access with errors that name file and field. A missing or null optional field is nothing;
/// a present one of the wrong type is an error (numbers written as strings are not numbers).
class JsonFields {
 public:
  /// `object` and `file` must outlive this.
  JsonFields(const Json& object, std::string file) : object_(&object), file_(std::move(file)) {}

  Result<std::uint64_t> unsigned_integer(std::string_view name, std::uint64_t low,
                                         std::uint64_t high) const;  // required
  Result<std::optional<std::uint64_t>> optional_unsigned(std::string_view name, std::uint64_t low,
                                                         std::uint64_t high) const;
  Result<double> number(std::string_view name) const;
  Result<std::optional<double>> optional_number(std::string_view name) const;
  Result<std::string> text(std::string_view name) const;
  Result<std::optional<std::string>> optional_text(std::string_view name) const;
  Result<std::optional<bool>> optional_boolean(std::string_view name) const;
  const Json* find(std::string_view name) const noexcept;  // null members count as absent
  const std::string& file() const noexcept { return file_; }
  const Json& object() const noexcept { return *object_; }
  Error wrong(std::string_view name,
              std::string_view expected) const;  // parse: "FILE: NAME is X, expected Y"

 private:
  const Json* object_;
  std::string file_;
};

}  // namespace quell::io
