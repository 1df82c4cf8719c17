// SPDX-License-Identifier: Apache-2.0

// Attention over a cache. One work item is one query row and up to eight query heads of one key
// head, which are read once for all of them: products with all keys, weights, then the sum of
// values. No item is cut, so results do not depend on the threads.

#include "quell/kernels/attention.hpp"

#include <algorithm>
#include <string>

#include "kernels/cache_form.hpp"
#include "kernels/cpu/elementwise/contract.hpp"
#include "kernels/dispatch.hpp"
#include "quell/core/checked.hpp"

namespace quell::kernels {
namespace {

namespace family = attention_family;
using family::kBlock;

// Heads of an item: bounds its products to 8 floats a token, and leaves work for other threads
// where all heads share one key head.
constexpr std::size_t kItemHeads = 8;
// Blocks that all heads of an item go through before the next ones: at 128 channels of f32 these
// are 64 KB, which the second cache still has for heads five to eight.
constexpr std::size_t kStrip = 8;

constexpr std::size_t round_up(std::size_t value, std::size_t unit) {
  return static_cast<std::size_t>(ceil_divide(value, unit)) * unit;
}

/// In the order of the lanes of a contract: l += l + 8, l + 4, l + 2, l + 1.
float fold(const float* lanes) {
  float lane[kBlock];
  std::copy(lanes, lanes + kBlock, lane);
  for (unsigned width = kBlock / 2; width > 0; width /= 2) {
    for (unsigned l = 0; l < width; ++l) lane[l] += lane[l + width];
  }
  return lane[0];
}

/// Channel d in lane d % 16, then folded.
float sum_of(const float* x, std::size_t n) {
  float lane[kBlock] = {};
  for (std::size_t d = 0; d < n; ++d) lane[d % kBlock] += x[d];
  return fold(lane);
}

/// One row's queries of up to kItemHeads heads of one key head.
class Item {
 public:
  Item(const CachedAttention& attention, const KeyValueCache& cache, std::size_t row,
       std::size_t head, std::size_t heads, std::size_t first, std::size_t last, float* scratch)
      : attention_(attention),
        form_(CacheAccess::form(cache)),
        kind_(cache.kind()),
        head_dim_(cache.head_dim()),
        data_(CacheAccess::head(cache, form_, head * cache.heads() / attention.heads)),
        row_(row),
        head_(head),
        heads_(heads),
        first_(first),
        last_(last),
        stride_(round_up(last, kBlock) - first / kBlock * kBlock),
        query_sums_(scratch),
        lows_(scratch + kBlock),
        sums_(lows_ + kItemHeads * kBlock),
        products_(sums_ + kItemHeads * form_.dims) {}

  static std::size_t scratch_floats(std::size_t dims, std::size_t tokens) {
    return kBlock + kItemHeads * (kBlock + dims + round_up(tokens, kBlock) + kBlock);
  }

  void run(const float* queries, float* out) {
    if (kind_ == CacheKind::int4) {
      for (std::size_t h = 0; h < heads_; ++h) {
        query_sums_[h] = sum_of(queries + h * head_dim_, head_dim_);
      }
    }
    const auto& entry = choose(family::table());
    for_strips(form_.keys, data_,
               [&](CacheKind kind, const family::Blocks& blocks, std::size_t at, std::size_t h,
                   unsigned heads) {
                 entry.products[static_cast<std::size_t>(kind)](
                     {blocks, head_dim_, heads, queries + h * head_dim_, head_dim_, query_sums_ + h,
                      products_ + h * stride_ + at * kBlock, stride_});
               });
    for (std::size_t h = 0; h < heads_; ++h) weigh(h);
    std::fill(lows_, products_, 0.0f);
    const std::byte* values = data_ + form_.keys.offset(form_.blocks);
    for_strips(form_.values, values,
               [&](CacheKind kind, const family::Blocks& blocks, std::size_t at, std::size_t h,
                   unsigned heads) {
                 const std::size_t start = (first_ / kBlock + at) * kBlock;
                 const std::size_t from = std::max(first_, start) - start;
                 const std::size_t to = std::min(last_ - start, blocks.count * kBlock);
                 entry.sums[static_cast<std::size_t>(kind)](
                     {blocks, form_.dims, from, to, heads, products_ + h * stride_ + at * kBlock,
                      stride_, sums_ + h * form_.dims, lows_ + h * kBlock});
               });
    for (std::size_t h = 0; h < heads_; ++h) {
      const float* sum = sums_ + h * form_.dims;
      float* to = out + h * head_dim_;
      std::copy(sum, sum + head_dim_, to);
      if (kind_ != CacheKind::int4) continue;
      const float low = fold(lows_ + h * kBlock);
      for (std::size_t d = 0; d < head_dim_; ++d) to[d] += low;
    }
  }

