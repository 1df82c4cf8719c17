// SPDX-License-Identifier: Apache-2.0

// gemm_bf16 behind the driver of panels: tokens are rounded to bfloat16, 32 input channels of each
// side by side.

#include <memory>
#include <utility>

#include "kernels/cpu/gemm_bf16/contract.hpp"
#include "kernels/panel_form.hpp"
#include "quell/core/half.hpp"

namespace quell::kernels {
namespace {

class Bf16Tiles {
 public:
  // 264 tokens of 512 input channels are 270 KB of a second cache of 1 MB or more.
  static constexpr std::size_t kBlockRows = 264;
  // A run's activations are rounded by the thread that multiplies them, whole: 96 x 4,096 are
  // 786 KB.
  static constexpr std::size_t kRunBlockRows = 96;

  Bf16Tiles(const PackedPlan& plan, const gemm_bf16::Entry& with)
      : entry(&with),
        cols_(plan.layout.cols),
        row_words_(round_up(plan.layout.all_units() * kUnit, gemm_bf16::kBlock)) {
    if (plan.kind != PackedKind::float_panels) return;
    code_floats_ = CodeFloats(plan.grid);
  }

  std::size_t tile_rows(std::size_t) const { return entry->tile_rows; }
  std::size_t tile_panels() const { return 1; }
  std::size_t span_units(const PanelLayout&) const { return gemm_bf16::kChunkUnits; }
  std::size_t token_bytes() const {
    return round_up(row_words_ * sizeof(std::uint16_t) + sizeof(float), 64);
  }
  std::size_t work_bytes() const { return entry->work_bytes; }

  void lay_out(MatrixView<const float> x, std::size_t first, std::size_t count, const Run& run,
               std::byte* tile, std::byte*) const {
    auto* a = reinterpret_cast<std::uint16_t*>(tile);
    for (std::size_t r = 0; r < count; ++r) {
      const float* from = x.row(first + r).data();
      const auto at = [&](std::size_t k) -> std::uint16_t& {
        constexpr std::size_t kBlock = gemm_bf16::kBlock;
        return a[(k / kBlock * count + r) * kBlock + k % kBlock];
      };
      for (std::size_t k = 0; k < cols_; ++k) {
        const float value = from[run.order != nullptr ? run.order[k] : k];
        at(k) = float_to_bf16(run.factors != nullptr ? value * run.factors[k] : value);
      }
      for (std::size_t k = cols_; k < row_words_; ++k) at(k) = 0;
      for (const std::uint32_t k : run.kept) at(k) = 0;
      double offset = 0;
      for (std::size_t k = 0; k < cols_ && run.zeros != nullptr; ++k) {
        offset += static_cast<double>(bf16_to_float(at(k))) * run.zeros[k];
      }
      offsets(tile, count)[r] = static_cast<float>(offset);
    }
  }

  /// Null where the entry has nothing to do for all tiles.
  const std::byte* open(const PanelLayout& layout, const Span& span, const std::byte* block,
                        std::size_t /*panels*/, std::byte* work) const {
    return entry->open == nullptr ? nullptr : entry->open(product_of(layout, span, block), work);
  }
  void close(const std::byte* opened) const {
    if (opened != nullptr) entry->close();
  }

  void multiply(const PanelLayout& layout, const Span& span, const std::byte* block,
                std::byte* tile, std::size_t count, std::size_t /*panels*/, float* y,
                std::size_t /*y_panel*/, const std::byte* opened) const {
    gemm_bf16::TileProduct product = product_of(layout, span, block);
    product.a = reinterpret_cast<const std::uint16_t*>(tile);
    product.rows = static_cast<unsigned>(count);
    product.y = y;
    product.opened = opened;
    entry->multiply(product);
  }

  void finish(std::byte* tile, std::size_t count, std::size_t r, const float* __restrict from,
              std::size_t n, float* __restrict to) const {
    const float offset = offsets(tile, count)[r];
    for (std::size_t c = 0; c < n; ++c) to[c] = from[c] - offset;
  }

  const gemm_bf16::Entry* entry;

 private:
  /// What does not depend on the tile.
  gemm_bf16::TileProduct product_of(const PanelLayout& layout, const Span& span,
                                    const std::byte* block) const {
    gemm_bf16::TileProduct product = {};
    place(product, layout, span, block);
    product.table = code_floats_.table;
    product.zero = code_floats_.zero;
    product.first = span.all_before == 0;
    return product;
  }
  /// What zeros down the input channels take off every output of a token, else 0.
  float* offsets(std::byte* tile, std::size_t count) const {
    return reinterpret_cast<float*>(tile + row_words_ * count * sizeof(std::uint16_t));
  }

  std::size_t cols_, row_words_;
  CodeFloats code_floats_;
};

}  // namespace

std::unique_ptr<PackedForm> make_bf16_form_with(const gemm_bf16::Entry& entry,
                                                const PackedPlan& plan, PackedBytes bytes) {
  const Bf16Tiles tiles(plan, entry);
  auto form = std::make_unique<PanelForm<Bf16Tiles>>(tiles, plan, std::move(bytes));
  form->family = gemm_float::family(plan.layout.code_bits, true);
  form->isa = entry.isa;
  return form;
}

std::unique_ptr<PackedForm> make_bf16_form(const PackedPlan& plan, PackedBytes bytes) {
  using gemm_float::Weights;
  const unsigned code_bits = plan.layout.code_bits;
  const gemm_bf16::Entry* entry = gemm_bf16::choose(code_bits == 16  ? Weights::bf16
                                                    : code_bits == 4 ? Weights::four_bits
                                                                     : Weights::eight_bits);
  if (entry == nullptr) return make_float_form(plan, std::move(bytes));
  return make_bf16_form_with(*entry, plan, std::move(bytes));
}

}  // namespace quell::kernels
