// SPDX-License-Identifier: Apache-2.0

// Every method is named in this table and nowhere else. Nothing registers itself: such objects
// vanish when a static library is linked.

#include "quell/quant/registry.hpp"

#include <array>
#include <cmath>

#include "quell/quant/methods.hpp"

namespace quell::quant {
namespace {

constexpr std::array<Method, 4> kMethods = {{
    {"rtn", Needs::weights_only, "round every weight to the nearest code", "", "",
     [](const MethodOptions&) { return rtn(); }},
    {"gptq", Needs::second_moment,
     "round input by input, moving each error into the inputs that follow",
     "Frantar, Ashkboos, Hoefler, Alistarh: OPTQ: accurate quantization for generative pre-trained "
     "transformers, 2023",
     "damping act_order guard",
     [](const MethodOptions& o) {
       return gptq({.damping = o.damping, .act_order = o.act_order, .guard = o.guard});
     }},
    {"balanced", Needs::second_moment | Needs::drift,
     "gptq on targets that make up for earlier layers, then each code and scale moved to its best "
     "place",
     "", "damping act_order guard",
     [](const MethodOptions& o) {
       BalancedOptions options;
       options.feedback.damping = o.damping;
       options.feedback.act_order = o.act_order;
       options.feedback.guard = o.guard;
       return balanced(options);
     }},
    {"importance", Needs::second_moment,
     "round to the nearest code, scales searched with the inputs' mean squares as weights", "", "",
     [](const MethodOptions&) { return rtn({.importance = true}); }},
}};

}  // namespace

std::span<const Method> methods() noexcept {
  return kMethods;
}

const Method* find_method(std::string_view name) noexcept {
  for (const Method& method : kMethods) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

std::string method_names() {
  std::string names;
  for (const Method& method : kMethods) {
    if (!names.empty()) names += ", ";
    names += method.name;
  }
  return names;
}

Result<std::unique_ptr<Quantizer>> make_quantizer(std::string_view name,
                                                  const MethodOptions& options) {
  const Method* method = find_method(name);
  if (method == nullptr) {
    return Error{ErrorCode::usage,
                 "there is no method '" + std::string(name) + "'; there are " + method_names()};
  }
  if (!std::isfinite(options.damping) || options.damping < 0) {
    return Error{ErrorCode::usage, "damping " + std::to_string(options.damping) +
                                       ": expected a finite number, 0 or more"};
  }
  return method->make(options);
}

}  // namespace quell::quant
