// SPDX-License-Identifier: Apache-2.0
#pragma once

// The driver of products with panels: lays activations in tiles as a family wants them and hands
// panels of weights to the host's threads.
//
//   for each block of tokens, at most Tiles::kBlockRows       (activations of a span stay in L2)
//     lay them out, tile by tile                              (parallel, into the shared scratch)
//     for each kPanels panels                                 (parallel, dynamic)
//       for each span of the input channels                   (a panel's span stays in L1)
//         for each panel, for each tile                       (accumulators stay in registers)
//       write y
//
// One tile of tokens (decoding) has no spans: a panel is read from end to end, once, and each
// thread has a contiguous range of panels.
//
// Input channels that are kept in float16 beside the codes are 0 where activations are laid out,
// and their products are added where y is written (cpu/kept_columns).
//
// Where columns of the weight have an order of their own (act-order), activations are gathered in
// it where they are laid out.
//
// Groups down the input channels give every run of output channels activations of its own: the
// first two loops then go over the runs, and where there are enough of them a run is one thread's.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/kept_columns/contract.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/packed_form.hpp"
#include "kernels/panels.hpp"
#include "quell/core/checked.hpp"

namespace quell::kernels {

constexpr std::size_t round_up(std::size_t a, std::size_t to) {
  return ceil_divide(a, to) * to;
}

/// Units that one call multiplies: whole groups, or a part of one.
struct Span {
  std::size_t group, groups;  // the first, and how many
  std::size_t unit, units;    // within each group
  std::size_t all_before;     // units of the panel before the first
  bool begins, ends;
};

/// `most`: units of a span, or no limit. Only a lone group is cut, at multiples of it: a whole
/// number and the sum of groups before it would need two places.
std::vector<Span> spans_of(const PanelLayout& layout, std::size_t most);

/// What laying out has to do for the output channels at hand.
struct Run {
  std::size_t first_panel, panels;
  const float* factors;       // [IC], what x is multiplied by, or null
  const std::uint8_t* zeros;  // [IC], or null
  // Input channels that are 0 to the codes, whatever x has there: those kept beside them.
  std::span<const std::uint32_t> kept;
  const std::uint32_t* order;  // [IC], the channel of x at each place, or null
};

/// Sets where the units of a span lie in a panel's block, which every family's product tells its
/// entries in the same words.
template <typename Product>
void place(Product& product, const PanelLayout& layout, const Span& span, const std::byte* block) {
  product.first_unit = span.all_before;
  product.codes = block + span.unit * layout.unit_bytes();
  product.tail = block + layout.units(span.group) * layout.unit_bytes();
  product.groups = span.groups;
  product.units = span.units;
  product.block_bytes = layout.block_bytes(span.group);
  product.scales = layout.scales;
  product.zeros = layout.zeros;
}

/// What codes count of their scale, for the families that multiply floats. Zeros of asymmetric
/// grids are not in it: they come from the panel or, where they belong to the activations, are
/// taken off at the end.
struct CodeFloats {
  float table[16] = {};  // of 4-bit codes
  float zero = 0;        // of 8-bit ones

  CodeFloats() = default;
  explicit CodeFloats(const GridSpec& grid) {
    const int of_grid = grid.symmetric ? symmetric_zero(grid.format) : 0;
    for (int code = 0; code < 16; ++code) table[code] = code_level(grid.format, code, of_grid);
    zero = static_cast<float>(of_grid);
  }
};

/// `Tiles` is how one family holds activations and multiplies them. It has
///   kBlockRows, kRunBlockRows                  sizes, with their reasons
///   tile_rows(tokens), tile_panels()           the largest tile, where there are so many tokens;
///                                              panels side by side where there are several tiles
///   span_units(layout)                         of a span
///   token_bytes(), work_bytes()                of a token in a tile, a multiple of 64; of scratch
///   lay_out(x, first, count, run, tile, work)  rows [first, first + count) of x
///   open(layout, span, block, panels, work), close(opened)
///                                              before and after all tiles with the panels' span
///   multiply(layout, span, block, tile, count, panels, sums, from panel to panel, opened)
///   finish(tile, count, r, sums, n, y)         n outputs of token r of the tile
template <typename Tiles>
class PanelForm final : public PackedForm {
 public:
  PanelForm(Tiles tiles, const PackedPlan& plan, PackedBytes packed)
      : tiles_(std::move(tiles)),
        layout_(plan.layout),
        whole_(spans_of(layout_, static_cast<std::size_t>(-1))),
        spans_(spans_of(layout_, tiles_.span_units(layout_))) {
    rows = layout_.rows;
    cols = layout_.cols;
    bytes = std::move(packed);
    const auto copy = [this](std::vector<std::uint32_t>& to, std::size_t count, std::size_t at) {
      to.resize(count);
      if (count != 0) std::memcpy(to.data(), bytes.data() + at, count * sizeof to[0]);
    };
    copy(col_order, plan.ordered ? cols : 0, plan.order_at);
    copy(kept_cols, layout_.kept, plan.kept_at);
    if (!kept_cols.empty()) kept_isa = adds_->isa;
    if (plan.grid.per != Channel::input) return;
    run_rows_ = group_layout(plan.grid, rows, cols).length;
    factors_ = reinterpret_cast<const float*>(bytes.data() + plan.factors_at);
    if (plan.grid.symmetric) return;
    zeros_ = reinterpret_cast<const std::uint8_t*>(bytes.data() + plan.zeros_at);
  }

