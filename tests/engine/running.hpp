// SPDX-License-Identifier: Apache-2.0
#pragma once

// Running a model folder in a test.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "quell/engine/perplexity.hpp"
#include "support/files.hpp"

namespace quell::test {

/// Logits [T, V] of whole sequences.
inline Result<Matrix> run_logits(engine::Engine& engine, std::span<const std::int32_t> ids,
                                 std::span<const std::uint32_t> lengths) {
  QUELL_TRY(x, engine::hidden_states(engine, ids, lengths));
  QUELL_TRY(out, Matrix::uninitialized(ids.size(), engine.model().config().vocabulary));
  QUELL_TRY(engine.logits(x.view(), out.view()));
  return out;
}

inline Result<Matrix> run_logits(const std::filesystem::path& folder,
                                 std::span<const std::int32_t> ids, Executor& executor) {
  QUELL_TRY(model, model::Model::load(folder));
  QUELL_TRY(engine, engine::Engine::create(model, executor));
  const std::uint32_t length = static_cast<std::uint32_t>(ids.size());
  return run_logits(engine, ids, {&length, 1});
}

/// Values of a version 1 .npy file of little-endian float32 in C order, as the shared models have.
inline std::vector<float> read_npy_floats(const std::filesystem::path& path) {
  const std::string bytes = read_bytes(path);
  const std::size_t header =
      10 + static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
  std::vector<float> values((bytes.size() - header) / sizeof(float));
  std::memcpy(values.data(), bytes.data() + header, values.size() * sizeof(float));
  return values;
}

inline float largest(std::span<const float> values) {
  float max = 0;
  for (const float value : values) max = std::max(max, std::fabs(value));
  return max;
}
inline float largest_difference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  float max = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const float difference = std::fabs(a[i] - b[i]);
    max = std::isnan(difference) ? INFINITY : std::max(max, difference);
  }
  return max;
}

}  // namespace quell::test
