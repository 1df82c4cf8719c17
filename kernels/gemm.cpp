// SPDX-License-Identifier: Apache-2.0

// The driver of gemm_dense: cuts C in blocks, packs what is not packed, hands blocks to the host's
// threads, and deals with ragged edges and the triangle so that entries see only whole panels.
//
//   for each span of K whose packed operands fit 128 MB        (a whole layer's K as a rule)
//     pack A, and B if it has several rows of blocks to serve  (parallel, into the shared scratch)
//     for each block of C, some 513 x 144                      (parallel, dynamic)
//       for each depth_block of K                              A block and partial C stay in L2
//         for each panel of the block                          B panel stays in L1
//           for each tile of the block                         accumulators stay in registers
//
// Between blocks of K the partial C lies in scratch, tile after tile: C itself, with rows 16 KB
// apart, would fall into a few sets of each cache and a page per row. A product of one depth_block
// (the trailing updates of the solvers) walks tiles outside and panels inside instead, so that C is
// visited row by row. Where one row of blocks is all there is (M <= 513), each task packs its own
// part of B.
//
// None of these numbers shows in the result: an accumulator is stored between blocks of K and
// loaded again unchanged. A double C takes the finished tiles while they are in L1, so there is no
// float32 C at all; its K is one span.

#include "quell/kernels/gemm.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "kernels/cpu/gemm_dense/contract.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/packed_form.hpp"

namespace quell::kernels {

namespace family = gemm_dense_family;

namespace {

// 513 = 57 tiles of 9 rows: at a depth of 192 the packed block of A takes 394 KB and the partial C
// 295 KB of a second cache of 1 MB or more, and 512 tokens are one block.
constexpr std::size_t kBlockRows = 513;
constexpr std::size_t kBlockCols = 144;
// A product of one depth_block holds no partial C, so its blocks may be wider: rows of 1 KB.
constexpr std::size_t kShallowBlockCols = 288;
// Packed operands at a time: K is cut so that tall ones (a symmetric product of 14336 columns) do
// not need a copy of themselves. A second span loads and stores C once more: 2048 x 4096 x 4096
// symmetric is 64 MB and a little, and lost a tenth when it was cut.
constexpr std::size_t kPackedBytes = std::size_t{128} << 20;
// Below this many multiplications handing out work costs more than it saves (about 10 us).
constexpr std::size_t kSerialWork = std::size_t{1} << 18;
// Packing a transposed operand visits a page for every k: 64 of them, then the next tiles of the
// same 64, stay within a first-level TLB.
constexpr std::size_t kPackDepth = 32;
// How far ahead packed weights are asked for that are used once: floats, 8 KB, about a microsecond.
constexpr std::size_t kStreamAhead = 2048;

constexpr std::size_t ceil_div(std::size_t a, std::size_t b) {
  return (a + b - 1) / b;
}

family::Source source_of(const DenseOperand& operand, std::size_t row, std::size_t k) {
  const std::size_t stride = operand.matrix.stride();
  const std::size_t at = operand.transposed ? k * stride + row : row * stride + k;
  return {operand.matrix.data() + at, stride, operand.transposed};
}

/// One product, and how it is cut.
struct Job {
  const family::Entry* entry;
  DenseOperand a;
  DenseOperand b;
  const float* packed_b;  // [panel][packed_depth][panel_cols], or null: tasks pack b
  MatrixView<float> c;
  MatrixView<double> sum;  // instead of c, if not empty: the product is added to it
  std::size_t m, n, k;
  bool load, negate, lower;

  // Set by choose_blocks.
  std::size_t tile = 0;         // rows of a tile
  std::size_t block_rows = 0;   // a multiple of a tile
  std::size_t col_blocks = 0;   // C is cut into so many, of whole panels and as equal as can be
  std::size_t span = 0;         // K packed at a time
  std::size_t depth_block = 0;  // K multiplied at a time
  bool share_b = false;         // B is packed into the shared scratch