  Status multiply(MatrixView<const float> x, MatrixView<float> y, Context& context) const override {
    const bool runs_apart = runs() > 1 && runs() >= 2 * context.executor().width();
    const std::size_t most = runs_apart ? Tiles::kRunBlockRows : Tiles::kBlockRows;
    // Blocks of equal height: 512 tokens are two of 256.
    const std::size_t together = ceil_divide(x.rows(), ceil_divide(x.rows(), most));
    const std::size_t tokens = together * token_bytes();
    const std::size_t sums =
        std::min(kPanels, layout_.panels()) * together * kPanelCols * sizeof(float);
    const std::size_t work = tiles_.work_bytes();
    QUELL_TRY(context.reserve(work + sums + (runs_apart ? tokens : 0), runs_apart ? 0 : tokens));
    for (std::size_t first = 0; first < x.rows(); first += together) {
      const std::size_t count = std::min(together, x.rows() - first);
      const Block block = {x.rows_from(first, count), y.rows_from(first, count),
                           ceil_divide(count, tiles_.tile_rows(count))};
      if (runs_apart) {
        context.executor().run(runs(), 1, [&](std::size_t begin, std::size_t end, unsigned slot) {
          std::byte* memory = context.slot(slot).data();
          for (std::size_t i = begin; i < end; ++i) {
            const Run run = run_at(i);
            lay_out(block, run, memory + work + sums, 0, block.tiles, memory);
            multiply_panels(block, memory + work + sums, run.first_panel,
                            run.first_panel + run.panels, memory);
          }
        });
        continue;
      }
      for (std::size_t i = 0; i < runs(); ++i) multiply_run(block, run_at(i), context);
    }
    return ok();
  }

 private:
  // Their sums wait together in the second cache, 34 KB each, while the activations of a span are
  // read once for all of them.
  static constexpr std::size_t kPanels = 4;

  // Tiles of equal height, or one less: 256 tokens are not 21 tiles of 12 and one of 4, which would
  // take as long as a full one.
  struct Block {
    MatrixView<const float> x;
    MatrixView<float> y;
    std::size_t tiles;
    // Kept, since a division for every tile and row took a twentieth of the time.
    std::size_t low = x.rows() / tiles, higher = x.rows() % tiles;

    std::size_t first_row(std::size_t tile) const { return tile * low + std::min(tile, higher); }
    std::size_t rows_of(std::size_t tile) const { return low + (tile < higher ? 1 : 0); }
  };

  std::size_t runs() const { return run_rows_ == 0 ? 1 : ceil_divide(rows, run_rows_); }
  Run run_at(std::size_t i) const {
    if (run_rows_ == 0) return {0, layout_.panels(), nullptr, nullptr, kept_cols, order()};
    const std::size_t first = i * run_rows_;
    return {first / kPanelCols,  ceil_divide(std::min(run_rows_, rows - first), kPanelCols),
            factors_ + i * cols, zeros_ == nullptr ? nullptr : zeros_ + i * cols,
            kept_cols,           order()};
  }
  std::byte* tile_at(const Block& block, std::byte* tokens, std::size_t tile) const {
    return tokens + block.first_row(tile) * token_bytes();
  }
  const std::uint32_t* order() const { return col_order.empty() ? nullptr : col_order.data(); }
  std::size_t token_bytes() const {
    return tiles_.token_bytes() + round_up(kept_cols.size() * sizeof(float), kLine);
  }
  /// Activations of kept input channels, [rows of the tile][kept], behind a tile of `count` tokens.
  float* kept_of(std::byte* tile, std::size_t count) const {
    return reinterpret_cast<float*>(tile + count * tiles_.token_bytes());
  }

