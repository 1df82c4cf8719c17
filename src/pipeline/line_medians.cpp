// SPDX-License-Identifier: Apache-2.0

// Rows are selected as they come. Columns are read in blocks as wide as 64 MB allow, piece by piece
// of every row: the whole matrix once, whatever its size.

#include "pipeline/line_medians.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "pipeline/stored_bands.hpp"
#include "quell/stats/magnitude.hpp"

namespace quell::pipeline {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

void push_magnitude(float value, std::vector<float>& values) {
  if (std::isfinite(value)) values.push_back(std::fabs(value));
}
double median_of(std::vector<float>& values) {
  return values.empty() ? kNone : stats::quantile_in_place(values, 0.5);
}

Result<std::vector<double>> row_medians(const StoredRows& stored, Executor& executor) {
  std::vector<double> medians(stored.rows, kNone);
  QUELL_TRY(
      for_each_band(stored, executor, [&](const Bands& bands, std::size_t first_row, unsigned) {
        std::vector<float> values;
        const std::size_t rows = std::min(bands.rows(), stored.rows - first_row);
        for (std::size_t r = 0; r < rows; ++r) {
          values.clear();
          for (std::size_t c = 0; c < stored.cols; ++c) {
            push_magnitude(bands.at(r, c), values);
          }
          medians[first_row + r] = median_of(values);
        }
      }));
  return medians;
}

Result<std::vector<double>> column_medians(const StoredRows& stored, Executor& executor) {
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  const std::size_t width =
      std::clamp<std::size_t>(kBytes / (stored.rows * sizeof(float)), 1, stored.cols);
  std::vector<double> medians(stored.cols, kNone);
  // Magnitudes of a block, column after column; those that are not finite stay as they are.
  std::vector<float> block(width * stored.rows);
  for (std::size_t first = 0; first < stored.cols; first += width) {
    const std::size_t cols = std::min(width, stored.cols - first);
    const std::size_t rows = Bands(stored).rows();
    std::vector<Status> status(executor.width(), ok());
    executor.run(stored.rows, rows, [&](std::size_t begin, std::size_t end, unsigned slot) {
      Bands bands(stored);
      for (std::size_t r = begin; r < end && status[slot]; r += rows) {
        const std::size_t count = std::min(rows, end - r);
        status[slot] = bands.read({r, count, first, cols});
        if (!status[slot]) break;
        for (std::size_t c = 0; c < cols; ++c) {
          for (std::size_t i = 0; i < count; ++i) {
            block[c * stored.rows + r + i] = std::fabs(bands.at(i, c));
          }
        }
      }
    });
    for (Status& each : status) QUELL_TRY(std::move(each));
    executor.run(cols, 1, [&](std::size_t begin, std::size_t end, unsigned) {
      for (std::size_t c = begin; c < end; ++c) {
        const auto from = block.begin() + static_cast<std::ptrdiff_t>(c * stored.rows);
        const auto to = from + static_cast<std::ptrdiff_t>(stored.rows);
        const auto kept = std::remove_if(from, to, [](float x) { return !std::isfinite(x); });
        if (kept == from) continue;
        medians[first + c] = stats::quantile_in_place(std::span<float>(from, kept), 0.5);
      }
    });
  }
  return medians;
}

}  // namespace

Result<std::vector<double>> line_medians(const StoredRows& stored, stats::Lines lines,
                                         Executor& executor) {
  return lines == stats::Lines::rows ? row_medians(stored, executor)
                                     : column_medians(stored, executor);
}

Result<double> median_of_some_rows(const StoredRows& stored) {
  constexpr std::size_t kSome = 16;
  std::vector<float> values;
  Bands bands(stored);
  const std::size_t count = std::min(kSome, stored.rows);
  for (std::size_t i = 0; i < count; ++i) {
    QUELL_TRY(bands.read(i * stored.rows / count, 1));
    for (std::size_t c = 0; c < stored.cols; ++c) push_magnitude(bands.at(0, c), values);
  }
  return values.empty() ? 0 : median_of(values);
}

}  // namespace quell::pipeline
