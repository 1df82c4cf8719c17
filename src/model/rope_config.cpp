// SPDX-License-Identifier: Apache-2.0

// Rotary positions in config.json. Two generations of spelling are read: rope_theta and
// rope_scaling at the top level, and one object rope_parameters that holds all of it. Where both
// say something, the top level wins. The arithmetic of the scalings is in the engine.

#include <cmath>
#include <string>

#include "model/config_fields.hpp"

namespace quell::model {
namespace {

using Scaling = Rope::Scaling;

/// Where the fields of the scaling are, and what to call that place in errors.
struct Place {
  const io::Json* object = nullptr;
  std::string name;
};

Result<Place> find_place(const io::JsonFields& fields, std::string_view name) {
  const io::Json* object = fields.find(name);
  if (object == nullptr) return Place{};
  if (!object->is(io::Json::Kind::object)) return fields.wrong(name, "an object or null");
  for (const io::Json::Member& member : object->members()) {
    if (!member.second.is(io::Json::Kind::object)) continue;
    Error error = fields.wrong(
        name, "one set of values for all layers (it has one for \"" + member.first + "\")");
    error.code = ErrorCode::unsupported;
    return error;
  }
  return Place{object, std::string(name)};
}

Result<Scaling> parse_type(const io::JsonFields& scaling) {
  QUELL_TRY(new_name, scaling.optional_text("rope_type"));
  QUELL_TRY(old_name, scaling.optional_text("type"));
  const std::string type = new_name ? *new_name : old_name.value_or("default");
  // mrope gives text tokens the same position in all its sections, which is no scaling at all.
  if (type == "default" || type == "mrope") return Scaling::none;
  if (type == "linear") return Scaling::linear;
  if (type == "dynamic") return Scaling::dynamic;
  if (type == "yarn") return Scaling::yarn;
  if (type == "longrope" || type == "su") return Scaling::longrope;
  if (type == "llama3") return Scaling::llama3;
  Error error = scaling.wrong(new_name ? "rope_type" : "type",
                              "one of default, linear, dynamic, yarn, longrope, llama3");
  error.code = ErrorCode::unsupported;
  return error;
}

Result<std::vector<double>> parse_factors(const io::JsonFields& scaling, std::string_view name,
                                          std::size_t count) {
  const std::string expected = "a list of " + std::to_string(count) + " numbers above 0";
  const io::Json* list = scaling.find(name);
  if (list == nullptr || !list->is(io::Json::Kind::array) || list->items().size() != count) {
    return scaling.wrong(name, expected);
  }
  std::vector<double> factors;
  for (const io::Json& item : list->items()) {
    if (!item.is_number() || !(item.as_number() > 0)) return scaling.wrong(name, expected);
    factors.push_back(item.as_number());
  }
  return factors;
}

Result<double> required_factor(const io::JsonFields& scaling, std::string_view name) {
  QUELL_TRY(value, scaling.number(name));
  if (!(value > 0) || !std::isfinite(value)) return scaling.wrong(name, "a number above 0");
  return value;
}

/// Peng et al. 2023 (YaRN), equation 22: entropy of the attention is kept by 0.1 ln(s) + 1.
double yarn_magnitude(double factor, double weight) {
  return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1;
}

Status parse_llama3(const io::JsonFields& scaling, Rope& rope) {
  QUELL_TRY(factor, required_factor(scaling, "factor"));
  QUELL_TRY(low, required_factor(scaling, "low_freq_factor"));
  QUELL_TRY(high, required_factor(scaling, "high_freq_factor"));
  if (high <= low) {
    return scaling.wrong("high_freq_factor",
                         "a number above low_freq_factor " + std::to_string(low));
  }
  rope.factor = factor;
  rope.low_frequency_factor = low;
  rope.high_frequency_factor = high;
  return ok();
}

Status parse_yarn(const io::JsonFields& scaling, std::uint32_t max_positions, Rope& rope) {
  QUELL_TRY(factor, positive_number(scaling, "factor",
                                    static_cast<double>(max_positions) / rope.original_positions));
  QUELL_TRY(fast, positive_number(scaling, "beta_fast", 32));
  QUELL_TRY(slow, positive_number(scaling, "beta_slow", 1));
  QUELL_TRY(truncate, flag(scaling, "truncate", true));
  QUELL_TRY(weight, scaling.optional_number("mscale"));
  QUELL_TRY(weight_all, scaling.optional_number("mscale_all_dim"));
  const bool weighted = weight.value_or(0) != 0 && weight_all.value_or(0) != 0;
  const double magnitude =
      weighted ? yarn_magnitude(factor, *weight) / yarn_magnitude(factor, *weight_all)
               : yarn_magnitude(factor, 1);
  QUELL_TRY(attention, positive_number(scaling, "attention_factor", magnitude));
  if (rope.base <= 1) return scaling.wrong("rope_theta", "a number above 1 for yarn");
  rope.factor = factor;
  rope.beta_fast = fast;
  rope.beta_slow = slow;
  rope.truncate = truncate;
  rope.attention_factor = attention;
  return ok();
}

Status parse_longrope(const io::JsonFields& scaling, std::uint32_t max_positions, Rope& rope) {
  QUELL_TRY(short_factor, parse_factors(scaling, "short_factor", rope.dims / 2));
  QUELL_TRY(long_factor, parse_factors(scaling, "long_factor", rope.dims / 2));
  QUELL_TRY(factor, positive_number(scaling, "factor",
                                    static_cast<double>(max_positions) / rope.original_positions));
  const double magnitude =
      factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(rope.original_positions));
  QUELL_TRY(attention, positive_number(scaling, "attention_factor", magnitude));
  rope.factor = factor;
  rope.short_factor = std::move(short_factor);
  rope.long_factor = std::move(long_factor);
  rope.attention_factor = attention;
  return ok();
}

}  // namespace

