// SPDX-License-Identifier: Apache-2.0
#pragma once

// Reading stored rows in bands of bounded size, one after another or by several threads.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "pipeline/stored_rows.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/half.hpp"
#include "quell/core/tensor.hpp"

namespace quell::pipeline {

/// One thread's band. Half precision is also there as float.
class Bands {
 public:
  explicit Bands(const StoredRows& stored) : stored_(&stored), rows_(band_rows(stored)) {}

  /// How many rows are best read together.
  std::size_t rows() const noexcept { return rows_; }

  Status read(std::size_t first, std::size_t count) {
    return read({first, count, 0, stored_->cols});
  }
  Status read(const StoredPart& part) {
    part_ = part;
    const std::size_t size = part.rows * part.cols;
    if (bytes_.size() < size * stored_->width()) {
      QUELL_TRY(bytes, AlignedBytes::allocate(size * stored_->width()));
      bytes_ = std::move(bytes);
    }
    QUELL_TRY(stored_->read(part, bytes_.data()));
    if (stored_->type == StoredRows::Type::f16) {
      floats_.resize(size);
      f16_to_float(all_words(), floats_);
    }
    return ok();
  }

  /// Of bf16 and f16.
  std::span<const std::uint16_t> all_words() const noexcept {
    return {reinterpret_cast<const std::uint16_t*>(bytes_.data()), part_.rows * part_.cols};
  }
  MatrixView<const std::uint16_t> words() const noexcept {
    return {all_words().data(), part_.rows, part_.cols};
  }
  /// Of f16 and f32.
  std::span<const float> all_floats() const noexcept {
    if (stored_->type == StoredRows::Type::f16) return floats_;
    return {reinterpret_cast<const float*>(bytes_.data()), part_.rows * part_.cols};
  }
  MatrixView<const float> floats() const noexcept {
    return {all_floats().data(), part_.rows, part_.cols};
  }
  /// Of all types.
  float at(std::size_t r, std::size_t c) const noexcept {
    if (stored_->type == StoredRows::Type::bf16) return bf16_to_float(words()(r, c));
    return floats()(r, c);
  }

 private:
  // A megabyte stays in the second cache; sixteen rows are a tile of the kernels, which is worth
  // more while it stays small beside the memory of the machine.
  static std::size_t band_rows(const StoredRows& stored) noexcept {
    constexpr std::size_t kBytes = std::size_t{1} << 20, kTile = 16, kMost = 256;
    const std::size_t row = stored.cols * stored.width();
    if (row == 0) return kMost;
    if (row <= kBytes / kTile) return std::min(kMost, kBytes / row / kTile * kTile);
    return std::clamp<std::size_t>(2 * kBytes / row, 1, kTile);
  }

  const StoredRows* stored_;
  std::size_t rows_;
  StoredPart part_;
  AlignedBytes bytes_;
  std::vector<float> floats_;
};

/// Calls use(bands, first_row, slot) for bands that cover all rows, of several threads at once.
template <typename Use>
Status for_each_band(const StoredRows& stored, Executor& executor, Use use) {
  const std::size_t rows = Bands(stored).rows();
  const std::size_t count = (stored.rows + rows - 1) / rows;
  std::vector<Status> status(executor.width(), ok());
  executor.run(count, 1, [&](std::size_t begin, std::size_t end, unsigned slot) {
    Bands bands(stored);
    for (std::size_t i = begin; i < end && status[slot]; ++i) {
      const std::size_t first = i * rows;
      status[slot] = bands.read(first, std::min(rows, stored.rows - first));
      if (status[slot]) use(std::as_const(bands), first, slot);
    }
  });
  for (Status& each : status) QUELL_TRY(std::move(each));
  return ok();
}

}  // namespace quell::pipeline