  std::size_t panel() const { return entry->panel_cols; }
  std::size_t panels() const { return ceil_div(n, panel()); }
  /// The first panel of a block of columns.
  std::size_t first_panel(std::size_t block) const { return block * panels() / col_blocks; }
  std::size_t widest_block() const { return ceil_div(panels(), col_blocks) * panel(); }
  bool holds_partial() const { return depth_block < span; }
  std::size_t packed_depth() const { return share_b ? span : k; }
};

void choose_blocks(Job& job, unsigned width) {
  // Tiles of equal height: 32 rows are three tiles of 11, since 14 + 14 + 4 would end in a tile
  // with too few accumulators to keep the multipliers busy.
  const std::size_t panel = job.panel(), tile_rows = job.entry->tile_rows;
  job.tile = ceil_div(job.m, ceil_div(job.m, tile_rows));
  const std::size_t tile = job.tile;
  const std::size_t row_blocks = ceil_div(job.m, kBlockRows);
  job.block_rows = ceil_div(ceil_div(job.m, row_blocks), tile) * tile;
  const std::size_t panels = job.panels();
  const std::size_t cols = job.k > job.entry->depth_block ? kBlockCols : kShallowBlockCols;
  job.col_blocks = ceil_div(panels, std::max(cols / panel, std::size_t{1}));
  // Four tasks a thread even out unequal blocks and unequal cores.
  const std::size_t wanted = 4 * static_cast<std::size_t>(width);
  const auto tasks = [&] {
    const std::size_t all = ceil_div(job.m, job.block_rows) * job.col_blocks;
    return job.lower ? all / 2 : all;
  };
  while (width > 1 && tasks() < wanted && job.col_blocks < panels) {
    job.col_blocks = std::min(2 * job.col_blocks, panels);
  }
  while (width > 1 && tasks() < wanted && job.block_rows >= 8 * tile) {
    job.block_rows = ceil_div(job.block_rows / 2, tile) * tile;
  }
  // The same number for every thread: 29 tasks would leave one of two idle for half a task, 1.7 %.
  if (tasks() < 4 * wanted) {
    job.col_blocks = std::min(ceil_div(job.col_blocks, width) * width, panels);
  }
  job.share_b = job.packed_b == nullptr && job.block_rows < job.m;

  const std::size_t depth = job.entry->depth_block;
  const std::size_t rows = job.m + (job.share_b ? job.panels() * panel : 0);
  const std::size_t fits = std::max(kPackedBytes / sizeof(float) / rows / depth * depth, 2 * depth);
  const std::size_t spans = job.sum.empty() ? ceil_div(job.k, fits) : 1;
  job.span = std::min(ceil_div(ceil_div(job.k, spans), depth) * depth, job.k);
  // With one tile of rows and packed weights nothing is used twice: a panel streams from end to
  // end.
  const bool streams = job.packed_b != nullptr && job.m == tile;
  job.depth_block = streams ? job.span : depth;
}

/// Packs rows [first, last) of an operand, groups of `width` rows (a tile or a panel) after each
/// other; group g begins at dst + (g - first) * pitch. With `whole`, a ragged last group has
/// `width` columns too.
void pack_groups(const Job& job, const DenseOperand& operand, std::size_t first, std::size_t last,
                 std::size_t k, std::size_t depth, std::size_t width, bool whole, bool negate,
                 std::size_t pitch, float* dst) {
  const std::size_t total = operand.rows();
  const std::size_t step = operand.transposed ? kPackDepth : depth;
  for (std::size_t done = 0; done < depth; done += step) {
    const std::size_t part = std::min(step, depth - done);
    for (std::size_t g = first; g < last; ++g) {
      const std::size_t rows = std::min(width, total - g * width);
      const std::size_t packed_width = whole ? width : rows;
      job.entry->pack(source_of(operand, g * width, k + done), rows, packed_width, part, negate,
                      dst + (g - first) * pitch + done * packed_width);
    }
  }
}

/// How many of a tile's columns, from `col` on, C has in `row`: fewer than a panel at the right
/// edge and where a triangle ends.
std::size_t columns_of(const Job& job, std::size_t row, std::size_t col) {
  const std::size_t end = job.lower ? std::min(job.n, row + 1) : job.n;
  return end > col ? std::min(end - col, job.panel()) : 0;
}

/// sum += the tile at (row, col).
void add_tile(const Job& job, const float* tile, std::size_t rows, std::size_t row,
              std::size_t col) {
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t count = columns_of(job, row + r, col);
    if (count == 0) continue;
    double* to = job.sum.data() + (row + r) * job.sum.stride() + col;
    const float* from = tile + r * job.panel();
    for (std::size_t i = 0; i < count; ++i) to[i] += static_cast<double>(from[i]);
  }
}

/// Asks for the tile of `sum` that will be added to.
void fetch_tile(const Job& job, std::size_t rows, std::size_t row, std::size_t col) {
  constexpr std::size_t kLine = 64 / sizeof(double);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t count = columns_of(job, row + r, col);
    const double* line = job.sum.data() + (row + r) * job.sum.stride() + col;
    for (std::size_t i = 0; i < count; i += kLine) __builtin_prefetch(line + i, 1);
  }
}

