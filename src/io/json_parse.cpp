// SPDX-License-Identifier: Apache-2.0

// Text to tree. Containers under construction wait on a stack, so nesting costs no machine stack,
// and a finished one is moved into its parent. Duplicate keys are found when an object ends, by
// sorting views of its names: O(n log n) for any names, where a hash table could be made quadratic.

#include <algorithm>
#include <cmath>
#include <limits>

#include "io/fault.hpp"
#include "io/file.hpp"
#include "io/json_sax.hpp"
#include "quell/io/json.hpp"

namespace quell::io {
namespace {

class TreeBuilder final : public SaxPlaces {
 public:
  TreeBuilder(std::string_view text, JsonLimits limits)
      : SaxPlaces(text, limits.depth), values_left_(limits.values) {}

  bool null() { return add(Json()); }
  bool boolean(bool value) { return add(Json(value)); }
  bool number_integer(std::int64_t value) { return add(Json(value)); }
  bool number_unsigned(std::uint64_t value) { return add(Json(value)); }
  bool number_float(double value, const std::string&) { return add(Json(value)); }
  bool string(std::string& value) { return add(Json(std::move(value))); }

  bool start_object(std::size_t) { return open(Json::object()); }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool key(std::string& name) {
    place(enter());
    open_.back().keys.push_back({line_, column_});
    open_.back().value.members().emplace_back(std::move(name), Json());
    return true;
  }
  bool end_object() {
    if (!check_names(open_.back())) return false;
    return close();
  }
  bool end_array() { return close(); }

  Json take() { return std::move(root_); }

 private:
  struct Open {
    Json value;
    std::vector<Place> keys;  // where the name of each member starts
  };

  // Lines are counted as far as the text has been read, once.
  void place(std::size_t offset) noexcept {
    if (offset > counted_) {
      const std::string_view fresh = text().substr(counted_, offset - counted_);
      for (std::size_t at = fresh.find('\n'); at != fresh.npos; at = fresh.find('\n', at + 1)) {
        ++line_;
        line_start_ = counted_ + at + 1;
      }
    }
    counted_ = std::max(counted_, offset);
    column_ = static_cast<std::uint32_t>(offset - line_start_ + 1);
  }

  bool admit(Json& value) {
    place(enter());
    value.place(line_, column_);
    if (values_left_ == 0) return fail("more values than the limit allows");
    --values_left_;
    return true;
  }
  void attach(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (Json& parent = open_.back().value; parent.is(Json::Kind::array)) {
      parent.items().push_back(std::move(value));
    } else {
      parent.members().back().second = std::move(value);
    }
  }
  bool add(Json value) {
    if (!admit(value)) return false;
    attach(std::move(value));
    return true;
  }
  bool open(Json value) {
    if (!admit(value) || !deeper()) return false;
    open_.push_back({std::move(value), {}});
    return true;
  }
  bool close() {
    enter();
    shallower();
    Json value = std::move(open_.back().value);
    open_.pop_back();
    attach(std::move(value));
    return true;
  }

  bool check_names(const Open& object) {
    const auto& members = object.value.members();
    std::vector<std::uint32_t> order(members.size());
    for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      const int compared = members[a].first.compare(members[b].first);
      return compared != 0 ? compared < 0 : a < b;
    });
    for (std::size_t i = 1; i < order.size(); ++i) {
      if (members[order[i]].first != members[order[i - 1]].first) continue;
      const Place first = object.keys[order[i - 1]], second = object.keys[order[i]];
      fail("duplicate key \"" + printable(members[order[i]].first) + "\", first at line " +
           std::to_string(first.line) + ", column " + std::to_string(first.column));
      fault_place_ = second;
      return false;
    }
    return true;
  }

 public:
  /// Where the fault is, line and column.
  Place fault_place() const noexcept {
    return fault_place_.line != 0 ? fault_place_ : place_of(text(), fault_offset());
  }

 private:
  std::vector<Open> open_;
  Json root_;
  std::uint64_t values_left_;
  std::uint32_t line_ = 1, column_ = 1;
  std::size_t line_start_ = 0, counted_ = 0;
  Place fault_place_ = {0, 0};
};

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view name, JsonLimits limits) {
  if (text.size() > limits.bytes) {
    return file_fault(ErrorCode::parse, name,
                      "has " + std::to_string(text.size()) + " bytes, more than the limit of " +
                          std::to_string(limits.bytes));
  }
  if (text.empty()) return file_fault(ErrorCode::parse, name, "is empty, expected JSON");
  if (const auto fault = find_text_fault(text)) {
    const Place place = place_of(text, fault->offset);
    return file_fault(ErrorCode::parse, name,
                      std::string(fault->what) + " at byte " + std::to_string(fault->offset) +
                          " (line " + std::to_string(place.line) + ", column " +
                          std::to_string(place.column) + "), expected plain UTF-8");
  }
  TreeBuilder builder(text, limits);
  if (!run_sax(text, builder)) {
    const Place place = builder.fault_place();
    return file_fault(ErrorCode::parse, name,
                      "line " + std::to_string(place.line) + ", column " +
                          std::to_string(place.column) + ": " + builder.fault());
  }
  return builder.take();
}

Result<Json> read_json(const std::filesystem::path& path, JsonLimits limits) {
  QUELL_TRY(text, read_text(path, limits.bytes));
  return parse_json(text, path.string(), limits);
}

}  // namespace quell::io
