// SPDX-License-Identifier: Apache-2.0
#pragma once

// Where the outliers of a model are: heavy tails of every weight and every distinct input of linear
// layers, massive activations, systematic channels of the residual stream, and attention sinks.
// Definitions: quell/stats/systematic.hpp, quell/stats/outliers.hpp, and below.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quell/calib/corpus.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/engine/precision.hpp"
#include "quell/io/json.hpp"
#include "quell/model/model.hpp"
#include "quell/pipeline/observer.hpp"
#include "quell/pipeline/what_if.hpp"
#include "quell/stats/histogram.hpp"
#include "quell/stats/outliers.hpp"
#include "quell/stats/systematic.hpp"

namespace quell::pipeline {

/// Magnitudes of one tensor. `rows` are tokens for activations, output channels for weights.
struct TensorOutliers {
  enum class Kind { weight, activation };
  std::string name;  // module, or "layers.3.down_in", "layers.3.residual", "embedding"
  Kind kind = Kind::weight;
  std::size_t rows = 0, cols = 0;
  double excess_kurtosis = 0;  // m4 / m2^2 - 3: 0 for a normal, -1.2 for a uniform distribution
  float absmax = 0;            // max |x|
  double mean_abs = 0;         // mean |x|
  /// Element floor(n / 2) of the magnitudes in ascending order; of activations to 1 part in 4,096.
  double median_abs = 0;
  double outlier_ratio = 0;  // percent of elements above stats::kOwloreThreshold times mean_abs
  double channel_ratio = 0;  // largest per-column max |x| over the median of those maxima
  std::size_t argmax_row = 0, argmax_col = 0;  // of max |x|; the row is counted over all sequences
  std::uint64_t nonfinite = 0;                 // elements left out of everything above
  float first_token_absmax = 0, rest_absmax = 0;  // activations: at position 0, and elsewhere
  std::vector<double> channel_max;                // max |x| of each column,
  std::vector<std::uint64_t> channel_argmax;      // activations: and the first row that has it
  stats::LogHistogram histogram;                  // of |x|
  // Weights: largest max |w| / mean |w| of a row (output channel) and of a column (neuron), and
  // what does not belong to the rest of the matrix.
  double row_ratio = 0, column_ratio = 0;
  stats::MatrixOutliers marked;
  // Weights, finite ones: what half precision cannot hold (|w| > 65504, and 0 < |w| < 2^-14), and
  // lines of nothing but zeros.
  std::uint64_t fp16_overflow = 0, fp16_subnormal = 0;
  std::size_t zero_rows = 0, zero_columns = 0;
  /// The larger of both ratios is more than 4 times the median of all modules.
  bool stands_out = false;

