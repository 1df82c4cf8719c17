// SPDX-License-Identifier: Apache-2.0
#pragma once

// Attention sinks: keys that collect a large share of all attention (Xiao et al., "Efficient
// Streaming Language Models with Attention Sinks", ICLR 2024). The share is over the queries that
// can see the key, since a late key of a decoder is seen by few.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quell/core/panic.hpp"
#include "quell/core/view.hpp"

namespace quell::attention {

struct SinkRule {
  double mass = 0.1;  // at least this share, mean over heads and queries
  /// Queries that must be counted: keys with fewer get much attention for want of others. Without
  /// it, the last tokens before the end of a text are sinks in models that have none.
  std::uint32_t queries = 64;
};

struct Sink {
  std::size_t position = 0;
  double mass = 0;  // mean over heads and queries
};

/// The sinks of one sequence in one block, by position. mass [heads, T]: probabilities of each key,
/// summed over queries[T] queries.
inline std::vector<Sink> find_sinks(MatrixView<const double> mass,
                                    std::span<const std::uint32_t> queries,
                                    const SinkRule& rule = {}) {
  QUELL_ASSERT(mass.cols() == queries.size());
  std::vector<Sink> sinks;
  for (std::size_t key = 0; key < queries.size(); ++key) {
    if (queries[key] == 0 || queries[key] < rule.queries) continue;
    double sum = 0;
    for (std::size_t h = 0; h < mass.rows(); ++h) sum += mass(h, key);
    const double share = sum / (static_cast<double>(mass.rows()) * queries[key]);
    if (share >= rule.mass) sinks.push_back({key, share});
  }
  return sinks;
}

}  // namespace quell::attention
