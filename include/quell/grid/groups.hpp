// SPDX-License-Identifier: Apache-2.0
#pragma once

// Where the groups of a weight [OC, IC] lie, and where their scales are stored.

#include <algorithm>
#include <cstddef>

#include "quell/core/checked.hpp"
#include "quell/grid/spec.hpp"

namespace quell {

/// The array of group parameters is [rows, cols]: [OC, groups] or [groups, IC].
struct GroupLayout {
  Channel per = Channel::output;
  std::size_t length = 0;  // elements of a full group, at most the run; the last may be shorter
  std::size_t rows = 0;
  std::size_t cols = 0;

  /// Index of the scale of element (row, col) of the weight.
  constexpr std::size_t index(std::size_t row, std::size_t col) const noexcept {
    return per == Channel::output ? row * cols + col / length : row / length * cols + col;
  }
};

/// For a weight of `rows` x `cols`, both above 0. A group of 0 or longer than the run is the run.
constexpr GroupLayout group_layout(const GridSpec& grid, std::size_t rows,
                                   std::size_t cols) noexcept {
  const std::size_t run = grid.per == Channel::output ? cols : rows;
  GroupLayout layout;
  layout.per = grid.per;
  layout.length = grid.group == 0 ? run : std::min<std::size_t>(grid.group, run);
  const auto groups = static_cast<std::size_t>(ceil_divide(run, layout.length));
  layout.rows = grid.per == Channel::output ? rows : groups;
  layout.cols = grid.per == Channel::output ? groups : cols;
  return layout;
}

}  // namespace quell
