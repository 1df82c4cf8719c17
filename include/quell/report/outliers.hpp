// SPDX-License-Identifier: Apache-2.0
#pragma once

// The outlier report of a model as a document.

#include <cstdint>
#include <functional>
#include <string>

#include "quell/model/model.hpp"
#include "quell/pipeline/outliers.hpp"
#include "quell/pipeline/sensitivity.hpp"
#include "quell/report/document.hpp"

namespace quell::report {

/// What was measured, and what the caller knows about it.
struct OutlierInputs {
  std::string name;                     // how the user called the model
  const model::Model* model = nullptr;  // null: a result that was read from a file
  const pipeline::OutlierReport* found = nullptr;
  std::function<std::string(std::int32_t)> text_of;    // a token's text
  const pipeline::Sensitivity* sensitivity = nullptr;  // null: not measured
  std::uint64_t distinct_tokens = 0;                   // of the text; 0: not known
  Facts provenance;  // beside versions: fingerprints, options, time, memory
};

Document outlier_document(const OutlierInputs& inputs);

}  // namespace quell::report
