// SPDX-License-Identifier: Apache-2.0

// What must not matter (block size, form of the sweep, units, order of inputs), and what dead
// inputs and ragged groups must do.

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "quant/problems.hpp"

namespace quell::quant {
namespace {

using test::signed_codes;
using test::solve;

struct Case {
  Matrix w, h;
  GroupParameters given;
  LayerProblem layer;
};

/// A weight, the moment of `inputs` and absmax scales of the weight.
Case make_case(Matrix w, Matrix h, const char* grid) {
  Case c;
  c.w = std::move(w);
  c.h = std::move(h);
  SerialExecutor serial;
  c.layer.name = "layer";
  c.layer.grid = *parse_grid(grid);
  c.given = *choose_scales(c.w.view(), c.layer.grid, ScaleMethod::absmax, {}, serial);
  return c;
}
void bind(Case& c) {
  c.layer.weight = c.w.view();
  c.layer.second_moment = c.h.view();
  c.layer.given = &c.given;
}

Matrix correlated_moment(std::size_t inputs, std::uint64_t seed = 1) {
  return test::second_moment(test::layer_inputs(3 * inputs, inputs, seed));
}

TEST(GptqSweep, EqualsTheRightLookingFormInDouble) {
  Case c = make_case(test::gaussian_matrix(33, 200), correlated_moment(200), "int4:sym:oc:g64");
  bind(c);
  double mean = 0;
  for (std::size_t k = 0; k < 200; ++k) mean += static_cast<double>(c.h(k, k)) / 200;
  for (const double damping : {0.0, 0.01}) {
    const auto reference =
        test::reference_gptq(c.w.view(), c.h.view(), damping * mean, c.layer.grid, c.given);
    const Quantized result = solve(*gptq({.damping = damping, .guard = false}), c.layer);
    EXPECT_EQ(result.damping, damping);
    // A target is a sum of up to 200 products: its float32 error is below 1e-4 steps here.
    test::expect_same_codes(signed_codes(result.tensor), reference, 200, 1e-4);
  }
}

TEST(GptqSweep, BlockSizeChangesNothing) {
  for (const char* grid : {"int4:sym:oc:g64", "int3:asym:oc:g48", "int4:sym:ic:g10"}) {
    Case c = make_case(test::student_matrix(40, 200, 4), correlated_moment(200), grid);
    bind(c);
    const Quantized expected = solve(*gptq({.damping = 0.01, .guard = false}), c.layer);
    for (const unsigned block : {1U, 7U, 32U, 128U, 200U}) {
      const Quantized result =
          solve(*gptq({.damping = 0.01, .guard = false, .block = block}), c.layer);
      // Targets differ by rounding alone, 1e-5 steps; of 8,000 none may sit that near a boundary,
      // and one that did would move the codes after it in its row.
      const auto a = signed_codes(result.tensor), b = signed_codes(expected.tensor);
      std::size_t rows = 0;
      for (std::size_t r = 0; r < 40; ++r) {
        rows += !std::equal(a.begin() + r * 200, a.begin() + (r + 1) * 200, b.begin() + r * 200);
      }
      EXPECT_LE(rows, 1U) << grid << ", block " << block;
      EXPECT_NEAR(result.objective, expected.objective, 1e-3 * expected.objective);
    }
  }
}

TEST(GptqSweep, BlockSizeChangesNoFittedScaleOfTheFirstGroup) {
  // The first group is fitted before any feedback, by any block size.
  Case c = make_case(test::gaussian_matrix(20, 192), correlated_moment(192), "int4:sym:oc:g64:f32");
  bind(c);
  c.layer.given = nullptr;
  c.layer.scale = ScaleMethod::search;
  const Quantized expected = solve(*gptq({.guard = false}), c.layer);
  for (const unsigned block : {1U, 16U, 192U}) {
    const Quantized result = solve(*gptq({.guard = false, .block = block}), c.layer);
    for (std::size_t r = 0; r < 20; ++r) {
      EXPECT_EQ(result.tensor.parameters().scales[3 * r],
                expected.tensor.parameters().scales[3 * r]);
    }
    EXPECT_NEAR(result.objective, expected.objective, 0.02 * expected.objective);
  }
}

TEST(GptqSweep, ActOrderUsesThePrecomputedScales) {
  Case c = make_case(test::gaussian_matrix(24, 128), correlated_moment(128), "int4:sym:oc:g32");
  bind(c);
  c.layer.given = nullptr;
  const Quantized result = solve(*gptq({.act_order = true, .guard = false}), c.layer);
  EXPECT_EQ(result.tensor.parameters().scales, c.given.scales);
}

TEST(GptqSweep, ActOrderMayLookNaturalAtItsEndsAlone) {
  // Input sizes that are taken in the order 0, 2, 1, 3: first and last are as in natural order.
  Case c = make_case(test::gaussian_matrix(20, 4), Matrix(), "int4:sym:oc:row");
  c.h = *Matrix::uninitialized(4, 4);
  const float size[4] = {8, 2, 4, 1};
  for (std::size_t i = 0; i < 4; ++i) {
    for (std::size_t j = 0; j < 4; ++j) {
      c.h(i, j) = (i == j ? 1.0F : 0.4F) * size[i] * size[j];
    }
  }
  bind(c);
  const auto solved = [&](unsigned block) {
    return signed_codes(
        solve(*gptq({.act_order = true, .guard = false, .block = block}), c.layer).tensor);
  };
  EXPECT_EQ(solved(4), solved(1));
}

TEST(GptqSweep, ActOrderCommutesWithPermutingInputs) {
  constexpr std::size_t kRows = 30, kInputs = 96;
  Case c = make_case(test::gaussian_matrix(kRows, kInputs), correlated_moment(kInputs),
                     "int4:sym:oc:row");
  bind(c);
  std::vector<std::size_t> permutation(kInputs);
  for (std::size_t k = 0; k < kInputs; ++k) permutation[k] = k * 35 % kInputs;  // 35 is prime to 96
  Case p;
  p.w = *Matrix::uninitialized(kRows, kInputs);
  p.h = *Matrix::uninitialized(kInputs, kInputs);
  for (std::size_t k = 0; k < kInputs; ++k) {
    for (std::size_t r = 0; r < kRows; ++r) p.w(r, k) = c.w(r, permutation[k]);
    for (std::size_t j = 0; j < kInputs; ++j) p.h(k, j) = c.h(permutation[k], permutation[j]);
  }
  p.given = c.given;
  p.layer = c.layer;
  bind(p);
  // The diagonal has no ties, so both sweeps take the same channels in the same order: equal bits.
  const auto a = signed_codes(solve(*gptq({.act_order = true, .guard = false}), c.layer).tensor);
  const auto b = signed_codes(solve(*gptq({.act_order = true, .guard = false}), p.layer).tensor);
  for (std::size_t r = 0; r < kRows; ++r) {
    for (std::size_t k = 0; k < kInputs; ++k) {
      ASSERT_EQ(b[r * kInputs + k], a[r * kInputs + permutation[k]]) << r << ", " << k;
    }
  }
}

TEST(GptqSweep, ScalingInputsChangesNothing) {
  // By powers of two nothing rounds differently; by 10 the moment itself is rounded again.
  Case c = make_case(test::gaussian_matrix(30, 128), correlated_moment(128), "int4:sym:oc:g32");
  bind(c);
  const Quantized expected = solve(*gptq({.guard = false}), c.layer);
  for (const float factor : {0x1p-100F, 0x1p-20F, 4.0F, 0x1p90F, 100.0F, 1e-30F, 1e30F}) {
    Case scaled =
        make_case(test::gaussian_matrix(30, 128), correlated_moment(128), "int4:sym:oc:g32");
    for (float& value : scaled.h.values()) value *= factor;
    bind(scaled);
    const Quantized result = solve(*gptq({.guard = false}), scaled.layer);
    const auto a = signed_codes(result.tensor), b = signed_codes(expected.tensor);
    std::size_t different = 0;
    for (std::size_t i = 0; i < a.size(); ++i) different += a[i] != b[i];
    EXPECT_EQ(different, 0U) << factor;
    EXPECT_NEAR(result.objective, expected.objective, 1e-5 * expected.objective) << factor;
  }
}

TEST(GptqSweep, DeadInputsRoundAndLeaveTheOthersAlone) {
  constexpr std::size_t kRows = 20, kInputs = 130;
  for (const char* grid : {"int4:sym:oc:row", "int4:asym:oc:row", "int4:sym:ic:row"}) {
    Case c = make_case(test::gaussian_matrix(kRows, kInputs), correlated_moment(kInputs), grid);
    const std::vector<std::size_t> dead = {0, 31, 32, 64, 129};
    for (const std::size_t d : dead) {
      for (std::size_t k = 0; k < kInputs; ++k) c.h(d, k) = c.h(k, d) = 0;
    }
    bind(c);
    const Quantized result = solve(*gptq({.damping = 0.01, .guard = false}), c.layer);
    EXPECT_EQ(result.dead_inputs, dead.size());
    const auto codes = signed_codes(result.tensor);
    const auto rounded = signed_codes(solve(*rtn(), c.layer).tensor);

    std::vector<std::size_t> live;
    for (std::size_t k = 0; k < kInputs; ++k) {
      if (std::find(dead.begin(), dead.end(), k) == dead.end()) live.push_back(k);
    }
    Case small;
    small.w = *Matrix::uninitialized(kRows, live.size());
    small.h = *Matrix::uninitialized(live.size(), live.size());
    small.layer = c.layer;
    small.given = c.given;
    const bool down = c.layer.grid.per == Channel::input;
    if (down) {
      small.given.cols = live.size();
      small.given.scales.resize(live.size());
    }
    for (std::size_t k = 0; k < live.size(); ++k) {
      for (std::size_t r = 0; r < kRows; ++r) small.w(r, k) = c.w(r, live[k]);
      for (std::size_t j = 0; j < live.size(); ++j) small.h(k, j) = c.h(live[k], live[j]);
      if (down) small.given.scales[k] = c.given.scales[live[k]];
    }
    bind(small);
    const auto expected =
        signed_codes(solve(*gptq({.damping = 0.01, .guard = false}), small.layer).tensor);
    for (std::size_t r = 0; r < kRows; ++r) {
      for (const std::size_t d : dead) {
        EXPECT_EQ(codes[r * kInputs + d], rounded[r * kInputs + d]);
      }
      for (std::size_t k = 0; k < live.size(); ++k) {
        ASSERT_EQ(codes[r * kInputs + live[k]], expected[r * live.size() + k]) << grid;
      }
    }
  }
}

TEST(GptqSweep, DeadInputsHaveNoWeightInTheSearch) {
  // A huge dead weight must not widen the searched scale of its group.
  Case c = make_case(test::gaussian_matrix(16, 64), correlated_moment(64), "int4:sym:oc:g32");
  for (std::size_t k = 0; k < 64; ++k) c.h(5, k) = c.h(k, 5) = 0;
  for (std::size_t r = 0; r < 16; ++r) c.w(r, 5) = 40;
  bind(c);
  c.layer.given = nullptr;
  c.layer.scale = ScaleMethod::search;
  const auto scale = [&](bool act_order) {
    return std::abs(solve(*gptq({.act_order = act_order}), c.layer).tensor.parameters().scales[0]);
  };
  // absmax would be 40 / 7.5 = 5.3; ordinary weights reach 3.
  EXPECT_LT(scale(false), 3.0F);
  EXPECT_LT(scale(true), 3.0F);
}

TEST(GptqSweep, GroupOfDeadInputsTakesItsAbsmaxScale) {
  for (const char* grid : {"int4:sym:oc:g32", "int4:sym:ic:g8"}) {
    Case c = make_case(test::gaussian_matrix(16, 96), correlated_moment(96), grid);
    for (std::size_t d = 32; d < 64; ++d) {
      for (std::size_t k = 0; k < 96; ++k) c.h(d, k) = c.h(k, d) = 0;
    }
    bind(c);
    c.layer.given = nullptr;
    c.layer.scale = ScaleMethod::search;
    for (const bool act_order : {false, true}) {
      const Quantized result = solve(*gptq({.act_order = act_order}), c.layer);
      const GroupLayout layout = group_layout(c.layer.grid, 16, 96);
      for (std::size_t r = 0; r < 16; ++r) {
        const std::size_t index = layout.index(r, 40);
        EXPECT_EQ(result.tensor.parameters().scales[index], c.given.scales[index]) << grid;
      }
    }
  }
}

TEST(GptqSweep, RaggedGroupEqualsPaddingWithDeadZeros) {
  constexpr std::size_t kRows = 12, kInputs = 200, kPadded = 256;
  for (const ScaleMethod method : {ScaleMethod::absmax, ScaleMethod::search}) {
    Case c = make_case(test::gaussian_matrix(kRows, kInputs), correlated_moment(kInputs),
                       "int4:sym:oc:g128");
    Case p;
    p.w = test::zero_matrix(kRows, kPadded);
    p.h = test::zero_matrix(kPadded, kPadded);
    for (std::size_t k = 0; k < kInputs; ++k) {
      for (std::size_t r = 0; r < kRows; ++r) p.w(r, k) = c.w(r, k);
      for (std::size_t j = 0; j < kInputs; ++j) p.h(k, j) = c.h(k, j);
    }
    p.layer = c.layer;
    bind(c);
    bind(p);
    c.layer.given = p.layer.given = nullptr;
    c.layer.scale = p.layer.scale = method;
    const Quantized ragged = solve(*gptq({.guard = false}), c.layer);
    const Quantized padded = solve(*gptq({.guard = false}), p.layer);
    EXPECT_EQ(ragged.tensor.parameters().cols, 2U);
    EXPECT_EQ(ragged.tensor.parameters().scales, padded.tensor.parameters().scales);
    EXPECT_EQ(padded.dead_inputs, kPadded - kInputs);
    const auto a = signed_codes(ragged.tensor), b = signed_codes(padded.tensor);
    for (std::size_t r = 0; r < kRows; ++r) {
      for (std::size_t k = 0; k < kPadded; ++k) {
        ASSERT_EQ(b[r * kPadded + k], k < kInputs ? a[r * kInputs + k] : 0);
      }
    }
  }
}

}  // namespace
}  // namespace quell::quant
