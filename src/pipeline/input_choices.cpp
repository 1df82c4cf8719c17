// SPDX-License-Identifier: Apache-2.0

#include "pipeline/input_choices.hpp"

#include <algorithm>
#include <utility>

#include "quell/engine/rotation.hpp"
#include "quell/grid/formats.hpp"

namespace quell::pipeline {
namespace {

// With inputs of 8 bits one column of so many is kept: 0.125 bits a weight. On an encoder of 384
// channels, where int8 inputs raise the error of int8 weights alone 3.2 times, one column leaves
// 1.0 times of it, and this many (3, or 12 of 1536) leave 0.7: less, since the weights of kept
// columns are exact.
constexpr std::size_t kColumnsPerKept = 128;

void add_once(std::vector<std::string>& lines, std::string line) {
  if (std::find(lines.begin(), lines.end(), line) == lines.end()) lines.push_back(std::move(line));
}

}  // namespace

void choose_input(const Recipe& recipe, bool peaks, bool scaled, bool rotate, Task& task,
                  std::vector<std::string>& notes, std::vector<std::string>& problems) {
  const std::size_t cols = task.linear->cols;
  const std::string channels = std::to_string(cols) + " input channels";
  task.activation_bits = recipe.activation_bits == 16 ? 0 : recipe.activation_bits;
  task.activation_group = recipe.activation_group.value_or(0);
  if (recipe.activation_group && task.activation_bits != 4) {
    add_once(problems, "--activation-group " + std::to_string(*recipe.activation_group) +
                           " is for activations of 4 bits; give --scheme W4A4 or leave it out");
  }
  if (rotate) {
    task.rotation = engine::Rotation::block_of(cols);
    if (task.rotation == 1) {
      problems.push_back(task.linear->name + ": no block of its " + channels + " can be rotated");
    } else if (task.rotation != engine::Rotation::kBlock) {
      add_once(notes, channels + " are rotated in blocks of " + std::to_string(task.rotation) +
                          ", since " + std::to_string(engine::Rotation::kBlock) +
                          " does not divide them");
    }
  }
  const bool holds_zero = has_zero(task.grid.format);
  if (!recipe.keep_columns) {
    if (task.activation_bits != 8 || rotate || !holds_zero) return;
    if (scaled) {
      add_once(
          notes,
          "no columns are kept in f16: which channels set the scales of tokens is known before "
          "they are scaled, not after");
    } else if (peaks) {
      task.kept_columns = (cols + kColumnsPerKept - 1) / kColumnsPerKept;
    } else {
      add_once(notes,
               "no columns are kept in f16, since nothing tells which channels set the scales of "
               "tokens; calibration text (--calib) does");
    }
    return;
  }
  const std::string option = "--keep-columns " + std::to_string(*recipe.keep_columns);
  task.kept_columns = *recipe.keep_columns;
  if (task.kept_columns == 0) return;
  if (scaled) {
    add_once(problems, option +
                           ": columns are chosen by inputs before they are scaled; leave out "
                           "smoothquant and awq, or --keep-columns");
    task.kept_columns = 0;
  } else if (!peaks) {
    add_once(problems, option +
                           ": which channels set the scales of tokens is not known; give "
                           "calibration text (--calib), or statistics made by this version");
  } else if (rotate) {
    add_once(problems, option +
                           " and hadamard+ exclude each other: behind a rotation no column stands "
                           "out; leave one of them out (hadamard+ is the default with activations "
                           "of 4 bits: name a method without it)");
    task.kept_columns = 0;
  } else if (task.kept_columns > cols) {
    problems.push_back(task.linear->name + ": " + option + " of " + channels);
  } else if (!holds_zero) {
    problems.push_back(task.linear->name + ": " + option + " beside codes of " +
                       std::string(to_string(task.grid.format)) +
                       ", which has no zero for them; choose another format");
  }
}

void drop_kept_columns(const Recipe& recipe, std::vector<Task>& tasks,
                       std::vector<std::string>& notes) {
  if (recipe.keep_columns || recipe.to.empty()) return;
  bool any = false;
  for (Task& task : tasks) any |= std::exchange(task.kept_columns, std::size_t{0}) != 0;
  if (!any) return;
  add_once(notes, "no columns are kept in f16, since " + recipe.to +
                      " holds codes only; --to quell keeps those that set the scales of tokens");
}

io::ModulePlan Task::module() const {
  io::ModulePlan module{linear->name, grid, linear->rows, linear->cols};
  module.open_direction = open_direction;
  module.activation_bits = activation_bits;
  module.activation_group = activation_group;
  module.kept_columns = kept_columns;
  module.rotation = rotation;
  if (rotation != 0) module.rotation_seed = 4ull * layer + static_cast<unsigned>(site);
  return module;
}

}  // namespace quell::pipeline
