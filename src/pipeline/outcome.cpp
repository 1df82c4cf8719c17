// SPDX-License-Identifier: Apache-2.0

// The outcome of `quantize` as JSON: what results keep, and what a resumed run takes over.

#include "quell/pipeline/quantize.hpp"

namespace quell::pipeline {

io::Json ModuleOutcome::to_json() const {
  io::Json json = io::Json::object();
  json.set("name", name);
  json.set("method", method);
  json.set("grid", grid);
  json.set("bits_per_weight", bits_per_weight);
  json.set("objective", objective);
  json.set("objective_rtn", objective_rtn);
  if (objective_other_direction) {
    json.set("objective_other_direction", *objective_other_direction);
  }
  json.set("relative_error", relative_error);
  json.set("damping", damping);
  json.set("dead_inputs", dead_inputs);
  json.set("guarded_rows", guarded_rows);
  json.set("activation_bits", activation_bits);
  json.set("kept_columns", kept_columns);
  json.set("fallback", fallback.empty() ? io::Json() : io::Json(fallback));
  json.set("seconds", seconds);
  return json;
}

ModuleOutcome ModuleOutcome::from_json(const io::Json& json) {
  const auto number = [&](std::string_view name) {
    const io::Json* value = json.find(name);
    return value != nullptr ? value->as_number() : 0.0;
  };
  const auto text = [&](std::string_view name) {
    const io::Json* value = json.find(name);
    return value != nullptr ? value->as_string() : std::string();
  };
  ModuleOutcome outcome;
  outcome.name = text("name");
  outcome.method = text("method");
  outcome.grid = text("grid");
  outcome.bits_per_weight = number("bits_per_weight");
  outcome.objective = number("objective");
  outcome.objective_rtn = number("objective_rtn");
  if (json.find("objective_other_direction") != nullptr) {
    outcome.objective_other_direction = number("objective_other_direction");
  }
  outcome.relative_error = number("relative_error");
  outcome.damping = number("damping");
  outcome.dead_inputs = static_cast<std::uint64_t>(number("dead_inputs"));
  outcome.guarded_rows = static_cast<std::uint64_t>(number("guarded_rows"));
  outcome.activation_bits = static_cast<std::uint64_t>(number("activation_bits"));
  outcome.kept_columns = static_cast<std::uint64_t>(number("kept_columns"));
  outcome.fallback = text("fallback");
  outcome.seconds = number("seconds");
  return outcome;
}

io::Json QuantizeOutcome::to_json() const {
  io::Json json = io::Json::object();
  json.set("output", output.string());
  json.set("bytes", bytes);
  json.set("bits_per_weight", bits_per_weight);
  io::Json list = io::Json::array();
  for (const ModuleOutcome& module : modules) list.push(module.to_json());
  json.set("modules", std::move(list));
  json.set("engine_precision",
           engine_precision ? io::Json(engine::to_string(*engine_precision)) : io::Json());
  json.set("hash", hash);
  return json;
}

}  // namespace quell::pipeline
