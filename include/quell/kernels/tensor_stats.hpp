// SPDX-License-Identifier: Apache-2.0
#pragma once

// Sums over tensors: the raw material of the statistics. Double accumulation over fixed chunks of
// 4,096 elements, 16 lanes each, merged in index order: the same bits for any number of threads and
// on any instruction set.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/kernels/context.hpp"

namespace quell::kernels {

/// Plain power sums of a set of values. Non-finite values are counted and left out of everything
/// else.
struct PowerSums {
  std::uint64_t count = 0;  // finite values
  std::uint64_t nonfinite = 0;
  double sum = 0, sum2 = 0, sum3 = 0, sum4 = 0;  // of x, x^2, x^3, x^4
  double sum_abs = 0;
  float max_abs = 0;
  std::uint64_t argmax_abs = 0;  // row-major index of the first largest |x|

  /// More values, which follow these; `first` is the index of their start.
  void merge(const PowerSums& later, std::uint64_t first) noexcept {
    const bool none = count == 0 && later.count > 0;
    count += later.count;
    nonfinite += later.nonfinite;
    sum += later.sum;
    sum2 += later.sum2;
    sum3 += later.sum3;
    sum4 += later.sum4;
    sum_abs += later.sum_abs;
    if (later.max_abs > max_abs || none) {  // strictly: the first of equals stays
      max_abs = later.max_abs;
      argmax_abs = first + later.argmax_abs;
    }
  }
};

/// Sums along both directions of rows that come in bands, in one pass: of each column over up to
/// kRows rows, and of each row count, nonfinite, sum_abs and max_abs. Blocks of kRows rows are
/// summed apart, each by one thread, and merged in order, so that the bits depend neither on
/// threads nor on bands, if all but the last of a block are multiples of kRun rows.
///
/// Unlike all other sums these are not in double from the start: sums of up to kRun values are
/// taken in float, and those are added in double. That is off by at most 2^-19 of the sum of the
/// absolute values of the terms (1e-7 for columns of 512 normal values) and, for each element, by
/// 2^-70 of the same power of the largest |x| nearby; counts and maxima are exact. It buys two thirds
/// more speed than double has on bfloat16 in memory (AVX-512). Moments of values whose
/// mean is large beside their deviation cannot be had from such sums.
class LineSums {
 public:
  static constexpr std::size_t kRows = 512;
  static constexpr std::size_t kRun = 16;

  explicit LineSums(std::size_t cols);
  LineSums(LineSums&&) noexcept;
  LineSums& operator=(LineSums&&) noexcept;
  ~LineSums();

  std::size_t cols() const noexcept { return cols_; }
  std::size_t rows() const noexcept { return rows_; }   // added since the start
  static std::size_t bytes(std::size_t cols) noexcept;  // of memory

  /// The next rows; `sums` has one element for each. All rows together are at most kRows.
  void add(MatrixView<const float> x, std::span<PowerSums> sums);
  /// `counts`, if not empty: 65,536 counters, to which the words of the rows are added.
  void add(MatrixView<const std::uint16_t> bf16, std::span<PowerSums> sums,
           std::span<std::uint32_t> counts = {});
  /// Merges the sums of columns [first_col, first_col + columns.size()) into `columns`, which hold
  /// the rows before. Where a maximum lies is not known: argmax_abs stays 0.
  void merge_into(std::span<PowerSums> columns, std::size_t first_col) const noexcept;
  /// Back to the start.
  void clear() noexcept;

 private:
  struct State;
  template <typename T>
  void add_rows(MatrixView<const T> x, std::span<PowerSums> sums, std::span<std::uint32_t> counts);
  std::size_t cols_ = 0, rows_ = 0;
  std::unique_ptr<State> state_;
};

/// Over all elements of a matrix.
PowerSums power_sums(MatrixView<const float> x, Context& context);
/// Over each row; `out` has one element per row.
void row_sums(MatrixView<const float> x, std::span<PowerSums> out, Context& context);
/// Over each column; `out` has one element per column; argmax_abs is the row.
void column_sums(MatrixView<const float> x, std::span<PowerSums> out, Context& context);

}  // namespace quell::kernels