/// The tile of C at (row, col). Where C does not have it whole, products go through a copy, so that
/// nothing outside is touched. `held` is the tile's place among the partial results; products start
/// in C (or at zero) and end in C where it is null.
void multiply_tile(const Job& job, family::TileProduct& product, std::size_t row, std::size_t col,
                   bool load, float* held_from, float* held_to) {
  const std::size_t width = job.panel(), stride = job.c.stride();
  const std::size_t rows = product.rows;
  const bool into_sum = !job.sum.empty();
  float* const c = into_sum ? nullptr : job.c.data() + row * stride + col;
  const bool whole = !into_sum && columns_of(job, row, col) == width;
  product.from = held_from;
  product.from_stride = product.to_stride = width;
  product.to = held_to;
  alignas(64) float copy[family::kMaxTileRows * family::kMaxPanelCols];
  if (held_from == nullptr && load) {
    product.from = whole ? c : copy;
    product.from_stride = whole ? stride : width;
    if (!whole) {
      std::memset(copy, 0, rows * width * sizeof(float));
      for (std::size_t r = 0; r < rows; ++r) {
        const std::size_t count = columns_of(job, row + r, col);
        if (count != 0) std::memcpy(copy + r * width, c + r * stride, count * sizeof(float));
      }
    }
  }
  if (held_to == nullptr) {
    product.to = whole ? c : copy;
    product.to_stride = whole ? stride : width;
  }
  if (into_sum && held_to == nullptr) {
    fetch_tile(job, rows, row, col);
    job.entry->multiply(product);
    add_tile(job, copy, rows, row, col);
    return;
  }
  job.entry->multiply(product);
  if (held_to == nullptr && !whole) {
    for (std::size_t r = 0; r < rows; ++r) {
      const std::size_t count = columns_of(job, row + r, col);
      if (count != 0) std::memcpy(c + r * stride, copy + r * width, count * sizeof(float));
    }
  }
}

/// One block of C over K in [k0, k0 + span). `packed_a` holds all rows,
/// [span / depth_block][tile][depth_block][rows of tile].
class BlockProduct {
 public:
  BlockProduct(const Job& job, const float* packed_a, const float* packed_b, std::size_t k0,
               std::size_t span, float* scratch)
      : job_(job), packed_a_(packed_a), packed_b_(packed_b), k0_(k0), span_(span) {
    scratch_panels_ = scratch;
    partial_ = scratch + panel_floats(job);
  }

  /// Floats of scratch: the packed panels of a block, and its partial C.
  static std::size_t panel_floats(const Job& job) {
    if (job.packed_b != nullptr || job.share_b) return 0;
    return job.widest_block() * std::min(job.depth_block, job.span);
  }
  static std::size_t floats(const Job& job) {
    return panel_floats(job) + (job.holds_partial() ? job.block_rows * job.widest_block() : 0);
  }

  void run(std::size_t block_row, std::size_t col_block) {
    const std::size_t panel = job_.panel(), tile = job_.tile;
    const std::size_t row_end = std::min(job_.m, block_row + job_.block_rows);
    block_row_ = block_row;
    tiles_ = ceil_div(row_end - block_row, tile);
    first_panel_ = job_.first_panel(col_block);
    panels_ = job_.first_panel(col_block + 1) - first_panel_;
    block_col_ = first_panel_ * panel;
    panel_step_ = ceil_div(panel * sizeof(float), tiles_);
    for (k_ = 0; k_ < span_; k_ += job_.depth_block) {
      depth_ = std::min(job_.depth_block, span_ - k_);
      if (job_.holds_partial()) {
        for (std::size_t p = 0; p < panels_; ++p) {
          pack_panel(p);
          for (std::size_t t = first_tile(p); t < tiles_; ++t) multiply(t, p);
        }
      } else {
        for (std::size_t p = 0; p < panels_; ++p) pack_panel(p);
        for (std::size_t t = 0; t < tiles_; ++t) {
          for (std::size_t p = 0; p < panels_; ++p) {
            if (t >= first_tile(p)) multiply(t, p);
          }
        }
      }
    }
  }

