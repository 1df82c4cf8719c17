// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "quant/problems.hpp"
#include "quell/quant/registry.hpp"

namespace quell::quant {
namespace {

using test::solve;

/// The inputs of a layer are independent and of one size.
Matrix identity(std::size_t n) {
  Matrix h = *Matrix::uninitialized(n, n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) h(i, j) = i == j ? 1.0F : 0.0F;
  }
  return h;
}

LayerProblem problem(const Matrix& w, const Matrix& h, const char* grid) {
  LayerProblem layer;
  layer.name = "layer";
  layer.weight = w.view();
  layer.second_moment = h.view();
  layer.grid = *parse_grid(grid);
  layer.scale = ScaleMethod::minmax;
  return layer;
}

Matrix matrix(std::size_t rows, std::size_t cols, const std::vector<float>& values) {
  Matrix m = *Matrix::uninitialized(rows, cols);
  std::copy(values.begin(), values.end(), m.data());
  return m;
}

/// 4 x 4: the first column is large, the rows alternate in sign.
Matrix example() {
  return matrix(4, 4,
                {8, .5F, -.5F, .2F, -7, -.4F, .3F, .6F, 6, .1F, .2F, -.3F, -5, .4F, -.6F, .1F});
}

double squared_error(const Matrix& w, const QuantizedTensor& tensor) {
  const Matrix q = test::values_of(tensor);
  return test::loss(w.view(), q.view(), identity(w.cols()).view());
}

TEST(Adadim, ColumnsThatAreExactDownTheColumnAreGroupedSo) {
  const Matrix w = matrix(2, 2, {1, 10, 3, 30}), h = identity(2);
  LayerProblem layer = problem(w, h, "int2:asym:oc:g2:f32");
  const Matrix along = test::values_of(solve(*rtn(), layer).tensor);
  EXPECT_EQ(std::vector<float>(along.data(), along.data() + 4), (std::vector<float>{0, 10, 0, 30}));
  const Quantized chosen = solve(*adadim(rtn()), layer);
  EXPECT_EQ(chosen.tensor.grid().per, Channel::input);
  EXPECT_EQ(chosen.objective, 0);
  EXPECT_NEAR(*chosen.objective_other_direction * (1 + 100 + 9 + 900), 10, 1e-5);
  const Matrix turned = matrix(2, 2, {1, 3, 10, 30});
  EXPECT_EQ(solve(*adadim(rtn()), problem(turned, h, "int2:asym:oc:g2:f32")).tensor.grid().per,
            Channel::output);
}

TEST(Adadim, ChoosesByTheErrorOfItsOwnBits) {
  // Large weights of one column spoil every row at 4 bits; at 2 bits the small ones are lost either
  // way, and what counts is where the large ones land.
  const Matrix w = example(), h = identity(4);
  const auto error = [&](const char* grid) {
    return squared_error(w, solve(*rtn(), problem(w, h, grid)).tensor);
  };
  EXPECT_NEAR(error("int4:asym:oc:g4:f32"), 0.2312, 1e-4);
  EXPECT_NEAR(error("int4:asym:ic:g4:f32"), 0.0032, 1e-4);
  EXPECT_NEAR(error("int2:asym:oc:g4:f32"), 2.68, 0.01);
  EXPECT_NEAR(error("int2:asym:ic:g4:f32"), 9.08, 0.01);
  for (const bool by_rounding : {false, true}) {
    const auto method = adadim(rtn(), {.by_rounding = by_rounding});
    for (const char* direction : {":oc", ":ic"}) {  // that of the problem does not matter
      const std::string tail = ":asym" + std::string(direction) + ":g4:f32";
      EXPECT_EQ(solve(*method, problem(w, h, ("int4" + tail).c_str())).tensor.grid().per,
                Channel::input);
      EXPECT_EQ(solve(*method, problem(w, h, ("int2" + tail).c_str())).tensor.grid().per,
                Channel::output);
    }
  }
}

TEST(Adadim, DownColumnsIsAlongRowsOfTheTranspose) {
  const Matrix w = test::student_matrix(40, 33, 4);
  Matrix turned = *Matrix::uninitialized(33, 40);
  for (std::size_t r = 0; r < 40; ++r) {
    for (std::size_t c = 0; c < 33; ++c) turned(c, r) = w(r, c);
  }
  LayerProblem down;
  down.name = "layer";
  down.weight = w.view();
  down.grid = *parse_grid("int4:asym:ic:g16");
  down.scale = ScaleMethod::minmax;
  LayerProblem along = down;
  along.weight = turned.view();
  along.grid = *parse_grid("int4:asym:oc:g16");
  const Quantized a = solve(*rtn(), down), b = solve(*rtn(), along);
  const auto& p = a.tensor.parameters();
  const auto& q = b.tensor.parameters();
  std::vector<std::uint8_t> row(33), column(40);
  for (std::size_t r = 0; r < 40; ++r) {
    a.tensor.unpack_row(r, row);
    for (std::size_t c = 0; c < 33; ++c) {
      b.tensor.unpack_row(c, column);
      ASSERT_EQ(row[c], column[r]);
      ASSERT_EQ(p.scales[r / 16 * 33 + c], q.scales[c * 3 + r / 16]);
      ASSERT_EQ(p.zeros[r / 16 * 33 + c], q.zeros[c * 3 + r / 16]);
    }
  }
}

TEST(Adadim, DownColumnsDoNotMindTheSizeOfAColumn) {
  // The scale of a column takes the factor (a power of two), so codes stay: why per-input groups
  // and smoothing do not add up. Along rows a factor moves codes.
  const Matrix w = test::gaussian_matrix(32, 16, 3);
  Matrix scaled = test::gaussian_matrix(32, 16, 3);
  for (std::size_t r = 0; r < 32; ++r) {
    for (std::size_t c = 0; c < 16; ++c) scaled(r, c) *= c % 3 == 0 ? 8.0F : 0.25F;
  }
  const auto codes = [](const Matrix& m, const char* grid) {
    return test::signed_codes(solve(*rtn(), problem(m, identity(16), grid)).tensor);
  };
  EXPECT_EQ(codes(w, "int4:asym:ic:g16:f32"), codes(scaled, "int4:asym:ic:g16:f32"));
  EXPECT_NE(codes(w, "int4:asym:oc:g16:f32"), codes(scaled, "int4:asym:oc:g16:f32"));
}

TEST(Adadim, PlantedOutliersDecideAsTheirWeightsDo) {
  // An input 30 or 100 times as large as the others prefers groups down columns where its weights
  // are small and groups along rows where they are large; so does a large row. (A large row with a
  // large input is left out: where the one weight at their crossing lands decides.) Gaussian
  // weights and inputs, 3 and 4 bits, groups of 128.
  const std::size_t n = 256, channel = 17;
  struct Case {
    float activation, column, row;  // factors
    Channel winner;
  };
  const Case cases[] = {{30, 0.1F, 1, Channel::input}, {100, 0.1F, 1, Channel::input},
                        {1, 20, 1, Channel::input},    {30, 20, 1, Channel::output},
                        {100, 20, 1, Channel::output}, {1, 1, 20, Channel::output}};
  for (const Case& c : cases) {
    Matrix w = test::gaussian_matrix(n, n, 2);
    Matrix x = test::gaussian_matrix(512, n, 5);
    for (std::size_t t = 0; t < x.rows(); ++t) x(t, channel) *= c.activation;
    for (std::size_t r = 0; r < n; ++r) w(r, channel) *= c.column;
    for (std::size_t k = 0; k < n; ++k) w(33, k) *= c.row;
    const Matrix h = test::second_moment(x);
    for (const char* format : {"int3", "int4"}) {
      SCOPED_TRACE(std::string(format) + ", activation " + std::to_string(c.activation) +
                   ", column " + std::to_string(c.column) + ", row " + std::to_string(c.row));
      LayerProblem layer = problem(w, h, (std::string(format) + ":asym:oc:g128").c_str());
      const Quantized chosen = solve(*adadim(rtn()), layer);
      EXPECT_EQ(chosen.tensor.grid().per, c.winner);
      EXPECT_LT(chosen.objective, 0.8 * *chosen.objective_other_direction);
    }
  }
}

TEST(Adadim, IsNeverWorseThanEitherDirectionWhateverItHolds) {
  const Matrix h = test::second_moment(test::layer_inputs(300, 96));
  for (const Method& method : methods()) {
    const auto inner = *make_quantizer(method.name);
    const auto both = *make_quantizer("adadim+" + std::string(method.name));
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
      Matrix w = test::student_matrix(64, 96, 4, seed);
      for (std::size_t r = 0; r < 64; ++r) w(r, seed) *= 9;
      LayerProblem layer = problem(w, h, "int3:asym:oc:g32");
      const Quantized chosen = solve(*both, layer);
      const double along = solve(*inner, layer).objective;
      layer.grid.per = Channel::input;
      const double down = solve(*inner, layer).objective;
      EXPECT_EQ(chosen.objective, std::min(along, down)) << method.name << ", seed " << seed;
      EXPECT_EQ(*chosen.objective_other_direction, std::max(along, down));
      EXPECT_EQ(chosen.tensor.grid().per, down < along ? Channel::input : Channel::output);
    }
  }
}

