// SPDX-License-Identifier: Apache-2.0

// What every format of the table must satisfy, on every grid made of it. A new format is tested by
// being listed in formats.hpp.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "quell/grid/scale.hpp"
#include "support/compare.hpp"
#include "support/matrices.hpp"

namespace quell {
namespace {

// Runs ranges in reverse and in small pieces on one thread: an order no result may depend on.
class BackwardsExecutor final : public Executor {
 public:
  unsigned width() const noexcept override { return 1; }
  void run(std::size_t n, std::size_t grain, RangeFunction fn) override {
    for (std::size_t piece = (n + grain - 1) / grain; piece-- > 0;) {
      fn(piece * grain, std::min(n, (piece + 1) * grain), 0);
    }
  }
};

// One test per format, symmetry and method; the test itself goes through directions, groups and
// scale types.
struct Case {
  Format format;
  bool symmetric;
  ScaleMethod method;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const FormatInfo& format : kFormats) {
    for (const bool symmetric : {true, false}) {
      if (!check_grid({.format = format.format, .symmetric = symmetric}).has_value()) continue;
      for (const ScaleMethod method :
           {ScaleMethod::absmax, ScaleMethod::minmax, ScaleMethod::search}) {
        cases.push_back({format.format, symmetric, method});
      }
    }
  }
  return cases;
}

std::string case_name(const ::testing::TestParamInfo<Case>& info) {
  const char* method = info.param.method == ScaleMethod::absmax   ? "absmax"
                       : info.param.method == ScaleMethod::minmax ? "minmax"
                                                                  : "search";
  return std::string(to_string(info.param.format)) + (info.param.symmetric ? "_sym_" : "_asym_") +
         method;
}

class FormatLaw : public ::testing::TestWithParam<Case> {
 protected:
  // Runs a law on every grid of the case, as `grid_`.
  template <typename Law>
  void on_every_grid(Law law) {
    for (const Channel per : {Channel::output, Channel::input}) {
      for (const std::uint32_t group : {0u, 16u}) {
        for (const ScaleType type : {ScaleType::f16, ScaleType::bf16, ScaleType::f32}) {
          for (const bool two_level : {false, true}) {
            grid_ = {GetParam().format, GetParam().symmetric, per, group, type, two_level};
            if (!check_grid(grid_).has_value()) continue;
            SCOPED_TRACE(to_string(grid_));
            law();
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
  GroupParameters scales_of(const Matrix& weight, Executor& executor) const {
    auto parameters = choose_scales(weight.view(), grid_, GetParam().method, {}, executor);
    EXPECT_TRUE(parameters.has_value()) << parameters.error().message;
    return *std::move(parameters);
  }
  QuantizedTensor quantize(const Matrix& weight, Executor& executor) const {
    auto tensor = quantize_to_grid(weight.view(), grid_, scales_of(weight, executor), executor);
    EXPECT_TRUE(tensor.has_value()) << tensor.error().message;
    return *std::move(tensor);
  }
  static Matrix values_of(const QuantizedTensor& tensor) {
    SerialExecutor executor;
    Matrix out = *Matrix::uninitialized(tensor.rows(), tensor.cols());
    EXPECT_TRUE(dequantize(tensor, out.view(), executor).has_value());
    return out;
  }
  static bool same_codes(const QuantizedTensor& a, const QuantizedTensor& b) {
    return std::equal(a.packed_codes().begin(), a.packed_codes().end(), b.packed_codes().begin(),
                      b.packed_codes().end());
  }
  GridSpec grid_;
  SerialExecutor serial_;
};

TEST_P(FormatLaw, CodesAreInRangeAndScalesAreFiniteNotZeroAndRepresentable) {
  on_every_grid([this] {
    for (const test::NamedMatrix& named : test::ordinary_matrices(19, 35)) {
      const QuantizedTensor tensor = quantize(named.matrix, serial_);
      const CodeRange range = code_range(grid_);
      std::vector<std::uint8_t> codes(35);
      for (std::size_t r = 0; r < 19; ++r) {
        tensor.unpack_row(r, codes);
        for (const std::uint8_t code : codes) {
          ASSERT_TRUE(code >= range.lowest && code <= range.highest) << named.name;
        }
      }
      for (const float scale : tensor.parameters().scales) {
        ASSERT_TRUE(std::isfinite(scale)) << named.name;
        ASSERT_TRUE(scale != 0 || !has_zero(grid_.format)) << named.name;
        if (!grid_.two_level) {
          ASSERT_EQ(round_scale(scale, grid_.scale_type), scale) << named.name;
        }
        // Absmax scales are positive, but for codebooks that point their longer end at the extreme.
        const bool searched =
            GetParam().method == ScaleMethod::search || grid_.format == Format::iq4;
        ASSERT_TRUE(scale >= 0 || (searched && allows_negative_scale(grid_))) << named.name;
      }
    }
  });
}

TEST_P(FormatLaw, EveryElementTakesTheNearestValueOfItsGroup) {
  on_every_grid([this] {
    for (const test::NamedMatrix& named : test::ordinary_matrices(7, 18)) {
      const QuantizedTensor tensor = quantize(named.matrix, serial_);
      const Matrix out = values_of(tensor);
      const GridSpec& grid = tensor.grid();
      const GroupLayout layout = group_layout(grid, 7, 18);
      const CodeRange range = code_range(grid);
      for (std::size_t r = 0; r < 7; ++r) {
        for (std::size_t c = 0; c < 18; ++c) {
          const std::size_t index = layout.index(r, c);
          const double scale = static_cast<double>(tensor.parameters().scales[index]);
          const int zero =
              grid.symmetric ? symmetric_zero(grid.format) : tensor.parameters().zeros[index];
          const double w = static_cast<double>(named.matrix(r, c));
          double nearest = std::numeric_limits<double>::infinity();
          for (int code = range.lowest; code <= range.highest; ++code) {
            const auto level = static_cast<double>(code_level(grid.format, code, zero));
            nearest = std::fmin(nearest, std::fabs(level * scale - w));
          }
          // The quotient w / scale is rounded before it is rounded to a code: 2^-24 of at most 255
          // steps; and the value (code - zero) * scale once more, relative to itself.
          const double room = std::fabs(scale) * 0x1p-15 + std::fabs(w) * 0x1p-23;
          ASSERT_LE(std::fabs(static_cast<double>(out(r, c)) - w), nearest + room) << named.name;
        }
      }
    }
  });
}

TEST_P(FormatLaw, AMatrixOnTheGridComesBackUnchangedWithItsScales) {
  on_every_grid([this] {
    for (const test::NamedMatrix& named : test::ordinary_matrices(17, 33)) {
      const QuantizedTensor first = quantize(named.matrix, serial_);
      const Matrix values = values_of(first);
      const auto again = quantize_to_grid(values.view(), grid_, first.parameters(), serial_);
      ASSERT_TRUE(again.has_value());
      ASSERT_TRUE(same_codes(first, *again)) << named.name;
      ASSERT_TRUE(test::same_bits(values_of(*again).values(), values.values())) << named.name;
    }
  });
}

TEST_P(FormatLaw, SearchedScalesFindAMatrixOnTheGridAgain) {
  on_every_grid([this] {
    if (GetParam().method != ScaleMethod::search) return;
    // Groups that use both ends of the code range, at random scales of the scale type.
    const GridSpec& grid = grid_;
    const GroupLayout layout = group_layout(grid, 32, 32);
    const CodeRange range = code_range(grid);
    const Random random(5);
    std::uint64_t next = 0;
    GroupParameters parameters{layout.rows, layout.cols, {}, {}};
    for (std::size_t i = 0; i < layout.rows * layout.cols; ++i) {
      const auto scale = static_cast<float>(0.01 + random.uniform(next++));
      parameters.scales.push_back(round_scale(scale, grid.scale_type));
      if (grid.two_level) {
        // The largest integer occurs in every row, since the row scale is found from it.
        const std::size_t c = i % layout.cols;
        if (c == 0) parameters.row_scales.push_back(parameters.scales.back());
        parameters.integers.push_back(
            c == 0 ? kHighestGroupInteger
                   : static_cast<std::uint8_t>(1 + random.below(next++, kHighestGroupInteger)));
      }
      if (!grid.symmetric) {
        parameters.zeros.push_back(
            static_cast<std::uint8_t>(random.below(next++, range.highest + 1u)));
      }
    }
    if (grid.two_level) multiply_levels(parameters);
    std::vector<std::uint8_t> codes(32);
    const std::size_t row_bytes = packed_size(32, bits(grid.format));
    std::vector<std::uint8_t> packed(32 * row_bytes);
    for (std::size_t r = 0; r < 32; ++r) {
      for (std::size_t c = 0; c < 32; ++c) {
        // Along either direction every sixteenth element is the lowest, its neighbour the highest.
        const std::size_t position = (r + c) % 16;
        codes[c] =
            position == 0 ? range.lowest
            : position == 1
                ? range.highest
                : static_cast<std::uint8_t>(
                      range.lowest + random.below(next++, range.highest - range.lowest + 1u));
      }
      pack_codes(codes, bits(grid.format), std::span(packed).subspan(r * row_bytes, row_bytes));
    }
    const auto tensor = QuantizedTensor::create(grid, 32, 32, packed, parameters);
    ASSERT_TRUE(tensor.has_value()) << tensor.error().message;
    const Matrix values = values_of(*tensor);
    const Matrix again = values_of(quantize(values, serial_));
    if (grid.scale_type == ScaleType::f32) {
      // A least-squares scale in float is within its sums' rounding of the true one.
      EXPECT_LE(test::relative_l2(again.view(), values.view()), 1e-6);
    } else {
      EXPECT_TRUE(test::same_bits(again.values(), values.values()));
    }
  });
}

TEST_P(FormatLaw, PowersOfTwoScaleTheResultAndKeepTheCodes) {
  on_every_grid([this] {
    const Matrix weight = test::student_matrix(20, 36, 4, 9);
    const QuantizedTensor reference = quantize(weight, serial_);
    for (const float factor : {4.0f, 0.5f}) {
      Matrix scaled = *Matrix::uninitialized(20, 36);
      for (std::size_t i = 0; i < weight.size(); ++i) scaled.data()[i] = weight.data()[i] * factor;
      const QuantizedTensor tensor = quantize(scaled, serial_);
      ASSERT_TRUE(same_codes(reference, tensor)) << factor;
      for (std::size_t i = 0; i < tensor.parameters().scales.size(); ++i) {
        ASSERT_EQ(tensor.parameters().scales[i], reference.parameters().scales[i] * factor);
      }
    }
  });
}

TEST_P(FormatLaw, ResultsDoNotDependOnHowTheWorkIsCut) {
  on_every_grid([this] {
    const Matrix weight = test::student_matrix(70, 50, 4, 3);
    BackwardsExecutor backwards;
    const QuantizedTensor a = quantize(weight, serial_);
    const QuantizedTensor b = quantize(weight, backwards);
    EXPECT_TRUE(same_codes(a, b));
    EXPECT_TRUE(test::same_bits(a.parameters().scales, b.parameters().scales));
    EXPECT_EQ(a.parameters().zeros, b.parameters().zeros);
    Matrix out = *Matrix::uninitialized(70, 50);
    ASSERT_TRUE(dequantize(a, out.view(), backwards).has_value());
    EXPECT_TRUE(test::same_bits(out.values(), values_of(a).values()));
  });
}

TEST_P(FormatLaw, PermutedChannelsGivePermutedResults) {
  on_every_grid([this] {
    // Output channels of per-output grids, input channels of per-input grids, reversed.
    const Matrix weight = test::gaussian_matrix(21, 22, 6);
    const bool rows = grid_.per == Channel::output;
    Matrix reversed = *Matrix::uninitialized(21, 22);
    for (std::size_t r = 0; r < 21; ++r) {
      for (std::size_t c = 0; c < 22; ++c) {
        reversed(r, c) = rows ? weight(20 - r, c) : weight(r, 21 - c);
      }
    }
    const Matrix a = values_of(quantize(weight, serial_));
    const Matrix b = values_of(quantize(reversed, serial_));
    for (std::size_t r = 0; r < 21; ++r) {
      for (std::size_t c = 0; c < 22; ++c) {
        ASSERT_EQ(b(r, c), rows ? a(20 - r, c) : a(r, 21 - c));
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(EveryGrid, FormatLaw, ::testing::ValuesIn(all_cases()), case_name);

}  // namespace
}  // namespace quell
