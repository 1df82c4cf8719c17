// SPDX-License-Identifier: Apache-2.0

// The driver of gemm_int8: rounds activations to int8, lays them in tiles, and hands panels of
// weights to the host's threads.
//
//   for each block of tokens, at most kBlockRows              (activations of a span stay in L2)
//     round them, tile by tile                                (parallel, into the shared scratch)
//     for each kPanels panels                                 (parallel, dynamic)
//       for each span of the input channels                   (a panel's span stays in L1 or L2)
//         for each panel, for each tile                       (accumulators stay in registers)
//       multiply by the tokens' scales, write y
//
// One tile of tokens (decoding) has no spans: a panel is read from end to end, once, and each
// thread has a contiguous range of panels.
//
// Groups down the input channels give every run of output channels activations of its own: the
// first two loops then go over the runs, and where there are enough of them a run is one thread's.

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/cpu/quantize_rows/contract.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/packed_form.hpp"
#include "kernels/panels.hpp"
#include "quell/kernels/gemm.hpp"

namespace quell::kernels {
namespace {

// 22 tiles of twelve: at 2,048 input channels 540 KB of a second cache of 1 MB or more.
constexpr std::size_t kBlockRows = 264;
// A run's activations are rounded by the thread that multiplies them, whole: 96 x 4,096 are 393 KB.
constexpr std::size_t kRunBlockRows = 96;
// Of one span: 32 KB of four-bit codes, and 24 KB of twelve tokens beside them.
constexpr std::size_t kSpanUnits = 256;
// Their sums wait together in the second cache, 34 KB each, while the activations of a span are
// read once for all of them.
constexpr std::size_t kPanels = 4;

constexpr std::size_t ceil_div(std::size_t a, std::size_t b) {
  return (a + b - 1) / b;
}
constexpr std::size_t round_up(std::size_t a, std::size_t to) {
  return ceil_div(a, to) * to;
}

/// Units that one call multiplies: whole groups, or a part of one.
struct Span {
  std::size_t group, groups;  // the first, and how many
  std::size_t unit, units;    // within each group
  std::size_t all_before;     // units of the panel before the first
  bool begins, ends;
};

/// `most`: units of a span, or no limit. Only a lone group is cut: a whole number and the sum of
/// groups before it would need two places.
std::vector<Span> spans_of(const PanelLayout& layout, std::size_t most) {
  std::vector<Span> spans;
  const std::size_t full = layout.groups == 1 ? layout.units(0) : layout.group / kUnit;
  for (std::size_t g = 0; g < layout.groups;) {
    const std::size_t units = layout.units(g), before = g * full;
    if (units > most && layout.groups == 1) {
      const std::size_t parts = ceil_div(units, most);
      for (std::size_t i = 0; i < parts; ++i) {
        const std::size_t begin = units * i / parts, end = units * (i + 1) / parts;
        spans.push_back({g, 1, begin, end - begin, before + begin, i == 0, i + 1 == parts});
      }
      ++g;
      continue;
    }
    std::size_t groups = 1;
    while (g + groups < layout.groups && layout.units(g + groups) == units &&
           (groups + 1) * units <= most) {
      ++groups;
    }
    spans.push_back({g, groups, 0, units, before, true, true});
    g += groups;
  }
  return spans;
}

/// Where a block of tokens lies in scratch once it is rounded.
struct RoundedTokens {
  std::int8_t* codes;  // tiles, one after the other
  std::int32_t* sums;  // tiles of [groups, rows]
  float* scales;       // [rows]
  std::size_t rows, tiles;

