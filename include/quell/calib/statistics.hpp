// SPDX-License-Identifier: Apache-2.0
#pragma once

// What calibration keeps of the inputs of linear layers: one second-moment matrix and one profile
// per *distinct* input (q, k and v share one, gate and up share one), as sums over tokens, so that
// parts made on different machines add up.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/engine/precision.hpp"
#include "quell/io/safetensors.hpp"
#include "quell/kernels/context.hpp"
#include "quell/model/model.hpp"

namespace quell::calib {

/// Sums over the tokens seen by one input. Channels are the IC of the layers that read it.
struct SiteStatistics {
  std::uint64_t tokens = 0;
  /// Lower triangle (column <= row) of the sum of x x^T; the rest is zero. [IC, IC], or empty where
  /// no method needs it.
  Matrix64 moment;
  /// Sum of (z_original - z) x^T over `drift_tokens` of the tokens, where z is a vector of this
  /// model and z_original the same one of the model that is not quantized: x itself, [IC, IC], or
  /// what the layer adds to, [OC, IC]. Empty where no method needs it. Never written to a file: it
  /// belongs to one run.
  Matrix64 drift;
  std::uint64_t drift_tokens = 0;
  std::vector<double> sum, sum_squares, sum_abs;  // per channel
  std::vector<float> max_abs;                     // per channel
  /// What each channel has in the peaks that set the scales of tokens (calib/peaks.hpp); empty if
  /// read from a file of before it was recorded.
  std::vector<double> peaks;

  /// Adds the rows of x [T, IC]: their products in float32 as one chunk, the chunks in double.
  /// Error: numeric (a non-finite activation, with its channel), resource.
  Status add(MatrixView<const float> x, bool with_moment, kernels::Context& context);
  /// Adds to the drift, for rows that add() saw as x. `original` [T, N] becomes its difference to
  /// `now`. Errors: shape; numeric (a non-finite original activation, with its channel); resource.
  Status add_drift(MatrixView<float> original, MatrixView<const float> now,
                   MatrixView<const float> x, kernels::Context& context);
  /// Adds another part of the same input.
  Status merge(const SiteStatistics& other);
  /// Mean of x x^T over tokens, both triangles, as float32.
  Result<Matrix> mean_moment() const;
  /// Mean of (z_original - z) x^T, as float32.
  Result<Matrix> mean_drift() const;
};

using SiteKey = std::pair<std::uint32_t, model::Site>;  // (layer, site)

/// What statistics were made from, and of which inputs.
struct StatisticsInfo {
  std::map<SiteKey, std::uint64_t> channels;  // IC of each input
  std::string model_fingerprint;
  std::string corpus_fingerprint;           // of the whole corpus, also in a part
  std::uint32_t parts = 1;                  // into which the corpus was cut
  std::vector<std::uint32_t> merged_parts;  // parts inside, ascending, from 1
  std::uint64_t tokens_fed = 0;
  engine::Precision precision = engine::Precision::f32;  // what the model computed in
  bool peaks = true;  // false: a file of before SiteStatistics::peaks were recorded
};

/// SHA-256 over names, types, shapes and a sample of the weights: the model a file belongs to.
Result<std::string> model_fingerprint(const model::Model& model);

/// A statistics file: safetensors with a schema version, F64 sums, and the fields of StatisticsInfo
/// as metadata. Inputs are read one at a time, since a model's moments together may be larger than
/// the model.
class StatisticsFile {
 public:
  /// Reads and checks all but the sums. Errors: missing, parse, unsupported (a newer schema).
  static Result<StatisticsFile> open(const std::filesystem::path& path);

  const std::string& path() const noexcept { return path_; }
  const StatisticsInfo& info() const noexcept { return info_; }
  /// One input. Errors: parse (damage: not finite, moment and channel sums that disagree),
  /// resource.
  Result<SiteStatistics> read(const SiteKey& key) const;
  /// Reads every input once, so that damage shows before work begins.
  Status check() const;

 private:
  StatisticsFile(std::string path, io::Checkpoint file)
      : path_(std::move(path)), file_(std::move(file)) {}
  Status read_header();

  std::string path_;
  io::Checkpoint file_;
  StatisticsInfo info_;
};

/// Writes a statistics file, input by input in any order. The file appears when it is complete.
class StatisticsWriter {
 public:
  /// Errors: resource.
  static Result<StatisticsWriter> create(const std::filesystem::path& path, StatisticsInfo info);
  StatisticsWriter(StatisticsWriter&&) noexcept;
  ~StatisticsWriter();

  /// Errors: numeric (tokens seen are not tokens fed), resource.
  Status add(const SiteKey& key, const SiteStatistics& site);
  /// All inputs of `info` have been added. Error: resource.
  Status commit();

 private:
  struct State;
  explicit StatisticsWriter(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

/// What merging these parts of one corpus gives. Errors: usage (parts of different models, corpora
/// or precisions, a part given twice, different inputs).
Result<StatisticsInfo> merged_info(std::span<const StatisticsInfo> parts);
/// Adds up the parts of one corpus into a file. The order of `parts` does not matter: they are
/// added by number. Double sums of float32 chunk sums are exact unless chunks differ by more than
/// 2^29 in magnitude, so the result has the bits of a single run on all but such inputs.
Result<StatisticsInfo> merge_statistics(std::vector<StatisticsFile> parts,
                                        const std::filesystem::path& path);

}  // namespace quell::calib
