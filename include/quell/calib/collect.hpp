// SPDX-License-Identifier: Apache-2.0
#pragma once

// Runs text through a model and collects statistics of the inputs of its linear layers.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "quell/calib/corpus.hpp"
#include "quell/calib/statistics.hpp"
#include "quell/core/result.hpp"
#include "quell/engine/engine.hpp"

namespace quell::calib {

/// Hidden states of all sequences of a corpus, carried from block to block. In memory up to a
/// limit, else in an unnamed temporary file; the values are the same either way.
class HiddenStates {
 public:
  /// `spill_folder`: where the temporary file goes when tokens * hidden * 4 bytes exceed
  /// `memory_limit`.
  static Result<HiddenStates> create(std::size_t tokens, std::size_t hidden,
                                     std::uint64_t memory_limit,
                                     const std::filesystem::path& spill_folder);
  HiddenStates(HiddenStates&&) noexcept;
  HiddenStates& operator=(HiddenStates&&) noexcept;
  ~HiddenStates();

  /// Rows [first, first + x.rows()) copied out or in.
  Status load(std::size_t first, MatrixView<float> x) const;
  Status store(std::size_t first, MatrixView<const float> x);
  bool in_memory() const noexcept { return file_ < 0; }

 private:
  HiddenStates() = default;
  Matrix memory_;
  std::size_t hidden_ = 0;
  int file_ = -1;
};

/// What to keep at a site; asked once per site and block.
struct SiteWish {
  bool profile = false;  // per-channel sums
  bool moment = false;   // the second moment too
  bool drift = false;    // and how far it is from the original's (StagedWalk)
};
using WishFunction = std::function<SiteWish(std::uint32_t layer, model::Site site)>;

/// A walk of a corpus through the blocks of a model, one block at a time.
class Walk {
 public:
  static Result<Walk> begin(engine::Engine& engine, const Corpus& corpus,
                            std::uint64_t hidden_limit, const std::filesystem::path& spill_folder);

  /// Runs the next block's statistics pass: states stay as they are, inputs of its linears are
  /// collected. Error: verification if a site saw other than the tokens that were fed.
  Result<std::map<model::Site, SiteStatistics>> collect(const engine::BlockWeights& weights,
                                                        const WishFunction& wish);
  /// Runs the block and moves on: states become its output. A tap sees chunk after chunk.
  Status advance(const engine::BlockWeights& weights, engine::Tap* tap = nullptr);
  /// Shows the states as they are, chunk after chunk, as the residual stream after block `layer`.
  Status show(std::int32_t layer, engine::Tap& tap);
  /// Both at once, for statistics of the model as it is.
  Result<std::map<model::Site, SiteStatistics>> collect_and_advance(
      const engine::BlockWeights& weights, const WishFunction& wish);

  std::size_t tokens() const noexcept { return corpus_->ids.size(); }

 private:
  Walk(engine::Engine& engine, const Corpus& corpus, HiddenStates states, Matrix buffer);
  Status pass(const engine::BlockWeights& weights, engine::Tap* tap, bool keep);

  engine::Engine* engine_;
  const Corpus* corpus_;
  std::vector<Chunk> chunks_;
  HiddenStates states_;
  Matrix buffer_;
};

}  // namespace quell::calib
