// SPDX-License-Identifier: Apache-2.0

// gemm_float behind the driver of panels: tokens are interleaved, channel after channel.

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "kernels/cpu/gemm_float/contract.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/panel_form.hpp"
#include "quell/core/half.hpp"

namespace quell::kernels {
namespace {

class FloatTiles {
 public:
  // 22 tiles of twelve: at 512 input channels 540 KB of a second cache of 1 MB or more.
  static constexpr std::size_t kBlockRows = 264;
  // A run's activations are scaled by the thread that multiplies them, whole: 48 x 4,096 are
  // 786 KB.
  static constexpr std::size_t kRunBlockRows = 48;
  // Of one span: 8 KB of four-bit codes and 24 KB of twelve tokens.
  static constexpr std::size_t kSpanUnits = 128;
  static_assert(kSpanUnits / 2 % gemm_float::kChunkUnits == 0);

  explicit FloatTiles(const PackedPlan& plan)
      : entry(&choose(gemm_float::table(weights_of(plan.layout)))),
        cols_(plan.layout.cols),
        padded_(plan.layout.all_units() * kUnit),
        round_(plan.bf16_activations) {
    if (plan.kind != PackedKind::float_panels) return;
    code_floats_ = CodeFloats(plan.grid);
  }

  std::size_t tile_rows(std::size_t) const { return entry->tile_rows; }
  std::size_t tile_panels() const { return 1; }
  // Half as many of floats: 16 KB of them.
  std::size_t span_units(const PanelLayout& layout) const {
    return layout.code_bits == 16 ? kSpanUnits / 2 : kSpanUnits;
  }
  std::size_t token_bytes() const { return round_up((padded_ + 1) * sizeof(float), 64); }
  std::size_t work_bytes() const { return 0; }

  void lay_out(MatrixView<const float> x, std::size_t first, std::size_t count, const Run& run,
               std::byte* tile, std::byte*) const {
    auto* a = reinterpret_cast<float*>(tile);
    for (std::size_t r = 0; r < count; ++r) {
      const float* from = x.row(first + r).data();
      for (std::size_t k = 0; k < cols_; ++k) {
        const float given = from[run.order != nullptr ? run.order[k] : k];
        const float value = run.factors != nullptr ? given * run.factors[k] : given;
        a[k * count + r] = round_ ? bf16_to_float(float_to_bf16(value)) : value;
      }
      for (std::size_t k = cols_; k < padded_; ++k) a[k * count + r] = 0;
      for (const std::uint32_t k : run.kept) a[k * count + r] = 0;
      double offset = 0;
      for (std::size_t k = 0; k < cols_ && run.zeros != nullptr; ++k) {
        offset += static_cast<double>(a[k * count + r]) * run.zeros[k];
      }
      offsets(tile, count)[r] = static_cast<float>(offset);
    }
  }

  const std::byte* open(const PanelLayout&, const Span&, const std::byte*, std::size_t,
                        std::byte*) const {
    return nullptr;
  }
  void close(const std::byte*) const {}

  void multiply(const PanelLayout& layout, const Span& span, const std::byte* block,
                std::byte* tile, std::size_t count, std::size_t /*panels*/, float* y,
                std::size_t /*y_panel*/, const std::byte* /*opened*/) const {
    gemm_float::TileProduct product;
    product.a = reinterpret_cast<const float*>(tile);
    place(product, layout, span, block);
    product.rows = static_cast<unsigned>(count);
    product.table = code_floats_.table;
    product.zero = code_floats_.zero;
    product.first = span.all_before == 0;
    product.y = y;
    entry->multiply(product);
  }

  void finish(std::byte* tile, std::size_t count, std::size_t r, const float* __restrict from,
              std::size_t n, float* __restrict to) const {
    const float offset = offsets(tile, count)[r];
    for (std::size_t c = 0; c < n; ++c) to[c] = from[c] - offset;
  }

  const gemm_float::Entry* entry;

 private:
  static gemm_float::Weights weights_of(const PanelLayout& layout) {
    using gemm_float::Weights;
    if (layout.code_bits == 16) return layout.bf16 ? Weights::bf16 : Weights::f16;
    return layout.code_bits == 4 ? Weights::four_bits : Weights::eight_bits;
  }
  /// What zeros down the input channels take off every output of a token, else 0.
  float* offsets(std::byte* tile, std::size_t count) const {
    return reinterpret_cast<float*>(tile) + padded_ * count;
  }

  std::size_t cols_, padded_;
  bool round_;  // activations become bfloat16
  CodeFloats code_floats_;
};

}  // namespace

std::unique_ptr<PackedForm> make_float_form(const PackedPlan& plan, PackedBytes bytes) {
  const FloatTiles tiles(plan);
  auto form = std::make_unique<PanelForm<FloatTiles>>(tiles, plan, std::move(bytes));
  form->family = gemm_float::family(plan.layout.code_bits, plan.bf16_activations);
  form->isa = tiles.entry->isa;
  return form;
}

}  // namespace quell::kernels
