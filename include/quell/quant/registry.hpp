// SPDX-License-Identifier: Apache-2.0
#pragma once

// The table of quantizers: what the command line, recipes, documents and tests know of a method.

#include <memory>
#include <span>
#include <string_view>

#include "quell/core/result.hpp"
#include "quell/quant/quantizer.hpp"

namespace quell::quant {

/// An option as written by a user: `damping` = `0.05`. Switches take `true` or `false`.
struct MethodOption {
  std::string_view name;
  std::string_view value;
};

struct OptionEntry {
  std::string_view name;
  std::string_view value;  // what it takes and its default, for help: "number >= 0, default 0.01"
  std::string_view help;
};

struct MethodEntry {
  std::string_view name;
  Needs needs;
  std::string_view help;   // one line
  std::string_view paper;  // authors, title, year; empty where there is none
  std::span<const OptionEntry> options;
  /// Errors (usage): an option the method does not have, a value that is not understood.
  Result<std::unique_ptr<Quantizer>> (*make)(std::span<const MethodOption> options);
};

/// In the order in which they are listed to users.
std::span<const MethodEntry> methods() noexcept;

/// Null if there is none.
const MethodEntry* find_method(std::string_view name) noexcept;

/// Error (usage) for an unknown name, with the known ones, and those of `make`.
Result<std::unique_ptr<Quantizer>> make_quantizer(std::string_view name,
                                                  std::span<const MethodOption> options = {});

}  // namespace quell::quant
