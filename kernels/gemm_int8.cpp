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
      : entry(&choose(gemm_int8::table(layout.code_bits))),
        rounding_(&choose(quantize_rows_family::table())),
        cols_(layout.cols),
        groups_(layout.groups),
        group_(layout.group),
        row_bytes_(round_up(layout.all_units() * kUnit, gemm_int8::kBlockBytes)),
        zero_(symmetric_zero(grid.format)),
        zeros_(layout.zeros),
        copies_(layout.kept != 0 || ordered) {}

  std::size_t tile_rows(std::size_t tokens) const {
    return tokens <= entry->lone_rows ? entry->lone_rows : entry->tile_rows;
  }
  std::size_t tile_panels() const { return entry->tile_panels; }
  std::size_t span_units(const PanelLayout& layout) const {
    return entry->span_bytes / layout.unit_bytes();
  }
  std::size_t token_bytes() const {
    return round_up(row_bytes_ + groups_ * sizeof(std::int32_t) + sizeof(float), 64);
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
                        std::byte* work) const {
    return entry->open == nullptr ? nullptr : entry->open(product_of(layout, span, block), work);
  }
  void close(const std::byte* opened) const {
    if (opened != nullptr) entry->close();
  }

  void multiply(const PanelLayout& layout, const Span& span, const std::byte* block,
                std::byte* tile, std::size_t count, std::size_t panels, float* y,
                std::size_t y_panel, const std::byte* opened) const {
    gemm_int8::TileProduct product = product_of(layout, span, block);
    product.a = reinterpret_cast<const std::int8_t*>(tile);
    product.starts = starts(tile, count) + span.group * count;
    product.rows = static_cast<unsigned>(count);
    product.panels = static_cast<unsigned>(panels);
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

  const gemm_int8::Entry* entry;

 private:
  /// What does not depend on the tile.
  static gemm_int8::TileProduct product_of(const PanelLayout& layout, const Span& span,
                                           const std::byte* block) {
    gemm_int8::TileProduct product = {};
    product.first_unit = span.all_before;
    product.codes = block + span.unit * layout.unit_bytes();
    product.tail = block + layout.units(span.group) * layout.unit_bytes();
    product.groups = span.groups;
    product.units = span.units;
    product.block_bytes = layout.block_bytes(span.group);
    product.panel_bytes = layout.panel_bytes();
    product.scales = layout.scales;
    product.zeros = layout.zeros;
    product.begins = span.begins;
    product.ends = span.ends;
    product.first = span.group == 0;
    return product;
  }

  std::int32_t* starts(std::byte* tile, std::size_t count) const {
    return reinterpret_cast<std::int32_t*>(tile + count * row_bytes_);
  }
  float* scales(std::byte* tile, std::size_t count) const {
    return reinterpret_cast<float*>(starts(tile, count) + count * groups_);
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
  std::size_t cols_, groups_, group_, row_bytes_;
  std::int32_t zero_;  // of symmetric grids
  bool zeros_;         // the panels have them
  bool copies_;        // a row is not rounded as it lies in x
};

}  // namespace

std::unique_ptr<PackedForm> make_int8_form(const PackedPlan& plan, PackedBytes bytes) {
  const Int8Tiles tiles(plan.layout, plan.grid, plan.ordered);
  auto form = std::make_unique<PanelForm<Int8Tiles>>(tiles, plan, std::move(bytes));
  form->family = plan.layout.code_bits == 4 ? "gemm_w4a8" : "gemm_w8a8";
  form->isa = tiles.entry->isa;
  return form;
}

}  // namespace quell::kernels
