// SPDX-License-Identifier: Apache-2.0

// Every method is named in this table and nowhere else. Nothing registers itself: such objects
// vanish when a static library is linked.

#include "quell/quant/registry.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "quell/quant/methods.hpp"

namespace quell::quant {
namespace {

constexpr std::array<Method, 5> kMethods = {{
    {"rtn", Needs::weights_only, "round every weight to the nearest code", "", "",
     [](const MethodOptions&) { return rtn(); }},
    {"hqq", Needs::weights_only,
     "round without data, each group's zero and scale moved so that small errors get smaller",
     "Badri, Shaji: Half-quadratic quantization of large machine learning models, 2023", "",
     [](const MethodOptions&) { return hqq(); }},
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

constexpr std::array<Wrapper, 1> kWrappers = {{
    {"adadim", Needs::second_moment, "gptq", true,
     "the method inside with groups along rows and down columns, and the better of the two",
     "Heo, Kim, Kwon, Kim, Kwon, Lee: Rethinking channel dimensions to isolate outliers for "
     "low-bit weight quantization of large language models, 2024",
     "direction_by_rounding",
     [](std::unique_ptr<Quantizer> inner, const MethodOptions& o) {
       return adadim(std::move(inner), {.by_rounding = o.direction_by_rounding});
     }},
}};

Error usage(std::string message) {
  return Error{ErrorCode::usage, std::move(message)};
}

constexpr std::array<SplitMethod, 1> kSplits = {{
    {"outlier_columns", Needs::activation_ranges,
     "keep the columns whose inputs hold most of the peaks of tokens",
     "Dettmers, Lewis, Belkada, Zettlemoyer: LLM.int8(): 8-bit matrix multiplication for "
     "transformers at scale, 2022",
     [] { return outlier_columns(); }},
}};

}  // namespace

std::span<const SplitMethod> splits() noexcept {
  return kSplits;
}

std::span<const Method> methods() noexcept {
  return kMethods;
}

std::span<const Wrapper> wrappers() noexcept {
  return kWrappers;
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
  for (const Wrapper& wrapper : kWrappers) names.append(", ").append(wrapper.name);
  return names;
}

std::vector<std::string_view> split_chain(std::string_view name) {
  std::vector<std::string_view> words;
  for (std::size_t plus; (plus = name.find('+')) != std::string_view::npos;) {
    words.push_back(name.substr(0, plus));
    name.remove_prefix(plus + 1);
  }
  words.push_back(name);
  return words;
}

std::string Chain::name() const {
  std::string text;
  for (const Wrapper* wrapper : wrappers) text.append(wrapper->name).append("+");
  return text.append(method->name);
}

Needs Chain::needs() const noexcept {
  Needs all = method->needs;
  for (const Wrapper* wrapper : wrappers) all = all | wrapper->needs;
  return all;
}

bool Chain::chooses_direction() const noexcept {
  return std::any_of(wrappers.begin(), wrappers.end(),
                     [](const Wrapper* wrapper) { return wrapper->chooses_direction; });
}

Result<Chain> parse_chain(std::string_view name) {
  Chain chain;
  for (const std::string_view word : split_chain(name)) {
    if (chain.method != nullptr) {
      return usage("in the method '" + std::string(name) + "', " + std::string(chain.method->name) +
                   " holds no other method; it can only be the last word");
    }
    const auto* const wrapper =
        std::find_if(kWrappers.begin(), kWrappers.end(),
                     [&](const Wrapper& candidate) { return candidate.name == word; });
    if (wrapper != kWrappers.end()) {
      if (std::find(chain.wrappers.begin(), chain.wrappers.end(), wrapper) !=
          chain.wrappers.end()) {
        return usage("the method '" + std::string(name) + "' names " + std::string(word) +
                     " twice; once is enough");
      }
      chain.wrappers.push_back(wrapper);
      continue;
    }
    chain.method = find_method(word);
    if (chain.method == nullptr) {
      return usage("there is no method '" + std::string(word) + "'; there are " + method_names());
    }
  }
  if (chain.method == nullptr) chain.method = find_method(chain.wrappers.back()->inside);
  return chain;
}

Result<std::unique_ptr<Quantizer>> make_quantizer(std::string_view name,
                                                  const MethodOptions& options) {
  QUELL_TRY(chain, parse_chain(name));
  if (!std::isfinite(options.damping) || options.damping < 0) {
    return usage("damping " + std::to_string(options.damping) +
                 ": expected a finite number, 0 or more");
  }
  std::unique_ptr<Quantizer> quantizer = chain.method->make(options);
  for (std::size_t i = chain.wrappers.size(); i-- > 0;) {
    quantizer = chain.wrappers[i]->make(std::move(quantizer), options);
  }
  return quantizer;
}

}  // namespace quell::quant
