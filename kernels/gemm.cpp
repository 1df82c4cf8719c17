// SPDX-License-Identifier: Apache-2.0

// The driver of gemm_dense: cuts C in blocks, packs what is not packed, hands blocks to the host's
// threads, and deals with ragged edges and the triangle so that entries see only whole panels.
//
//   for each span of K that keeps the packed A in 32 MB          (a whole layer's K as a rule)
//     pack A of all rows into the shared scratch                 (parallel over tiles)
//     for each block of C, about 512 x 128                       (parallel, dynamic)
//       for each depth_block of K                                C block and A block stay in L2
//         for each panel of the block                            B panel packed here, stays in L1
//           for each tile of the block                           accumulators stay in registers
//
// B is packed by the task that multiplies it: with 512 rows a panel is used 37 times, so packing it
// again for the next 512 rows costs about 3 % and saves the round trip of a packed copy through
// memory, 64 MB for a 4096 x 4096 weight.
//
// None of these numbers shows in the result: an accumulator is stored between blocks of K and
// loaded again unchanged.

#include "quell/kernels/gemm.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kernels/cpu/gemm_dense/contract.hpp"
#include "kernels/dispatch.hpp"

namespace quell::kernels {

namespace family = gemm_dense_family;

struct PackedWeights::State {
  const family::Entry* entry = nullptr;
  std::size_t rows = 0, cols = 0;
  AlignedBytes bytes;  // [panels][cols][panel_cols] floats, columns past the end are zero
  const float* panels() const noexcept { return reinterpret_cast<const float*>(bytes.data()); }
};

namespace {

// 518 = 37 tiles of 14 rows: with a depth of 256 the packed block of A takes 530 KB and the block
// of C 265 KB of a second-level cache of 1 MB or more, and 512 tokens are one block.
constexpr std::size_t kBlockRows = 518;
constexpr std::size_t kBlockCols = 128;
// Bytes of packed A at a time: K is cut so that tall operands (a symmetric product of 14336
// columns) do not need a copy of themselves.
constexpr std::size_t kPackedBytes = std::size_t{32} << 20;
// Below this many multiplications handing out work costs more than it saves (about 10 us).
constexpr std::size_t kSerialWork = std::size_t{1} << 18;

constexpr std::size_t ceil_div(std::size_t a, std::size_t b) {
  return (a + b - 1) / b;
}

family::Source source_of(const DenseOperand& operand, std::size_t row, std::size_t k) {
  const std::size_t stride = operand.matrix.stride();
  const std::size_t at = operand.transposed ? k * stride + row : row * stride + k;
  return {operand.matrix.data() + at, stride, operand.transposed};
}

/// What one product needs to know, with B either an operand to pack or packed panels.
struct Job {
  const family::Entry* entry;
  DenseOperand a;
  DenseOperand b;
  const float* packed_b;  // null: pack b
  MatrixView<float> c;
  std::size_t m, n, k;
  bool load, negate, lower;

