// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a run is, in the words that a resumed one is compared by.

#include "quell/pipeline/quantize.hpp"

namespace quell::pipeline {

/// Everything that the bytes of a result follow from, and nothing else.
Result<io::Json> run_identity(const model::Model& model, const Recipe& recipe, const Plan& plan,
                              const QuantizeOptions& options);

}  // namespace quell::pipeline
