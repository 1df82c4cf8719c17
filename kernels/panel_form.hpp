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
// Groups down the input channels give every run of output channels activations of its own: the
// first two loops then go over the runs, and where there are enough of them a run is one thread's.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

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
};

/// `Tiles` is how one family holds activations and multiplies them. It has
///   kBlockRows, kRunBlockRows, kSpanUnits      sizes, with their reasons
///   tile_rows(), token_bytes(), work_bytes()   of a tile; of a token in it, a multiple of 64; of
///                                              scratch for laying out
///   lay_out(x, first, count, run, tile, work)  rows [first, first + count) of x
///   multiply(layout, span, block, tile, count, sums)
///   finish(tile, count, r, sums, n, y)         n outputs of token r of the tile
template <typename Tiles>
class PanelForm final : public PackedForm {
 public:
  PanelForm(Tiles tiles, const QuantizedTensor& tensor, const PanelLayout& layout)
      : tiles_(std::move(tiles)),
        layout_(layout),
        whole_(spans_of(layout, static_cast<std::size_t>(-1))),
        spans_(spans_of(layout, Tiles::kSpanUnits)) {
    rows = layout.rows;
    cols = layout.cols;
    if (tensor.grid().per != Channel::input) return;
    run_rows_ = group_layout(tensor.grid(), rows, cols).length;
    factors_ = tensor.parameters().scales;
    zeros_ = tensor.parameters().zeros;
  }

  Status multiply(MatrixView<const float> x, MatrixView<float> y, Context& context) const override {
    const bool runs_apart = runs() > 1 && runs() >= 2 * context.executor().width();
    const std::size_t most = runs_apart ? Tiles::kRunBlockRows : Tiles::kBlockRows;
    // Blocks of equal height: 512 tokens are two of 256.
    const std::size_t together = ceil_divide(x.rows(), ceil_divide(x.rows(), most));
    const std::size_t tokens = together * tiles_.token_bytes();
    const std::size_t sums =
        std::min(kPanels, layout_.panels()) * together * kPanelCols * sizeof(float);
    const std::size_t work = tiles_.work_bytes();
    QUELL_TRY(context.reserve(work + sums + (runs_apart ? tokens : 0), runs_apart ? 0 : tokens));
    for (std::size_t first = 0; first < x.rows(); first += together) {
      const std::size_t count = std::min(together, x.rows() - first);
      const Block block = {x.rows_from(first, count), y.rows_from(first, count),
                           ceil_divide(count, tiles_.tile_rows())};
      if (runs_apart) {
        context.executor().run(runs(), 1, [&](std::size_t begin, std::size_t end, unsigned slot) {
          std::byte* memory = context.slot(slot).data();
          for (std::size_t i = begin; i < end; ++i) {
            const Run run = run_at(i);
            lay_out(block, run, memory + work + sums, 0, block.tiles, memory);
            multiply_panels(block, memory + work + sums, run.first_panel,
                            run.first_panel + run.panels, memory + work);
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

  struct Block {
    MatrixView<const float> x;
    MatrixView<float> y;
    std::size_t tiles;

    // Tiles of equal height, or one less: 256 tokens are not 21 tiles of 12 and one of 4, which
    // would take as long as a full one.
    std::size_t first_row(std::size_t tile) const { return tile * x.rows() / tiles; }
    std::size_t rows_of(std::size_t tile) const { return first_row(tile + 1) - first_row(tile); }
  };

  std::size_t runs() const { return run_rows_ == 0 ? 1 : ceil_divide(rows, run_rows_); }
  Run run_at(std::size_t i) const {
    if (run_rows_ == 0) return {0, layout_.panels(), nullptr, nullptr};
    const std::size_t first = i * run_rows_;
    return {first / kPanelCols, ceil_divide(std::min(run_rows_, rows - first), kPanelCols),
            factors_.data() + i * cols, zeros_.empty() ? nullptr : zeros_.data() + i * cols};
  }
  std::byte* tile_at(const Block& block, std::byte* tokens, std::size_t tile) const {
    return tokens + block.first_row(tile) * tiles_.token_bytes();
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
    context.executor().run(
        run.panels, grain, [&](std::size_t begin, std::size_t end, unsigned slot) {
          multiply_panels(block, tokens, run.first_panel + begin, run.first_panel + end,
                          context.slot(slot).data() + tiles_.work_bytes());
        });
  }

  void lay_out(const Block& block, const Run& run, std::byte* tokens, std::size_t begin,
               std::size_t end, std::byte* work) const {
    for (std::size_t tile = begin; tile < end; ++tile) {
      tiles_.lay_out(block.x, block.first_row(tile), block.rows_of(tile), run,
                     tile_at(block, tokens, tile), work);
    }
  }

  /// Columns of y of panels [begin, end); `memory` is at a 64-byte boundary.
  void multiply_panels(const Block& block, std::byte* tokens, std::size_t begin, std::size_t end,
                       std::byte* memory) const {
    const bool one_tile = block.tiles == 1;
    const std::vector<Span>& spans = one_tile ? whole_ : spans_;
    const auto sums_of = [&](std::size_t panel, std::size_t tile) {
      return reinterpret_cast<float*>(memory) +
             (panel * block.x.rows() + block.first_row(tile)) * kPanelCols;
    };
    for (std::size_t first = begin; first < end; first += kPanels) {
      const std::size_t last = std::min(first + kPanels, end);
      const auto multiply_span = [&](const Span& span, std::size_t p) {
        const std::byte* from =
            bytes.data() + p * layout_.panel_bytes() + span.group * layout_.block_bytes(0);
        for (std::size_t tile = 0; tile < block.tiles; ++tile) {
          tiles_.multiply(layout_, span, from, tile_at(block, tokens, tile), block.rows_of(tile),
                          sums_of(p - first, tile));
        }
      };
      if (one_tile) {
        for (std::size_t p = first; p < last; ++p) {
          for (const Span& span : spans) multiply_span(span, p);
        }
      } else {
        for (const Span& span : spans) {
          for (std::size_t p = first; p < last; ++p) multiply_span(span, p);
        }
      }
      // Row by row of y, since rows are far apart.
      for (std::size_t tile = 0; tile < block.tiles; ++tile) {
        for (std::size_t r = 0; r < block.rows_of(tile); ++r) {
          float* y = block.y.row(block.first_row(tile) + r).data();
          for (std::size_t p = first; p < last; ++p) {
            const std::size_t col = p * kPanelCols;
            tiles_.finish(tile_at(block, tokens, tile), block.rows_of(tile), r,
                          sums_of(p - first, tile) + r * kPanelCols,
                          std::min(kPanelCols, rows - col), y + col);
          }
        }
      }
    }
  }

  Tiles tiles_;
  PanelLayout layout_;
  std::vector<Span> whole_, spans_;
  std::size_t run_rows_ = 0;         // OC that share scales down the input channels, or 0
  std::vector<float> factors_;       // [runs, IC]
  std::vector<std::uint8_t> zeros_;  // [runs, IC], or empty
};

}  // namespace quell::kernels
