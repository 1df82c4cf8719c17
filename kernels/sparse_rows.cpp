// SPDX-License-Identifier: Apache-2.0

// Outputs are spread over the host's threads; an accumulator is never cut. Rows of x go through
// strips of sixteen, rearranged once per strip, or one by one where only a few are left.

#include "quell/kernels/sparse_rows.hpp"

#include <algorithm>
#include <string>

#include "kernels/cpu/sparse_rows/contract.hpp"
#include "kernels/dispatch.hpp"

namespace quell::kernels {
namespace {

using sparse_rows::kLanes;

Error shape_error(const std::string& message) {
  return {ErrorCode::shape, "sparse rows: " + message};
}

// A strip takes as long as three rows one by one.
constexpr std::size_t kFewRows = 4;
// Columns of x or y that are rearranged together: 64 x 16 floats are 4 KB, which stay in L1.
constexpr std::size_t kBlock = 64;
// Handing work to another thread costs some microseconds: 8,192 elements take about as long.
constexpr std::size_t kElementsPerGrain = 8192;

/// Rows [0, 16) of x side by side, columns [first, last); absent ones are zeros.
void interleave(MatrixView<const float> x, std::size_t first, std::size_t last, float* strip) {
  for (; first < last; first += kBlock) {
    const std::size_t end = std::min(first + kBlock, last);
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      for (std::size_t col = first; col < end; ++col) {
        strip[col * kLanes + lane] = lane < x.rows() ? x(lane, col) : 0.0f;
      }
    }
  }
}

/// y [at most 16, OC], columns [first, last).
void add_strip(const sparse_rows::Entry& entry, const sparse_rows::Elements& weight,
               const float* strip, MatrixView<float> y, std::size_t first, std::size_t last) {
  alignas(64) float sums[kBlock * kLanes] = {};
  for (; first < last; first += kBlock) {
    const std::size_t end = std::min(first + kBlock, last);
    for (std::size_t t = 0; t < y.rows(); ++t) {
      for (std::size_t r = first; r < end; ++r) sums[(r - first) * kLanes + t] = y(t, r);
    }
    entry.strip(weight, first, end, strip, sums);
    for (std::size_t t = 0; t < y.rows(); ++t) {
      for (std::size_t r = first; r < end; ++r) y(t, r) = sums[(r - first) * kLanes + t];
    }
  }
}

}  // namespace

Result<SparseRows> SparseRows::of(std::size_t cols, std::span<const std::uint32_t> row_start,
                                  std::span<const std::uint32_t> columns,
                                  std::span<const float> values) {
  if (columns.size() != values.size()) {
    return shape_error(std::to_string(columns.size()) + " columns for " +
                       std::to_string(values.size()) + " values; pass one for each");
  }
  if (row_start.empty()) {
    return shape_error("no starts of rows; pass one for each row and the number of elements");
  }
  for (std::size_t r = 0; r < row_start.size(); ++r) {
    const std::uint32_t least = r == 0 ? 0 : row_start[r - 1];
    if (row_start[r] < least || (r == 0 && row_start[0] != 0)) {
      return shape_error("row " + std::to_string(r) + " starts at element " +
                         std::to_string(row_start[r]) + ", expected " +
                         (r == 0 ? "0" : std::to_string(least) + " or more"));
    }
  }
  if (row_start.back() != values.size()) {
    return shape_error("the last row ends at element " + std::to_string(row_start.back()) +
                       ", expected the number of values, " + std::to_string(values.size()));
  }
  for (std::size_t k = 0; k < columns.size(); ++k) {
    if (columns[k] >= cols) {
      return shape_error("element " + std::to_string(k) + " is in column " +
                         std::to_string(columns[k]) + ", expected one below " +
                         std::to_string(cols));
    }
  }
  SparseRows made;
  made.cols_ = cols;
  made.row_start_ = row_start;
  made.columns_ = columns;
  made.values_ = values;
  return made;
}

Status add_sparse_product(MatrixView<const float> x, const SparseRows& weight, MatrixView<float> y,
                          Context& context) {
  const std::size_t rows = weight.rows(), cols = weight.cols();
  if (x.rows() != y.rows() || x.cols() != cols || y.cols() != rows) {
    return shape_error("x is " + std::to_string(x.rows()) + " x " + std::to_string(x.cols()) +
                       " and y is " + std::to_string(y.rows()) + " x " + std::to_string(y.cols()) +
                       " for weights of " + std::to_string(rows) + " x " + std::to_string(cols) +
                       "; pass x [T, columns] and y [T, rows]");
  }
  if (y.empty() || weight.values().empty()) return ok();
  const sparse_rows::Entry& entry = choose(sparse_rows::table());
  const sparse_rows::Elements elements{weight.row_start().data(), weight.columns().data(),
                                       weight.values().data()};
  const std::size_t mean = weight.values().size() / rows + 1;  // elements of a row
  const std::size_t grain = std::max<std::size_t>(1, kElementsPerGrain / mean);
  Executor& executor = context.executor();

  std::size_t t = 0;
  if (x.rows() >= kFewRows) {
    QUELL_TRY(context.reserve(0, cols * kLanes * sizeof(float)));
    auto* strip = reinterpret_cast<float*>(context.shared().data());
    for (std::size_t left = x.rows(); left >= kFewRows; left = x.rows() - t) {
      const std::size_t lanes = std::min<std::size_t>(left, kLanes);
      const MatrixView<const float> part = x.rows_from(t, lanes);
      executor.run(cols, 1024, [&](std::size_t begin, std::size_t end, unsigned) {
        interleave(part, begin, end, strip);
      });
      executor.run(rows, grain, [&](std::size_t begin, std::size_t end, unsigned) {
        add_strip(entry, elements, strip, y.rows_from(t, lanes), begin, end);
      });
      t += lanes;
    }
  }
  if (t == x.rows()) return ok();
  executor.run(rows, grain, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t row = t; row < x.rows(); ++row) {
      entry.one(elements, begin, end, x.row(row).data(), y.row(row).data() + begin);
    }
  });
  return ok();
}

}  // namespace quell::kernels
