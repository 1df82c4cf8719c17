// SPDX-License-Identifier: Apache-2.0
#pragma once

// The one hook through which the engine shows intermediate tensors.

#include <cstdint>
#include <span>

#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/model/model.hpp"

namespace quell::engine {

class Tap {
 public:
  virtual ~Tap() = default;
  /// The input of the linears at `site` of block `layer`: [T, IC], the rows of several whole
  /// sequences one after the other, in the order they were fed. Rows may be further apart than IC.
  /// Called from the calling thread, once for every group of sequences.
  virtual Status input(std::uint32_t layer, model::Site site, MatrixView<const float> x) = 0;
  /// The residual stream after the block (layer = -1: after the embedding).
  virtual Status residual(std::int32_t /*layer*/, MatrixView<const float> /*x*/) { return ok(); }
};

}  // namespace quell::engine
