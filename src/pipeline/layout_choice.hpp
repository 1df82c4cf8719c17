// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which layout of files can hold what a plan has decided.

#include <string>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/grid/spec.hpp"
#include "quell/pipeline/plan.hpp"
#include "quell/pipeline/recipe.hpp"

namespace quell::pipeline {

/// The same groups in the other direction.
GridSpec turned(GridSpec grid);

/// Sets the layout: the recipe's, or the first of those that its word stands for which holds every
/// layer, or else the native one, with a note. What the named layout cannot hold goes to
/// `problems`. Error: usage (no such layout).
Status choose_layout(const Recipe& recipe, Plan& plan, std::vector<std::string>& problems);

}  // namespace quell::pipeline
