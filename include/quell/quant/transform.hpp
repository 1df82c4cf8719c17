// SPDX-License-Identifier: Apache-2.0
#pragma once

// Transform: rewrites a model without changing its function, so that it is easier to quantize. It
// never produces codes; it adds edits to the model as data. All edits are fused into weights that
// the checkpoint has anyway, so any engine runs the result.
//
// Two kinds, by when they know enough: edit_model() works on the weights alone and goes first;
// scale_site() chooses factors for the channels of one input of a block, once the statistics of
// that input are there. Scaling by s divides x_j by s_j in what makes x and multiplies column j of
// every weight that reads it: (W S)(S^-1 x) = W x.
//
//   site      made by                  may be scaled
//   qkv_in    the norm before it       unless that norm also feeds the residual stream
//   o_in      v, through attention     always; query heads that share a value head share factors
//   mlp_in    the norm before it       as qkv_in
//   down_in   up, or act(up)           with a gate, or with ReLU: both pass positive factors on

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/grid/scale.hpp"
#include "quell/grid/spec.hpp"
#include "quell/model/edits.hpp"
#include "quell/model/model.hpp"
#include "quell/quant/quantizer.hpp"

namespace quell::quant {

/// A linear that reads the site and will be quantized.
struct PlannedLinear {
  const model::Linear* linear = nullptr;
  GridSpec grid;
  ScaleMethod scale = ScaleMethod::absmax;
};

/// One input of a block, with what is known of it. Statistics that no transform asked for are
/// empty.
struct SiteProblem {
  const model::Model& model;  // as edited so far
  std::uint32_t layer = 0;
  model::Site site = model::Site::qkv_in;
  std::vector<PlannedLinear> linears;       // in order; linears kept in float are not among them
  MatrixView<const float> second_moment;    // [IC, IC], mean of x x^T
  std::span<const double> mean_magnitudes;  // [IC], mean of |x_j|
  std::span<const float> max_magnitudes;    // [IC]
};

/// What a head is called that shared the embedding's weights and no longer does.
inline constexpr std::string_view kUntiedHead = "lm_head.weight";

class Transform {
 public:
  virtual ~Transform() = default;
  virtual std::string_view name() const = 0;
  /// Error: unsupported, with the reason: the model has nothing that this can edit.
  virtual Status check(const model::Model& model) const = 0;
  /// True if edit_model() gives the head weights of its own.
  virtual bool unties_head() const { return false; }
  /// Adds edits of the whole model; `model` is as edited so far. Errors: unsupported, numeric.
  virtual Status edit_model(const model::Model& model, model::Edits& edits,
                            Executor& executor) const;
  /// Positive factors of the free channels of a site (free_channels), or nothing to leave it as it
  /// is. Errors: numeric (statistics that are absent, not finite or negative, naming site and
  /// channel).
  virtual Result<std::vector<float>> scale_site(const SiteProblem& problem,
                                                Executor& executor) const;
  /// What is to be added to the bias of a linear that was quantized: [OC], or nothing. `weight` is
  /// what was quantized, `mean` [IC] the mean of its inputs.
  virtual Result<std::vector<float>> bias_change(MatrixView<const float> weight,
                                                 const QuantizedTensor& quantized,
                                                 std::span<const double> mean) const;
};

/// Empty if the site's channels can be scaled, else the reason.
std::string refuse_scaling(const model::Model& model, std::uint32_t layer, model::Site site);
/// Channels of the site whose factors can be chosen independently: those of the value heads at
/// o_in, all of them elsewhere.
std::size_t free_channels(const model::Model& model, std::uint32_t layer, model::Site site);
/// The free channel that channel `j` of the site follows.
std::size_t free_channel(const model::ModelConfig& config, model::Site site, std::size_t j);

/// Adds the edits that divide the site's x by `factors` (one for each free channel), as near as the
/// norm's weights can hold it in the type of the file: a norm weight that is rounded moves its
/// factor, so that the function stays. Factors are rounded to 8 bits of significance and limited to
/// 2^-10 to 2^10; channels that the producer cannot scale (a zero norm weight) keep 1. Returns what
/// x_j is divided by, for each channel of the site. Errors: unsupported, numeric (a factor that is
/// not finite and positive), shape.
Result<std::vector<float>> apply_scaling(const model::Model& model, std::uint32_t layer,
                                         model::Site site, std::span<const float> factors,
                                         model::Edits& edits);

/// What a user may set, for all transforms together.
struct TransformOptions {
  double alpha = 0.5;      // smoothquant: share of the difficulty that moves into the weights
  std::uint64_t seed = 0;  // rotation: of the signs
};

struct TransformEntry {
  std::string_view name;
  Needs needs;             // activation_ranges: maxima, means and means of magnitudes
  bool whole_model;        // edit_model() does the work, so no statistics may be used before it
  std::string_view help;   // one line
  std::string_view paper;  // authors, title, year; empty where there is none
  std::unique_ptr<Transform> (*make)(const TransformOptions& options);
};

/// In the order in which they are listed to users.
std::span<const TransformEntry> transforms() noexcept;
/// Null if there is none.
const TransformEntry* find_transform(std::string_view name) noexcept;

/// "awq+gptq" in its parts: transforms off the front, the rest as it stands.
struct MethodChain {
  std::vector<std::string> transforms;
  std::string quantizer;  // may hold '+' itself; empty only where the word is, or ends with '+'
};
MethodChain take_transforms(std::string_view word);
/// Errors (usage): the quantizer of the chain is not known; a transform that is named twice; one
/// that edits the whole model after one that needs statistics of it.
Status check_chain(std::string_view word);

/// Smoothing (Xiao, Lin, Seznec, Wu, Demouth and Han, "SmoothQuant: accurate and efficient
/// post-training quantization for large language models", ICML 2023):
/// s_j = max |X_j|^alpha / max |W_j|^(1 - alpha), over all weights that read the site. Departure:
/// o_in and down_in are smoothed too, where their producers can take it.
struct SmoothQuantOptions {
  double alpha = 0.5;  // 0 to 1
};
std::unique_ptr<Transform> smoothquant(SmoothQuantOptions options = {});

/// Activation-aware scaling (Lin, Tang, Tang, Yang, Chen, Wang, Xiao, Dang, Gan and Han, "AWQ:
/// activation-aware weight quantization for LLM compression and acceleration", MLSys 2024):
/// s_j = (mean |x_j|)^alpha, with and without division by the weights' share of their groups'
/// maxima, by search over alpha. Departures: candidates are judged by tr(E H E^T) on the grid that
/// will be used, on 256 rows of the weights of the site, instead of by forward passes; 10 values of
/// alpha with and without the division instead of 20; no search for clipped ranges, which the
/// search for scales is already.
struct AwqOptions {
  unsigned steps = 10;  // alpha = 0, 1 / steps, ...
};
std::unique_ptr<Transform> awq(AwqOptions options = {});

/// The weights of norms moved into what reads them (Ashkboos, Croci, Gennari do Nascimento, Hoefler
/// and Hensman, "SliceGPT", ICLR 2024): norms keep weights of 1. The head is untied.
std::unique_ptr<Transform> norm_folding();

/// Folded norms, then random-sign Hadamard rotations of the residual stream and of the value heads
/// (Ashkboos and others, "QuaRot: outlier-free 4-bit inference in rotated LLMs", 2024: R1 and R2).
/// In models with layer norms the rotation leaves the vector of ones where it is, so that what the
/// norm subtracts stays 0. A size without a Hadamard matrix is rotated in its largest blocks.
struct RotationOptions {
  std::uint64_t seed = 0;
};
std::unique_ptr<Transform> rotation(RotationOptions options = {});

/// The mean of what quantization does to a linear's output is taken off its bias, where it has one:
/// b + (W - Q) mean(x) (Nagel, van Baalen, Blankevoort and Welling, "Data-free quantization through
/// weight equalization and bias correction", ICCV 2019).
std::unique_ptr<Transform> bias_correction();

}  // namespace quell::quant
