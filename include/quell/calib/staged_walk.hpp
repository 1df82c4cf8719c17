// SPDX-License-Identifier: Apache-2.0
#pragma once

// A walk that stops inside every block, before each group of linears that share an input. What is
// solved there is solved for inputs behind everything quantized so far, the same block included,
// and for what the model lost until then: a second stream of states is that of the model before
// anything was quantized. Against a walk that stops between blocks alone (collect.hpp) this took a
// fifth off the KL divergence of models of one million parameters, and it passes each product of
// the attention once instead of twice.

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "quell/calib/collect.hpp"

namespace quell::calib {

/// The original is walked on whole chunks, evenly spread, of about so many tokens. Its pass
/// costs as much as the other one; drifts are smooth (corrected with a ridge), moments are not.
inline constexpr std::size_t kDriftTokens = 65'536;

class StagedWalk {
 public:
  static Result<StagedWalk> begin(engine::Engine& engine, const Corpus& corpus,
                                  std::uint64_t hidden_limit,
                                  const std::filesystem::path& spill_folder,
                                  std::size_t drift_tokens = kDriftTokens);

  /// What collect needs loaded, of the block as it now is and of the original, at each site.
  static std::span<const model::Site> now_reads(model::Site site);
  static std::span<const model::Site> original_reads(model::Site site);

  /// Where the drift is that of the residual stream with the float layer's output added, [OC, IC]:
  /// what the layer would have to add besides for the stream to be the original's. Elsewhere it is
  /// that of the inputs, [IC, IC], which several layers read.
  static bool drifts_at_output(model::Site site) {
    return site == model::Site::o_in || site == model::Site::down_in;
  }
  /// The statistics of one input; sites of a block in their order, each once, then finish().
  /// Errors: numeric, resource.
  Result<SiteStatistics> collect(model::Site site, const engine::BlockWeights& now,
                                 const engine::BlockWeights& original, SiteWish wish);
  /// Leaves a block: `now` has gate_up and down.
  Status finish(const engine::BlockWeights& now);
  /// Pass a whole block of which nothing is wanted; both, in any order.
  Status advance_now(const engine::BlockWeights& now);
  Status advance_original(const engine::BlockWeights& original);

  std::size_t tokens() const noexcept { return corpus_->ids.size(); }
  std::size_t original_tokens() const noexcept { return original_tokens_; }

 private:
  struct Part {  // a chunk
    Chunk chunk;
    bool walks_original = false;
    std::size_t first_original = 0;  // row of the original's states
  };

  StagedWalk(engine::Engine& engine, const Corpus& corpus, HiddenStates now, HiddenStates heads,
             HiddenStates original)
      : engine_(&engine),
        corpus_(&corpus),
        now_(std::move(now)),
        heads_(std::move(heads)),
        original_(std::move(original)) {}

  std::span<const std::uint32_t> lengths(const Part& part) const;
  Status pass_original(model::Site site, const Part& part, const engine::BlockWeights& original);
  Result<MatrixView<const float>> pass_now(model::Site site, const Part& part,
                                           const engine::BlockWeights& now, MatrixView<float> x);

  engine::Engine* engine_;
  const Corpus* corpus_;
  std::vector<Part> parts_;
  std::size_t original_tokens_ = 0;
  // States [T, hidden] at the start of a block, from mlp_in on behind its attention; the input of o
  // in between, [T, heads * head_dim].
  HiddenStates now_, heads_, original_;
  // Of one chunk: states; the original's side of the drift, [T, hidden]; what o reads.
  Matrix x_, before_, attended_;
};

}  // namespace quell::calib
