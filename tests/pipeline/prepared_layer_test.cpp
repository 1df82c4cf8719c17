// SPDX-License-Identifier: Apache-2.0

// What a quantizer sees of a layer with kept columns.

#include "pipeline/prepared_layer.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "support/matrices.hpp"

namespace quell::pipeline {
namespace {

// One column of four is kept; its weights go, but what the drift of its channel does to the output
// stays for the others to make up for: W D with all of W, less the kept column.
TEST(PreparedLayer, LeavesTheDriftOfKeptChannelsToTheOthers) {
  model::Linear linear;
  linear.name = "layer";
  linear.rows = 3;
  linear.cols = 4;
  Task task;
  task.linear = &linear;
  task.site = model::Site::mlp_in;
  task.grid = *parse_grid("int8:sym:oc:row:f32");
  task.kept_columns = 1;
  const Matrix weight = test::gaussian_matrix(3, 4, 1);
  Matrix moment = *Matrix::zeros(4, 4), drift = *Matrix::zeros(4, 4);
  for (std::size_t i = 0; i < 4; ++i) moment(i, i) = 1;
  const std::vector<double> peaks = {0, 0, 5, 0};  // channel 2 is kept, and it alone has drifted
  const float drifts[] = {0.5F, -1, 2, 0.25F};
  for (std::size_t j = 0; j < 4; ++j) drift(2, j) = drifts[j];
  SerialExecutor serial;
  const auto layer =
      PreparedLayer::create(task, weight.view(), {moment.view(), drift.view(), peaks, 10}, serial);
  ASSERT_TRUE(layer) << layer.error().message;
  const quant::LayerProblem& problem = layer->problem();
  EXPECT_TRUE(problem.drift_of_output);
  ASSERT_EQ(problem.drift.rows(), 3u);
  ASSERT_EQ(problem.drift.cols(), 4u);
  for (std::size_t r = 0; r < 3; ++r) {
    EXPECT_EQ(problem.weight(r, 2), 0);
    for (std::size_t j = 0; j < 4; ++j) {
      EXPECT_EQ(problem.drift(r, j), j == 2 ? 0 : weight(r, 2) * drifts[j]) << r << ", " << j;
    }
  }
  EXPECT_EQ(problem.second_moment(2, 2), 0);
  EXPECT_EQ(problem.second_moment(1, 1), 1);
}

// The drift of an output already holds it.
TEST(PreparedLayer, TakesTheDriftOfAnOutputAsItIs) {
  model::Linear linear;
  linear.name = "layer";
  linear.rows = 3;
  linear.cols = 4;
  Task task;
  task.linear = &linear;
  task.site = model::Site::down_in;
  task.grid = *parse_grid("int8:sym:oc:row:f32");
  task.kept_columns = 1;
  const Matrix weight = test::gaussian_matrix(3, 4, 1), drift = test::gaussian_matrix(3, 4, 2);
  const std::vector<double> peaks = {0, 7, 0, 0};
  SerialExecutor serial;
  const auto layer =
      PreparedLayer::create(task, weight.view(), {{}, drift.view(), peaks, 10}, serial);
  ASSERT_TRUE(layer) << layer.error().message;
  for (std::size_t r = 0; r < 3; ++r) {
    for (std::size_t j = 0; j < 4; ++j) {
      EXPECT_EQ(layer->problem().drift(r, j), j == 1 ? 0 : drift(r, j));
    }
  }
}

}  // namespace
}  // namespace quell::pipeline
