// SPDX-License-Identifier: Apache-2.0

// What every registered quantizer must keep, on every format, symmetry and direction of groups, and
// on matrices that break arithmetic. A method is tested by being listed, a wrapper around rounding,
// the quickest.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "quant/problems.hpp"
#include "quell/kernels/isa.hpp"
#include "quell/quant/registry.hpp"
#include "support/matrices.hpp"

namespace quell::quant {
namespace {

constexpr std::size_t kRows = 21, kInputs = 75;  // no multiple of lanes, blocks or groups

/// A method with the options that change codes, on one format and symmetry.
struct Law {
  std::string method;
  MethodOptions options;
  std::string format;  // "int4:sym"
};

std::string name_of(const ::testing::TestParamInfo<Law>& info) {
  const Law& law = info.param;
  std::string name = law.method + (law.options.act_order ? "_act_order_" : "_") + law.format;
  for (char& c : name) {
    if (c == ':' || c == '+') c = '_';
  }
  return name;
}

std::vector<Law> all_laws() {
  std::vector<Law> laws;
  std::vector<std::string> names;
  for (const Method& method : methods()) names.emplace_back(method.name);
  for (const Wrapper& wrapper : wrappers()) names.push_back(std::string(wrapper.name) + "+rtn");
  for (const std::string& name : names) {
    const Method* method = find_method(name);
    const bool sorts =
        method != nullptr && method->options.find("act_order") != std::string_view::npos;
    for (const FormatInfo& format : kFormats) {
      for (const char* symmetry : {":sym", ":asym"}) {
        const std::string word = std::string(format.name) + symmetry;
        if (!parse_grid(word).has_value()) continue;
        laws.push_back({name, {}, word});
        if (sorts) laws.push_back({name, {.act_order = true}, word});
      }
    }
  }
  return laws;
}

// Groups of 20 leave a ragged one of 15 along rows and of 1 down columns.
constexpr const char* kDirections[] = {"oc:g20:f32",  "oc:row:f32",    "ic:g20:f32",
                                       "ic:row:bf16", "oc:g20:f32:u4", "ic:g20:bf16:u4"};
constexpr ScaleMethod kScales[] = {ScaleMethod::absmax, ScaleMethod::minmax, ScaleMethod::search};

const Matrix& moment() {
  static const Matrix h = [] {
    Matrix x = test::layer_inputs(300, kInputs);
    for (std::size_t t = 0; t < x.rows(); ++t) x(t, 17) = 0;  // a dead input
    return test::second_moment(x);
  }();
  return h;
}

void expect_on_grid(const QuantizedTensor& tensor) {
  const GridSpec& grid = tensor.grid();
  const FormatInfo& format = info(grid.format);
  std::vector<std::uint8_t> codes(tensor.cols());
  for (std::size_t r = 0; r < tensor.rows() && grid.symmetric; ++r) {
    tensor.unpack_row(r, codes);
    for (const std::uint8_t code : codes) {
      ASSERT_GE(code - symmetric_zero(grid.format), format.lowest);
      ASSERT_LE(code - symmetric_zero(grid.format), format.highest);
    }
  }
  // Negative scales only where the code range is longer on one side.
  const bool even = !grid.symmetric || format.lowest == -format.highest;
  for (const float scale : tensor.parameters().scales) {
    ASSERT_TRUE(std::isfinite(scale));
    ASSERT_TRUE(scale != 0 || !has_zero(grid.format));
    if (even) {
      ASSERT_GT(scale, 0.0F);
    }
  }
}

class QuantizerLaws : public ::testing::TestWithParam<Law> {
 protected:
  /// Calls law(layer) for every direction of groups and choice of scales.
  template <typename F>
  void for_each_grid(const Matrix& w, F law) const {
    for (const char* direction : kDirections) {
      const std::string word = GetParam().format + ":" + direction;
      if (!parse_grid(word).has_value()) continue;  // two levels are not for every format
      for (const ScaleMethod scale : kScales) {
        SCOPED_TRACE(word + ", scale method " + std::to_string(static_cast<int>(scale)));
        LayerProblem layer;
        layer.name = "law";
        layer.weight = w.view();
        layer.second_moment = moment().view();
        layer.grid = *parse_grid(word);
        layer.scale = scale;
        law(layer);
      }
    }
  }
  std::unique_ptr<Quantizer> method() const {
    return *make_quantizer(GetParam().method, GetParam().options);
  }
};

TEST_P(QuantizerLaws, KeepCodesOnTheGridAndLossesHonest) {
  for (const test::NamedMatrix& item : test::ordinary_matrices(kRows, kInputs)) {
    SCOPED_TRACE(item.name);
    for_each_grid(item.matrix, [&](const LayerProblem& layer) {
      SerialExecutor serial;
      const auto solved = method()->quantize(layer, serial);
      ASSERT_TRUE(solved) << solved.error().message;
      const QuantizedTensor& tensor = solved->tensor;
      ASSERT_EQ(tensor.rows(), kRows);
      ASSERT_EQ(tensor.cols(), kInputs);
      GridSpec grid = layer.grid;
      if (parse_chain(GetParam().method)->chooses_direction()) grid.per = tensor.grid().per;
      ASSERT_TRUE(tensor.grid() == grid);
      expect_on_grid(tensor);
      const Matrix q = test::values_of(tensor);
      const double size = test::loss(item.matrix.view(), {}, layer.second_moment);
      const double exact =
          size > 0 ? test::loss(item.matrix.view(), q.view(), layer.second_moment) / size : 0.0;
      // Where the sweep's own sum is used, at least 5 % of it is loss and not damping; the rest is
      // float32 sums of 75 products, 1e-5 of their parts.
      ASSERT_NEAR(solved->objective, exact, 1e-3 * exact + 1e-9);
      ASSERT_LE(solved->objective, solved->objective_rtn);
      const auto rounded = (*make_quantizer("rtn"))->quantize(layer, serial);
      ASSERT_TRUE(rounded);
      ASSERT_LE(solved->objective, rounded->objective * (1 + 1e-9));
      if (item.name != "zero") return;
      for (const float value : q.values()) ASSERT_EQ(value, 0.0F);
    });
  }
}

TEST_P(QuantizerLaws, DoNotDependOnThreadsOrInstructionSet) {
  const Matrix w =
      test::student_matrix(530, kInputs, 4);  // several panels on one thread, more on two
  for_each_grid(w, [&](const LayerProblem& layer) {
    if (layer.scale == ScaleMethod::minmax) return;  // walks the same code as absmax
    SerialExecutor serial;
    const auto expected = method()->quantize(layer, serial);
    ASSERT_TRUE(expected);
    const auto check = [&](Executor& executor, const std::string& what) {
      const auto result = method()->quantize(layer, executor);
      ASSERT_TRUE(result);
      const auto a = result->tensor.packed_codes(), b = expected->tensor.packed_codes();
      ASSERT_EQ(a.size(), b.size());
      EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size()), 0) << what;
      EXPECT_EQ(result->tensor.parameters().scales, expected->tensor.parameters().scales) << what;
      EXPECT_EQ(result->tensor.parameters().zeros, expected->tensor.parameters().zeros) << what;
      EXPECT_EQ(result->objective, expected->objective) << what;
      EXPECT_EQ(result->objective_rtn, expected->objective_rtn) << what;
    };
    for (const unsigned threads : {1U, 2U, 3U}) {
      check(*make_openmp_executor(threads), std::to_string(threads) + " threads");
    }
    for (const kernels::Isa cap : {kernels::Isa::scalar, kernels::Isa::avx2}) {
      kernels::set_isa_cap(cap);
      check(serial, std::string(kernels::to_string(cap)));
      kernels::clear_isa_cap();
    }
  });
}

