// SPDX-License-Identifier: Apache-2.0
#pragma once

// The main job: a model, a plan and data become a folder of quantized weights. Blocks are done one
// after another, each with inputs computed through the blocks already quantized; every finished
// layer is in the journal of the output folder, so a killed run continues where it stopped with the
// same bytes at the end.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "quell/calib/corpus.hpp"
#include "quell/calib/statistics.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/engine/precision.hpp"
#include "quell/io/json.hpp"
#include "quell/model/model.hpp"
#include "quell/pipeline/observer.hpp"
#include "quell/pipeline/plan.hpp"
#include "quell/pipeline/recipe.hpp"

namespace quell::pipeline {

enum class Nonfinite { error, zero, skip };  // skip: the layer stays in floating point

struct QuantizeOptions {
  std::filesystem::path output;
  bool force = false, resume = true;
  std::uint64_t max_memory = 0;  // bytes; 0 = no limit
  Nonfinite nonfinite = Nonfinite::error;
  const calib::Corpus* corpus = nullptr;              // calibration data to walk, or
  const calib::StatisticsFile* statistics = nullptr;  // statistics made before, or neither
};

struct ModuleOutcome {
  std::string name, method, grid;
  double bits_per_weight = 0;
  double objective = 0, objective_rtn = 0;  // relative weighted loss of the codes, and of rounding
  std::optional<double> objective_other_direction;  // of groups, where both were tried
  double relative_error = 0;                        // |W - Q| / |W|
  double damping = 0;
  std::uint64_t dead_inputs = 0, guarded_rows = 0;
  std::uint64_t activation_bits = 16;  // of the input while the model runs; 16: not rounded
  std::uint64_t kept_columns = 0;      // in f16 beside the codes
  std::string fallback;
  double seconds = 0;

  io::Json to_json() const;
  /// Reads what to_json wrote; members that are not there keep their zero.
  static ModuleOutcome from_json(const io::Json& json);
};

/// Where the time went, in seconds.
struct Phases {
  double read = 0, forward = 0, moments = 0, solve = 0, write = 0;
};

struct QuantizeOutcome {
  std::filesystem::path output;
  std::uint64_t bytes = 0;  // of tensor data
  double bits_per_weight = 0;
  std::vector<ModuleOutcome> modules;
  std::string hash;                                   // of the result, see OutputFolder::complete
  std::optional<engine::Precision> engine_precision;  // of the calibration, if there was one
  std::size_t resumed = 0;                            // modules taken over from an earlier run
  Phases phases;

  io::Json to_json() const;
};

/// Errors: usage, resource (memory below the minimum, with the minimum; disk; lock), numeric,
/// interrupted (resumable).
Result<QuantizeOutcome> quantize(const model::Model& model, const Recipe& recipe, const Plan& plan,
                                 const QuantizeOptions& options, Executor& executor,
                                 Observer& observer);

/// Collects statistics of the model as it is (nothing quantized), for part `part` of `parts` of the
/// corpus, into a file: whole chunks, so that parts add up to one run. One block's moments are in
/// memory at a time.
Status save_statistics(const model::Model& model, const calib::Corpus& corpus, std::uint32_t part,
                       std::uint32_t parts, engine::Precision precision, std::uint64_t max_memory,
                       const std::filesystem::path& file, Executor& executor, Observer& observer);

/// How much of a budget hidden states may take before they go to disk, given what else is needed.
/// Error: resource, with the minimum that would do.
Result<std::uint64_t> hidden_limit(const Plan& plan, std::uint64_t max_memory);

}  // namespace quell::pipeline