  /// Of a weight: something in it does not belong to the rest, or it stands out of all modules.
  bool has_outliers() const { return stands_out || !marked.empty(); }
  double max_to_mean() const { return mean_abs > 0 ? static_cast<double>(absmax) / mean_abs : 0; }
  double max_to_median() const {
    return median_abs > 0 ? static_cast<double>(absmax) / median_abs : 0;
  }
  io::Json to_json() const;
};

/// An activation that is massive (stats::MassiveRule) in one or more sequences; of one place and
/// channel the largest is told.
struct MassiveActivation {
  std::string place;       // name of the tensor
  std::int32_t layer = 0;  // -1: the embedding
  std::size_t channel = 0;
  std::size_t position = 0;  // in its sequence
  std::int32_t token = 0;
  float value = 0;
  double ratio_to_median = 0;       // of its sequence at that place
  std::size_t sequences = 0;        // in which the channel is massive there
  std::size_t first_positions = 0;  // of those, at position 0
};

/// A channel that stays: of the residual stream (or of what stands for it where norms come last),
/// or of one layer's MLP (`neuron`: its maximum is more than 10 times the median channel maximum).
struct ChannelOutlier {
  enum class Kind { systematic, neuron };
  Kind kind = Kind::systematic;
  std::string place;  // "residual", "qkv_in", or the tensor of a neuron
  stats::SystematicChannel channel;
  std::int32_t layer = 0;  // where its ratio is largest
  float value = 0;         // the largest |x| there
  std::size_t position = 0;
  std::int32_t token = 0;
};

/// A key that gets at least a tenth of the attention, averaged over heads (position 0: of one head)
/// and over the queries that are at least engine::kMassGap tokens later, of which there must be 64.
struct AttentionSink {
  std::uint32_t layer = 0;
  std::optional<std::uint32_t> head;  // absent: mean over heads
  std::size_t position = 0;
  std::int32_t token = 0;
  double mass = 0;            // mean over `sequences`
  std::size_t sequences = 0;  // position 0: all; else those in which it is a sink
};

/// Attention on position 0, mean over sequences.
struct FirstTokenMass {
  std::uint32_t layer = 0;
  double mean = 0, largest_head = 0;
  std::uint32_t head = 0;  // the one with the largest
};

/// Whether a head does nothing: attention::HeadActivity, over queries from position
/// engine::kMassGap on (of a bidirectional model: over all).
struct HeadActivity {
  std::uint32_t layer = 0, head = 0;
  double idle_mass = 0;         // attention on keys with small values
  double first_token_mass = 0;  // attention on position 0
  double first_value_ratio = 0;
  bool idle = false;
};

/// How much of a block its outliers are, and how often layerwise sampling would therefore pick it:
/// stats/layer_outliers.hpp with the threshold of OwLore.
struct BlockOutliers {
  std::uint32_t layer = 0;
  double outlier_ratio = 0;         // percent of |w| sqrt(sum x^2) above 13 times their mean
  double sampling_probability = 0;  // equal where no block has any
};

/// A block changes the largest value of the residual stream (over the first 64 tokens of the first
/// sequence, where that value is more than 20 times the median): it is born (more than 4 times what
/// stood there), grows (1.5 times) or is cancelled (less than a quarter is left). The change is a
/// sum over the neurons of the block's MLP, and attention; the neuron told adds the most to it.
struct LifeCycleEvent {
  enum class Kind { born, grown, cancelled };
  Kind kind = Kind::born;
  std::uint32_t layer = 0;
  std::size_t channel = 0;
  std::size_t position = 0;
  std::int32_t token = 0;
  float before = 0, after = 0;
  std::size_t neuron = 0;
  float neuron_value = 0, weight = 0;  // of the input of down_proj, and from it to the channel
  double share = 0;                    // of the change; above 1 if others work against it
};
std::string_view to_string(LifeCycleEvent::Kind kind) noexcept;

/// A sequence that was left out, because activations of it are not finite from `place` on.
struct ExcludedSequence {
  std::size_t sequence = 0;  // of the corpus, from 0
  std::string place;
};

struct OutlierOptions {
  stats::MassiveRule massive;
  stats::SystematicRule systematic;
  std::uint64_t hidden_limit = ~std::uint64_t{0};  // bytes of hidden states in memory, then on disk
  std::filesystem::path spill_folder = ".";
  engine::Precision precision = engine::Precision::f32;
};

struct OutlierReport {
  std::vector<TensorOutliers> weights, activations;      // in order of computation
  engine::Precision precision = engine::Precision::f32;  // what the model computed in
  std::uint64_t tokens = 0;
  std::size_t sequences = 0;               // without those
  std::vector<ExcludedSequence> excluded;  // at most one in a hundred
  std::vector<MassiveActivation> massive;  // in order of layers, then the largest first
  std::vector<ChannelOutlier> channels;
  std::vector<AttentionSink> sinks;
  std::vector<FirstTokenMass> first_token_mass;  // of every layer
  std::vector<HeadActivity> heads;    // of every layer and head; none of texts without such queries
  std::vector<BlockOutliers> blocks;  // of every layer
  std::vector<LifeCycleEvent> life_cycle;  // by layer; none where norms follow the sum
  std::optional<WhatIf> what_if;           // where one was asked for

  /// `text_of` gives a token's text.
  io::Json to_json(const std::function<std::string(std::int32_t)>& text_of) const;
};

/// All linear layers of the model (of a model of unknown architecture, all that look like one).
Result<std::vector<TensorOutliers>> measure_weights(const model::Model& model, Executor& executor,
                                                    Observer& observer);

/// Adds what a corpus shows: all inputs of linear layers, the residual stream after the embedding
/// and after every block, and attention. Error: numeric (more than one sequence in a hundred has
/// activations that are not finite).
Status measure_activations(const model::Model& model, const calib::Corpus& corpus,
                           const OutlierOptions& options, OutlierReport& report, Executor& executor,
                           Observer& observer);

}  // namespace quell::pipeline
