// SPDX-License-Identifier: Apache-2.0

// The public functions over the family tensor_stats. They cut tensors into chunks that depend on
// the shape alone and fold the chunks in index order, so the bits depend neither on threads nor on
// how the memory is strided.

#include "quell/kernels/tensor_stats.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/tensor_stats/contract.hpp"
#include "kernels/dispatch.hpp"

namespace quell::kernels {
namespace {

using tensor_stats::ChunkSums;
using tensor_stats::ColumnSums;
using tensor_stats::kChunk;
using tensor_stats::kColumnBlock;

const tensor_stats::Entry& entry() noexcept {
  return choose(tensor_stats::table());
}

/// Sums on their way; max_abs is -1 until a finite value has been seen.
struct Running {
  PowerSums sums;
  Running() { sums.max_abs = -1.0f; }

  /// `other` already counts its places from the start of all.
  void add_sums(const PowerSums& other) { sums.merge(other, 0); }
  /// Elements [first, first + n), which lie at x.
  void add_chunk(const tensor_stats::Entry& kernel, const float* x, std::size_t n,
                 std::uint64_t first) {
    ChunkSums part;
    kernel.chunk(x, n, &part);
    PowerSums next{part.count, n - part.count, part.sum,     part.sum2, part.sum3,
                   part.sum4,  part.sum_abs,   part.max_abs, 0};
    if (part.max_abs > sums.max_abs) next.argmax_abs = first + kernel.find(x, n, part.max_abs);
    add_sums(next);
  }
  PowerSums finished() const {
    PowerSums result = sums;
    if (result.max_abs < 0) result.max_abs = 0;
    return result;
  }
};

/// Row-major elements [first, first + n) of a matrix, copied into `buffer` if they do not lie
/// together.
const float* gather(MatrixView<const float> x, std::size_t first, std::size_t n, float* buffer) {
  if (x.is_contiguous()) return x.data() + first;
  const std::size_t row = first / x.cols(), col = first % x.cols();
  if (col + n <= x.cols()) return x.data() + row * x.stride() + col;
  std::size_t r = row, c = col;
  for (std::size_t done = 0; done < n;) {
    const std::size_t count = std::min(n - done, x.cols() - c);
    std::memcpy(buffer + done, x.data() + r * x.stride() + c, count * sizeof(float));
    done += count;
    c = 0;
    ++r;
  }
  return buffer;
}

// One task folds 64 chunks (1 MB of floats, some 100 us): long beside the cost of handing it out.
constexpr std::size_t kTask = 64 * kChunk;
// Tasks whose results wait on the stack to be folded in order.
constexpr std::size_t kWave = 128;

}  // namespace

PowerSums power_sums(MatrixView<const float> x, Context& context) {
  const tensor_stats::Entry& kernel = entry();
  const std::size_t size = x.size();
  Running total;
  for (std::size_t start = 0; start < size; start += kWave * kTask) {
    const std::size_t wave = std::min(size - start, kWave * kTask);
    Running results[kWave];
    const std::size_t tasks = (wave - 1) / kTask + 1;
    context.executor().run(tasks, 1, [&](std::size_t begin, std::size_t end, unsigned) {
      float buffer[kChunk];
      for (std::size_t task = begin; task < end; ++task) {
        const std::size_t last = std::min(start + (task + 1) * kTask, size);
        for (std::size_t at = start + task * kTask; at < last; at += kChunk) {
          const std::size_t n = std::min(kChunk, last - at);
          results[task].add_chunk(kernel, gather(x, at, n, buffer), n, at);
        }
      }
    });
    for (std::size_t task = 0; task < tasks; ++task) total.add_sums(results[task].sums);
  }
  return total.finished();
}

void row_sums(MatrixView<const float> x, std::span<PowerSums> out, Context& context) {
  QUELL_ASSERT(out.size() == x.rows());
  const tensor_stats::Entry& kernel = entry();
  const std::size_t grain = x.cols() >= kTask ? 1 : kTask / (x.cols() + 1) + 1;
  context.executor().run(x.rows(), grain, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t r = begin; r < end; ++r) {
      Running row;
      for (std::size_t at = 0; at < x.cols(); at += kChunk) {
        row.add_chunk(kernel, x.row(r).data() + at, std::min(kChunk, x.cols() - at), at);
      }
      out[r] = row.finished();
    }
  });
}

void column_sums(MatrixView<const float> x, std::span<PowerSums> out, Context& context) {
  QUELL_ASSERT(out.size() == x.cols());
  const tensor_stats::Entry& kernel = entry();
  const std::size_t blocks = x.cols() == 0 ? 0 : (x.cols() - 1) / kColumnBlock + 1;
  context.executor().run(blocks, 1, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t block = begin; block < end; ++block) {
      const std::size_t first = block * kColumnBlock;
      const std::size_t cols = std::min(kColumnBlock, x.cols() - first);
      Running totals[kColumnBlock];
      for (std::size_t at = 0; at < x.rows(); at += kChunk) {
        const std::size_t rows = std::min(kChunk, x.rows() - at);
        ColumnSums sums = {};
        std::fill(sums.max_abs, sums.max_abs + kColumnBlock, -1.0f);
        // Sixteen rows at a time keep a group of columns in registers without walking a page for
        // every row of it.
        for (std::size_t r = 0; r < rows; r += 16) {
          kernel.columns(x.data() + (at + r) * x.stride() + first, x.stride(),
                         std::min<std::size_t>(16, rows - r), cols, static_cast<std::uint32_t>(r),
                         &sums);
        }
        for (std::size_t c = 0; c < cols; ++c) {
          totals[c].add_sums({sums.count[c], rows - sums.count[c], sums.sum[c], sums.sum2[c],
                              sums.sum3[c], sums.sum4[c], sums.sum_abs[c], sums.max_abs[c],
                              at + sums.argmax[c]});
        }
      }
      for (std::size_t c = 0; c < cols; ++c) out[first + c] = totals[c].finished();
    }
  });
}

}  // namespace quell::kernels