  // Set by choose_blocks.
  std::size_t block_rows = 0, block_cols = 0;  // multiples of a tile and a panel
  std::size_t span = 0;                        // K packed at a time
  std::size_t depth_block = 0;                 // K multiplied at a time
};

void choose_blocks(Job& job, unsigned width) {
  const family::Entry& entry = *job.entry;
  const std::size_t tile = entry.tile_rows, panel = entry.panel_cols;
  const std::size_t row_blocks = ceil_div(job.m, kBlockRows);
  job.block_rows = ceil_div(ceil_div(job.m, row_blocks), tile) * tile;
  job.block_cols = kBlockCols;
  // Four tasks a thread even out unequal blocks and unequal cores.
  const std::size_t wanted = 4 * static_cast<std::size_t>(width);
  const auto tasks = [&] {
    const std::size_t all = ceil_div(job.m, job.block_rows) * ceil_div(job.n, job.block_cols);
    return job.lower ? all / 2 : all;
  };
  while (width > 1 && tasks() < wanted && job.block_cols > panel) job.block_cols /= 2;
  while (width > 1 && tasks() < wanted && job.block_rows >= 8 * tile) {
    job.block_rows = ceil_div(job.block_rows / 2, tile) * tile;
  }
  job.block_cols = std::max(job.block_cols, panel);
  const std::size_t depth = entry.depth_block;
  job.span = std::max<std::size_t>(
      kPackedBytes / sizeof(float) / std::max<std::size_t>(job.m, 1) / depth * depth, 2 * depth);
  job.span = std::min(job.span, job.k);
  // With one tile of rows and packed weights nothing is used twice: a panel streams from end to
  // end.
  job.depth_block = job.packed_b != nullptr && job.m <= tile ? job.span : depth;
}

/// How many of a tile's columns, from `col` on, C has in `row`: fewer than a panel at the right
/// edge and where a triangle ends.
std::size_t columns_of(const Job& job, std::size_t row, std::size_t col) {
  const std::size_t end = job.lower ? std::min(job.n, row + 1) : job.n;
  return end > col ? std::min<std::size_t>(end - col, job.entry->panel_cols) : 0;
}

/// One tile of C that it does not have whole: through a copy, so that nothing outside is touched.
/// `from` and `to` are null where the products start or end in C itself.
void multiply_edge(const Job& job, const float* a, const float* b, std::size_t depth,
                   std::size_t row, std::size_t rows, std::size_t col, bool load, const float* from,
                   float* to) {
  alignas(64) float copy[family::kMaxTileRows * family::kMaxPanelCols];
  const std::size_t width = job.entry->panel_cols;
  const auto c = [&](std::size_t r) { return job.c.data() + (row + r) * job.c.stride() + col; };
  if (from == nullptr && load) {
    std::memset(copy, 0, rows * width * sizeof(float));
    for (std::size_t r = 0; r < rows; ++r) {
      const std::size_t count = columns_of(job, row + r, col);
      if (count != 0) std::memcpy(copy + r * width, c(r), count * sizeof(float));
    }
    from = copy;
  }
  job.entry->multiply(a, b, depth, static_cast<unsigned>(rows), from, width,
                      to != nullptr ? to : copy, width);
  for (std::size_t r = 0; to == nullptr && r < rows; ++r) {
    const std::size_t count = columns_of(job, row + r, col);
    if (count != 0) std::memcpy(c(r), copy + r * width, count * sizeof(float));
  }
}

/// Floats of scratch that one task needs: a packed panel, and the block of C between blocks of K.
std::size_t panel_floats(const Job& job) {
  return job.packed_b != nullptr
             ? 0
             : job.entry->panel_cols * std::min<std::size_t>(job.entry->depth_block, job.span);
}
std::size_t block_floats(const Job& job) {
  return job.depth_block < job.span ? job.block_rows * job.block_cols : 0;
}

/// One block of C over K in [k0, k0 + span). `packed_a` holds all rows,
/// [span / depth_block][tile][depth_block][rows of tile].
void multiply_block(const Job& job, const float* packed_a, std::size_t k0, std::size_t span,
                    std::size_t block_row, std::size_t block_col, float* scratch) {
  const family::Entry& entry = *job.entry;
  const std::size_t tile = entry.tile_rows, panel = entry.panel_cols;
  const std::size_t row_end = std::min(job.m, block_row + job.block_rows);
  const std::size_t col_end = std::min(job.n, block_col + job.block_cols);
  float* const packed_panel = scratch;
  float* const partial = scratch + panel_floats(job);  // [panel][tile][tile_rows][panel_cols]
  for (std::size_t k = 0; k < span; k += job.depth_block) {
    const std::size_t depth = std::min(job.depth_block, span - k);
    const bool starts = k == 0, ends = k + depth == span;
    const bool load = job.load || k0 > 0;
    for (std::size_t col = block_col; col < col_end; col += panel) {
      // Rows above the triangle have nothing in this panel.
      std::size_t first_row = block_row;
      if (job.lower && col > block_row) first_row += (col - block_row) / tile * tile;
      if (first_row >= row_end) continue;
      const std::size_t cols = std::min(panel, job.n - col);
      const float* b = packed_panel;
      if (job.packed_b != nullptr) {
        b = job.packed_b + (col / panel * job.k + k0 + k) * panel;
      } else {
        entry.pack(source_of(job.b, col, k0 + k), cols, panel, depth, false, packed_panel);
      }
      for (std::size_t row = first_row; row < row_end; row += tile) {
        const std::size_t rows = std::min(tile, job.m - row);
        const float* a = packed_a + k * job.m + row * depth;
        float* held = partial + (col - block_col) * job.block_rows + (row - block_row) * panel;
        if (cols < panel || (job.lower && col + panel > row + 1)) {
          multiply_edge(job, a, b, depth, row, rows, col, load, starts ? nullptr : held,
                        ends ? nullptr : held);
          continue;
        }
        float* c = job.c.data() + row * job.c.stride() + col;
        const float* from = !starts ? held : load ? c : nullptr;
        entry.multiply(a, b, depth, static_cast<unsigned>(rows), from,
                       starts ? job.c.stride() : panel, ends ? c : held,
                       ends ? job.c.stride() : panel);
      }
    }
  }
}

/// Runs on the caller's thread if there is too little to share.
template <typename F>
void for_each(Context& context, bool serial, std::size_t n, std::size_t grain, F function) {
  if (serial) {
    function(std::size_t{0}, n, 0u);
  } else {
    context.executor().run(n, grain, function);
  }
}

Status run(Job& job, Context& context) {
  if (job.m == 0 || job.n == 0) return ok();
  if (job.k == 0) {
    for (std::size_t r = 0; !job.load && r < job.m; ++r) {
      std::fill_n(job.c.data() + r * job.c.stride(), job.lower ? r + 1 : job.n, 0.0f);
    }
    return ok();
  }
  const family::Entry& entry = *job.entry;
  const std::size_t tile = entry.tile_rows;
  const bool serial =
      context.executor().width() == 1 ||
      (job.m < kSerialWork && job.m * job.n < kSerialWork && job.m * job.n * job.k < kSerialWork);
  choose_blocks(job, serial ? 1 : context.executor().width());
  // One row that lies in ascending k is its own packed form.
  const bool direct =
      job.m == 1 && !job.negate && (!job.a.transposed || job.a.matrix.stride() == 1);
  const std::size_t slot_bytes = (panel_floats(job) + block_floats(job)) * sizeof(float);
  QUELL_TRY(context.reserve(slot_bytes, direct ? 0 : job.m * job.span * sizeof(float)));
  float* packed_a = reinterpret_cast<float*>(context.shared().data());
  const std::size_t block_rows = ceil_div(job.m, job.block_rows);
  const std::size_t block_cols = ceil_div(job.n, job.block_cols);

  for (std::size_t k0 = 0; k0 < job.k; k0 += job.span) {
    const std::size_t span = std::min(job.span, job.k - k0);
    const float* a = direct ? job.a.matrix.data() + k0 : packed_a;
    if (!direct) {
      const std::size_t tiles = ceil_div(job.m, tile);
      const std::size_t grain = std::max<std::size_t>(1, 65536 / (tile * span));
      for_each(context, serial, tiles, grain, [&](std::size_t begin, std::size_t end, unsigned) {
        for (std::size_t t = begin; t < end; ++t) {
          const std::size_t rows = std::min(tile, job.m - t * tile);
          for (std::size_t k = 0; k < span; k += job.depth_block) {
            const std::size_t depth = std::min(job.depth_block, span - k);
            entry.pack(source_of(job.a, t * tile, k0 + k), rows, rows, depth, job.negate,
                       packed_a + k * job.m + t * tile * depth);
          }
        }
      });
    }
    // Rows from the last block up: in a triangle those are the long ones, and long work first
    // leaves short work for the end.
    for_each(context, serial, block_rows * block_cols, 1,
             [&](std::size_t begin, std::size_t end, unsigned slot) {
               for (std::size_t task = begin; task < end; ++task) {
                 const std::size_t row = (block_rows - 1 - task / block_cols) * job.block_rows;
                 const std::size_t col = task % block_cols * job.block_cols;
                 if (job.lower && col >= std::min(job.m, row + job.block_rows)) continue;
                 multiply_block(job, a, k0, span, row, col,
                                reinterpret_cast<float*>(context.slot(slot).data()));
               }
             });
  }
  return ok();
}

std::string sizes(std::size_t rows, std::size_t cols) {
  return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]";
}

/// Large packed weights on 2 MB pages: streaming them touches a page table entry every 2 MB instead
/// of every 4 KB. Before the first write, or small pages are already there.
void prefer_huge_pages(AlignedBytes& bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::size_t kHuge = std::size_t{2} << 20;
  const auto address = reinterpret_cast<std::uintptr_t>(bytes.data());
  const std::uintptr_t begin = (address + kHuge - 1) / kHuge * kHuge;
  const std::uintptr_t end = (address + bytes.size()) / kHuge * kHuge;
  // Advice: where it is refused, nothing is lost but speed.
  if (begin < end) {
    static_cast<void>(madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE));
  }
#else
  static_cast<void>(bytes);
#endif
}

}  // namespace

