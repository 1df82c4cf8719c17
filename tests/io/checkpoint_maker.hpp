// SPDX-License-Identifier: Apache-2.0
#pragma once

// Small checkpoints with quantized weights: random ones on any grid, written with a layout or by
// hand.

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "quell/core/bits.hpp"
#include "quell/grid/formats.hpp"
#include "quell/grid/groups.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/io/export.hpp"
#include "quell/io/safetensors.hpp"
#include "support/files.hpp"

namespace quell::test {

/// The low bits of a linear congruential generator are poor; these are the high ones.
class Numbers {
 public:
  explicit Numbers(std::uint32_t seed) : state_(seed) {}
  std::uint32_t below(std::uint32_t limit) {
    state_ = state_ * 1664525 + 1013904223;
    return static_cast<std::uint32_t>((std::uint64_t{state_} * limit) >> 32);
  }

 private:
  std::uint32_t state_;
};

/// Random codes over the whole range of the grid, scales of both signs where the grid allows them.
inline QuantizedTensor random_quantized(const GridSpec& grid, std::size_t rows, std::size_t cols,
                                        std::uint32_t seed = 1) {
  Numbers numbers(seed);
  const FormatInfo& format = info(grid.format);
  const unsigned width = format.bits;
  const std::uint32_t lowest =
      grid.symmetric ? static_cast<std::uint32_t>(format.lowest + (1 << (width - 1))) : 0;
  const std::size_t row_bytes = packed_size(cols, width);
  std::vector<std::uint8_t> packed(rows * row_bytes);
  std::vector<std::uint8_t> codes(cols);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::uint8_t& code : codes) {
      code = static_cast<std::uint8_t>(lowest + numbers.below((1U << width) - lowest));
    }
    pack_codes(codes, width, std::span(packed).subspan(row * row_bytes, row_bytes));
  }
  const GroupLayout layout = group_layout(grid, rows, cols);
  GroupParameters parameters;
  parameters.rows = layout.rows;
  parameters.cols = layout.cols;
  if (grid.two_level) {
    for (std::size_t i = 0; i < layout.rows; ++i) {
      const float size = static_cast<float>(1 + numbers.below(1000)) / 4096.0F;
      parameters.row_scales.push_back(round_scale(size, grid.scale_type));
    }
    for (std::size_t i = 0; i < layout.rows * layout.cols; ++i) {
      parameters.integers.push_back(
          static_cast<std::uint8_t>(1 + numbers.below(kHighestGroupInteger)));
    }
    multiply_levels(parameters);
  }
  for (std::size_t i = parameters.scales.size(); i < layout.rows * layout.cols; ++i) {
    const float size = static_cast<float>(1 + numbers.below(1000)) / 4096.0F;
    // Grids without the lowest code keep their scales positive.
    const bool negative = grid.symmetric && lowest == 0 && numbers.below(4) == 0;
    parameters.scales.push_back(round_scale(negative ? -size : size, grid.scale_type));
    if (!grid.symmetric) {
      parameters.zeros.push_back(static_cast<std::uint8_t>(numbers.below(1U << width)));
    }
  }
  auto tensor = QuantizedTensor::create(grid, rows, cols, std::move(packed), std::move(parameters));
  EXPECT_TRUE(tensor.has_value()) << tensor.error().message;
  return tensor ? *std::move(tensor) : QuantizedTensor();
}

inline void expect_equal(const QuantizedTensor& a, const QuantizedTensor& b,
                         const std::string& what) {
  EXPECT_EQ(to_string(a.grid()), to_string(b.grid())) << what;
  ASSERT_EQ(a.rows(), b.rows()) << what;
  ASSERT_EQ(a.cols(), b.cols()) << what;
  EXPECT_TRUE(std::equal(a.packed_codes().begin(), a.packed_codes().end(), b.packed_codes().begin(),
                         b.packed_codes().end()))
      << what;
  EXPECT_EQ(a.parameters().scales, b.parameters().scales) << what;
  EXPECT_EQ(a.parameters().zeros, b.parameters().zeros) << what;
  EXPECT_EQ(a.parameters().row_scales, b.parameters().row_scales) << what;
  EXPECT_EQ(a.parameters().integers, b.parameters().integers) << what;
  EXPECT_TRUE(a.kept() == b.kept()) << what;
}

struct HandTensor {
  std::string name;
  DType dtype;
  std::vector<std::uint64_t> shape;
  std::vector<std::byte> bytes;
};

/// Little-endian bytes of integers of any size.
template <typename T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> bytes;
  for (const T value : values) {
    for (std::size_t b = 0; b < sizeof(T); ++b) {
      bytes.push_back(static_cast<std::byte>((static_cast<std::uint64_t>(value) >> (8 * b)) & 255));
    }
  }
  return bytes;
}

/// Writes model.safetensors and opens it.
inline io::Checkpoint make_checkpoint(const std::filesystem::path& folder,
                                      const std::vector<HandTensor>& tensors) {
  std::filesystem::create_directories(folder);
  std::vector<io::TensorPlan> planned;
  for (const HandTensor& tensor : tensors) {
    planned.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  const auto plan = io::plan_folder(std::move(planned), std::uint64_t{1} << 40, {});
  EXPECT_TRUE(plan.has_value()) << plan.error().message;
  std::string file(plan->shards.at(0).bytes, '\0');
  std::copy(plan->shards[0].header.begin(), plan->shards[0].header.end(), file.begin());
  for (const io::TensorPlan& place : plan->tensors) {
    for (const HandTensor& tensor : tensors) {
      if (tensor.name != place.name) continue;
      EXPECT_EQ(tensor.bytes.size(), place.bytes) << tensor.name;
      std::memcpy(file.data() + place.offset, tensor.bytes.data(), place.bytes);
    }
  }
  write_bytes(folder / plan->shards[0].file_name, file);
  auto checkpoint = io::Checkpoint::open(folder);
  EXPECT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  return *std::move(checkpoint);
}

/// The tensors that a layout writes for a weight.
inline std::vector<HandTensor> encoded(const io::ExportLayout& layout, const std::string& name,
                                       const QuantizedTensor& weight) {
  const io::ModulePlan module{name, weight.grid(), weight.rows(), weight.cols()};
  EXPECT_EQ(layout.refuse(module), "");
  const auto plan = layout.tensors(module);
  auto bytes = layout.encode(weight);
  EXPECT_TRUE(bytes.has_value()) << bytes.error().message;
  EXPECT_EQ(bytes->size(), plan.size());
  std::vector<HandTensor> tensors;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    tensors.push_back({plan[i].name, plan[i].dtype, plan[i].shape, std::move((*bytes)[i])});
  }
  return tensors;
}

}  // namespace quell::test
