// SPDX-License-Identifier: Apache-2.0
#pragma once

// Memory for intermediate tensors: it grows to the largest shape asked for and is then reused.

#include <cstddef>
#include <utility>

#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/core/view.hpp"

namespace quell::engine {

class Scratch {
 public:
  /// rows x cols floats without gaps; earlier contents and views are lost.
  Result<MatrixView<float>> shape(std::size_t rows, std::size_t cols) {
    if (bytes_.size() < rows * cols * sizeof(float)) {
      bytes_ = AlignedBytes();  // frees before it allocates
      QUELL_TRY(bytes, AlignedBytes::allocate(rows * cols * sizeof(float)));
      bytes_ = std::move(bytes);
    }
    return MatrixView<float>(reinterpret_cast<float*>(bytes_.data()), rows, cols);
  }

 private:
  AlignedBytes bytes_;
};

}  // namespace quell::engine
