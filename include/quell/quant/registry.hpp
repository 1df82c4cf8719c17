// SPDX-License-Identifier: Apache-2.0
#pragma once

// The tables of quantizers and splits: what the command line, recipes, documents and tests know of
// a method.

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/quant/quantizer.hpp"
#include "quell/quant/split.hpp"

namespace quell::quant {

/// What a user may set, for all methods together; a method takes the fields that its entry names.
/// methods.hpp says what they mean.
struct MethodOptions {
  double damping = 0.01;
  bool act_order = false;
  bool guard = true;
  bool direction_by_rounding = false;  // AdadimOptions::by_rounding
};

struct Method {
  std::string_view name;
  Needs needs;
  std::string_view help;     // one line
  std::string_view paper;    // authors, title, year; empty where there is none
  std::string_view options;  // fields of MethodOptions that it takes, separated by spaces
  std::unique_ptr<Quantizer> (*make)(const MethodOptions& options);
};

/// A method that holds another one: "adadim+gptq".
struct Wrapper {
  std::string_view name;
  Needs needs;              // beside those of the method inside
  std::string_view inside;  // what the bare name holds
  bool chooses_direction;   // of groups
  std::string_view help, paper, options;
  std::unique_ptr<Quantizer> (*make)(std::unique_ptr<Quantizer> inner,
                                     const MethodOptions& options);
};

/// In the order in which they are listed to users.
std::span<const Method> methods() noexcept;
std::span<const Wrapper> wrappers() noexcept;

/// Null if there is none.
const Method* find_method(std::string_view name) noexcept;

/// "rtn, hqq, gptq, balanced, importance, adadim", for messages.
std::string method_names();

/// The words between the `+` of a name, empty ones included.
std::vector<std::string_view> split_chain(std::string_view name);

/// Wrappers, the outermost first, around a method.
struct Chain {
  std::vector<const Wrapper*> wrappers;
  const Method* method = nullptr;

  std::string name() const;  // "adadim+gptq"
  Needs needs() const noexcept;
  bool chooses_direction() const noexcept;
};

/// A name of the command line: a method, wrappers before a method, or wrappers alone, which then
/// hold what the last one names. Errors (usage): an unknown word, with the known ones; a method
/// that is not the last word; a wrapper twice.
Result<Chain> parse_chain(std::string_view name);

/// Errors (usage): as parse_chain; a damping that is negative or not finite.
Result<std::unique_ptr<Quantizer>> make_quantizer(std::string_view name,
                                                  const MethodOptions& options = {});

struct SplitMethod {
  std::string_view name;
  Needs needs;
  std::string_view help;   // one line
  std::string_view paper;  // authors, title, year; empty where there is none
  std::unique_ptr<Split> (*make)();
};

std::span<const SplitMethod> splits() noexcept;

}  // namespace quell::quant
