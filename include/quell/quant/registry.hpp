// SPDX-License-Identifier: Apache-2.0
#pragma once

// The table of quantizers: what the command line, recipes, documents and tests know of a method.

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "quell/core/result.hpp"
#include "quell/quant/quantizer.hpp"

namespace quell::quant {

/// What a user may set, for all methods together; a method takes the fields that its entry names.
/// methods.hpp says what they mean.
struct MethodOptions {
  double damping = 0.01;
  bool act_order = false;
  bool guard = true;
};

struct Method {
  std::string_view name;
  Needs needs;
  std::string_view help;     // one line
  std::string_view paper;    // authors, title, year; empty where there is none
  std::string_view options;  // fields of MethodOptions that it takes, separated by spaces
  std::unique_ptr<Quantizer> (*make)(const MethodOptions& options);
};

/// In the order in which they are listed to users.
std::span<const Method> methods() noexcept;

/// Null if there is none.
const Method* find_method(std::string_view name) noexcept;

/// "rtn, gptq, balanced, importance", for messages.
std::string method_names();

/// Errors (usage): an unknown name, with the known ones; a damping that is negative or not finite.
Result<std::unique_ptr<Quantizer>> make_quantizer(std::string_view name,
                                                  const MethodOptions& options = {});

}  // namespace quell::quant
