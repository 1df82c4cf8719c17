// SPDX-License-Identifier: Apache-2.0
#pragma once

// Tables of rotary positions: cosine and sine of position * theta_t, [positions, R / 2], worked out
// in double and rounded once.

#include <cstdint>
#include <optional>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/model/config.hpp"

namespace quell::engine {

/// theta_t for t < R / 2, with the scaling applied, for a sequence of `length` tokens (only the
/// scalings dynamic and longrope look at it).
std::vector<double> rope_frequencies(const model::Rope& rope, std::uint32_t length);

/// True if the same position rotates differently in longer sequences.
bool rope_depends_on_length(const model::Rope& rope) noexcept;

class RopeTables {
 public:
  explicit RopeTables(const model::Rope& rope) : rope_(&rope) {}

  /// Makes the tables those of a sequence of `length` tokens, for positions 0 to length - 1.
  Status prepare(std::uint32_t length);
  MatrixView<const float> cosine(std::size_t first, std::size_t count) const {
    return cosine_.view().rows_from(first, count);
  }
  MatrixView<const float> sine(std::size_t first, std::size_t count) const {
    return sine_.view().rows_from(first, count);
  }

 private:
  /// Lengths with the same key share their tables.
  std::uint32_t key(std::uint32_t length) const noexcept;

  const model::Rope* rope_;
  std::optional<std::uint32_t> key_;
  Matrix cosine_, sine_;
};

}  // namespace quell::engine