 private:
  /// work(kind, blocks, index of the first one from that of token first_, head, heads).
  template <typename Work>
  void for_strips(const SideForm& side, const std::byte* data, Work work) const {
    const std::size_t begin = first_ / kBlock, end = round_up(last_, kBlock) / kBlock;
    for (std::size_t block = begin; block < end;) {
      const BlockForm& form = side.form(block);
      const std::size_t limit = block == 0 && form.kind != side.rest.kind ? 1 : kStrip;
      const std::size_t count = std::min(limit, end - block);
      const family::Blocks blocks{data + side.offset(block), form.bytes, form.scales, count};
      for (std::size_t h = 0; h < heads_; h += family::kMaxHeads) {
        const std::size_t heads = std::min<std::size_t>(family::kMaxHeads, heads_ - h);
        work(form.kind, blocks, block - begin, h, static_cast<unsigned>(heads));
      }
      block += count;
    }
  }

  void weigh(std::size_t h) const {
    float* row = products_ + h * stride_;
    const std::size_t before = first_ % kBlock, count = last_ - first_;
    if (attention_.weighting != nullptr) {
      attention_.weighting->weigh(row_, head_ + h, {row + before, count});
    } else {
      choose(elementwise::table())
          .softmax(row + before, count, attention_.scale, attention_.softcap);
    }
    std::fill(row, row + before, 0.0f);
    std::fill(row + before + count, row + stride_, 0.0f);
  }

  const CachedAttention& attention_;
  CacheForm form_;
  CacheKind kind_;
  std::size_t head_dim_;
  const std::byte* data_;  // of the key head
  std::size_t row_, head_, heads_;
  std::size_t first_, last_;  // tokens that are seen
  std::size_t stride_;        // products of a head
  float *query_sums_, *lows_, *sums_, *products_;
};

}  // namespace

Status attend(const CachedAttention& attention, const KeyValueCache& cache, MatrixView<float> out,
              Context& context) {
  MatrixView<const float> queries = attention.queries;
  const std::size_t rows = queries.rows(), width = attention.heads * cache.head_dim();
  if (attention.heads == 0 || cache.heads() == 0 || attention.heads % cache.heads() != 0 ||
      queries.cols() != width || out.rows() != rows || out.cols() != width) {
    return Error{ErrorCode::shape, "attention over a cache: queries are " + std::to_string(rows) +
                                       " x " + std::to_string(queries.cols()) + " and the output " +
                                       std::to_string(out.rows()) + " x " +
                                       std::to_string(out.cols()) + ", expected rows of " +
                                       std::to_string(attention.heads) + " heads of " +
                                       std::to_string(cache.head_dim()) + ", a multiple of the " +
                                       std::to_string(cache.heads()) + " key heads"};
  }
  if (rows > attention.length || attention.length > cache.capacity()) {
    return Error{ErrorCode::shape, "attention over a cache: " + std::to_string(rows) +
                                       " queries over " + std::to_string(attention.length) +
                                       " tokens, expected at least as many tokens, and at most " +
                                       std::to_string(cache.capacity())};
  }
  const std::size_t group = attention.heads / cache.heads();
  const std::size_t parts = ceil_divide(group, kItemHeads);
  const std::size_t seen =
      attention.window == 0 ? attention.length : std::min(attention.window, attention.length);
  const std::size_t dims = CacheAccess::form(cache).dims;
  QUELL_TRY(context.reserve(Item::scratch_floats(dims, seen) * sizeof(float)));
  if (const Hadamard* rotation = CacheAccess::rotation(cache); rotation != nullptr) {
    // The output is the scratch: an item reads its queries before it writes there.
    for (std::size_t r = 0; r < rows; ++r) {
      std::copy(queries.row(r).begin(), queries.row(r).end(), out.row(r).begin());
    }
    QUELL_TRY(rotation->apply(out, context));
    queries = out;
  }
  const std::size_t items = rows * cache.heads() * parts;
  context.executor().run(items, 1, [&](std::size_t begin, std::size_t end, unsigned slot) {
    auto* scratch = reinterpret_cast<float*>(context.slot(slot).data());
    for (std::size_t i = begin; i < end; ++i) {
      const std::size_t row = i / (cache.heads() * parts), key_head = i / parts % cache.heads();
      const std::size_t start = i % parts * kItemHeads;
      const std::size_t head = key_head * group + start;
      const std::size_t last = attention.length - rows + row + 1;
      const bool windowed = attention.window != 0 && last > attention.window;
      Item item(attention, cache, row, head, std::min(kItemHeads, group - start),
                windowed ? last - attention.window : 0, last, scratch);
      item.run(queries.row(row).data() + head * cache.head_dim(),
               out.row(row).data() + head * cache.head_dim());
    }
  });
  return ok();
}

}  // namespace quell::kernels
