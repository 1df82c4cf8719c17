// SPDX-License-Identifier: Apache-2.0

#include "quell/engine/rotation.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "quell/core/random.hpp"

namespace quell::engine {

std::size_t Rotation::block_of(std::size_t channels) {
  if (channels % kBlock == 0) return kBlock;
  for (std::size_t parts = 1; parts < channels; ++parts) {
    if (channels % parts != 0) continue;
    if (kernels::hadamard_supported(channels / parts)) return channels / parts;
  }
  return 1;
}

Result<Rotation> Rotation::create(std::size_t channels, std::size_t block, std::uint64_t seed) {
  if (block == 0 || channels % block != 0) {
    return Error{ErrorCode::shape, "blocks of " + std::to_string(block) + " do not divide the " +
                                       std::to_string(channels) + " channels to be rotated"};
  }
  QUELL_TRY(hadamard, kernels::Hadamard::of_size(block));
  const Random random(seed);
  std::vector<float> signs(channels);
  for (std::size_t c = 0; c < channels; ++c) {
    signs[c] = (random.words(c)[0] & 1u) != 0 ? -1.0F : 1.0F;
  }
  return Rotation(std::move(hadamard), std::move(signs));
}

Status Rotation::apply(MatrixView<float> x, kernels::Context& context) const {
  if (x.cols() != signs_.size()) {
    return Error{ErrorCode::shape, "rows of " + std::to_string(x.cols()) +
                                       " values given to a rotation of " +
                                       std::to_string(signs_.size())};
  }
  context.executor().run(x.rows(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t t = begin; t < end; ++t) {
      float* const row = x.row(t).data();
      for (std::size_t c = 0; c < signs_.size(); ++c) row[c] *= signs_[c];
    }
  });
  return hadamard_.apply(x, context);
}

Status Rotation::apply_to_moment(MatrixView<float> moment, bool symmetric,
                                 kernels::Context& context) const {
  const std::size_t n = moment.rows();
  for (int side = 0; side < 2; ++side) {
    QUELL_TRY(apply(moment, context));
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < i; ++j) std::swap(moment(i, j), moment(j, i));
    }
  }
  if (!symmetric) return ok();
  // Rounding differs between the triangles.
  for (std::size_t i = 0; i < n; ++i) {
    moment(i, i) = std::max(moment(i, i), 0.0F);
    for (std::size_t j = 0; j < i; ++j) moment(j, i) = moment(i, j);
  }
  return ok();
}

}  // namespace quell::engine
