// SPDX-License-Identifier: Apache-2.0
#pragma once

// Result<T>: a value or an Error. What the world can do wrong (files, models, requests, numbers)
// travels through it; the library throws nothing and compiles without exceptions. The member names
// are those of std::expected, which is younger than the compilers accepted here.

#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "quell/core/panic.hpp"

namespace quell {

/// What kind of thing failed. The words of to_string() are the `code` of JSON errors; the program
/// maps each to an exit code.
enum class ErrorCode {
  usage,         // a request that makes no sense
  parse,         // a file that is not what it claims to be
  shape,         // sizes that disagree
  unsupported,   // well-formed, but not something this library does
  missing,       // a file, tensor or field that should be there
  resource,      // memory, disk, lock, read or write error
  numeric,       // NaN, infinity, a matrix that cannot be factored
  verification,  // a result that is not what was promised
  interrupted,   // a signal asked to stop
};

constexpr std::string_view to_string(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::usage: return "usage";
    case ErrorCode::parse: return "parse";
    case ErrorCode::shape: return "shape";
    case ErrorCode::unsupported: return "unsupported";
    case ErrorCode::missing: return "missing";
    case ErrorCode::resource: return "resource";
    case ErrorCode::numeric: return "numeric";
    case ErrorCode::verification: return "verification";
    case ErrorCode::interrupted: return "interrupted";
  }
  return "unknown";
}

/// A failure: its kind and a sentence that says what, where, and the numbers found and expected.
/// `file` and `tensor` repeat the place for machines and may be empty.
struct Error {
  ErrorCode code = ErrorCode::usage;
  std::string message;
  std::string file = {};
  std::string tensor = {};
};

template <typename T>
class [[nodiscard]] Result {
  static_assert(!std::is_reference_v<T> && !std::is_same_v<std::remove_cv_t<T>, Error>);

 public:
  using value_type = T;

  /// A success, from anything T can be made of.
  template <typename U = T>
    requires(!std::is_same_v<std::remove_cvref_t<U>, Result> &&
             !std::is_same_v<std::remove_cvref_t<U>, Error> && std::is_constructible_v<T, U &&>)
  Result(U&& value) : holds_value_(true) {  // NOLINT: conversion is the point
    ::new (static_cast<void*>(&value_)) T(std::forward<U>(value));
  }
  /// A failure.
  Result(Error error) : holds_value_(false) {  // NOLINT: conversion is the point
    ::new (static_cast<void*>(&error_)) Error(std::move(error));
  }
  Result(Result&& other) noexcept : holds_value_(other.holds_value_) { take(other); }
  Result(const Result& other) : holds_value_(other.holds_value_) {
    if (holds_value_) {
      ::new (static_cast<void*>(&value_)) T(other.value_);
    } else {
      ::new (static_cast<void*>(&error_)) Error(other.error_);
    }
  }
  Result& operator=(Result other) noexcept {
    destroy();
    holds_value_ = other.holds_value_;
    take(other);
    return *this;
  }
  ~Result() { destroy(); }

  bool has_value() const noexcept { return holds_value_; }
  explicit operator bool() const noexcept { return holds_value_; }

  T& value() & { return checked(), value_; }
  const T& value() const& { return checked(), value_; }
  T&& value() && { return checked(), std::move(value_); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const& {
    if (holds_value_) panic("Result::error() called on a success");
    return error_;
  }
  Error&& error() && {
    if (holds_value_) panic("Result::error() called on a success");
    return std::move(error_);
  }

 private:
  void checked() const {
    if (!holds_value_) panic(error_.message.c_str());
  }
  void take(Result& other) noexcept {
    if (holds_value_) {
      ::new (static_cast<void*>(&value_)) T(std::move(other.value_));
    } else {
      ::new (static_cast<void*>(&error_)) Error(std::move(other.error_));
    }
  }
  void destroy() noexcept {
    if (holds_value_) {
      value_.~T();
    } else {
      error_.~Error();
    }
  }

  union {
    T value_;
    Error error_;
  };
  bool holds_value_;
};

/// A success without a value. `return {};` or `return ok();` is success.
struct Done {};
using Status = Result<Done>;
inline Status ok() { return Done{}; }

}  // namespace quell

// QUELL_TRY(name, expression) declares `name` with the value of a Result, or returns its error from
// the enclosing function. QUELL_TRY(expression) does the same for a Status, whose value nobody wants.
#define QUELL_TRY(...) \
  QUELL_DETAIL_PICK(__VA_ARGS__, QUELL_DETAIL_TRY_VALUE, QUELL_DETAIL_TRY_STATUS, )(__VA_ARGS__)

// The rest is how: pick one of two forms by the number of arguments. Commas inside parentheses do
// not count; commas in a template argument list do, so give such a type an alias first.
#define QUELL_DETAIL_PICK(first, second, chosen, ...) chosen
#define QUELL_DETAIL_TRY_VALUE(name, expression)                                \
  auto name##_or_error = (expression);                                         \
  if (!name##_or_error.has_value()) return std::move(name##_or_error).error(); \
  auto name = *std::move(name##_or_error)
#define QUELL_DETAIL_TRY_STATUS(expression)                                       \
  if (auto quell_attempt = (expression); !quell_attempt.has_value()) {           \
    return std::move(quell_attempt).error();                                     \
  }                                                                              \
  static_assert(true, "takes the semicolon")
