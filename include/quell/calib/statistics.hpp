// SPDX-License-Identifier: Apache-2.0
#pragma once

// What calibration keeps of the inputs of linear layers: one second-moment matrix and one profile
// per *distinct* input (q, k and v share one, gate and up share one), as sums over tokens, so that
// parts made on different machines add up.

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/kernels/context.hpp"
#include "quell/model/model.hpp"

namespace quell::calib {

/// Sums over the tokens seen by one input. Channels are the IC of the layers that read it.
struct SiteStatistics {
  std::uint64_t tokens = 0;
  /// Lower triangle (column <= row) of the sum of x x^T; the rest is zero. [IC, IC], or empty where
  /// no method needs it.
  Matrix64 moment;
  std::vector<double> sum, sum_squares, sum_abs;  // per channel
  std::vector<float> max_abs;                     // per channel

  /// Adds the rows of x [T, IC]: their products in float32 as one chunk, the chunks in double.
  /// Error: numeric (a non-finite activation, with its channel), resource.
  Status add(MatrixView<const float> x, bool with_moment, kernels::Context& context);
  /// Adds another part of the same input.
  Status merge(const SiteStatistics& other);
  /// Mean of x x^T over tokens, both triangles, as float32.
  Result<Matrix> mean_moment() const;
};

using SiteKey = std::pair<std::uint32_t, model::Site>;  // (layer, site)

/// All inputs of a model, and what they were made from.
struct Statistics {
  std::map<SiteKey, SiteStatistics> sites;
  std::string model_fingerprint;
  std::string corpus_fingerprint;  // of the whole corpus, also in a part
  std::uint32_t part = 1, parts = 1;
  std::vector<std::uint32_t> merged_parts;  // parts inside, ascending
  std::uint64_t tokens_fed = 0;

  std::uint64_t bytes() const noexcept;
};

/// SHA-256 over names, types, shapes and a sample of the weights: the model a file belongs to.
Result<std::string> model_fingerprint(const model::Model& model);

/// Statistics files are safetensors with a schema version, F64 sums and the fields above as
/// metadata.
Status write_statistics(const std::filesystem::path& path, const Statistics& statistics);
/// Errors: parse (damage, a newer schema, NaN, counts that do not match), unsupported.
Result<Statistics> read_statistics(const std::filesystem::path& path);
/// Adds up the parts of one corpus. The order of `parts` does not matter: they are added by number.
/// Double sums of float32 chunk sums are exact unless chunks differ by more than 2^29 in magnitude,
/// so the result has the bits of a single run on all but such inputs. Errors: usage (parts of
/// different models or corpora, a part given twice, a part missing).
Result<Statistics> merge_statistics(std::vector<Statistics> parts);

}  // namespace quell::calib