  void multiply_run(const Block& block, const Run& run, Context& context) const {
    std::byte* tokens = context.shared().data();
    if (block.tiles == 1) {
      lay_out(block, run, tokens, 0, 1, context.slot(0).data());
    } else {
      context.executor().run(block.tiles, 1,
                             [&](std::size_t begin, std::size_t end, unsigned slot) {
                               lay_out(block, run, tokens, begin, end, context.slot(slot).data());
                             });
    }
    const std::size_t grain =
        block.tiles == 1 ? ceil_divide(run.panels, context.executor().width()) : kPanels;
    context.executor().run(run.panels, grain,
                           [&](std::size_t begin, std::size_t end, unsigned slot) {
                             multiply_panels(block, tokens, run.first_panel + begin,
                                             run.first_panel + end, context.slot(slot).data());
                           });
  }

  void lay_out(const Block& block, const Run& run, std::byte* tokens, std::size_t begin,
               std::size_t end, std::byte* work) const {
    for (std::size_t tile = begin; tile < end; ++tile) {
      const std::size_t first = block.first_row(tile), count = block.rows_of(tile);
      std::byte* to = tile_at(block, tokens, tile);
      tiles_.lay_out(block.x, first, count, run, to, work);
      float* kept = kept_of(to, count);
      for (std::size_t r = 0; r < count; ++r) {
        const float* x = block.x.row(first + r).data();
        for (const std::uint32_t k : kept_cols) *kept++ = x[col_order.empty() ? k : col_order[k]];
      }
    }
  }

  /// Columns of y of panels [begin, end); `work`, at a 64-byte boundary, is followed by sums.
  void multiply_panels(const Block& block, std::byte* tokens, std::size_t begin, std::size_t end,
                       std::byte* work) const {
    auto* sums = reinterpret_cast<float*>(work + tiles_.work_bytes());
    if (block.tiles == 1) {
      for (std::size_t p = begin; p < end; ++p) {
        for (const Span& span : whole_) multiply_tile(block, tokens, 0, span, p, 1, sums, nullptr);
        finish(block, tokens, 0, p, 1, sums);
      }
      return;
    }
    for (std::size_t first = begin; first < end; first += kPanels) {
      const std::size_t last = std::min(first + kPanels, end);
      const std::size_t step = tiles_.tile_panels(), steps = ceil_divide(last - first, step);
      for (std::size_t i = 0; i < spans_.size() * steps; ++i) {
        const Span& span = spans_[i / steps];
        const std::size_t p = first + i % steps * step, panels = std::min(step, last - p);
        const Ahead ahead = what_follows(i, first, last, block.tiles);
        float* of_panels = sums + (p - first) * block.x.rows() * kPanelCols;
        const std::byte* opened = tiles_.open(layout_, span, codes_at(span, p), panels, work);
        for (std::size_t tile = 0; tile < block.tiles; ++tile) {
          ahead.fetch(tile);
          multiply_tile(block, tokens, tile, span, p, panels, of_panels, opened);
          if (&span == &spans_.back()) finish(block, tokens, tile, p, panels, of_panels);
        }
        tiles_.close(opened);
      }
    }
  }

  void multiply_tile(const Block& block, std::byte* tokens, std::size_t tile, const Span& span,
                     std::size_t p, std::size_t panels, float* sums,
                     const std::byte* opened) const {
    tiles_.multiply(layout_, span, codes_at(span, p), tile_at(block, tokens, tile),
                    block.rows_of(tile), panels, sums + block.first_row(tile) * kPanelCols,
                    block.x.rows() * kPanelCols, opened);
  }

  /// Sums of a tile to its rows of y. At once, while they are in the first cache and the stores,
  /// each to a page of its own, pass behind the products of the next tile: all tiles together
  /// afterwards took 7 % of the time of 512 tokens.
  void finish(const Block& block, std::byte* tokens, std::size_t tile, std::size_t p,
              std::size_t panels, const float* sums) const {
    const std::size_t count = block.rows_of(tile), first = block.first_row(tile);
    std::byte* of_tile = tile_at(block, tokens, tile);
    if (!kept_cols.empty()) {
      for (std::size_t q = 0; q < panels; ++q) {
        finish_keeping(block, of_tile, tile, p + q, sums + q * block.x.rows() * kPanelCols);
      }
      return;
    }
    for (std::size_t r = 0; r < count; ++r) {
      float* y = block.y.row(first + r).data();
      for (std::size_t q = 0; q < panels; ++q) {
        const std::size_t col = (p + q) * kPanelCols;
        tiles_.finish(of_tile, count, r, sums + (q * block.x.rows() + first + r) * kPanelCols,
                      std::min(kPanelCols, rows - col), y + col);
      }
    }
  }

