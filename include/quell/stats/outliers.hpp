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
#include "quell/stats/outlier_scan.hpp"

namespace quell::stats {

struct OutlierRule {
  double line_ratio = 4;
  double gap = 5;
  std::size_t most_elements = 64;  // more than this many large values are a tail, not outliers
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

/// The lines whose median is more than `ratio` times the median of all; NaN: a line without values.
inline std::vector<OutlierLine> outlier_lines(const std::vector<double>& medians, double ratio);

/// Adds elements and gap to `found`: `top` are the rule.most_elements + 1 largest elements on no
/// outlier line, the largest first, of a matrix of `size` elements.
inline void outlier_elements(std::vector<OutlierElement> top, std::size_t size,
                             const OutlierRule& rule, MatrixOutliers& found);

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

}  // namespace detail

inline std::vector<OutlierLine> outlier_lines(const std::vector<double>& medians, double ratio) {
  std::vector<OutlierLine> found;
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

inline void outlier_elements(std::vector<OutlierElement> top, std::size_t size,
                             const OutlierRule& rule, MatrixOutliers& found) {
  // The lowest gap that is wide enough: values above it may differ among each other as they like.
  // Of a handful of values nobody can say which are ordinary.
  const std::size_t most = std::min(top.size(), size / kShortestLine + 1);
  for (std::size_t k = most; k-- > 1;) {
    const double high = std::fabs(static_cast<double>(top[k - 1].value));
    const double low = std::fabs(static_cast<double>(top[k].value));
    if (high < rule.gap * low) continue;
    found.gap = high / low;
    top.resize(k);
    found.elements = std::move(top);
    return;
  }
}

inline MatrixOutliers find_outliers(MatrixView<const float> x, const OutlierRule& rule,
                                    Executor& executor) {
  MatrixOutliers found;
  if (x.empty()) return found;
  if (x.cols() >= kShortestLine) {
    found.rows = outlier_lines(detail::line_medians(x, Lines::rows, executor), rule.line_ratio);
  }
  if (x.rows() >= kShortestLine) {
    found.columns =
        outlier_lines(detail::line_medians(x, Lines::columns, executor), rule.line_ratio);
  }
  std::vector<char> skip_row(x.rows()), skip_col(x.cols());
  for (const OutlierLine& line : found.rows) skip_row[line.index] = 1;
  for (const OutlierLine& line : found.columns) skip_col[line.index] = 1;

  const std::size_t keep = rule.most_elements + 1;
  constexpr std::size_t kRows = 64;
  std::vector<LargestElements> parts((x.rows() - 1) / kRows + 1, LargestElements(keep));
  executor.run(x.rows(), kRows, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t r = begin; r < end; ++r) {
      if (skip_row[r] != 0) continue;
      LargestElements& part = parts[r / kRows];
      for (std::size_t c = 0; c < x.cols(); ++c) {
        const float value = x(r, c);
        if (std::fabs(value) < part.floor() || !std::isfinite(value) || skip_col[c] != 0) continue;
        part.add({r, c, value});
      }
    }
  });
  LargestElements all(keep);
  for (const LargestElements& part : parts) all.merge(part);
  outlier_elements(all.sorted(), x.size(), rule, found);
  return found;
}

}  // namespace quell::stats
