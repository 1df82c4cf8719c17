// SPDX-License-Identifier: Apache-2.0
#pragma once

// What `quell outliers --json` printed, read back: as the report it was, and two side by side (two
// models, or one before and after a change).

#include <string>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/io/json.hpp"
#include "quell/pipeline/outliers.hpp"
#include "quell/report/document.hpp"

namespace quell::report {

/// Outliers read from JSON. Tokens are known by their text alone: the ids in `found` are places in
/// `texts`.
struct OutlierResult {
  std::string version;  // of the quell that wrote it
  pipeline::OutlierReport found;
  std::vector<std::string> texts;
};

/// True for an object that can be read: outliers itself, or what `quell run --json` printed.
bool holds_outliers(const io::Json& json);

/// `file` is for messages. Members that are missing count as not measured. Error: parse.
Result<OutlierResult> read_outliers(const std::string& file, const io::Json& json);

/// `name`: how the user called the file.
Document outlier_result_document(const std::string& name, const OutlierResult& result);
Document outlier_comparison_document(const std::string& name_a, const OutlierResult& a,
                                     const std::string& name_b, const OutlierResult& b);

}  // namespace quell::report
