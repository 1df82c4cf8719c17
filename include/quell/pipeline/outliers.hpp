// SPDX-License-Identifier: Apache-2.0
#pragma once

// How heavy the tails of a model are: one line per weight and per distinct input of linear layers.

#include <cstdint>
#include <string>
#include <vector>

#include "quell/calib/corpus.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/io/json.hpp"
#include "quell/model/model.hpp"
#include "quell/pipeline/observer.hpp"

namespace quell::pipeline {

/// Magnitudes of one tensor. `rows` are tokens for activations, output channels for weights.
struct TensorOutliers {
  enum class Kind { weight, activation };
  std::string name;  // module, or "layers.3.down_in", or "layers.3.residual"
  Kind kind = Kind::weight;
  std::size_t rows = 0, cols = 0;
  double excess_kurtosis = 0;  // m4 / m2^2 - 3: 0 for a normal, -1.2 for a uniform distribution
  float absmax = 0;            // max |x|
  double mean_abs = 0;         // mean |x|
  float median_abs = 0;        // median |x|: element floor(n / 2) in ascending order
  double channel_ratio = 0;    // largest per-channel max |x| over the median of those maxima
  std::size_t argmax_row = 0, argmax_col = 0;  // of max |x|
  std::uint64_t nonfinite = 0;                 // elements left out of everything above

  double max_to_mean() const { return mean_abs > 0 ? static_cast<double>(absmax) / mean_abs : 0; }
  double max_to_median() const {
    return median_abs > 0 ? static_cast<double>(absmax) / static_cast<double>(median_abs) : 0;
  }
  io::Json to_json() const;
};

/// The statistics above of any matrix.
Result<TensorOutliers> measure(MatrixView<const float> x, Executor& executor);

/// All linear layers of the model.
Result<std::vector<TensorOutliers>> measure_weights(const model::Model& model, Executor& executor,
                                                    Observer& observer);

/// All inputs of linear layers and the residual stream after every block (and after the embedding),
/// over the first chunk of the corpus (at most 2,048 tokens: a median wants all values at once).
Result<std::vector<TensorOutliers>> measure_activations(const model::Model& model,
                                                        const calib::Corpus& corpus,
                                                        Executor& executor, Observer& observer);

}  // namespace quell::pipeline