  /// The same of one panel beside kept input channels, which are added on the way.
  void finish_keeping(const Block& block, std::byte* of_tile, std::size_t tile, std::size_t p,
                      const float* sums) const {
    constexpr std::size_t kRows = 12;  // as many as most tiles have: 1.5 KB
    alignas(64) float finished[kRows * kPanelCols];
    const std::size_t count = block.rows_of(tile), first = block.first_row(tile);
    const std::size_t col = p * kPanelCols, n = std::min(kPanelCols, rows - col);
    const auto* values = reinterpret_cast<const std::uint16_t*>(
        bytes.data() + p * layout_.panel_bytes() + layout_.kept_at());
    if (block.tiles == 1) {
      // Entries ask for codes some 2 KB ahead, so the next panel's first lines are still to come.
      const auto* line = reinterpret_cast<const std::byte*>(values) + kStreamAhead;
      for (std::size_t k = 0; k < kept_cols.size(); ++k) __builtin_prefetch(line + k * kLine, 0, 3);
    }
    for (std::size_t from = 0; from < count; from += kRows) {
      const std::size_t end = std::min(from + kRows, count);
      for (std::size_t r = from; r < end; ++r) {
        tiles_.finish(of_tile, count, r, sums + (first + r) * kPanelCols, kPanelCols,
                      finished + (r - from) * kPanelCols);
      }
      adds_->add(kept_of(of_tile, count) + from * kept_cols.size(), end - from, values,
                 kept_cols.size(), finished);
      for (std::size_t r = from; r < end; ++r) {
        const float* line = finished + (r - from) * kPanelCols;
        float* y = block.y.row(first + r).data() + col;
        // Two lines of the cache are no call.
        if (n == kPanelCols) {
          std::memcpy(y, line, kPanelCols * sizeof(float));
        } else {
          std::memcpy(y, line, n * sizeof(float));
        }
      }
    }
  }

  /// Codes of the span after this one, asked for while its tiles go by. Else the first tile of
  /// each span waits for memory: a tenth of the time of 512 tokens.
  struct Ahead {
    const std::byte* from = nullptr;
    std::size_t lines = 0;  // a tile's share
    std::size_t panels = 0, panel_bytes = 0;

    void fetch(std::size_t tile) const {
      for (std::size_t q = 0; q < panels; ++q) {
        const std::byte* line = from + q * panel_bytes + tile * lines * kLine;
        for (std::size_t i = 0; i < lines; ++i) __builtin_prefetch(line + i * kLine, 0, 2);
      }
    }
  };

  /// After step `i` of the loop of spans and panels [first, last).
  Ahead what_follows(std::size_t i, std::size_t first, std::size_t last, std::size_t tiles) const {
    const std::size_t step = tiles_.tile_panels(), steps = ceil_divide(last - first, step);
    if (++i == spans_.size() * steps) return {};
    const Span& span = spans_[i / steps];
    const std::size_t p = first + i % steps * step;
    const std::size_t size = span.groups == 1 ? span.units * layout_.unit_bytes()
                                              : span.groups * layout_.block_bytes(span.group);
    return {codes_at(span, p) + span.unit * layout_.unit_bytes(),
            ceil_divide(ceil_divide(size, kLine), tiles), std::min(step, last - p),
            layout_.panel_bytes()};
  }

  const std::byte* codes_at(const Span& span, std::size_t panel) const {
    return bytes.data() + panel * layout_.panel_bytes() + span.group * layout_.block_bytes(0);
  }

  static constexpr std::size_t kLine = 64;
  static constexpr std::size_t kStreamAhead = 2048;

  Tiles tiles_;
  PanelLayout layout_;
  std::vector<Span> whole_, spans_;
  const kept_columns::Entry* adds_ = &choose(kept_columns::table());
  std::size_t run_rows_ = 0;             // OC that share scales down the input channels, or 0
  const float* factors_ = nullptr;       // [runs, IC], in the packed bytes
  const std::uint8_t* zeros_ = nullptr;  // [runs, IC], in the packed bytes, or null
};

}  // namespace quell::kernels
