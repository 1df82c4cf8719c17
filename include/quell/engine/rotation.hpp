// SPDX-License-Identifier: Apache-2.0
#pragma once

// Rotation: the orthogonal matrix R = D H that the input of a layer may be multiplied with, block
// after block, before its product: D random signs, H an orthonormal Hadamard matrix (QuaRot,
// Ashkboos and others 2024). As x W^T = (x R) (W R)^T, a layer of the weight W R computes what it
// did, but an outlier in one channel of x is spread over its whole block, and the numbers that are
// left are easy to round. Without the signs a constant channel would stay a single value.
//
// Sign c of seed s is negative where the lowest bit of the first word of Random(s) at index c is
// set (core/random.hpp), so that a file needs to hold the seed alone.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/kernels/context.hpp"
#include "quell/kernels/hadamard.hpp"

namespace quell::engine {

class Rotation {
 public:
  /// What blocks are unless their length is given: as long as the groups of scales, and what a
  /// kernel does in registers.
  static constexpr std::size_t kBlock = 128;
  /// kBlock where it divides the channels, else the longest block that divides them and has a
  /// transform.
  static std::size_t block_of(std::size_t channels);

  /// Errors: shape (a block without a transform, or one that does not divide the channels).
  static Result<Rotation> create(std::size_t channels, std::size_t block, std::uint64_t seed);

  std::size_t block() const noexcept { return hadamard_.size(); }
  /// Rows of x [T, channels] become x R. Errors: shape, resource.
  Status apply(MatrixView<float> x, kernels::Context& context) const;
  /// A mean of x y^T becomes that of (x R) (y R)^T: M [channels, channels] becomes R^T M R. The
  /// result of a symmetric M is symmetric, and its diagonal is not negative. Errors: shape,
  /// resource.
  Status apply_to_moment(MatrixView<float> moment, bool symmetric, kernels::Context& context) const;

 private:
  Rotation(kernels::Hadamard hadamard, std::vector<float> signs)
      : hadamard_(std::move(hadamard)), signs_(std::move(signs)) {}

  kernels::Hadamard hadamard_;
  std::vector<float> signs_;  // 1 or -1 for each channel
};

}  // namespace quell::engine
