// SPDX-License-Identifier: Apache-2.0
#pragma once

// How a long text goes through a model: in parts of whole sequences whose hidden states fit in
// memory, each part through all blocks before the next one starts.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quell/engine/perplexity.hpp"

namespace quell::engine {

/// The consecutive sequences that are worked on together.
struct Part {
  std::size_t first_sequence = 0, sequences = 0;
  std::size_t first_token = 0, tokens = 0;
};
/// A sequence that alone exceeds `hidden_bytes` is a part of its own.
std::vector<Part> cut(std::span<const std::uint32_t> lengths, std::size_t hidden,
                      std::uint64_t hidden_bytes);

/// Lengths that a caller made up wrongly would index past the ids. Error: shape.
Status check_total(std::span<const std::int32_t> ids, std::span<const std::uint32_t> lengths);

/// Work done, as ScoreOptions::progress wants to hear it.
class Progress {
 public:
  Progress(const ScoreOptions& options, std::uint64_t total) : options_(options), total_(total) {}
  void add(std::uint64_t work) {
    done_ += work;
    if (options_.progress) options_.progress(done_, total_);
  }

 private:
  const ScoreOptions& options_;
  std::uint64_t total_, done_ = 0;
};

/// Hidden states [T, hidden] behind the last block; adds T to `progress`, if any, after each block.
Result<Matrix> run_blocks(Engine& engine, std::span<const std::int32_t> ids,
                          std::span<const std::uint32_t> lengths, WeightSource* source, Tap* tap,
                          Progress* progress);

}  // namespace quell::engine
