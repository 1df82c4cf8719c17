// SPDX-License-Identifier: Apache-2.0
#pragma once

// A quantized weight of the C++ side as the C interface takes it.

#include <cstdint>
#include <string>
#include <vector>

#include "quell/grid/quantized.hpp"
#include "quell/quell.h"

namespace quell::test {

/// The arrays that a quell_codes points to.
class Codes {
 public:
  explicit Codes(const QuantizedTensor& weight)
      : grid_(to_string(weight.grid())),
        codes_(weight.rows() * weight.cols()),
        parameters_(weight.parameters()) {
    for (std::size_t r = 0; r < weight.rows(); ++r) {
      weight.unpack_row(r, {codes_.data() + r * weight.cols(), weight.cols()});
    }
    c.struct_size = sizeof c;
    c.grid = grid_.c_str();
    c.rows = weight.rows();
    c.cols = weight.cols();
    c.codes = codes_.data();
    if (!weight.grid().two_level) {
      c.scales = parameters_.scales.data();
      c.scale_count = parameters_.scales.size();
    }
    c.zeros = parameters_.zeros.data();
    c.zero_count = parameters_.zeros.size();
    c.row_scales = parameters_.row_scales.data();
    c.row_scale_count = parameters_.row_scales.size();
    c.integers = parameters_.integers.data();
    c.integer_count = parameters_.integers.size();
  }
  Codes(const Codes&) = delete;
  Codes& operator=(const Codes&) = delete;

  /// For a call at once; `c` is for tests that change it.
  const quell_codes* as_c() const { return &c; }

  quell_codes c = {};
  std::vector<std::uint8_t>& codes() { return codes_; }
  GroupParameters& parameters() { return parameters_; }

 private:
  std::string grid_;
  std::vector<std::uint8_t> codes_;
  GroupParameters parameters_;
};

}  // namespace quell::test