Result<Rope> parse_rope(const io::JsonFields& fields, const ModelConfig& config,
                        double default_base) {
  QUELL_TRY(older, find_place(fields, "rope_scaling"));
  QUELL_TRY(newer, find_place(fields, "rope_parameters"));
  const io::Json none = io::Json::object();
  const Place& place = older.object != nullptr ? older : newer;
  const io::JsonFields scaling(place.object != nullptr ? *place.object : none,
                               fields.file() + ": " + place.name);
  const io::JsonFields parameters(newer.object != nullptr ? *newer.object : none,
                                  fields.file() + ": rope_parameters");

  Rope rope;
  QUELL_TRY(scaling_base, positive_number(scaling, "rope_theta", default_base));
  QUELL_TRY(inner_base, positive_number(parameters, "rope_theta", scaling_base));
  QUELL_TRY(base, positive_number(fields, "rope_theta", inner_base));
  QUELL_TRY(inner_part, positive_number(parameters, "partial_rotary_factor", 1));
  QUELL_TRY(part, positive_number(fields, "partial_rotary_factor", inner_part));
  if (part > 1) return fields.wrong("partial_rotary_factor", "a number in (0, 1]");
  rope.base = base;
  rope.dims = static_cast<std::uint32_t>(config.head_dim * part);
  if (rope.dims == 0 || rope.dims % 2 != 0) {
    return Error{ErrorCode::parse,
                 fields.file() + ": heads of " + std::to_string(config.head_dim) + " rotate " +
                     std::to_string(rope.dims) + " dimensions; expected an even number above 0",
                 fields.file(),
                 {}};
  }

  QUELL_TRY(scheme, parse_type(scaling));
  rope.scaling = scheme;
  if (scheme == Scaling::none) return rope;
  // The trained length may stand at the top level, which then wins.
  QUELL_TRY(inner, scaling.optional_unsigned("original_max_position_embeddings", 2, kMaxPositions));
  QUELL_TRY(outer, fields.optional_unsigned("original_max_position_embeddings", 2, kMaxPositions));
  rope.original_positions = config.max_positions;
  // NTK by length measures against max_position_embeddings itself.
  if (scheme != Scaling::dynamic && (outer || inner)) {
    rope.original_positions = static_cast<std::uint32_t>(outer ? *outer : *inner);
  }
  if (rope.original_positions < 2) {
    return fields.wrong("max_position_embeddings", "at least 2 with scaled rotary positions");
  }
  switch (scheme) {
    case Scaling::none:
      break;
    case Scaling::linear: {
      QUELL_TRY(factor, required_factor(scaling, "factor"));
      rope.factor = factor;
      break;
    }
    case Scaling::dynamic: {
      QUELL_TRY(factor, required_factor(scaling, "factor"));
      rope.factor = factor;
      // The exponent is R / (R - 2).
      if (rope.dims <= 2) return scaling.wrong("rope_type", "no dynamic scaling of 2 dimensions");
      break;
    }
    case Scaling::llama3:
      QUELL_TRY(parse_llama3(scaling, rope));
      break;
    case Scaling::yarn:
      QUELL_TRY(parse_yarn(scaling, config.max_positions, rope));
      break;
    case Scaling::longrope:
      QUELL_TRY(parse_longrope(scaling, config.max_positions, rope));
      break;
  }
  return rope;
}

}  // namespace quell::model
