// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which modules a quantization hurts, how the hurt travels, and what to do about it.
//
// Damage is the mean KL(original || changed) in nats per token; of an encoder, which predicts
// nothing, the mean of 1 - cosine of its embeddings.
//
// * Sensitivity: one module at a time is swapped for its quantized self, everything else stays the
//   original, and the blocks behind it run again from states kept in front of them. Beside it a
//   control: Gaussian noise of the same norm in the same module. A module whose quantization does
//   far more than the noise has an error that is aligned with what the model reads. And the other
//   way round: what is gained where one module alone stays as it is.
// * Propagation: the relative error along the model splits exactly into what came in, what is new,
//   and how far both work against each other (quell/stats/error_split.hpp).
// * Cures: for every module what finer grids, the other group direction, kept columns, a rotation
//   or smoothing would leave of the loss tr(E H E^T) of its outputs. What that gains is predicted
//   as the same share of what keeping the module gains, because damage is quadratic in a small
//   error.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quell/calib/corpus.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/grid/spec.hpp"
#include "quell/io/json.hpp"
#include "quell/model/model.hpp"
#include "quell/pipeline/observer.hpp"
#include "quell/pipeline/plan.hpp"
#include "quell/stats/error_split.hpp"

namespace quell::pipeline {

/// Something to do about one module.
struct Cure {
  enum class Kind { bits, direction, group, kept_columns, rotation, smoothing };
  Kind kind = Kind::bits;
  std::string module;
  std::string
      action;  // "int8full:sym:oc:g32", "41 columns kept in 16 bits", "smoothing, alpha 0.5"
  bool available = false;  // whether `quell quantize` can do it today
  double loss_ratio = 0;  // of tr(E H E^T), to that of the module as it is planned; below 1: better
  std::int64_t bytes = 0;               // that it adds
  double gain = 0;                      // predicted damage that goes away, of the quantized model
  std::optional<double> measured_gain;  // the same measured, of the best of a kind

  /// Gain for 10^6 bytes; infinite where it costs nothing.
  double gain_per_megabyte() const noexcept;
};
std::string_view to_string(Cure::Kind kind) noexcept;
inline constexpr Cure::Kind kCureKinds[] = {Cure::Kind::bits,     Cure::Kind::direction,
                                            Cure::Kind::group,    Cure::Kind::kept_columns,
                                            Cure::Kind::rotation, Cure::Kind::smoothing};

struct ModuleSensitivity {
  std::string name;
  std::uint32_t layer = 0;
  GridSpec grid;
  std::uint64_t bytes = 0;      // of the module, quantized
  std::int64_t kept_bytes = 0;  // that keeping it in 16 bits would add
  double relative_error = 0;    // |E| / |W|
  double output_error = 0;      // sqrt(tr(E H E^T) / tr(W H W^T)): of the outputs, on this text
  double damage = 0, damage_standard_error = 0;
  double noise_damage = 0;  // with Gaussian noise of the norm |E| in place of E
  /// Damage that goes away where this module alone stays as it is and all others are quantized.
  double kept_gain = 0;
  /// What each cure leaves of the loss of this module, of those that make sense here.
  std::map<Cure::Kind, double> loss_ratios;

  /// kept_gain for 10^6 bytes.
  double damage_per_megabyte() const noexcept;
};

/// One stage of the model: how the relative squared error behind it came about.
struct ErrorStage {
  std::string name;  // of the module, or "layers.3": the block as a whole
  std::uint32_t layer = 0;
  bool block = false;
  stats::ErrorSplit split;            // norms over all tokens
  stats::ErrorSplit split_per_token;  // relative to each token's own norm, mean over tokens
  /// Of a module: gain = weight_gain * alignment_gain (G1, G2); 0 where nothing came in.
  double weight_gain = 0, alignment_gain = 0;
};

struct SensitivityOptions {
  /// Tokens of the corpus that are used, as whole sequences (at least one).
  std::uint64_t tokens = 4096;
  /// Bytes of hidden states of changed models held at a time; more rounds through the blocks
  /// otherwise.
  std::uint64_t state_bytes = 256u << 20;
};

struct Sensitivity {
  bool encoder = false;  // damage is a cosine error
  std::string method;    // that quantized the modules
  std::uint64_t tokens = 0;
  std::vector<ModuleSensitivity> modules;            // in order of computation
  double together = 0, together_standard_error = 0;  // damage of all modules quantized
  std::vector<Cure> cures;         // the free ones by gain, then the others by gain for a byte
  std::vector<ErrorStage> stages;  // in order of computation, over at most one chunk

  double sum() const noexcept;
  /// sum() / together: near 1 where modules hurt independently. 0 without damage.
  double sum_ratio() const noexcept;
  io::Json to_json() const;
};

/// `plan`: what each module would become (make_plan). Errors: those of the quantizers and the
/// engine, resource, interrupted.
Result<Sensitivity> measure_sensitivity(const model::Model& model, const Plan& plan,
                                        const calib::Corpus& corpus,
                                        const SensitivityOptions& options, Executor& executor,
                                        Observer& observer);

}  // namespace quell::pipeline