TEST_P(QuantizerLaws, LeaveAMatrixOfTheGridUnchanged) {
  // When its scales are given; then every error is zero and nothing propagates.
  const Matrix w = test::gaussian_matrix(kRows, kInputs, 8);
  for_each_grid(w, [&](LayerProblem layer) {
    SerialExecutor serial;
    const auto first = (*make_quantizer("rtn"))->quantize(layer, serial);
    ASSERT_TRUE(first);
    const Matrix q = test::values_of(first->tensor);
    layer.weight = q.view();
    layer.given = &first->tensor.parameters();
    const auto again = method()->quantize(layer, serial);
    ASSERT_TRUE(again);
    const Matrix back = test::values_of(again->tensor);
    for (std::size_t i = 0; i < q.size(); ++i) ASSERT_EQ(back.data()[i], q.data()[i]) << i;
    EXPECT_EQ(again->objective, 0);
  });
}

TEST_P(QuantizerLaws, RefuseNaNByLayerAndElement) {
  Matrix w = test::gaussian_matrix(kRows, kInputs, 8);
  w(20, 74) = std::numeric_limits<float>::quiet_NaN();
  for_each_grid(w, [&](const LayerProblem& layer) {
    SerialExecutor serial;
    const auto solved = method()->quantize(layer, serial);
    ASSERT_FALSE(solved);
    EXPECT_EQ(solved.error().code, ErrorCode::numeric);
    EXPECT_NE(solved.error().message.find("law"), std::string::npos);
    EXPECT_NE(solved.error().message.find("[20, 74]"), std::string::npos) << solved.error().message;
  });
}

TEST_P(QuantizerLaws, TakeAnyShape) {
  using Shape = std::pair<std::size_t, std::size_t>;
  for (const auto& [rows, inputs] : {Shape{1, 1}, Shape{1, 40}, Shape{40, 1}, Shape{17, 33}}) {
    const Matrix w = test::gaussian_matrix(rows, inputs, 3);
    const Matrix h = test::second_moment(test::layer_inputs(50, inputs));
    for_each_grid(w, [&](LayerProblem layer) {
      layer.second_moment = h.view();
      SerialExecutor serial;
      const auto solved = method()->quantize(layer, serial);
      ASSERT_TRUE(solved) << solved.error().message;
      EXPECT_TRUE(std::isfinite(solved->objective));
    });
  }
}

INSTANTIATE_TEST_SUITE_P(All, QuantizerLaws, ::testing::ValuesIn(all_laws()), name_of);

}  // namespace
}  // namespace quell::quant
