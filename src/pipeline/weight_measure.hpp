// SPDX-License-Identifier: Apache-2.0
#pragma once

// Measuring a weight while its rows come by. Memory: some bytes for every row and every column, and
// a few MB a thread; no matrix is ever held. The result depends neither on threads nor on the
// instruction set.

#include "pipeline/stored_rows.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/pipeline/outliers.hpp"

namespace quell::pipeline {

/// All of a weight but its name and whether it stands out among others. Errors: those of reading.
Result<TensorOutliers> measure_weight(const StoredRows& weight, Executor& executor);

}  // namespace quell::pipeline