 private:
  // Tiles and panels are counted within the block.

  /// The first tile that has something in a panel: above it a triangle has nothing.
  std::size_t first_tile(std::size_t p) const {
    const std::size_t col = block_col_ + p * job_.panel();
    return job_.lower && col > block_row_ ? (col - block_row_) / job_.tile : 0;
  }
  const float* panel_at(std::size_t p, std::size_t k) const {
    const std::size_t panel = job_.panel();
    if (packed_b_ == nullptr) return scratch_panels_ + p * panel * depth_;
    const std::size_t row = job_.share_b ? k : k0_ + k;
    return packed_b_ + ((first_panel_ + p) * job_.packed_depth() + row) * panel;
  }
  void pack_panel(std::size_t p) {
    if (packed_b_ != nullptr || first_tile(p) >= tiles_) return;
    const std::size_t panel = job_.panel();
    pack_groups(job_, job_.b, first_panel_ + p, first_panel_ + p + 1, k0_ + k_, depth_, panel, true,
                false, 0, scratch_panels_ + p * panel * depth_);
  }
  void multiply(std::size_t t, std::size_t p) {
    const std::size_t panel = job_.panel(), tile = job_.tile;
    const std::size_t row = block_row_ + t * tile, col = block_col_ + p * panel;
    family::TileProduct product;
    product.rows = static_cast<unsigned>(std::min(tile, job_.m - row));
    product.a = packed_a_ + k_ * job_.m + row * depth_;
    product.b = panel_at(p, k_);
    product.depth = depth_;
    look_ahead(product, t, p);
    float* held = partial_ + p * panel * job_.block_rows + t * tile * panel;
    const bool starts = k_ == 0, ends = k_ + depth_ == span_;
    multiply_tile(job_, product, row, col, job_.load || k0_ > 0, starts ? nullptr : held,
                  ends ? nullptr : held);
  }
  /// What will be needed soon and lies far away, spread over the steps of a tile: the block of A
  /// while its first panel is multiplied, otherwise what the next panel of B is made of.
  void look_ahead(family::TileProduct& product, std::size_t t, std::size_t p) const {
    const std::size_t panel = job_.panel();
    if (packed_b_ != nullptr && job_.m == job_.tile) {
      product.ahead = product.b + kStreamAhead;
      product.ahead_step = panel * sizeof(float);
      return;
    }
    // After the last panel comes the first one of the next depth.
    const bool last = p + 1 == panels_;
    const std::size_t next = last ? 0 : p + 1;
    const std::size_t next_k = last ? k_ + depth_ : k_;
    if (next_k >= span_ || (tiles_ > 2 && p == 0 && !last)) {
      product.ahead = product.a + 2 * job_.tile * depth_;
      product.ahead_step = job_.tile * sizeof(float);
    } else if (packed_b_ != nullptr) {
      product.ahead_step = panel_step_;
      product.ahead =
          reinterpret_cast<const char*>(panel_at(next, next_k)) + t * panel_step_ * depth_;
    } else {
      // A row of the source for each tile; of a transposed source, a line of every row.
      const std::size_t col = block_col_ + next * panel;
      const family::Source source = source_of(job_.b, col, k0_ + next_k);
      const std::size_t line = std::min(t, std::min(panel, job_.n - col) - 1);
      product.ahead =
          source.transposed ? source.data + line / 16 * 16 : source.data + line * source.stride;
      product.ahead_step = source.transposed ? source.stride * sizeof(float) : sizeof(float);
    }
  }