TEST(Adadim, TiesGoAlongRows) {
  const Matrix w = matrix(2, 2, {1, 1, 1, 1});
  const Quantized chosen = solve(*adadim(gptq()), problem(w, identity(2), "int4:sym:ic:g2"));
  EXPECT_EQ(chosen.tensor.grid().per, Channel::output);
  EXPECT_EQ(chosen.objective, *chosen.objective_other_direction);
}

TEST(Adadim, KeepsADirectionThatIsSettled) {
  const Matrix w = example(), h = identity(4);  // 4 bits go down columns
  LayerProblem layer = problem(w, h, "int4:asym:oc:g4:f32");
  layer.keep_direction = true;
  const Quantized kept = solve(*adadim(rtn()), layer);
  EXPECT_EQ(kept.tensor.grid().per, Channel::output);
  EXPECT_FALSE(kept.objective_other_direction);
  layer.keep_direction = false;
  layer.given = &kept.tensor.parameters();  // scales belong to a direction
  EXPECT_EQ(solve(*adadim(rtn()), layer).tensor.grid().per, Channel::output);
}

TEST(Adadim, PublishedRuleAsksTheModuleWhereItCanAndRunsTheMethodOnce) {
  class Counting final : public Quantizer {
   public:
    explicit Counting(int& runs) : runs_(runs) {}
    std::string_view name() const override { return "counting"; }
    Needs needs() const override { return Needs::weights_only; }
    Result<Quantized> quantize(const LayerProblem& layer, Executor& executor) const override {
      ++runs_;
      return rtn()->quantize(layer, executor);
    }

   private:
    int& runs_;
  };
  const Matrix w = example(), h = identity(4);
  LayerProblem layer = problem(w, h, "int4:asym:oc:g4:f32");
  layer.scale = ScaleMethod::search;  // of the method; the rule itself takes min-max
  int runs = 0;
  const auto published = adadim(std::make_unique<Counting>(runs), {.by_rounding = true});
  EXPECT_EQ(published->name(), "adadim+counting");
  EXPECT_EQ(solve(*published, layer).tensor.grid().per, Channel::input);
  EXPECT_EQ(runs, 1);
  // A module that likes rows has the last word, and sees both directions, rows first.
  std::string asked;
  layer.evaluate = [&](const QuantizedTensor& tensor) -> Result<double> {
    asked += tensor.grid().per == Channel::output ? "o" : "i";
    return tensor.grid().per == Channel::output ? 1.0 : 2.0;
  };
  EXPECT_EQ(solve(*published, layer).tensor.grid().per, Channel::output);
  EXPECT_EQ(asked, "oi");
  solve(*adadim(std::make_unique<Counting>(runs = 0)), layer);
  EXPECT_EQ(runs, 2);
}

TEST(Adadim, OneSidedGroupsDoNotCollapse) {
  // Where the range leaves zero out, both become 0.1 (15 steps of 0.1 / 15).
  const Matrix w = matrix(1, 2, {1.0F, 1.1F});
  const Matrix q =
      test::values_of(solve(*rtn(), problem(w, identity(2), "int4:asym:oc:g2:f32")).tensor);
  EXPECT_NEAR(q(0, 0), 1.0267F, 1e-4);
  EXPECT_NEAR(q(0, 1), 1.1F, 1e-6);
}

TEST(Adadim, WithoutStatisticsItCannotChoose) {
  const Matrix w = example();
  LayerProblem layer;
  layer.name = "layer";
  layer.weight = w.view();
  layer.grid = *parse_grid("int4:asym:oc:g4");
  SerialExecutor serial;
  const auto result = adadim(rtn())->quantize(layer, serial);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::missing);
}

}  // namespace
}  // namespace quell::quant
