// SPDX-License-Identifier: Apache-2.0
#pragma once

// QuantizedTensor: a weight W [OC, IC] as codes on a grid. What is here is canonical and independent
// of the machine: row-major codes, lowest bits first, a row starting at a byte. What kernels multiply
// with is packed from it and never written to disk.

#include <cstdint>
#include <span>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/grid/spec.hpp"

namespace quell {

/// Scales and zeros of all groups, in storage order: [OC, groups along IC] per output channel,
/// [groups along OC, IC] per input channel.
struct GroupParameters {
  std::size_t rows = 0;             // of the array above
  std::size_t cols = 0;
  std::vector<float> scales;        // finite, not zero, exactly representable in the scale type
  std::vector<std::uint8_t> zeros;  // asymmetric grids only, in code units; else empty
};

class QuantizedTensor {
 public:
  QuantizedTensor() = default;

  /// Takes codes packed as described above and checks everything that was promised: array sizes,
  /// code range of the format, scales finite, not zero and representable. Errors: shape, numeric.
  static Result<QuantizedTensor> create(const GridSpec& grid, std::size_t rows, std::size_t cols,
                                        std::vector<std::uint8_t> packed_codes,
                                        GroupParameters parameters);

  const GridSpec& grid() const noexcept { return grid_; }
  std::size_t rows() const noexcept { return rows_; }  // OC
  std::size_t cols() const noexcept { return cols_; }  // IC
  /// Bytes of one packed row: ceil(IC * bits / 8).
  std::size_t row_bytes() const noexcept { return row_bytes_; }
  std::span<const std::uint8_t> packed_codes() const noexcept { return codes_; }
  const GroupParameters& parameters() const noexcept { return parameters_; }

  /// Unpacked codes of one row, 0 .. 2^bits - 1; `codes` has IC elements.
  void unpack_row(std::size_t row, std::span<std::uint8_t> codes) const;
  /// Dequantized values of one row; `values` has IC elements.
  void dequantize_row(std::size_t row, std::span<float> values) const;

  /// Everything counted: codes, scales in their type, zeros in `bits` bits each.
  double bits_per_weight() const noexcept;

 private:
  GridSpec grid_;
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  std::size_t row_bytes_ = 0;
  std::vector<std::uint8_t> codes_;
  GroupParameters parameters_;
};

/// The whole tensor as floats; `out` is [OC, IC].
Status dequantize(const QuantizedTensor& tensor, MatrixView<float> out, Executor& executor);

}  // namespace quell
