// SPDX-License-Identifier: Apache-2.0
#pragma once

// The rows of a weight as they are stored, a few at a time, by several threads: what measuring
// needs of a matrix that may be larger than memory.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/model/model.hpp"

namespace quell::pipeline {

/// A rectangle of the stored matrix.
struct StoredPart {
  std::size_t first_row = 0, rows = 0, first_col = 0, cols = 0;
};

struct StoredRows {
  enum class Type { bf16, f16, f32 };

  std::size_t rows = 0, cols = 0;  // as stored
  Type type = Type::f32;
  bool transposed = false;  // the weight's rows are the stored columns
  /// Fills `out`, rows one after another in `type`; safe from several threads. Values may be not
  /// finite.
  std::function<Status(const StoredPart& part, std::byte* out)> read;

  std::size_t width() const noexcept { return type == Type::f32 ? 4 : 2; }  // bytes of an element
};

/// Of a floating-point weight nothing stays in memory; of a quantized one the packed codes and
/// scales do, from which rows are decoded. The model must outlive what is returned.
Result<StoredRows> stored_rows(const model::Model& model, const model::Linear& linear);

/// Rows of a matrix in memory, which must outlive what is returned.
StoredRows rows_of(MatrixView<const float> x);
StoredRows rows_of(MatrixView<const std::uint16_t> x, StoredRows::Type type);

}  // namespace quell::pipeline
