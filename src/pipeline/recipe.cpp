// SPDX-License-Identifier: Apache-2.0

// Words of recipes: rules, schemes, globs, and the JSON file with the same words.

#include "quell/pipeline/recipe.hpp"

#include <algorithm>
#include <array>

#include "quell/quant/registry.hpp"
#include "quell/quant/transform.hpp"

namespace quell::pipeline {
namespace {

constexpr std::size_t kLongestPattern = 1024;  // module names are far shorter

Error usage(std::string message) {
  return Error{ErrorCode::usage, std::move(message)};
}

bool names_scale_type(std::string_view grid_word) {
  if (grid_word.ends_with(":u4")) grid_word.remove_suffix(3);
  const std::size_t colon = grid_word.rfind(':');
  const std::string_view last =
      colon == std::string_view::npos ? grid_word : grid_word.substr(colon + 1);
  return last == "f16" || last == "bf16" || last == "f32";
}

struct SchemeWord {
  std::string_view word;
  std::uint32_t bits, activation_bits;
};
constexpr std::array<SchemeWord, 7> kSchemes = {{{"W2A16", 2, 16},
                                                 {"W3A16", 3, 16},
                                                 {"W4A16", 4, 16},
                                                 {"W8A16", 8, 16},
                                                 {"W8A8", 8, 8},
                                                 {"W4A8", 4, 8},
                                                 {"W4A4", 4, 4}}};
constexpr std::string_view kRotate = "hadamard+";

}  // namespace

Result<Rule> Rule::parse(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0 || equals + 1 == text.size()) {
    return usage(
        "the rule \"" + std::string(text) +
        "\" is not GLOB=[METHOD@]GRID or GLOB=keep, for example *.down_proj=int8:sym:oc:g128");
  }
  if (equals > kLongestPattern) {
    return usage("the pattern of a rule has " + std::to_string(equals) + " characters; at most " +
                 std::to_string(kLongestPattern) + " are accepted");
  }
  Rule rule;
  rule.pattern = std::string(text.substr(0, equals));
  std::string_view value = text.substr(equals + 1);
  if (value == "keep") {
    rule.keep = true;
    return rule;
  }
  if (const std::size_t at = value.find('@'); at != std::string_view::npos) {
    rule.method = std::string(value.substr(0, at));
    value = value.substr(at + 1);
    const auto method = MethodWord::parse(*rule.method);
    if (!method) {
      return usage("the rule \"" + std::string(text) + "\": " + method.error().message);
    }
    if (!method->transforms.empty()) {
      return usage("the rule \"" + std::string(text) +
                   "\" names a transform; transforms reach the whole model, so give them with "
                   "the method: --method " +
                   *rule.method);
    }
  }
  QUELL_TRY(grid, parse_grid(value));
  rule.grid = grid;
  rule.scale_type_given = names_scale_type(value);
  return rule;
}

Result<MethodWord> MethodWord::parse(std::string_view text) {
  quant::MethodChain chain = quant::take_transforms(text);
  MethodWord word;
  word.transforms = std::move(chain.transforms);
  std::string_view quantizer = chain.quantizer;
  word.rotate = quantizer.starts_with(kRotate);
  if (word.rotate) quantizer.remove_prefix(kRotate.size());
  if (word.rotate && !quant::take_transforms(quantizer).transforms.empty()) {
    return usage("the method \"" + std::string(text) +
                 "\": transforms of the model stand before hadamard, as awq+hadamard+gptq");
  }
  word.quantizer = std::string(quantizer);
  std::string fused;  // without the rotation, which is the plan's
  for (const std::string& transform : word.transforms) fused += transform + "+";
  if (Status known = quant::check_chain(fused + word.quantizer); !known) {
    return usage(known.error().message + "; " + std::string(kRotate) +
                 " before a method rotates the inputs of layers");
  }
  return word;
}

