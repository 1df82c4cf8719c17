// SPDX-License-Identifier: Apache-2.0
#pragma once

// Plan: what a recipe means for one model, found out before any work: the method and grid of every
// layer, the files that will be written (exact bytes), the memory that will be needed, and
// everything that speaks against it, all at once.

#include <cstdint>
#include <string>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/grid/scale.hpp"
#include "quell/grid/spec.hpp"
#include "quell/io/export.hpp"
#include "quell/io/safetensors.hpp"
#include "quell/model/model.hpp"
#include "quell/pipeline/recipe.hpp"
#include "quell/quant/quantizer.hpp"

namespace quell::pipeline {

/// One layer to quantize.
struct Task {
  const model::Linear* linear = nullptr;
  std::uint32_t layer = 0;  // of the block; 0 for models known by their weights alone
  model::Site site = model::Site::qkv_in;
  std::string method;
  GridSpec grid;
  ScaleMethod scale = ScaleMethod::absmax;
  quant::Needs needs = quant::Needs::weights_only;  // of the method
  /// The method chooses the direction of groups; that of the grid means nothing yet. The array of
  /// scales has as many elements either way.
  bool open_direction = false;
  unsigned activation_bits = 0;      // to which the input is rounded while the model runs; 0: not
  std::size_t activation_group = 0;  // channels that share a scale then; 0: the whole token
  std::size_t kept_columns = 0;      // that stay in f16 beside the codes
  std::size_t rotation = 0;          // block in which inputs are rotated; 0: they are not

  /// As it will be written. Layers of one site have the same rotation.
  io::ModulePlan module() const;
};

/// What calibration there is to work with.
struct CalibrationSize {
  bool available = false;   // calibration text, ids or statistics are given
  bool peaks = false;       // and tell which channels set the scales of tokens
  bool sequential = false;  // the corpus is walked block by block (else statistics are given)
  std::uint64_t tokens = 0;
  std::uint64_t longest = 0;  // tokens of the longest chunk
};

struct Plan {
  std::vector<Task> tasks;                                    // in order of computation
  std::vector<std::string> kept;                              // linears left in floating point
  std::vector<std::string> transforms;                        // of the method's chain, in order
  quant::Needs transform_needs = quant::Needs::weights_only;  // of them together
  bool own_head = false;  // they give a tied head weights of its own
  const io::ExportLayout* layout = nullptr;
  io::FolderPlan folder;
  double bits_per_weight = 0;        // of the quantized layers
  double bits_per_weight_total = 0;  // of all parameters written
  std::uint64_t fixed_memory = 0;    // bytes needed whatever happens
  std::uint64_t hidden_bytes = 0;    // of hidden states, in memory or on disk
  double work = 0;                   // floating-point operations, by estimate
  double seconds_estimate = 0;
  std::vector<std::string> notes;  // choices that a user should see

  std::uint64_t peak_memory(std::uint64_t hidden_limit) const {
    return fixed_memory + (hidden_bytes <= hidden_limit ? hidden_bytes : 0);
  }
};

inline constexpr std::uint64_t kShardLimit = 5'000'000'000;  // bytes, the habit of the field

/// Errors: usage (all problems, one per line).
Result<Plan> make_plan(const model::Model& model, const Recipe& recipe, const CalibrationSize& data,
                       Executor& executor, std::uint64_t shard_limit = kShardLimit);

/// Floating-point operations of one pass of `tokens` through a block, of the second moments of its
/// inputs, and of quantizing a task.
double block_work(const model::Model& model, std::uint32_t layer, std::uint64_t tokens);
double moment_work(const model::Model& model, std::uint32_t layer, std::uint64_t tokens);
/// Of a block of a walk in stages, its moments and drifts included.
double staged_work(const model::Model& model, std::uint32_t layer, std::uint64_t tokens,
                   std::uint64_t original_tokens);
double task_work(const Task& task);
/// What that takes: an order of magnitude, not a promise. Progress lines replace it by measured
/// speed.
double seconds_of(double work, const Executor& executor);

}  // namespace quell::pipeline
