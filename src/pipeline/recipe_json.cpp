// SPDX-License-Identifier: Apache-2.0

// The recipe file. One table of keys: what each is called and what it does to a Recipe.

#include <array>
#include <string>
#include <vector>

#include "quell/pipeline/recipe.hpp"
#include "quell/quant/transform.hpp"

namespace quell::pipeline {
namespace {

using io::Json;

std::string place(const std::string& file, const Json& value) {
  return file + ":" + std::to_string(value.line()) + ":" + std::to_string(value.column());
}

Error wrong(const std::string& file, const Json& value, const std::string& what) {
  return Error{ErrorCode::parse, place(file, value) + ": " + what, file};
}

Status set_strings(const Json& value, const std::string& file, std::string_view key,
                   std::vector<std::string>& out) {
  if (!value.is(Json::Kind::array)) {
    return wrong(file, value, std::string(key) + " is not a list of strings");
  }
  for (const Json& item : value.items()) {
    if (!item.is(Json::Kind::string))
      return wrong(file, item, std::string(key) + " holds something other than strings");
    out.push_back(item.as_string());
  }
  return ok();
}

// Adds the place to an error of a word.
Error at(const std::string& file, const Json& value, const Error& error) {
  return wrong(file, value, error.message);
}

Status set_count(const Json& value, const std::string& file, std::string_view key,
                 std::int64_t least, std::optional<std::uint32_t>& out) {
  if (value.as_integer() < least || value.as_integer() > (1 << 30)) {
    return wrong(file, value,
                 std::string(key) + " is " + std::to_string(value.as_integer()) + ", expected " +
                     std::to_string(least) + " to " + std::to_string(1 << 30));
  }
  out = static_cast<std::uint32_t>(value.as_integer());
  return ok();
}

struct Key {
  std::string_view name;
  Json::Kind kind;
  std::string_view kind_name;
  Status (*apply)(const Json& value, const std::string& file, Recipe& recipe);
};

constexpr std::array<Key, 22> kKeys = {{
    {"recipe", Json::Kind::integer, "the number 1",
     [](const Json& value, const std::string& file, Recipe&) -> Status {
       if (value.as_integer() == 1) return ok();
       return wrong(file, value,
                    "recipe version " + std::to_string(value.as_integer()) +
                        "; this program reads version 1");
     }},
    {"scheme", Json::Kind::string, "a string",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       Status done = recipe.apply_scheme(value.as_string());
       return done ? ok() : Status(at(file, value, done.error()));
     }},
    {"method", Json::Kind::string, "a string",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       const auto method = MethodWord::parse(value.as_string());
       if (!method) return at(file, value, method.error());
       recipe.method = value.as_string();
       return ok();
     }},
    {"alpha", Json::Kind::real, "a number",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       const double alpha = value.as_number();
       if (!(alpha >= 0 && alpha <= 1)) {
         return wrong(file, value, "alpha is outside 0 to 1 (smoothquant's share, usually 0.5)");
       }
       recipe.alpha = alpha;
       return ok();
     }},
    {"bits", Json::Kind::integer, "a whole number",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       const std::int64_t bits = value.as_integer();
       if (bits != 2 && bits != 3 && bits != 4 && bits != 8) {
         return wrong(file, value, std::to_string(bits) + " bits; 2, 3, 4 and 8 are supported");
       }
       recipe.bits = static_cast<std::uint32_t>(bits);
       return ok();
     }},
    {"group_size", Json::Kind::integer, "a whole number",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       const std::int64_t group = value.as_integer();
       if (group < -1 || group > (1 << 30)) {
         return wrong(file, value,
                      "group_size " + std::to_string(group) + " is not -1 (whole row) or more");
       }
       recipe.group = group <= 0 ? 0u : static_cast<std::uint32_t>(group);
       return ok();
     }},
    {"symmetric", Json::Kind::boolean, "true or false",
     [](const Json& value, const std::string&, Recipe& recipe) -> Status {
       recipe.symmetric = value.as_boolean();
       return ok();
     }},
    {"per", Json::Kind::string, "\"output\", \"input\" or \"auto\"",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       Status done = recipe.apply_per(value.as_string());
       return done ? ok() : Status(at(file, value, done.error()));
     }},
    {"scale", Json::Kind::string, "a string",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       auto scale = parse_scale_method(value.as_string());
       if (!scale) return at(file, value, scale.error());
       recipe.scale = *scale;
       return ok();
     }},
    {"scale_type", Json::Kind::string, "a string",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       auto type = parse_scale_type(value.as_string());
       if (!type) return at(file, value, type.error());
       recipe.scale_type = *type;
       return ok();
     }},
    {"damp_percent", Json::Kind::real, "a number",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       const double damping = value.as_number();
       if (!(damping >= 0) || damping > 10) {
         return wrong(
             file, value,
             "damp_percent is outside 0 to 10 (a fraction of the mean diagonal, usually 0.01)");
       }
       recipe.damp_percent = damping;
       return ok();
     }},
    {"act_order", Json::Kind::boolean, "true or false",
     [](const Json& value, const std::string&, Recipe& recipe) -> Status {
       recipe.act_order = value.as_boolean();
       return ok();
     }},
    {"direction_by_rounding", Json::Kind::boolean, "true or false",
     [](const Json& value, const std::string&, Recipe& recipe) -> Status {
       recipe.direction_by_rounding = value.as_boolean();
       return ok();
     }},
    {"activation_bits", Json::Kind::integer, "a whole number",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       const std::int64_t bits = value.as_integer();
       if (bits != 4 && bits != 8 && bits != 16) {
         return wrong(
             file, value,
             "activations of " + std::to_string(bits) + " bits; 4, 8 and 16 are supported");
       }
       recipe.activation_bits = static_cast<std::uint32_t>(bits);
       return ok();
     }},
    {"activation_group", Json::Kind::integer, "a whole number",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       return set_count(value, file, "activation_group", 1, recipe.activation_group);
     }},
    {"keep_columns", Json::Kind::integer, "a whole number",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       return set_count(value, file, "keep_columns", 0, recipe.keep_columns);
     }},
    {"engine_precision", Json::Kind::string, "a string",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       auto precision = parse_engine_precision(value.as_string());
       if (!precision) return at(file, value, precision.error());
       recipe.engine_precision = *precision;
       return ok();
     }},
    {"rules", Json::Kind::array, "a list of strings",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       std::vector<std::string> texts;
       QUELL_TRY(set_strings(value, file, "rules", texts));
       for (std::size_t i = 0; i < texts.size(); ++i) {
         auto rule = Rule::parse(texts[i]);
         if (!rule) return at(file, value.items()[i], rule.error());
         recipe.rules.push_back(*std::move(rule));
       }
       return ok();
     }},
    {"ignore", Json::Kind::array, "a list of strings",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       return set_strings(value, file, "ignore", recipe.ignore);
     }},
    {"target_bpw", Json::Kind::real, "a number",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       const double bits = value.as_number();
       if (!(bits > 0) || bits > 16) return wrong(file, value, "target_bpw is outside 0 to 16");
       recipe.target_bits_per_weight = bits;
       return ok();
     }},
    {"target_size", Json::Kind::integer, "a whole number of bytes",
     [](const Json& value, const std::string& file, Recipe& recipe) -> Status {
       if (value.as_integer() <= 0) return wrong(file, value, "target_size is not above 0");
       recipe.target_bytes = static_cast<std::uint64_t>(value.as_integer());
       return ok();
     }},
    {"to", Json::Kind::string, "a string",
     [](const Json& value, const std::string&, Recipe& recipe) -> Status {
       recipe.to = value.as_string();
       return ok();
     }},
}};

}  // namespace

Status apply_recipe_json(const Json& json, const std::string& file, Recipe& recipe) {
  if (!json.is(Json::Kind::object)) return wrong(file, json, "a recipe is a JSON object");
  if (json.find("recipe") == nullptr) {
    return wrong(file, json, "no \"recipe\": 1, which names the version of the file");
  }
  for (const auto& [name, value] : json.members()) {
    const Key* key = nullptr;
    std::vector<std::string> names;
    for (const Key& candidate : kKeys) {
      names.emplace_back(candidate.name);
      if (candidate.name == name) key = &candidate;
    }
    if (key == nullptr) {
      const std::string closest = nearest(name, names);
      return wrong(file, value,
                   "the key \"" + name + "\" is not known" +
                       (closest.empty() ? "" : "; did you mean \"" + closest + "\"?"));
    }
    const bool fits = value.is(key->kind) || (key->kind == Json::Kind::real && value.is_number());
    if (!fits) {
      return wrong(file, value, std::string(key->name) + " must be " + std::string(key->kind_name));
    }
    QUELL_TRY(key->apply(value, file, recipe));
  }
  return ok();
}

}  // namespace quell::pipeline
