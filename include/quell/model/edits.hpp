// SPDX-License-Identifier: Apache-2.0
#pragma once

// Edits of a model as data: what stands over its files without changing them. Every change is a
// linear map of the vectors that a weight reads or makes, so one word serves diagonal scaling
// (AWQ, SmoothQuant), rotation and centring:
//
//   inputs:   W [OC, IC] <- W M     each row of W goes through the map
//   outputs:  y <- y N              each column of W, and the bias, goes through the map
//
// Maps of one side apply in the order in which they were added. A Model made by Model::edited()
// reads through its edits, so the forward pass, statistics and writers see the edited weights.

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/core/view.hpp"

namespace quell::model {

struct Linear;

/// Maps each row of a matrix [any, length] in place. Safe to call from several threads.
using RowMap = std::function<Status(MatrixView<float> rows, Executor& executor)>;

class Edits {
 public:
  void map_inputs(const Linear& linear, RowMap map);
  void map_outputs(const Linear& linear, RowMap map);
  /// The rows of a tensor that is no weight of a linear: embeddings, positions, a head.
  void map_rows(const std::string& tensor, RowMap map);
  /// Other values for a vector, in place of the file's and of all changes so far. One row.
  void replace(const std::string& tensor, Matrix values);
  /// The head becomes a tensor of its own, `head`, with what the embedding has at that time: edits
  /// of `embedding` made before are its edits too.
  void untie_head(const std::string& embedding, const std::string& head);

  bool contains(const std::string& tensor) const { return tensors_.contains(tensor); }
  /// True if some rows of the tensor can be had without the others.
  bool maps_rows_alone(const std::string& tensor) const;
  /// The name given to untie_head, or "".
  const std::string& untied_head() const noexcept { return untied_head_; }
  /// The tensor of the files that `tensor` starts from: its own name unless it is an untied head.
  const std::string& source(const std::string& tensor) const;

  /// The values that take the place of the file's, or null.
  const Matrix* replacement(const std::string& tensor) const;
  /// Applies the maps to `values`, the whole tensor or, where only rows are mapped, some of its
  /// rows. `values` of a weight is [OC, IC], or [IC, OC] if `transposed`.
  Status apply(const std::string& tensor, Matrix& values, bool transposed,
               Executor& executor) const;

 private:
  struct Change {
    Matrix replaced;  // empty: the file's values
    std::vector<RowMap> rows, columns;
  };
  std::map<std::string, Change> tensors_;
  std::string untied_head_, tied_to_;
};

/// values [R, C] -> [C, R].
Result<Matrix> transposed(const Matrix& values);

}  // namespace quell::model
