// SPDX-License-Identifier: Apache-2.0
#pragma once

// The event face of the JSON parser library, with what it does not give: the place of each value,
// a limit of depth, and errors in our words. Private to two files: the general reader builds a
// tree, the reader of tensor headers goes straight to its records.

#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#ifndef JSON_NOEXCEPTION
#define JSON_NOEXCEPTION
#endif
#include <nlohmann/json.hpp>

#include "io/json_text.hpp"
#include "quell/io/printable.hpp"

namespace quell::io {

/// A character position that reports how far the parser has read.
class TextCursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  TextCursor(const char* at, const char** consumed) noexcept : at_(at), consumed_(consumed) {}
  reference operator*() const noexcept { return *at_; }
  TextCursor& operator++() noexcept {
    *consumed_ = ++at_;
    return *this;
  }
  TextCursor operator++(int) noexcept {
    TextCursor before = *this;
    ++*this;
    return before;
  }
  bool operator==(const TextCursor& other) const noexcept { return at_ == other.at_; }

 private:
  const char* at_;
  const char** consumed_;
};

/// Base of the handlers: where the parser is, and the first thing that went wrong.
class SaxPlaces {
 public:
  SaxPlaces(std::string_view text, int depth_limit) noexcept
      : text_(text), consumed_(text.data()), depth_limit_(depth_limit) {}

  bool binary(nlohmann::json::binary_t&) { return fail("binary data is no JSON"); }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& exception) {
    // Library text looks like "[json.exception.N] parse error at line 1, column 8: syntax error
    // ...; last read: ...". The place is added by us and what was last read may be megabytes.
    std::string_view what = exception.what();
    if (const auto end = what.find("; last read"); end != std::string_view::npos) {
      what = what.substr(0, end);
    }
    if (const auto end = what.find("] "); end != std::string_view::npos)
      what.remove_prefix(end + 2);
    if (what.substr(0, 11) == "parse error") {
      if (const auto end = what.find(": "); end != std::string_view::npos) {
        what.remove_prefix(end + 2);
      }
    }
    return fail_at(position == 0 ? 0 : position - 1, "not JSON: " + printable(what));
  }

  bool failed() const noexcept { return failed_; }
  const std::string& fault() const noexcept { return fault_; }
  std::size_t fault_offset() const noexcept { return fault_offset_; }

  const char** consumed() noexcept { return &consumed_; }

 protected:
  /// To be called once for every event: moves to the start of the token that the event is about.
  /// Between the last event and this token there is only white space, a comma, a colon, or the
  /// bracket that the parser had to look at to see the end of a number.
  std::size_t enter() noexcept {
    while (token_ < text_.size() && is_between(text_[token_])) ++token_;
    const std::size_t start = token_;
    token_ = std::max(token_, static_cast<std::size_t>(consumed_ - text_.data()));
    return start;
  }
  bool deeper() {
    if (depth_ >= depth_limit_) {
      return fail("nested deeper than the limit: depth " + std::to_string(depth_limit_));
    }
    ++depth_;
    return true;
  }
  void shallower() noexcept { --depth_; }
  int depth() const noexcept { return depth_; }

  /// Records the first fault and stops the parser.
  bool fail(std::string what) {
    return fail_at(
        consumed_ == text_.data() ? 0 : static_cast<std::size_t>(consumed_ - text_.data()) - 1,
        std::move(what));
  }
  bool fail_at(std::size_t offset, std::string what) {
    if (!failed_) {
      failed_ = true;
      fault_ = std::move(what);
      fault_offset_ = std::min(offset, text_.size());
    }
    return false;
  }
  std::string_view text() const noexcept { return text_; }

 private:
  static bool is_between(char c) noexcept {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == ',' || c == ':';
  }

  std::string_view text_;
  const char* consumed_;
  std::size_t token_ = 0;
  int depth_ = 0;
  int depth_limit_;
  bool failed_ = false;
  std::string fault_;
  std::size_t fault_offset_ = 0;
};

/// Runs the parser over the text; false if the handler holds a fault.
template <typename Handler>
bool run_sax(std::string_view text, Handler& handler) {
  const char* end = text.data() + text.size();
  const bool done = nlohmann::json::sax_parse(
      TextCursor(text.data(), handler.consumed()), TextCursor(end, handler.consumed()), &handler,
      nlohmann::json::input_format_t::json, /*strict=*/true, /*ignore_comments=*/false);
  return done && !handler.failed();
}

}  // namespace quell::io