  // Tiles of equal height, or one less: 256 tokens are not 21 tiles of 12 and one of 4, which would
  // take as long as a full one.
  std::size_t first_row(std::size_t tile) const { return tile * rows / tiles; }
  std::size_t rows_of(std::size_t tile) const { return first_row(tile + 1) - first_row(tile); }
};

/// What rounding has to do for the output channels at hand.
struct Run {
  std::size_t first_panel, panels;
  const float* factors;       // [IC], or null
  const std::uint8_t* zeros;  // [IC], or null
};

class Int8Form final : public PackedForm {
 public:
  Int8Form(const QuantizedTensor& tensor, const PanelLayout& the_layout)
      : layout_(the_layout),
        entry_(&choose(gemm_int8::table(the_layout.code_bits))),
        rounding_(&choose(quantize_rows_family::table())),
        whole_(spans_of(the_layout, static_cast<std::size_t>(-1))),
        spans_(spans_of(the_layout, kSpanUnits)),
        zero_(symmetric_zero(tensor.grid().format)) {
    family = the_layout.code_bits == 4 ? "gemm_w4a8" : "gemm_w8a8";
    isa = entry_->isa;
    rows = the_layout.rows;
    cols = the_layout.cols;
    if (tensor.grid().per != Channel::input) return;
    run_rows_ = group_layout(tensor.grid(), rows, cols).length;
    factors_ = tensor.parameters().scales;
    factor_zeros_ = tensor.parameters().zeros;
    if (!factor_zeros_.empty()) zero_ = 1;
  }

  Status multiply(MatrixView<const float> x, MatrixView<float> y, Context& context) const override {
    const std::size_t width = context.executor().width();
    const bool runs_apart = runs() >= 2 * width && runs() > 1;
    const std::size_t block_rows = runs_apart ? kRunBlockRows : kBlockRows;
    // Blocks of equal height: 512 tokens are two of 256.
    const std::size_t rows_together = ceil_div(x.rows(), ceil_div(x.rows(), block_rows));
    const std::size_t tokens_bytes = bytes_of(rows_together);
    const std::size_t row_bytes = tile_row_bytes(), sums = sums_bytes(rows_together);
    QUELL_TRY(context.reserve(row_bytes + sums + (runs_apart ? tokens_bytes : 0),
                              runs_apart ? 0 : tokens_bytes));
    for (std::size_t first = 0; first < x.rows(); first += rows_together) {
      const std::size_t count = std::min(rows_together, x.rows() - first);
      const auto x_block = x.rows_from(first, count);
      const auto y_block = y.rows_from(first, count);
      if (runs_apart) {
        context.executor().run(runs(), 1, [&](std::size_t begin, std::size_t end, unsigned slot) {
          std::byte* memory = context.slot(slot).data();
          const RoundedTokens tokens = place(memory + row_bytes + sums, count);
          for (std::size_t i = begin; i < end; ++i) {
            const Run run = run_at(i);
            round_tiles(x_block, run, tokens, 0, tokens.tiles, memory);
            multiply_panels(tokens, run.first_panel, run.first_panel + run.panels,
                            memory + row_bytes, y_block);
          }
        });
        continue;
      }
      for (std::size_t i = 0; i < runs(); ++i) {
        multiply_run(x_block, run_at(i), place(context.shared().data(), count), y_block, context);
      }
    }
    return ok();
  }

 private:
  std::size_t runs() const { return run_rows_ == 0 ? 1 : ceil_div(rows, run_rows_); }
  Run run_at(std::size_t i) const {
    if (run_rows_ == 0) return {0, layout_.panels(), nullptr, nullptr};
    const std::size_t first = i * run_rows_;
    return {first / kPanelCols, ceil_div(std::min(run_rows_, rows - first), kPanelCols),
            factors_.data() + i * cols,
            factor_zeros_.empty() ? nullptr : factor_zeros_.data() + i * cols};
  }

  /// Bytes of a token in its tile.
  std::size_t tile_row_bytes() const { return round_up(layout_.all_units() * kUnit, 64); }
  /// Of rounded tokens.
  std::size_t bytes_of(std::size_t count) const {
    return count * tile_row_bytes() + round_up(count * layout_.groups * sizeof(std::int32_t), 64) +
           round_up(count * sizeof(float), 64);
  }
  RoundedTokens place(std::byte* memory, std::size_t count) const {
    RoundedTokens tokens;
    tokens.rows = count;
    tokens.tiles = ceil_div(count, entry_->tile_rows);
    tokens.codes = reinterpret_cast<std::int8_t*>(memory);
    memory += count * tile_row_bytes();
    tokens.sums = reinterpret_cast<std::int32_t*>(memory);
    memory += round_up(count * layout_.groups * sizeof(std::int32_t), 64);
    tokens.scales = reinterpret_cast<float*>(memory);
    return tokens;
  }
  std::size_t sums_bytes(std::size_t count) const {
    return std::min(kPanels, layout_.panels()) * count * kPanelCols * sizeof(float);
  }

