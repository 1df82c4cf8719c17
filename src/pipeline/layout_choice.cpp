// SPDX-License-Identifier: Apache-2.0

#include "pipeline/layout_choice.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "pipeline/input_choices.hpp"

namespace quell::pipeline {
namespace {

std::vector<std::string_view> candidates(const Recipe& recipe) {
  const std::string_view packed = "compressed-tensors";
  if (!recipe.to.empty() && recipe.to != packed) return {recipe.to};
  // Of inputs of 8 bits that library has another format.
  if (recipe.activation_bits == 8) return {packed, "compressed-tensors:int-quantized"};
  return {packed};
}

std::vector<std::string> refusals(const io::ExportLayout& layout, const std::vector<Task>& tasks) {
  std::vector<std::string> found;
  for (const Task& task : tasks) {
    io::ModulePlan module = task.module();
    std::string reason = layout.refuse(module);
    if (reason.empty() && task.open_direction) {
      module.grid = turned(module.grid);
      reason = layout.refuse(module);
    }
    if (!reason.empty()) found.push_back(task.linear->name + ": " + reason);
  }
  return found;
}

}  // namespace

GridSpec turned(GridSpec grid) {
  grid.per = grid.per == Channel::output ? Channel::input : Channel::output;
  return grid;
}

Status choose_layout(const Recipe& recipe, Plan& plan, std::vector<std::string>& problems) {
  std::vector<std::string> refused;
  const bool bytes = recipe.activation_bits == 8 && recipe.bits == 8;
  for (const std::string_view name : candidates(recipe)) {
    const io::ExportLayout* const layout = io::find_export_layout(name);
    if (layout == nullptr) {
      std::string known;
      for (const io::ExportLayout& each : io::export_layouts()) {
        known += (known.empty() ? "" : ", ") + std::string(each.name);
      }
      return Error{ErrorCode::usage,
                   "--to " + std::string(name) + " is not known; known are " + known};
    }
    if (layout->name != "quell") drop_kept_columns(recipe, plan.tasks, plan.notes);
    std::vector<std::string> reasons = refusals(*layout, plan.tasks);
    if (plan.layout == nullptr || reasons.empty()) plan.layout = layout;
    // The reason that counts is that of the format which the scheme belongs to.
    if (refused.empty() || reasons.empty() || bytes) refused = std::move(reasons);
    if (refused.empty()) break;
  }
  const bool conv1d = std::any_of(plan.tasks.begin(), plan.tasks.end(),
                                  [](const Task& task) { return task.linear->transposed; });
  if (refused.empty() && conv1d && plan.layout->name != "quell") {
    plan.notes.push_back(
        "this architecture keeps its matrices transposed (Conv1D), which other readers of " +
        std::string(plan.layout->name) + " may not look for; quell reads the result back");
  }
  if (refused.empty()) return ok();
  if (recipe.to.empty()) {
    plan.notes.push_back("--to quell, since compressed-tensors cannot hold this: " + refused[0]);
    plan.layout = io::find_export_layout("quell");
    refused = refusals(*plan.layout, plan.tasks);
  }
  problems.insert(problems.end(), refused.begin(), refused.end());
  return ok();
}

}  // namespace quell::pipeline