Status gemm_dense(const DenseProduct& product, Context& context) {
  const std::size_t m = product.a.rows(), n = product.b.rows(), k = product.a.depth();
  if (product.b.depth() != k || product.c.rows() != m || product.c.cols() != n) {
    return Error{ErrorCode::shape, "gemm_dense: A is " + sizes(m, k) + " and B is " +
                                       sizes(n, product.b.depth()) + ", so C must be " +
                                       sizes(m, n) + " and their depths equal; C is " +
                                       sizes(product.c.rows(), product.c.cols())};
  }
  const bool lower = product.triangle == Triangle::lower;
  if (lower && m != n) {
    return Error{ErrorCode::shape,
                 "gemm_dense: a triangle of C needs a square C, but C is " + sizes(m, n)};
  }
  Job job{&choose(family::table()),
          product.a,
          product.b,
          nullptr,
          product.c,
          m,
          n,
          k,
          product.accumulate != Accumulate::set,
          product.accumulate == Accumulate::subtract,
          lower};
  return run(job, context);
}

PackedWeights::PackedWeights() noexcept = default;
PackedWeights::PackedWeights(PackedWeights&&) noexcept = default;
PackedWeights& PackedWeights::operator=(PackedWeights&&) noexcept = default;
PackedWeights::~PackedWeights() = default;
std::size_t PackedWeights::rows() const noexcept {
  return state_ ? state_->rows : 0;
}
std::size_t PackedWeights::cols() const noexcept {
  return state_ ? state_->cols : 0;
}
std::size_t PackedWeights::bytes() const noexcept {
  return state_ ? state_->bytes.size() : 0;
}

