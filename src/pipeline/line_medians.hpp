// SPDX-License-Identifier: Apache-2.0
#pragma once

// Medians along the lines of a stored matrix, for the matrices in which lines may be outliers.

#include <vector>

#include "pipeline/stored_rows.hpp"
#include "quell/core/executor.hpp"
#include "quell/stats/channels.hpp"

namespace quell::pipeline {

/// Median |x| of the finite values of each stored row or column, as stats::find_outliers takes it;
/// NaN where there are none.
Result<std::vector<double>> line_medians(const StoredRows& stored, stats::Lines lines,
                                         Executor& executor);

/// About the median |x| of the matrix: that of sixteen rows; 0 if they hold nothing finite.
Result<double> median_of_some_rows(const StoredRows& stored);

}  // namespace quell::pipeline
