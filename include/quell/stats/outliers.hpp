// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which elements, rows and columns of one matrix do not belong to the rest. Rules that hold for any
// matrix, without a model around it:
//
//   a line (row or column) is an outlier   if the median |x| along it is more than `line_ratio`
//                                          times the median of those medians over all lines;
//   an element is an outlier               if it is on no outlier line and lies above a gap: sorted
//                                          by magnitude, the ordinary values begin at most 1 /
//                                          `gap` of the smallest outlier.
//
// Both compare with the rest of the same matrix, so no unit and no distribution is assumed. A
// multiple of the median or of the deviation would not do: the largest of 16 million Student-t(5)
// values is ordinary at 70 to 170 times their median, where 20 times would be odd for a normal.
//
// False alarms. Magnitudes with a tail of P(|x| > a) ~ a^-n have P(top / next > g) = g^-n, and
// g^-(k n) for the k-th gap, whatever the number of values: with g = 5 Student-t(5) matrices give
// 0.03 %, normal ones nothing that could be measured. The median of m values reaches 4 times its
// expectation only if m / 2 of them do: below 1e-7 a line from 16 values on, and shorter lines are
// not judged.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/core/view.hpp"
#include "quell/stats/channels.hpp"
#include "quell/stats/magnitude.hpp"

namespace quell::stats {

struct OutlierRule {
  double line_ratio = 4;
  double gap = 5;
  std::size_t most_elements = 64;  // more than this many large values are a tail, not outliers
};

struct OutlierElement {
  std::size_t row = 0, col = 0;
  float value = 0;
};

struct OutlierLine {
  std::size_t index = 0;
  double ratio = 0;  // of medians
};

struct MatrixOutliers {
  std::vector<OutlierElement> elements;    // largest first
  std::vector<OutlierLine> rows, columns;  // ascending index
  /// Smallest outlier element over the largest ordinary magnitude; 0 without outlier elements.
  double gap = 0;

  bool empty() const noexcept { return elements.empty() && rows.empty() && columns.empty(); }
};

/// Lines shorter than this are not judged.
inline constexpr std::size_t kShortestLine = 16;

/// Values that are not finite are left out. The same result for any number of threads.
inline MatrixOutliers find_outliers(MatrixView<const float> x, const OutlierRule& rule,
                                    Executor& executor);

// ------------------------------------------------------------------ definitions

namespace detail {

/// Median |x| of the finite values of each line; NaN where there are none.
inline std::vector<double> line_medians(MatrixView<const float> x, Lines lines,
                                        Executor& executor) {
  const bool by_rows = lines == Lines::rows;
  const std::size_t count = by_rows ? x.rows() : x.cols();
  const std::size_t length = by_rows ? x.cols() : x.rows();
  // Columns are copied sixteen at a time, one cache line of a row.
  const std::size_t together = by_rows ? 1 : 16;
  std::vector<double> medians(count, std::numeric_limits<double>::quiet_NaN());
  executor.run(count, together, [&](std::size_t begin, std::size_t end, unsigned) {
    std::vector<float> values(together * length);
    for (std::size_t first = begin; first < end; first += together) {
      const std::size_t width = std::min(together, end - first);
      std::size_t kept[16] = {};
      for (std::size_t i = 0; i < length; ++i) {
        for (std::size_t c = 0; c < width; ++c) {
          const float value = by_rows ? x(first + c, i) : x(i, first + c);
          if (std::isfinite(value)) values[c * length + kept[c]++] = std::fabs(value);
        }
      }
      for (std::size_t c = 0; c < width; ++c) {
        if (kept[c] == 0) continue;
        medians[first + c] = quantile_in_place({values.data() + c * length, kept[c]}, 0.5);
      }
    }
  });
  return medians;
}

inline std::vector<OutlierLine> outlier_lines(MatrixView<const float> x, Lines lines, double ratio,
                                              Executor& executor) {
  std::vector<OutlierLine> found;
  if ((lines == Lines::rows ? x.cols() : x.rows()) < kShortestLine) return found;
  const std::vector<double> medians = line_medians(x, lines, executor);
  std::vector<double> known;
  std::copy_if(medians.begin(), medians.end(), std::back_inserter(known),
               [](double value) { return !std::isnan(value); });
  const double middle = median(std::move(known));
  // Where most lines are all zero there is no scale to compare with.
  if (!(middle > 0)) return found;
  for (std::size_t i = 0; i < medians.size(); ++i) {
    if (medians[i] > ratio * middle) found.push_back({i, medians[i] / middle});
  }
  return found;
}

}  // namespace detail

inline MatrixOutliers find_outliers(MatrixView<const float> x, const OutlierRule& rule,
                                    Executor& executor) {
  MatrixOutliers found;
  if (x.empty()) return found;
  found.rows = detail::outlier_lines(x, Lines::rows, rule.line_ratio, executor);
  found.columns = detail::outlier_lines(x, Lines::columns, rule.line_ratio, executor);
  std::vector<char> skip_row(x.rows()), skip_col(x.cols());
  for (const OutlierLine& line : found.rows) skip_row[line.index] = 1;
  for (const OutlierLine& line : found.columns) skip_col[line.index] = 1;

  // The largest of each part, then of all: ties keep the order of places, so parts do not show.
  const auto before = [](const OutlierElement& a, const OutlierElement& b) {
    const float x_a = std::fabs(a.value), x_b = std::fabs(b.value);
    if (x_a != x_b) return x_a > x_b;
    return a.row != b.row ? a.row < b.row : a.col < b.col;
  };
  const std::size_t keep = rule.most_elements + 1;
  constexpr std::size_t kRows = 64;
  std::vector<std::vector<OutlierElement>> parts((x.rows() - 1) / kRows + 1);
  executor.run(x.rows(), kRows, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t first = begin; first < end; first += kRows) {
      std::vector<OutlierElement>& part = parts[first / kRows];
      float floor = 0;  // what an element must exceed to be among the largest of its part
      for (std::size_t r = first; r < std::min(first + kRows, end); ++r) {
        if (skip_row[r] != 0) continue;
        for (std::size_t c = 0; c < x.cols(); ++c) {
          const float value = x(r, c);
          if (!(std::fabs(value) > floor) || !std::isfinite(value) || skip_col[c] != 0) continue;
          part.push_back({r, c, value});
          if (part.size() < 4 * keep) continue;
          std::nth_element(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(keep - 1),
                           part.end(), before);
          part.resize(keep);
          floor = std::fabs(part.back().value);
        }
      }
    }
  });
  std::vector<OutlierElement> top;
  for (const auto& part : parts) top.insert(top.end(), part.begin(), part.end());
  std::sort(top.begin(), top.end(), before);
  if (top.size() > keep) top.resize(keep);
  // The lowest gap that is wide enough: values above it may differ among each other as they like.
  // Of a handful of values nobody can say which are ordinary.
  const std::size_t most = std::min(top.size(), x.size() / kShortestLine + 1);
  for (std::size_t k = most; k-- > 1;) {
    const double high = std::fabs(static_cast<double>(top[k - 1].value));
    const double low = std::fabs(static_cast<double>(top[k].value));
    if (high < rule.gap * low) continue;
    found.gap = high / low;
    top.resize(k);
    found.elements = std::move(top);
    break;
  }
  return found;
}

}  // namespace quell::stats