  const Job& job_;
  const float* packed_a_;
  const float* packed_b_;
  float* scratch_panels_;
  float* partial_;  // [panel][tile][tile rows][panel_cols]
  std::size_t k0_, span_;
  std::size_t k_ = 0, depth_ = 0;
  std::size_t block_row_ = 0, block_col_ = 0;
  std::size_t tiles_ = 0, panels_ = 0, first_panel_ = 0;
  std::size_t panel_step_ = 0;  // bytes a step that bring a panel during one pass over the tiles
};

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
    if (!job.sum.empty()) return ok();
    for (std::size_t r = 0; !job.load && r < job.m; ++r) {
      std::fill_n(job.c.data() + r * job.c.stride(), job.lower ? r + 1 : job.n, 0.0f);
    }
    return ok();
  }
  const bool serial =
      context.executor().width() == 1 ||
      (job.m < kSerialWork && job.m * job.n < kSerialWork && job.m * job.n * job.k < kSerialWork);
  choose_blocks(job, serial ? 1 : context.executor().width());
  const std::size_t tile = job.tile, panel = job.panel();
  // One row that lies in ascending k is its own packed form.
  const bool direct =
      job.m == 1 && !job.negate && (!job.a.transposed || job.a.matrix.stride() == 1);
  // Rounded up so that packed panels begin at a cache line.
  const std::size_t a_floats = direct ? 0 : ceil_div(job.m * job.span, 16) * 16;
  const std::size_t b_floats = job.share_b ? job.panels() * panel * job.span : 0;
  QUELL_TRY(context.reserve(BlockProduct::floats(job) * sizeof(float),
                            (a_floats + b_floats) * sizeof(float)));
  float* const packed_a = reinterpret_cast<float*>(context.shared().data());
  float* const shared_b = packed_a + a_floats;

  for (std::size_t k0 = 0; k0 < job.k; k0 += job.span) {
    const std::size_t span = std::min(job.span, job.k - k0);
    const auto pack_a = [&](std::size_t begin, std::size_t end, unsigned) {
      for (std::size_t k = 0; k < span; k += job.depth_block) {
        const std::size_t depth = std::min(job.depth_block, span - k);
        pack_groups(job, job.a, begin, end, k0 + k, depth, tile, false, job.negate, tile * depth,
                    packed_a + k * job.m + begin * tile * depth);
      }
    };
    const auto pack_b = [&](std::size_t begin, std::size_t end, unsigned) {
      pack_groups(job, job.b, begin, end, k0, span, panel, true, false, panel * job.packed_depth(),
                  shared_b + begin * panel * job.packed_depth());
    };
    // Some 64 K elements a grain, tens of microseconds; of a transposed operand 512 rows, so that a
    // page is visited for 2 KB and not for one tile.
    const auto grain = [&](const DenseOperand& operand, std::size_t width) {
      return operand.transposed ? ceil_div(512, width)
                                : std::max<std::size_t>(1, 65536 / (width * span));
    };
    if (!direct) for_each(context, serial, ceil_div(job.m, tile), grain(job.a, tile), pack_a);
    if (job.share_b) for_each(context, serial, job.panels(), grain(job.b, panel), pack_b);

    const std::size_t block_rows = ceil_div(job.m, job.block_rows);
    // Rows from the last block up: in a triangle those are the long ones, and long work first
    // leaves short work for the end.
    for_each(context, serial, block_rows * job.col_blocks, 1,
             [&](std::size_t begin, std::size_t end, unsigned slot) {
               BlockProduct product(job, direct ? job.a.matrix.data() + k0 : packed_a,
                                    job.share_b ? shared_b : job.packed_b, k0, span,
                                    reinterpret_cast<float*>(context.slot(slot).data()));
               for (std::size_t task = begin; task < end; ++task) {
                 const std::size_t row = (block_rows - 1 - task / job.col_blocks) * job.block_rows;
                 const std::size_t block = task % job.col_blocks;
                 const std::size_t col = job.first_panel(block) * panel;
                 if (job.lower && col >= std::min(job.m, row + job.block_rows)) continue;
                 product.run(row, block);
               }
             });
  }
  return ok();
}

std::string sizes(std::size_t rows, std::size_t cols) {
  return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]";
}

