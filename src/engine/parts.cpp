// SPDX-License-Identifier: Apache-2.0
#include "engine/parts.hpp"

#include <algorithm>
#include <string>

namespace quell::engine {

std::vector<Part> cut(std::span<const std::uint32_t> lengths, std::size_t hidden,
                      std::uint64_t hidden_bytes) {
  const std::uint64_t limit = std::max<std::uint64_t>(1, hidden_bytes / (hidden * sizeof(float)));
  std::vector<Part> parts;
  std::size_t token = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (parts.empty() || parts.back().tokens + lengths[i] > limit)
      parts.push_back({i, 0, token, 0});
    parts.back().sequences += 1;
    parts.back().tokens += lengths[i];
    token += lengths[i];
  }
  return parts;
}

Status check_total(std::span<const std::int32_t> ids, std::span<const std::uint32_t> lengths) {
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] == 0) {
      return Error{ErrorCode::shape,
                   "sequence " + std::to_string(i) + " is empty, expected at least one token"};
    }
    total += lengths[i];
  }
  if (total == ids.size()) return ok();
  return Error{ErrorCode::shape, std::to_string(ids.size()) + " ids, but the sequences add up to " +
                                     std::to_string(total)};
}

Result<Matrix> run_blocks(Engine& engine, std::span<const std::int32_t> ids,
                          std::span<const std::uint32_t> lengths, WeightSource* source, Tap* tap,
                          Progress* progress) {
  const model::ModelConfig& config = engine.model().config();
  QUELL_TRY(x, Matrix::uninitialized(ids.size(), config.hidden));
  QUELL_TRY(engine.embed(ids, lengths, x.view()));
  if (tap != nullptr) QUELL_TRY(tap->residual(-1, x.view()));
  for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
    QUELL_TRY(weights, engine.load_block(layer, source));
    QUELL_TRY(engine.run_block(weights, lengths, x.view(), tap));
    if (progress != nullptr) progress->add(ids.size());
  }
  return x;
}

}  // namespace quell::engine
