// SPDX-License-Identifier: Apache-2.0

// gemm_int8 behind the driver of panels: tokens are rounded to int8, 64 input channels of each side
// by side.

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/cpu/quantize_rows/contract.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/panel_form.hpp"

namespace quell::kernels {
namespace {

class Int8Tiles {
 public:
  // 22 tiles of twelve: at 1,024 input channels 270 KB of a second cache of 1 MB or more.
  static constexpr std::size_t kBlockRows = 264;
  // A run's activations are rounded by the thread that multiplies them, whole: 96 x 4,096 are
  // 393 KB.
  static constexpr std::size_t kRunBlockRows = 96;

  Int8Tiles(const PanelLayout& layout, const GridSpec& grid, bool ordered)
      : entry(&choose(gemm_int8::table(codes_of(layout, grid)))),
        rounding_(&choose(quantize_rows_family::table())),
        cols_(layout.cols),
        groups_(layout.groups),
        group_(layout.group),
        level_groups_(layout.level_groups()),
        level_group_(layout.level_group),
        row_bytes_(round_up(layout.all_units() * kUnit, gemm_int8::kBlockBytes)),
        zero_(symmetric_zero(grid.format)),
        zeros_(layout.zeros),
        copies_(layout.kept != 0 || ordered) {
    const Codebook* const codebook = info(grid.format).codebook;
    if (codebook == nullptr) return;
    zero_ = 128;
    for (std::size_t code = 0; code < 16; ++code) {
      table_[code] = static_cast<std::uint8_t>(codebook->levels[code] + 128.0f);
    }
  }

  std::size_t tile_rows(std::size_t tokens) const {
    return tokens <= entry->lone_rows ? entry->lone_rows : entry->tile_rows;
  }
  std::size_t tile_panels() const { return entry->tile_panels; }
  std::size_t span_units(const PanelLayout& layout) const {
    return entry->span_bytes / layout.unit_bytes();
  }
  std::size_t token_bytes() const {
    const std::size_t starts = (groups_ + level_groups_) * sizeof(std::int32_t);
    return round_up(row_bytes_ + starts + sizeof(float), 64);
  }
  std::size_t work_bytes() const {
    const std::size_t copy = copies_ ? round_up(cols_ * sizeof(float), 64) : 0;
    return std::max(row_bytes_ + copy, entry->work_bytes);
  }

  void lay_out(MatrixView<const float> x, std::size_t first, std::size_t count, const Run& run,
               std::byte* tile, std::byte* work) const {
    auto* codes = reinterpret_cast<std::int8_t*>(work);
    std::memset(codes + cols_, 0, row_bytes_ - cols_);
    auto* copy = reinterpret_cast<float*>(work + row_bytes_);
    for (std::size_t r = 0; r < count; ++r) {
      const float* from = x.row(first + r).data();
      if (copies_) {
        if (run.order == nullptr) {
          std::memcpy(copy, from, cols_ * sizeof(float));
        } else {
          const std::size_t next = std::min(first + r + 1, x.rows() - 1);
          gather(from, run.order, x.row(next).data(), copy);
        }
        for (const std::uint32_t k : run.kept) copy[k] = 0;
        from = copy;
      }
      scales(tile, count)[r] =
          quantize_rows_family::quantize_row(*rounding_, from, run.factors, cols_, codes);
      for (std::size_t at = 0; at < row_bytes_; at += gemm_int8::kBlockBytes) {
        std::memcpy(tile + at * count + r * gemm_int8::kBlockBytes, codes + at,
                    gemm_int8::kBlockBytes);
      }
      if (level_groups_ != 0) {
        set_level_starts(codes, r, count, tile);
        continue;
      }
      for (std::size_t g = 0; g < groups_; ++g) {
        const std::size_t at = g * group_;
        const std::size_t n = std::min(group_, cols_ - at);
        starts(tile, count)[g * count + r] =
            run.zeros != nullptr ? -weighted_sum(codes, n, run.zeros)
                                 : -rounding_->sum(codes + at, n) * (zeros_ ? 1 : zero_);
      }
    }
  }

  /// Null where the entry has nothing to do for all tiles.
  const std::byte* open(const PanelLayout& layout, const Span& span, const std::byte* block,
                        std::size_t panels, std::byte* work) const {
    if (entry->open == nullptr) return nullptr;
    return entry->open(product_of(layout, span, block, panels), work);
  }
  void close(const std::byte* opened) const {
    if (opened != nullptr && entry->close != nullptr) entry->close();
  }

