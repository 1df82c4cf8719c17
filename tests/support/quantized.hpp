// SPDX-License-Identifier: Apache-2.0
#pragma once

// Quantized weights of any grid, made of random codes; functions of sizes and a seed.

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "quell/core/bits.hpp"
#include "quell/core/half.hpp"
#include "quell/core/random.hpp"
#include "quell/grid/quantized.hpp"

namespace quell::test {

/// Scales between 0.01 and 0.09, rounded to the grid's type; codes and zeros are uniform.
inline QuantizedTensor random_quantized(const GridSpec& grid, std::size_t rows, std::size_t cols,
                                        std::uint64_t seed) {
  std::uint64_t state = seed * 2 + 1;
  const auto next = [&](std::uint64_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint8_t>((state >> 33) % below);
  };
  const CodeRange range = code_range(grid);
  const auto codes_in_range = static_cast<std::uint64_t>(range.highest - range.lowest) + 1;
  const unsigned code_bits = bits(grid.format);
  const std::size_t row_bytes = packed_size(cols, code_bits);
  std::vector<std::uint8_t> codes(cols), packed(rows * row_bytes);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::uint8_t& code : codes) {
      code = static_cast<std::uint8_t>(range.lowest + next(codes_in_range));
    }
    pack_codes(codes, code_bits, {packed.data() + r * row_bytes, row_bytes});
  }
  const GroupLayout layout = group_layout(grid, rows, cols);
  GroupParameters parameters;
  parameters.rows = layout.rows;
  parameters.cols = layout.cols;
  for (std::size_t i = 0; i < layout.rows * layout.cols; ++i) {
    const float scale = 0.01f + 0.08f * static_cast<float>(next(200)) / 200.0f;
    parameters.scales.push_back(round_scale(scale, grid.scale_type));
    if (!grid.symmetric) parameters.zeros.push_back(next(range.highest + std::uint64_t{1}));
  }
  if (grid.two_level) {
    parameters.row_scales.assign(
        parameters.scales.begin(),
        parameters.scales.begin() + static_cast<std::ptrdiff_t>(layout.rows));
    for (std::size_t i = 0; i < layout.rows * layout.cols; ++i) {
      parameters.integers.push_back(static_cast<std::uint8_t>(1 + next(kHighestGroupInteger)));
    }
    multiply_levels(parameters);
  }
  return *QuantizedTensor::create(grid, rows, cols, std::move(packed), std::move(parameters));
}

/// The same with kept columns, whose values are some thirty times the others. The format has a
/// zero.
inline QuantizedTensor random_keeping(const GridSpec& grid, std::size_t rows, std::size_t cols,
                                      std::span<const std::uint32_t> columns, std::uint64_t seed) {
  const QuantizedTensor random = random_quantized(grid, rows, cols, seed);
  const GroupLayout layout = group_layout(grid, rows, cols);
  const unsigned code_bits = bits(grid.format);
  std::vector<std::uint8_t> codes(cols), packed(rows * random.row_bytes());
  KeptColumns kept;
  kept.columns.assign(columns.begin(), columns.end());
  std::vector<float> values(rows * columns.size());
  Random(seed).fill_normal(values);
  for (const float value : values) kept.values.push_back(float_to_f16(30 * value));
  for (std::size_t r = 0; r < rows; ++r) {
    random.unpack_row(r, codes);
    for (const std::uint32_t col : columns) {
      const int zero = grid.symmetric ? symmetric_zero(grid.format)
                                      : random.parameters().zeros[layout.index(r, col)];
      codes[col] = 0;
      while (code_level(grid.format, codes[col], zero) != 0) ++codes[col];
    }
    pack_codes(codes, code_bits, {packed.data() + r * random.row_bytes(), random.row_bytes()});
  }
  auto tensor = QuantizedTensor::create(grid, rows, cols, std::move(packed), random.parameters());
  return *(*std::move(tensor)).keeping(std::move(kept));
}

}  // namespace quell::test
