// SPDX-License-Identifier: Apache-2.0
#pragma once

// The outlier report of a model as a document.

#include <functional>
#include <string>

#include "quell/model/model.hpp"
#include "quell/pipeline/outliers.hpp"
#include "quell/report/document.hpp"

namespace quell::report {

/// `name`: how the user called the model. `text_of` gives a token's text.
Document outlier_document(const std::string& name, const model::Model& model,
                          const pipeline::OutlierReport& report,
                          const std::function<std::string(std::int32_t)>& text_of);

}  // namespace quell::report