Status Recipe::apply_scheme(std::string_view scheme) {
  std::string known;
  for (const SchemeWord& entry : kSchemes) {
    if (entry.word == scheme) {
      bits = entry.bits;
      activation_bits = entry.activation_bits;
      return ok();
    }
    known += (known.empty() ? "" : ", ") + std::string(entry.word);
  }
  return usage("the scheme \"" + std::string(scheme) + "\" is not known; known are " + known);
}

Status Recipe::apply_per(std::string_view word) {
  if (word != "output" && word != "input" && word != "auto") {
    return usage("the direction of groups is \"" + std::string(word) +
                 "\"; it is output, input or auto");
  }
  per_auto = word == "auto";
  per.reset();
  if (!per_auto) per = word == "output" ? Channel::output : Channel::input;
  return ok();
}

io::Json Recipe::to_json() const {
  io::Json json = io::Json::object();
  json.set("recipe", 1);
  json.set("method", method);
  json.set("alpha", alpha);
  json.set("bits", bits);
  json.set("symmetric", symmetric);
  if (per || per_auto) {
    json.set("per", per_auto ? "auto" : *per == Channel::output ? "output" : "input");
  }
  if (group) json.set("group_size", *group);
  if (scale) json.set("scale", to_string(*scale));
  if (scale_type) json.set("scale_type", quell::to_string(*scale_type));
  json.set("damp_percent", damp_percent);
  json.set("act_order", act_order);
  json.set("direction_by_rounding", direction_by_rounding);
  json.set("activation_bits", activation_bits);
  if (activation_group) json.set("activation_group", *activation_group);
  if (keep_columns) json.set("keep_columns", *keep_columns);
  json.set("engine_precision", engine::to_string(engine_precision));
  io::Json rule_list = io::Json::array();
  for (const Rule& rule : rules) {
    std::string value = rule.keep ? "keep" : quell::to_string(*rule.grid);
    if (rule.method) value = *rule.method + "@" + value;
    rule_list.push(rule.pattern + "=" + value);
  }
  json.set("rules", std::move(rule_list));
  io::Json ignored = io::Json::array();
  for (const std::string& glob : ignore) ignored.push(glob);
  json.set("ignore", std::move(ignored));
  if (target_bits_per_weight) json.set("target_bpw", *target_bits_per_weight);
  if (target_bytes) json.set("target_size", *target_bytes);
  json.set("to", to);
  return json;
}

bool matches_glob(std::string_view pattern, std::string_view text) {
  // On a mismatch, the last star takes one more character; earlier stars never need to be
  // revisited.
  std::size_t p = 0, t = 0;
  std::size_t star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  std::size_t best_distance = word.size() / 2 + 1;  // more than half changed is another word
  for (const std::string& candidate : candidates) {
    std::vector<std::size_t> row(candidate.size() + 1);
    for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= word.size(); ++i) {
      std::size_t diagonal = row[0];
      row[0] = i;
      for (std::size_t j = 1; j < row.size(); ++j) {
        const std::size_t replaced = diagonal + (word[i - 1] == candidate[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

Result<ScaleMethod> parse_scale_method(std::string_view word) {
  if (word == "absmax") return ScaleMethod::absmax;
  if (word == "minmax") return ScaleMethod::minmax;
  if (word == "search") return ScaleMethod::search;
  return usage("the scale choice \"" + std::string(word) +
               "\" is not one of absmax, minmax, search");
}

std::string_view to_string(ScaleMethod method) {
  switch (method) {
    case ScaleMethod::absmax:
      return "absmax";
    case ScaleMethod::minmax:
      return "minmax";
    case ScaleMethod::search:
      return "search";
  }
  return "";
}

Result<ScaleType> parse_scale_type(std::string_view word) {
  if (word == "f16") return ScaleType::f16;
  if (word == "bf16") return ScaleType::bf16;
  if (word == "f32") return ScaleType::f32;
  return usage("the scale type \"" + std::string(word) + "\" is not one of f16, bf16, f32");
}

Result<engine::Precision> parse_engine_precision(std::string_view word) {
  if (const auto precision = engine::parse_precision(word)) return *precision;
  return usage("the engine precision \"" + std::string(word) + "\" is not one of f32, bf16");
}

}  // namespace quell::pipeline
