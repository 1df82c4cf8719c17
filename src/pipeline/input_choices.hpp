// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a plan decides about the input of a layer: how it is rounded while the model runs, and what
// makes that easier, columns kept or a rotation.

#include <string>
#include <vector>

#include "quell/pipeline/plan.hpp"
#include "quell/pipeline/recipe.hpp"

namespace quell::pipeline {

/// Sets what a task has beside its grid, which it has already. `peaks`: the data tell which
/// channels set the scales of tokens. `rotate`: the method's word asked for it. Adds what speaks
/// against it to `problems`, and what a user should know to `notes`, each once.
/// `scaled`: a transform changes the inputs after they were ranked.
void choose_input(const Recipe& recipe, bool peaks, bool scaled, bool rotate, Task& task,
                  std::vector<std::string>& notes, std::vector<std::string>& problems);

/// Columns that nobody asked for are no reason to refuse a layout that somebody did: where the
/// recipe names one (other than the native) and no number of columns, none are kept.
void drop_kept_columns(const Recipe& recipe, std::vector<Task>& tasks,
                       std::vector<std::string>& notes);

}  // namespace quell::pipeline
