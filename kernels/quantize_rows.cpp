// SPDX-License-Identifier: Apache-2.0

#include "quell/kernels/quantize_rows.hpp"

#include <algorithm>
#include <string>

#include "kernels/cpu/quantize_rows/contract.hpp"
#include "kernels/dispatch.hpp"

namespace quell::kernels {

Status quantize_rows(MatrixView<const float> x, MatrixView<std::int8_t> codes,
                     std::span<float> scales, Executor& executor) {
  if (codes.rows() != x.rows() || codes.cols() != x.cols() || scales.size() != x.rows()) {
    return Error{ErrorCode::shape, "quantize_rows: x is " + std::to_string(x.rows()) + " x " +
                                       std::to_string(x.cols()) + ", the codes are " +
                                       std::to_string(codes.rows()) + " x " +
                                       std::to_string(codes.cols()) + " with " +
                                       std::to_string(scales.size()) +
                                       " scales; pass codes of the same sizes and a scale a row"};
  }
  const auto& entry = choose(quantize_rows_family::table());
  // Some 10 us of work for each hand-over to another thread.
  const std::size_t grain = std::max<std::size_t>(1, 65536 / std::max<std::size_t>(1, x.cols()));
  executor.run(x.rows(), grain, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t row = begin; row < end; ++row) {
      scales[row] = quantize_rows_family::quantize_row(entry, x.row(row).data(), nullptr, x.cols(),
                                                       codes.row(row).data());
    }
  });
  return ok();
}

}  // namespace quell::kernels
