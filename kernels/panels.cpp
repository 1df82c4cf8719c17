// SPDX-License-Identifier: Apache-2.0

// Rearranging codes. Four-bit codes, eight at a time, spread over the bytes of a word by shifts and
// masks: no instruction set is needed for more than a billion codes a second.

#include "kernels/panels.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "quell/core/half.hpp"

namespace quell::kernels {
namespace {

/// Four codes of four bits, the first in the lowest, to the low halves of four bytes.
constexpr std::uint32_t spread(std::uint32_t codes) {
  codes = (codes | codes << 8) & 0x00FF'00FFu;
  return (codes | codes << 4) & 0x0F0F'0F0Fu;
}
static_assert(spread(0x4321) == 0x04030201);

void store(std::byte* to, std::uint32_t word) {
  std::memcpy(to, &word, sizeof word);
}

/// Codes of one row as the panel has them: four bits packed, lowest first, or bytes.
class RowCodes {
 public:
  /// `move` is added to codes of fewer bits than four.
  RowCodes(std::size_t cols, std::uint8_t move) : bytes_(cols), move_(move) {}

  /// The packed codes of the row, two to a byte; the bytes after the last are zero.
  const std::uint8_t* four_bit(const QuantizedTensor& tensor, std::size_t row) {
    const std::size_t row_bytes = tensor.row_bytes();
    if (bits(tensor.grid().format) == 4) {
      return tensor.packed_codes().data() + row * row_bytes;
    }
    tensor.unpack_row(row, bytes_);
    for (std::uint8_t& code : bytes_) code = static_cast<std::uint8_t>(code + move_);
    packed_.resize(packed_size(bytes_.size(), 4));
    pack_codes(bytes_, 4, packed_);
    return packed_.data();
  }