  void multiply_run(MatrixView<const float> x, const Run& run, const RoundedTokens& tokens,
                    MatrixView<float> y, Context& context) const {
    const std::size_t row_bytes = tile_row_bytes();
    if (tokens.tiles == 1) {
      round_tiles(x, run, tokens, 0, 1, context.slot(0).data());
    } else {
      context.executor().run(tokens.tiles, 1,
                             [&](std::size_t begin, std::size_t end, unsigned slot) {
                               round_tiles(x, run, tokens, begin, end, context.slot(slot).data());
                             });
    }
    const std::size_t grain =
        tokens.tiles == 1 ? ceil_div(run.panels, context.executor().width()) : kPanels;
    context.executor().run(run.panels, grain,
                           [&](std::size_t begin, std::size_t end, unsigned slot) {
                             multiply_panels(tokens, run.first_panel + begin, run.first_panel + end,
                                             context.slot(slot).data() + row_bytes, y);
                           });
  }

  /// Rounds tiles [begin, end); `row` has room for a row of codes.
  void round_tiles(MatrixView<const float> x, const Run& run, const RoundedTokens& tokens,
                   std::size_t begin, std::size_t end, std::byte* row) const {
    auto* codes = reinterpret_cast<std::int8_t*>(row);
    for (std::size_t tile = begin; tile < end; ++tile) {
      const std::size_t count = tokens.rows_of(tile), first = tokens.first_row(tile);
      std::int8_t* to = tokens.codes + first * tile_row_bytes();
      std::int32_t* sums = tokens.sums + first * layout_.groups;
      for (std::size_t r = 0; r < count; ++r) {
        tokens.scales[first + r] = quantize_rows_family::quantize_row(
            *rounding_, x.row(first + r).data(), run.factors, cols, codes);
        std::memset(codes + cols, 0, tile_row_bytes() - cols);
        for (std::size_t at = 0; at < tile_row_bytes(); at += gemm_int8::kBlockBytes) {
          std::memcpy(to + at * count + r * gemm_int8::kBlockBytes, codes + at,
                      gemm_int8::kBlockBytes);
        }
        for (std::size_t g = 0; g < layout_.groups; ++g) {
          const std::size_t at = g * layout_.group;
          sums[g * count + r] = sum_of(codes + at, std::min(layout_.group, cols - at), run.zeros);
        }
      }
    }
  }
  static std::int32_t sum_of(const std::int8_t* codes, std::size_t n, const std::uint8_t* weights) {
    std::int32_t sum = 0;
    if (weights == nullptr) {
      for (std::size_t i = 0; i < n; ++i) sum += codes[i];
    } else {
      for (std::size_t i = 0; i < n; ++i) sum += codes[i] * weights[i];
    }
    return sum;
  }

  /// Columns of y of panels [begin, end); `memory` is at a 64-byte boundary.
  void multiply_panels(const RoundedTokens& tokens, std::size_t begin, std::size_t end,
                       std::byte* memory, MatrixView<float> y) const {
    const bool one_tile = tokens.tiles == 1;
    const std::vector<Span>& spans = one_tile ? whole_ : spans_;
    for (std::size_t first = begin; first < end; first += kPanels) {
      const std::size_t last = std::min(first + kPanels, end);
      for (std::size_t s = 0; s < spans.size(); s += one_tile ? spans.size() : 1) {
        for (std::size_t p = first; p < last; ++p) {
          float* sums = reinterpret_cast<float*>(memory) + (p - first) * tokens.rows * kPanelCols;
          for (std::size_t tile = 0; tile < tokens.tiles; ++tile) {
            float* tile_sums = sums + tokens.first_row(tile) * kPanelCols;
            multiply_tile(tokens, tile, p, spans[s], tile_sums);
            for (std::size_t i = 1; one_tile && i < spans.size(); ++i) {
              multiply_tile(tokens, tile, p, spans[i], tile_sums);
            }
          }
        }
      }
      finish(tokens, first, last, reinterpret_cast<const float*>(memory), y);
    }
  }