  void multiply(const PanelLayout& layout, const Span& span, const std::byte* block,
                std::byte* tile, std::size_t count, std::size_t panels, float* y,
                std::size_t y_panel, const std::byte* opened) const {
    gemm_int8::TileProduct product = product_of(layout, span, block, panels);
    product.a = reinterpret_cast<const std::int8_t*>(tile);
    product.starts = starts(tile, count) + span.group * count;
    product.level_starts = level_starts(tile, count);
    product.rows = static_cast<unsigned>(count);
    // Only a lone group is carried on, and its end sets y.
    product.carry = reinterpret_cast<std::int32_t*>(y);
    product.y = y;
    product.y_panel = y_panel;
    product.opened = opened;
    entry->multiply(product);
  }

  void finish(std::byte* tile, std::size_t count, std::size_t r, const float* __restrict from,
              std::size_t n, float* __restrict to) const {
    const float scale = scales(tile, count)[r];
    for (std::size_t c = 0; c < n; ++c) to[c] = from[c] * scale;
  }

  static gemm_int8::Codes codes_of(const PanelLayout& layout, const GridSpec& grid) {
    using gemm_int8::Codes;
    if (info(grid.format).codebook != nullptr) return Codes::table;
    if (layout.level_group != 0) return Codes::two_level;
    return layout.code_bits == 4 ? Codes::four_bits : Codes::eight_bits;
  }

  const gemm_int8::Entry* entry;

 private:
  /// What does not depend on the tile.
  gemm_int8::TileProduct product_of(const PanelLayout& layout, const Span& span,
                                    const std::byte* block, std::size_t panels) const {
    gemm_int8::TileProduct product = {};
    product.table = table_;
    place(product, layout, span, block);
    product.panels = static_cast<unsigned>(panels);
    product.panel_bytes = layout.panel_bytes();
    if (layout.level_group != 0) {
      product.integers = block + layout.block_bytes(0);
      // Of a lone group all units, whose number need not be whole.
      product.level_units = ceil_divide(layout.level_group, kUnit);
    }
    product.begins = span.begins;
    product.ends = span.ends;
    product.first = span.group == 0;
    return product;
  }

  std::int32_t* starts(std::byte* tile, std::size_t count) const {
    return reinterpret_cast<std::int32_t*>(tile + count * row_bytes_);
  }
  std::int32_t* level_starts(std::byte* tile, std::size_t count) const {
    return starts(tile, count) + count * groups_;
  }
  float* scales(std::byte* tile, std::size_t count) const {
    return reinterpret_cast<float*>(level_starts(tile, count) + count * level_groups_);
  }

  /// Of all groups -128 times the sum of the token's codes; -8 times that of each, where wanted.
  void set_level_starts(const std::int8_t* codes, std::size_t r, std::size_t count,
                        std::byte* tile) const {
    // Modulo 2^32, as all sums are.
    const auto all = static_cast<std::uint32_t>(rounding_->sum(codes, cols_));
    starts(tile, count)[r] = static_cast<std::int32_t>(0u - 128u * all);
    if (!entry->wants_level_starts) return;
    for (std::size_t g = 0; g < level_groups_; ++g) {
      const std::size_t at = g * level_group_;
      const std::int32_t sum = rounding_->sum(codes + at, std::min(level_group_, cols_ - at));
      level_starts(tile, count)[g * count + r] = -8 * sum;
    }
  }

  /// to[k] = x[order[k]]. Lines of the row after this one are asked for meanwhile: read in leaps,
  /// nobody else would bring them in time.
  void gather(const float* x, const std::uint32_t* order, const float* next, float* to) const {
    constexpr std::size_t kLine = 64 / sizeof(float);
    std::size_t k = 0;
    for (; k + kLine <= cols_; k += kLine) {
      __builtin_prefetch(next + k);
      for (std::size_t i = k; i < k + kLine; ++i) to[i] = x[order[i]];
    }
    for (; k < cols_; ++k) to[k] = x[order[k]];
  }

  static std::int32_t weighted_sum(const std::int8_t* codes, std::size_t n,
                                   const std::uint8_t* weights) {
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += codes[i] * weights[i];
    return sum;
  }

  const quantize_rows_family::Entry* rounding_;
  std::size_t cols_, groups_, group_, level_groups_, level_group_, row_bytes_;
  std::int32_t zero_;                        // of symmetric grids
  bool zeros_;                               // the panels have them
  bool copies_;                              // a row is not rounded as it lies in x
  alignas(16) std::uint8_t table_[16] = {};  // of codebooks
};

}  // namespace

std::unique_ptr<PackedForm> make_int8_form(const PackedPlan& plan, PackedBytes bytes) {
  const Int8Tiles tiles(plan.layout, plan.grid, plan.ordered);
  auto form = std::make_unique<PanelForm<Int8Tiles>>(tiles, plan, std::move(bytes));
  form->family = gemm_int8::family(tiles.entry->codes);
  form->isa = tiles.entry->isa;
  return form;
}

}  // namespace quell::kernels