/// C of A * B^T must be [M, N], and their depths equal.
Status check_sizes(const char* what, const DenseOperand& a, const DenseOperand& b,
                   std::size_t c_rows, std::size_t c_cols, Triangle triangle) {
  const std::size_t m = a.rows(), n = b.rows();
  if (b.depth() != a.depth() || c_rows != m || c_cols != n) {
    return Error{ErrorCode::shape, std::string(what) + ": A is " + sizes(m, a.depth()) +
                                       " and B is " + sizes(n, b.depth()) + ", so C must be " +
                                       sizes(m, n) + " and their depths equal; C is " +
                                       sizes(c_rows, c_cols)};
  }
  if (triangle == Triangle::lower && m != n) {
    return Error{ErrorCode::shape,
                 std::string(what) + ": a triangle of C needs a square C, but C is " + sizes(m, n)};
  }
  return ok();
}

}  // namespace

Status gemm_dense(const DenseProduct& product, Context& context) {
  QUELL_TRY(check_sizes("gemm_dense", product.a, product.b, product.c.rows(), product.c.cols(),
                        product.triangle));
  Job job{&choose(family::table()),
          product.a,
          product.b,
          /*packed_b=*/nullptr,
          product.c,
          /*sum=*/{},
          product.a.rows(),
          product.b.rows(),
          product.a.depth(),
          /*load=*/product.accumulate != Accumulate::set,
          /*negate=*/product.accumulate == Accumulate::subtract,
          /*lower=*/product.triangle == Triangle::lower};
  return run(job, context);
}

Status add_product(const DenseOperand& a, const DenseOperand& b, Triangle triangle,
                   MatrixView<double> sum, Context& context) {
  QUELL_TRY(check_sizes("add_product", a, b, sum.rows(), sum.cols(), triangle));
  Job job{&choose(family::table()),
          a,
          b,
          /*packed_b=*/nullptr,
          /*c=*/{},
          sum,
          a.rows(),
          b.rows(),
          a.depth(),
          /*load=*/false,
          /*negate=*/false,
          /*lower=*/triangle == Triangle::lower};
  return run(job, context);
}

namespace {

/// Weights in [panels][cols][panel_cols] floats; columns past the end are zero.
class DenseForm final : public PackedForm {
 public:
  explicit DenseForm(const family::Entry& with) : entry(&with) {
    family = "gemm_dense";
    isa = with.isa;
  }

  Status multiply(MatrixView<const float> x, MatrixView<float> y, Context& context) const override {
    Job job{entry,
            {x, false},
            /*b=*/{},
            reinterpret_cast<const float*>(bytes.data()),
            y,
            /*sum=*/{},
            x.rows(),
            rows,
            cols,
            /*load=*/false,
            /*negate=*/false,
            /*lower=*/false};
    return run(job, context);
  }

  const family::Entry* entry;
};

}  // namespace

std::size_t dense_panel_cols() noexcept {
  return choose(family::table()).panel_cols;
}

void pack_dense(const PackedPlan& plan, MatrixView<const float> weight, std::byte* to,
                Executor& executor) {
  const std::size_t panel = plan.panel_cols, cols = plan.cols;
  // Entries differ in how they multiply panels; the panels of one width are the same.
  const family::Entry& entry = choose(family::table());
  float* data = reinterpret_cast<float*>(to);
  executor.run(ceil_div(plan.rows, panel), 1, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t p = begin; p < end; ++p) {
      const std::size_t rows = std::min(panel, plan.rows - p * panel);
      entry.pack({weight.data() + p * panel * weight.stride(), weight.stride(), false}, rows, panel,
                 cols, false, data + p * panel * cols);
    }
  });
  const std::size_t used = ceil_div(plan.rows, panel) * panel * cols * sizeof(float);
  std::memset(to + used, 0, plan.label_at - used);
}

std::unique_ptr<PackedForm> make_dense_form(const PackedPlan& plan, PackedBytes bytes) {
  for (const family::Entry* entry : family::table()) {
    if (!has(entry->isa) || entry->panel_cols != plan.panel_cols) continue;
    auto form = std::make_unique<DenseForm>(*entry);
    form->rows = plan.rows;
    form->cols = plan.cols;
    form->bytes = std::move(bytes);
    return form;
  }
  return nullptr;
}

}  // namespace quell::kernels
