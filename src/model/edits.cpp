// SPDX-License-Identifier: Apache-2.0

// Columns are mapped as the rows of the transposed matrix: a map then always works on adjacent
// values, and needs only one form.

#include "quell/model/edits.hpp"

#include <algorithm>
#include <utility>

#include "quell/model/model.hpp"

namespace quell::model {
namespace {

// Transposing by tiles of this many rows and columns keeps both sides in the first-level cache
// (2 x 32 x 32 x 4 bytes = 8 KiB).
constexpr std::size_t kTile = 32;

Status run(const std::vector<RowMap>& maps, Matrix& values, bool columns, Executor& executor) {
  if (maps.empty()) return ok();
  if (!columns) {
    for (const RowMap& map : maps) QUELL_TRY(map(values.view(), executor));
    return ok();
  }
  QUELL_TRY(turned, transposed(values));
  for (const RowMap& map : maps) QUELL_TRY(map(turned.view(), executor));
  QUELL_TRY(back, transposed(turned));
  values = std::move(back);
  return ok();
}

}  // namespace

Result<Matrix> transposed(const Matrix& values) {
  QUELL_TRY(target, Matrix::uninitialized(values.cols(), values.rows()));
  const float* from = values.data();
  float* to = target.data();
  const std::size_t rows = values.rows(), cols = values.cols();
  for (std::size_t row = 0; row < rows; row += kTile) {
    for (std::size_t col = 0; col < cols; col += kTile) {
      for (std::size_t r = row; r < std::min(rows, row + kTile); ++r) {
        for (std::size_t c = col; c < std::min(cols, col + kTile); ++c) {
          to[c * rows + r] = from[r * cols + c];
        }
      }
    }
  }
  return target;
}

void Edits::map_inputs(const Linear& linear, RowMap map) {
  tensors_[linear.name + ".weight"].rows.push_back(std::move(map));
}

void Edits::map_outputs(const Linear& linear, RowMap map) {
  if (linear.bias) tensors_[linear.name + ".bias"].rows.push_back(map);
  tensors_[linear.name + ".weight"].columns.push_back(std::move(map));
}

void Edits::map_rows(const std::string& tensor, RowMap map) {
  tensors_[tensor].rows.push_back(std::move(map));
}

void Edits::replace(const std::string& tensor, Matrix values) {
  Change& change = tensors_[tensor];
  change = Change();
  change.replaced = std::move(values);
}

void Edits::untie_head(const std::string& embedding, const std::string& head) {
  untied_head_ = head;
  tied_to_ = embedding;
  Change& change = tensors_[head];
  if (const auto found = tensors_.find(embedding); found != tensors_.end()) {
    change.rows = found->second.rows;
  }
}

const std::string& Edits::source(const std::string& tensor) const {
  return !untied_head_.empty() && tensor == untied_head_ ? tied_to_ : tensor;
}

bool Edits::maps_rows_alone(const std::string& tensor) const {
  const auto found = tensors_.find(tensor);
  return found == tensors_.end() ||
         (found->second.replaced.size() == 0 && found->second.columns.empty());
}

const Matrix* Edits::replacement(const std::string& tensor) const {
  const auto found = tensors_.find(tensor);
  if (found == tensors_.end() || found->second.replaced.size() == 0) return nullptr;
  return &found->second.replaced;
}

Status Edits::apply(const std::string& tensor, Matrix& values, bool transposed,
                    Executor& executor) const {
  const auto found = tensors_.find(tensor);
  if (found == tensors_.end()) return ok();
  QUELL_TRY(run(found->second.rows, values, transposed, executor));
  return run(found->second.columns, values, !transposed, executor);
}

}  // namespace quell::model