  void multiply_tile(const RoundedTokens& tokens, std::size_t tile, std::size_t panel,
                     const Span& span, float* sums) const {
    const std::size_t count = tokens.rows_of(tile), first_row = tokens.first_row(tile);
    const std::byte* block =
        bytes.data() + panel * layout_.panel_bytes() + span.group * layout_.block_bytes(0);
    gemm_int8::TileProduct product;
    product.a = tokens.codes + first_row * tile_row_bytes();
    product.first_unit = span.all_before;
    product.sums = tokens.sums + first_row * layout_.groups + span.group * count;
    product.rows = static_cast<unsigned>(count);
    product.codes = block + span.unit * layout_.unit_bytes();
    product.tail = block + layout_.units(span.group) * layout_.unit_bytes();
    product.groups = span.groups;
    product.units = span.units;
    product.block_bytes = layout_.block_bytes(span.group);
    product.scales = layout_.scales;
    product.zeros = layout_.zeros;
    product.zero = zero_;
    product.begins = span.begins;
    product.ends = span.ends;
    // Only a lone group is carried on, and its end sets y.
    product.carry = reinterpret_cast<std::int32_t*>(sums);
    product.first = span.group == 0;
    product.y = sums;
    entry_->multiply(product);
  }

  /// Row by row of y, since rows are far apart.
  void finish(const RoundedTokens& tokens, std::size_t first_panel, std::size_t last_panel,
              const float* sums, MatrixView<float> y) const {
    for (std::size_t r = 0; r < tokens.rows; ++r) {
      const float scale = tokens.scales[r];
      for (std::size_t p = first_panel; p < last_panel; ++p) {
        const std::size_t first = p * kPanelCols, count = std::min(kPanelCols, rows - first);
        float* __restrict to = y.row(r).data() + first;
        const float* __restrict from = sums + ((p - first_panel) * tokens.rows + r) * kPanelCols;
        for (std::size_t c = 0; c < count; ++c) to[c] = from[c] * scale;
      }
    }
  }

  PanelLayout layout_;
  const gemm_int8::Entry* entry_;
  const quantize_rows_family::Entry* rounding_;
  std::vector<Span> whole_, spans_;
  std::int32_t zero_;
  std::size_t run_rows_ = 0;                // OC that share scales down the input channels, or 0
  std::vector<float> factors_;              // [runs, IC]
  std::vector<std::uint8_t> factor_zeros_;  // [runs, IC], or empty
};

}  // namespace

Result<std::unique_ptr<PackedForm>> make_int8_form(const QuantizedTensor& weight,
                                                   Executor& executor) {
  const PanelPlan plan = plan_panels(weight);
  const auto refuse = [&](const std::string& reason) {
    return Error{ErrorCode::unsupported, "grid " + to_string(weight.grid()) + " of a weight " +
                                             std::to_string(weight.rows()) + " x " +
                                             std::to_string(weight.cols()) +
                                             " is not multiplied with int8 activations: " + reason +
                                             "; pack it for float32 activations"};
  };
  if (plan.refused != nullptr) return refuse(plan.refused);
  const std::size_t group = std::min(plan.layout.group, weight.cols());
  if (group > gemm_int8::kMostInGroup) {
    return refuse("a sum over a group of " + std::to_string(group) +
                  " input channels may exceed 32 bits (at most " +
                  std::to_string(gemm_int8::kMostInGroup) + ")");
  }
  auto form = std::make_unique<Int8Form>(weight, plan.layout);
  QUELL_TRY(bytes, pack_panels(weight, plan.layout, executor));
  form->bytes = std::move(bytes);
  return std::unique_ptr<PackedForm>(std::move(form));
}

}  // namespace quell::kernels
