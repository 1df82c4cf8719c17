// SPDX-License-Identifier: Apache-2.0
#pragma once

// What there is to say about single tensors of an outlier report: which hold values that number
// formats cannot, what the text covers, and a page for each.

#include <cstdint>
#include <vector>

#include "quell/pipeline/outliers.hpp"
#include "quell/pipeline/sensitivity.hpp"
#include "quell/report/document.hpp"

namespace quell::report {

/// Tensors with values that are not finite, that half precision cannot hold, or with lines of
/// zeros.
Section range_section(const pipeline::OutlierReport& report);

/// What a text says about a model: `distinct` tokens of `vocabulary` (0: not known), and whether
/// the second moments of its widest input can have full rank.
Section coverage_section(const pipeline::OutlierReport& report, std::uint64_t distinct,
                         std::uint64_t vocabulary);

/// A page for every weight matrix and every activation tensor, up to a number that keeps a report
/// of any model below 5 MB. `sensitivity` may be null.
std::vector<Section> page_sections(const pipeline::OutlierReport& report,
                                   const pipeline::Sensitivity* sensitivity);

}  // namespace quell::report
