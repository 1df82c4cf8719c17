// SPDX-License-Identifier: Apache-2.0
#pragma once

// The public product with a quantized weight against a computation from canonical codes, without
// any packing, for every cap and number of threads: what the laws of both kinds of activations
// share.

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/kernels/gemm.hpp"
#include "quell/kernels/isa.hpp"
#include "support/guarded.hpp"
#include "support/quantized.hpp"
#include "support/same_bits.hpp"

namespace quell::kernels {

/// y [T, OC] as a contract states it.
using ByTheLetter = std::vector<float> (*)(MatrixView<const float> x,
                                           const QuantizedTensor& weight);

class ProductLaw {
 public:
  /// `bad` is a value that must not end in something that looks like a result.
  ProductLaw(Activations activations, ByTheLetter by_the_letter, float bad)
      : activations_(activations), by_the_letter_(by_the_letter), bad_(bad) {}

  void expect(const GridSpec& grid, std::size_t oc, std::size_t ic, std::size_t tokens,
              unsigned seed) const {
    using test::Edge;
    const QuantizedTensor weight = test::random_quantized(grid, oc, ic, seed);
    test::Numbers numbers(seed + 1);
    const std::size_t stride = ic + seed % 3;
    test::Guarded<float> x((tokens - 1) * stride + ic, seed % 2 == 0 ? Edge::front : Edge::back);
    for (float& value : x) value = numbers.bell() * (numbers.uniform() > 0.95F ? 100.0F : 1.0F);
    if (tokens > 2) x[stride] = bad_;
    const MatrixView<const float> view(x.data(), tokens, ic, stride);
    const std::vector<float> expected = by_the_letter_(view, weight);
    ASSERT_FALSE(tokens > 2 && std::isfinite(expected[oc]));
    for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512vnni, Isa::amx, Isa::neon,
                          Isa::neondot}) {
      if (!has(isa)) continue;
      for (const unsigned threads : {1u, 3u}) {
        set_isa_cap(isa);
        const auto executor = make_openmp_executor(threads);
        Context context(*executor);
        auto packed = pack(weight, activations_, *executor);
        clear_isa_cap();
        ASSERT_TRUE(packed) << packed.error().message;
        test::Guarded<float> y(tokens * oc, Edge::back);
        ASSERT_TRUE(gemm(view, *packed, {y.data(), tokens, oc}, context));
        ASSERT_TRUE(test::same_bits(y.span(), expected))
            << to_string(grid) << " OC " << oc << " IC " << ic << " T " << tokens << " "
            << packed->kernel() << " threads " << threads;
      }
    }
  }

  /// Every grid that `wanted` takes, with groups of the whole run and of `groups`.
  template <typename Wanted>
  void expect_on_every_grid(std::initializer_list<std::uint32_t> groups, std::size_t ic_step,
                            Wanted wanted) const {
    unsigned seed = 0;
    for (const FormatInfo& format : kFormats) {
      for (const bool symmetric : {true, false}) {
        for (const Channel per : {Channel::output, Channel::input}) {
          for (const std::uint32_t group : groups) {
            for (const ScaleType type : {ScaleType::f16, ScaleType::bf16, ScaleType::f32}) {
              for (const bool two_level : {false, true}) {
                const GridSpec grid = {format.format, symmetric, per, group, type, two_level};
                if (!check_grid(grid) || !wanted(format)) continue;
                ++seed;
                expect(grid, seed % 2 == 0 ? 70 : 33, 61 + seed % 7 * ic_step, 1 + seed % 5, seed);
              }
            }
          }
        }
      }
    }
  }

 private:
  Activations activations_;
  ByTheLetter by_the_letter_;
  float bad_;
};

}  // namespace quell::kernels
