// SPDX-License-Identifier: Apache-2.0

#include "pipeline/prepared_layer.hpp"

#include <utility>

#include "linalg/linalg.hpp"
#include "pipeline/changed_models.hpp"
#include "quell/calib/staged_walk.hpp"
#include "quell/engine/rotation.hpp"
#include "quell/quant/methods.hpp"

namespace quell::pipeline {

Result<PreparedLayer> PreparedLayer::create(const Task& task, MatrixView<const float> weight,
                                            const InputStatistics& inputs, Executor& executor) {
  PreparedLayer layer;
  quant::LayerProblem& problem = layer.problem_;
  problem.name = task.linear->name;
  problem.weight = weight;
  problem.grid = task.grid;
  problem.scale = task.scale;
  problem.second_moment = inputs.moment;
  problem.keep_direction = !task.open_direction;
  problem.drift = inputs.drift;
  problem.drift_of_output = calib::StagedWalk::drifts_at_output(task.site);
  problem.tokens = inputs.tokens;
  layer.target_ = weight;
  if (task.kept_columns != 0) QUELL_TRY(layer.split(task, inputs, executor));
  if (task.rotation != 0) QUELL_TRY(layer.rotate(task, executor));
  return layer;
}

Status PreparedLayer::split(const Task& task, const InputStatistics& inputs, Executor& executor) {
  QUELL_TRY(parts, quant::outlier_columns()->split(
                       {problem_.name, problem_.weight, inputs.peaks, task.kept_columns}));
  weight_ = std::move(parts.rest);
  kept_ = std::move(parts.kept);
  // What the drift of a kept channel does to the output is for the others to make up for, so the
  // product is that of the whole weight.
  if (!problem_.drift.empty() && !problem_.drift_of_output) {
    linalg::Context context(executor);
    QUELL_TRY(lost, Matrix::uninitialized(problem_.weight.rows(), problem_.weight.cols()));
    QUELL_TRY(
        linalg::gemm_dense({{problem_.weight}, {problem_.drift, true}, lost.view()}, context));
    drift_ = std::move(lost);
    problem_.drift = drift_.view();
    problem_.drift_of_output = true;
  }
  // What f16 drops of a kept column is nothing that codes could hold.
  for (const std::uint32_t c : kept_.columns) {
    for (std::size_t r = 0; r < weight_.rows(); ++r) weight_(r, c) = 0;
  }
  problem_.weight = weight_.view();
  // The weights of kept channels are exact: no error is to be moved into them.
  const auto without = [&](MatrixView<const float>& matrix, bool rows, Matrix& copy) -> Status {
    if (matrix.empty()) return ok();
    QUELL_TRY(made, copy_of(matrix));
    for (const std::uint32_t c : kept_.columns) {
      for (std::size_t j = 0; j < made.rows(); ++j) made(j, c) = 0;
      for (std::size_t j = 0; rows && j < made.cols(); ++j) made(c, j) = 0;
    }
    copy = std::move(made);
    matrix = copy.view();
    return ok();
  };
  QUELL_TRY(without(problem_.second_moment, true, moment_));
  return without(problem_.drift, false, drift_);
}

Status PreparedLayer::rotate(const Task& task, Executor& executor) {
  QUELL_TRY(rotation, engine::Rotation::create(task.linear->cols, task.rotation,
                                               task.module().rotation_seed));
  kernels::Context context(executor);
  QUELL_TRY(weight, copy_of(problem_.weight));
  QUELL_TRY(rotation.apply(weight.view(), context));
  weight_ = std::move(weight);
  problem_.weight = target_ = weight_.view();
  if (!problem_.second_moment.empty()) {
    QUELL_TRY(moment, copy_of(problem_.second_moment));
    QUELL_TRY(rotation.apply_to_moment(moment.view(), true, context));
    moment_ = std::move(moment);
    problem_.second_moment = moment_.view();
  }
  if (!problem_.drift.empty()) {
    QUELL_TRY(drift, copy_of(problem_.drift));
    // Of the output only the side of the inputs is rotated.
    if (problem_.drift_of_output) {
      QUELL_TRY(rotation.apply(drift.view(), context));
    } else {
      QUELL_TRY(rotation.apply_to_moment(drift.view(), false, context));
    }
    drift_ = std::move(drift);
    problem_.drift = drift_.view();
  }
  return ok();
}

Result<QuantizedTensor> PreparedLayer::finish(QuantizedTensor tensor) {
  if (kept_.columns.empty()) return tensor;
  return std::move(tensor).keeping(std::move(kept_));
}

}  // namespace quell::pipeline