Result<PackedWeights> pack(MatrixView<const float> weight, Executor& executor) {
  PackedWeights packed;
  packed.state_ = std::make_unique<PackedWeights::State>();
  PackedWeights::State& state = *packed.state_;
  state.entry = &choose(family::table());
  state.rows = weight.rows();
  state.cols = weight.cols();
  const std::size_t panel = state.entry->panel_cols, cols = weight.cols();
  const std::size_t panels = ceil_div(weight.rows(), panel);
  const auto elements = checked_multiply(panels * panel, cols);
  const auto size = elements ? checked_multiply(*elements, sizeof(float)) : std::nullopt;
  if (!size) {
    return Error{ErrorCode::shape,
                 "pack: a weight of " + sizes(weight.rows(), cols) + " does not fit in memory"};
  }
  QUELL_TRY(bytes, AlignedBytes::allocate(*size));
  state.bytes = std::move(bytes);
  prefer_huge_pages(state.bytes);
  float* data = reinterpret_cast<float*>(state.bytes.data());
  executor.run(panels, 1, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t p = begin; p < end; ++p) {
      const std::size_t rows = std::min(panel, weight.rows() - p * panel);
      state.entry->pack({weight.data() + p * panel * weight.stride(), weight.stride(), false}, rows,
                        panel, cols, false, data + p * panel * cols);
    }
  });
  return packed;
}

Status gemm(MatrixView<const float> x, const PackedWeights& weight, MatrixView<float> y,
            Context& context) {
  if (x.cols() != weight.cols() || y.rows() != x.rows() || y.cols() != weight.rows()) {
    return Error{ErrorCode::shape, "gemm: x is " + sizes(x.rows(), x.cols()) + " and the weight " +
                                       sizes(weight.rows(), weight.cols()) + ", so y must be " +
                                       sizes(x.rows(), weight.rows()) + " and x must have " +
                                       std::to_string(weight.cols()) + " columns; y is " +
                                       sizes(y.rows(), y.cols())};
  }
  if (weight.state_ == nullptr) return ok();  // 0 x 0: the shapes agreed, nothing to do
  const PackedWeights::State& state = *weight.state_;
  Job job{state.entry, {x, false}, {},    state.panels(), y,    x.rows(),
          state.rows,  state.cols, false, false,          false};
  return run(job, context);
}

}  // namespace quell::kernels
