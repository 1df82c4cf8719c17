// SPDX-License-Identifier: Apache-2.0
#pragma once

// Recipe: which method and grid each layer gets. Options of the command line and members of a JSON
// recipe file are the same words and end up here.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/engine/precision.hpp"
#include "quell/grid/scale.hpp"
#include "quell/grid/scale_type.hpp"
#include "quell/grid/spec.hpp"
#include "quell/io/json.hpp"

namespace quell::pipeline {

/// What layers whose name matches `pattern` get instead of the recipe's own choice.
struct Rule {
  std::string pattern;  // a glob over module names: * and ?
  bool keep = false;    // leave in floating point
  std::optional<std::string> method;
  std::optional<GridSpec> grid;
  bool scale_type_given = false;  // the grid's word named its scale type

  /// Parses GLOB=[METHOD@]GRID or GLOB=keep. Error: usage.
  static Result<Rule> parse(std::string_view text);
};

/// The word of a method: transforms, each with a +; hadamard+, if layers are to rotate their
/// inputs; what quant::parse_chain takes.
struct MethodWord {
  std::vector<std::string> transforms;
  bool rotate = false;
  std::string quantizer;

  /// Error: usage, with the known words.
  static Result<MethodWord> parse(std::string_view text);
};

struct Recipe {
  /// "" = balanced where there is data, rotating inputs of 4 bits; else what MethodWord takes.
  std::string method;
  double alpha = 0.5;      // smoothquant: share of the difficulty that moves into the weights
  std::uint32_t bits = 4;  // 2, 3, 4 or 8
  bool symmetric = true;
  std::optional<Channel> per;           // absent: output, or the choice of a method that has one
  bool per_auto = false;                // every method under adadim, where no rule gives a grid
  std::optional<std::uint32_t> group;   // absent: chosen for every layer; 0: one per run
  std::optional<ScaleMethod> scale;     // absent: search for methods with feedback, else absmax
  std::optional<ScaleType> scale_type;  // absent: bf16 for bf16 models, f16 for others
  double damp_percent = 0.01;           // fraction of the mean diagonal of H
  bool act_order = false;
  bool direction_by_rounding = false;             // quant::AdadimOptions
  std::uint32_t activation_bits = 16;             // of inputs while the model runs: 4, 8 or 16
  std::optional<std::uint32_t> activation_group;  // absent: a scale for each token
  std::optional<std::uint32_t> keep_columns;  // of every layer, in f16; absent: chosen by the plan
  engine::Precision engine_precision = engine::Precision::f32;  // of the calibration forward pass
  std::vector<Rule> rules;                                      // later ones win
  std::vector<std::string> ignore;                              // globs; win over rules
  /// What allocation.hpp chooses widths for; at most one of them.
  std::optional<double> target_bits_per_weight;  // of the quantized layers
  std::optional<std::uint64_t> target_bytes;     // of all weight files
  std::string to;                                // export layout; "" = the default

  /// Applies a scheme word, W4A16 or W8A8 for example. Error: usage, listing them.
  Status apply_scheme(std::string_view scheme);
  /// Applies a word for the direction of groups: output, input, auto. Error: usage.
  Status apply_per(std::string_view word);
  /// The recipe as JSON, every default spelled out.
  io::Json to_json() const;
};

/// Reads members of a recipe file into `recipe`. Unknown keys, wrong types and duplicate keys are
/// errors with line and column and the nearest known key.
Status apply_recipe_json(const io::Json& json, const std::string& file, Recipe& recipe);

/// True if `text` matches the glob (`*` any run, `?` any character). Linear in practice and never
/// worse than |pattern| * |text|.
bool matches_glob(std::string_view pattern, std::string_view text);

/// The candidate that is closest to `word` by edits, or "" if none is close.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

Result<ScaleMethod> parse_scale_method(std::string_view word);
std::string_view to_string(ScaleMethod method);
Result<ScaleType> parse_scale_type(std::string_view word);
Result<engine::Precision> parse_engine_precision(std::string_view word);

}  // namespace quell::pipeline
