// SPDX-License-Identifier: Apache-2.0

// Every transform is named in this table and nowhere else, as the quantizers are in registry.cpp.

#include <algorithm>
#include <array>

#include "quell/quant/registry.hpp"
#include "quell/quant/transform.hpp"

namespace quell::quant {
namespace {

constexpr std::array<TransformEntry, 5> kTransforms = {{
    {"smoothquant", Needs::activation_ranges, false,
     "divide input channels by the root of their largest activation over their largest weight",
     "Xiao, Lin, Seznec, Wu, Demouth, Han: SmoothQuant: accurate and efficient post-training "
     "quantization for large language models, 2023",
     [](const TransformOptions& o) { return smoothquant({.alpha = o.alpha}); }},
    {"awq", Needs::activation_ranges | Needs::second_moment, false,
     "scale input channels up by a searched power of their mean activation",
     "Lin, Tang, Tang, Yang, Chen, Wang, Xiao, Dang, Gan, Han: AWQ: activation-aware weight "
     "quantization for LLM compression and acceleration, 2024",
     [](const TransformOptions&) { return awq(); }},
    {"norm_folding", Needs::weights_only, true, "move the weights of norms into what reads them",
     "Ashkboos, Croci, Gennari do Nascimento, Hoefler, Hensman: SliceGPT: compress large language "
     "models by deleting rows and columns, 2024",
     [](const TransformOptions&) { return norm_folding(); }},
    {"rotation", Needs::weights_only, true,
     "fold norms, then rotate the residual stream and the value heads by random Hadamard matrices",
     "Ashkboos, Mohtashami, Croci, Li, Cameron, Jaggi, Alistarh, Hoefler, Hensman: QuaRot: "
     "outlier-free 4-bit inference in rotated LLMs, 2024",
     [](const TransformOptions& o) { return rotation({.seed = o.seed}); }},
    {"bias_correction", Needs::activation_ranges, false,
     "take the mean of what rounding does to an output off its bias",
     "Nagel, van Baalen, Blankevoort, Welling: Data-free quantization through weight equalization "
     "and bias correction, 2019",
     [](const TransformOptions&) { return bias_correction(); }},
}};

}  // namespace

std::span<const TransformEntry> transforms() noexcept {
  return kTransforms;
}

const TransformEntry* find_transform(std::string_view name) noexcept {
  for (const TransformEntry& entry : kTransforms) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

MethodChain take_transforms(std::string_view word) {
  MethodChain chain;
  for (;;) {
    const std::size_t plus = word.find('+');
    const std::string_view first = word.substr(0, plus);
    if (find_transform(first) == nullptr) break;
    chain.transforms.emplace_back(first);
    if (plus == std::string_view::npos) return chain;
    word.remove_prefix(plus + 1);
  }
  chain.quantizer = std::string(word);
  return chain;
}

Status check_chain(std::string_view word) {
  const MethodChain chain = take_transforms(word);
  if (chain.quantizer.empty() && !chain.transforms.empty()) {
    const std::string& last = chain.transforms.back();
    return Error{ErrorCode::usage, "the method \"" + std::string(word) + "\": " + last +
                                       " is a transform; name what quantizes behind it, as " +
                                       last + "+balanced; there are " + method_names()};
  }
  if (const auto quantizer = parse_chain(chain.quantizer); !quantizer) {
    std::string known;
    for (const TransformEntry& entry : kTransforms) {
      known += (known.empty() ? "" : ", ") + std::string(entry.name);
    }
    Error error = quantizer.error();
    error.message += "; before one of them, joined by +, may stand " + known;
    return error;
  }
  bool measured = false;
  for (std::size_t i = 0; i < chain.transforms.size(); ++i) {
    const std::string& name = chain.transforms[i];
    const auto before = chain.transforms.begin() + static_cast<std::ptrdiff_t>(i);
    if (std::find(chain.transforms.begin(), before, name) != before) {
      return Error{ErrorCode::usage, "the method \"" + std::string(word) + "\" names " + name +
                                         " twice; once is enough"};
    }
    const bool whole = find_transform(name)->whole_model;
    if (whole && measured) {
      return Error{ErrorCode::usage, "the method \"" + std::string(word) + "\": " + name +
                                         " edits the whole model before anything is measured; "
                                         "put it first"};
    }
    measured |= !whole;
  }
  return ok();
}

}  // namespace quell::quant
