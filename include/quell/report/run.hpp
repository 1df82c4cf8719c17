// SPDX-License-Identifier: Apache-2.0
#pragma once

// What `quell run` found out, as one document: how far the result is from the original, where its
// loss is, and the outliers of the original.

#include <string>

#include "quell/core/result.hpp"
#include "quell/pipeline/evaluate.hpp"
#include "quell/pipeline/quantize.hpp"
#include "quell/report/document.hpp"
#include "quell/report/outliers.hpp"

namespace quell::report {

/// `inputs`: of the original. `name`: how the user called the result's folder.
Result<Document> run_document(const OutlierInputs& inputs, const std::string& name,
                              const pipeline::QuantizeOutcome& outcome,
                              const pipeline::Evaluation& evaluation);

}  // namespace quell::report