 private:
  std::vector<std::uint8_t> bytes_, packed_;
  std::uint8_t move_;
};

/// Units of four-bit codes of two rows, OC c and c + 16 of the panel; null: no such row.
void pack_four_bit(const std::uint8_t* low, const std::uint8_t* high, std::size_t first_col,
                   std::size_t cols, std::size_t c, std::byte* units) {
  const auto word = [&](const std::uint8_t* row, std::size_t col, std::size_t count) {
    if (row == nullptr) return 0u;
    // Groups are whole units, so every unit starts at a byte.
    std::uint32_t codes = row[col / 2];
    if (count > 2) codes |= std::uint32_t{row[col / 2 + 1]} << 8;
    if (count % 2 != 0) codes &= (1u << (4 * count)) - 1;
    return codes;
  };
  for (std::size_t i = 0; i < cols; i += kUnit, units += 64) {
    const std::size_t count = std::min(kUnit, cols - i), col = first_col + i;
    store(units + 4 * c, spread(word(low, col, count)) | spread(word(high, col, count)) << 4);
  }
}

void pack_eight_bit(const std::uint8_t* row, std::size_t cols, std::size_t c, std::byte* units) {
  std::byte* to = units + 4 * c;
  std::size_t i = 0;
  for (; i + kUnit <= cols; i += kUnit, to += 128) std::memcpy(to, row + i, kUnit);
  if (i < cols) std::memcpy(to, row + i, cols - i);  // the rest of the unit is zero already
}

void store_scale(PanelScales type, float scale, std::size_t c, std::byte* to) {
  if (type == PanelScales::f32) {
    std::memcpy(to + 4 * c, &scale, sizeof scale);
    return;
  }
  const std::uint16_t word = type == PanelScales::f16 ? float_to_f16(scale) : float_to_bf16(scale);
  std::memcpy(to + 2 * c, &word, sizeof word);
}

/// Scales of the rows and integers of a panel with two levels, whose bytes are zero.
void pack_levels(const QuantizedTensor& tensor, const PanelLayout& layout, std::size_t first,
                 std::size_t rows, std::byte* panel) {
  const GroupParameters& parameters = tensor.parameters();
  std::byte* scales = panel + layout.units(0) * layout.unit_bytes();
  std::byte* integers = panel + layout.block_bytes(0);
  for (std::size_t c = 0; c < rows; ++c) {
    store_scale(layout.scales, parameters.row_scales[first + c], c, scales);
    for (std::size_t g = 0; g < layout.level_groups(); ++g) {
      const unsigned integer = parameters.integers[(first + c) * parameters.cols + g];
      integers[g * (kPanelCols / 2) + c % 16] |=
          static_cast<std::byte>(integer << (c < 16 ? 0 : 4));
    }
  }
}

void pack_panel(const QuantizedTensor& tensor, const PanelLayout& layout, std::size_t panel,
                std::byte* to) {
  const std::size_t first = panel * kPanelCols;
  const std::size_t rows = std::min(kPanelCols, layout.rows - first);
  std::memset(to, 0, layout.panel_bytes());
  const auto each_block = [&](auto&& visit) {
    std::byte* block = to;
    for (std::size_t g = 0; g < layout.groups; ++g) {
      const std::size_t col = g * layout.group;
      visit(g, col, std::min(layout.groups == 1 ? layout.cols : layout.group, layout.cols - col),
            block);
      block += layout.block_bytes(g);
    }
  };
  if (layout.code_bits == 4) {
    const int move = layout.level_group == 0 ? 0 : 8 - symmetric_zero(tensor.grid().format);
    RowCodes low(layout.cols, static_cast<std::uint8_t>(move)), high = low;
    for (std::size_t c = 0; c < std::min<std::size_t>(rows, 16); ++c) {
      const std::uint8_t* a = low.four_bit(tensor, first + c);
      const std::uint8_t* b = c + 16 < rows ? high.four_bit(tensor, first + c + 16) : nullptr;
      each_block([&](std::size_t, std::size_t col, std::size_t cols, std::byte* block) {
        pack_four_bit(a, b, col, cols, c, block);
      });
    }
  } else {
    for (std::size_t c = 0; c < rows; ++c) {
      const std::uint8_t* row = tensor.packed_codes().data() + (first + c) * tensor.row_bytes();
      each_block([&](std::size_t, std::size_t col, std::size_t cols, std::byte* block) {
        pack_eight_bit(row + col, cols, c, block);
      });
    }
  }
  const std::span<const std::uint16_t> kept = tensor.kept().values;
  for (std::size_t k = 0; k < layout.kept; ++k) {
    for (std::size_t c = 0; c < rows; ++c) {
      std::memcpy(to + layout.kept_at() + 64 * k + 2 * c, &kept[(first + c) * layout.kept + k],
                  sizeof kept[0]);
    }
  }
  if (layout.level_group != 0) return pack_levels(tensor, layout, first, rows, to);
  if (layout.scales == PanelScales::none) return;
  const GroupParameters& parameters = tensor.parameters();
  each_block([&](std::size_t g, std::size_t, std::size_t, std::byte* block) {
    std::byte* scales = block + layout.units(g) * layout.unit_bytes();
    std::byte* zeros = block + layout.block_bytes(g) - 64;
    for (std::size_t c = 0; c < rows; ++c) {
      const std::size_t index = (first + c) * parameters.cols + g;
      store_scale(layout.scales, parameters.scales[index], c, scales);
      if (layout.zeros) zeros[c] = static_cast<std::byte>(parameters.zeros[index]);
    }
  });
}

}  // namespace

PanelPlan plan_panels(const GridSpec& grid, std::size_t rows, std::size_t cols,
                      bool levels) noexcept {
  const GroupLayout groups = group_layout(grid, rows, cols);
  PanelPlan plan;
  PanelLayout& layout = plan.layout;
  layout.rows = rows;
  layout.cols = cols;
  layout.code_bits = bits(grid.format) <= 4 ? 4 : 8;
  layout.group = cols;
  if (grid.per == Channel::input) {
    if (groups.rows > 1 && groups.length % kPanelCols != 0) {
      plan.refused = "runs of output channels are not whole panels of 32";
    }
    return plan;
  }
  layout.groups = groups.cols;
  layout.group = groups.length;
  layout.zeros = !grid.symmetric;
  // What two levels make together is exact in float32 alone.
  layout.scales = grid.two_level && !levels            ? PanelScales::f32
                  : grid.scale_type == ScaleType::f16  ? PanelScales::f16
                  : grid.scale_type == ScaleType::bf16 ? PanelScales::bf16
                                                       : PanelScales::f32;
  if (layout.groups > 1 && layout.group % kUnit != 0) {
    plan.refused = "groups are not whole units of 4 input channels";
  }
  if (grid.two_level && levels) {
    layout.level_group = layout.group;
    layout.groups = 1;
    layout.group = cols;
  }
  return plan;
}

void pack_panels(const QuantizedTensor& tensor, const PanelLayout& layout, std::byte* to,
                 Executor& executor) {
  executor.run(layout.panels(), 1, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t p = begin; p < end; ++p) {
      pack_panel(tensor, layout, p, to + p * layout.panel_bytes());
    }
  });
}

PanelLayout float_panels(std::size_t rows, std::size_t cols, bool bf16) noexcept {
  PanelLayout layout;
  layout.rows = rows;
  layout.cols = layout.group = cols;
  layout.code_bits = 16;
  layout.bf16 = bf16;
  return layout;
}

void pack_panels(MatrixView<const float> weight, const PanelLayout& layout, std::byte* to,
                 Executor& executor) {
  executor.run(layout.panels(), 1, [&](std::size_t begin, std::size_t end, unsigned) {
    std::vector<std::uint16_t> words(layout.cols);
    for (std::size_t p = begin; p < end; ++p) {
      std::byte* panel = to + p * layout.panel_bytes();
      const std::size_t first = p * kPanelCols, rows = std::min(kPanelCols, layout.rows - first);
      // Channels that do not exist, and those that fill the last unit.
      if (rows < kPanelCols || layout.cols % kUnit != 0) {
        std::memset(panel, 0, layout.panel_bytes());
      }
      for (std::size_t c = 0; c < rows; ++c) {
        const float* row = weight.row(first + c).data();
        if (layout.bf16) {
          float_to_bf16({row, layout.cols}, words);
        } else {
          float_to_f16({row, layout.cols}, words);
        }
        for (std::size_t k = 0; k < layout.cols; ++k) {
          std::memcpy(panel + 64 * k + 2 * c, &words[k], sizeof words[k]);
        }
      }
    }
  });
}

}  // namespace quell::kernels
