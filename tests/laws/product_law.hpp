// SPDX-License-Identifier: Apache-2.0
#pragma once

// The public product with a quantized weight against a computation from canonical codes, without
// any packing, for every cap and number of threads: what the laws of both kinds of activations
// share.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/core/half.hpp"
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

  /// With kept columns x is a thousand times larger there. With `shuffled`, columns have an order
  /// of their own, and x is what that makes of the same numbers.
  void expect(const GridSpec& grid, std::size_t oc, std::size_t ic, std::size_t tokens,
              unsigned seed, const std::vector<std::uint32_t>& kept = {},
              bool shuffled = false) const {
    using test::Edge;
    const QuantizedTensor weight = kept.empty() ? test::random_quantized(grid, oc, ic, seed)
                                                : test::random_keeping(grid, oc, ic, kept, seed);
    test::Numbers numbers(seed + 1);
    const std::size_t stride = ic + seed % 3;
    test::Guarded<float> x((tokens - 1) * stride + ic, seed % 2 == 0 ? Edge::front : Edge::back);
    for (float& value : x) value = numbers.bell() * (numbers.uniform() > 0.95F ? 100.0F : 1.0F);
    for (std::size_t t = 0; t < tokens; ++t) {
      for (const std::uint32_t c : kept) x[t * stride + c] *= 1000;
    }
    if (tokens > 2) x[stride] = bad_;
    const MatrixView<const float> view(x.data(), tokens, ic, stride);
    const std::vector<float> expected = product(view, weight);
    std::vector<std::uint32_t> order;
    if (shuffled) {
      const std::vector<float> sorted(x.begin(), x.end());
      for (std::size_t k = 0; k < ic; ++k) order.push_back(static_cast<std::uint32_t>(k));
      for (std::size_t k = ic; k > 1; --k) {
        const float at = (numbers.uniform() + 1) * 0.49F;  // below 1
        std::swap(order[k - 1], order[static_cast<std::size_t>(at * static_cast<float>(k))]);
      }
      for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t k = 0; k < ic; ++k) x[t * stride + order[k]] = sorted[t * stride + k];
      }
    }
    ASSERT_FALSE(tokens > 2 && std::isfinite(expected[oc]));
    for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512vnni, Isa::amx, Isa::neon,
                          Isa::neondot}) {
      if (!has(isa)) continue;
      for (const unsigned threads : {1u, 3u}) {
        set_isa_cap(isa);
        const auto executor = make_openmp_executor(threads);
        Context context(*executor);
        auto packed = pack(weight, activations_, *executor, order);
        clear_isa_cap();
        ASSERT_TRUE(packed) << packed.error().message;
        test::Guarded<float> y(tokens * oc, Edge::back);
        ASSERT_TRUE(gemm(view, *packed, {y.data(), tokens, oc}, context));
        ASSERT_TRUE(test::same_bits(y.span(), expected))
            << to_string(grid) << " OC " << oc << " IC " << ic << " T " << tokens << " "
            << packed->kernel() << " threads " << threads << " kept " << kept.size() << " order "
            << order.size();
      }
    }
  }

  /// Columns kept out of `ic`: none, one, some, all; every number of tokens of a tile and more.
  void expect_with_kept_columns(std::initializer_list<const char*> grids) const {
    unsigned seed = 0;
    for (const char* word : grids) {
      const GridSpec grid = *parse_grid(word);
      for (const std::size_t count : {1, 17, 77}) {
        const std::size_t ic = 77;
        std::vector<std::uint32_t> kept;
        for (std::size_t k = 0; k < count; ++k) {
          kept.push_back(static_cast<std::uint32_t>(k * ic / count + (ic - 1) / count / 2));
        }
        for (const std::size_t tokens : {1, 3, 13}) {
          ++seed;
          expect(grid, seed % 2 == 0 ? 70 : 33, ic, tokens, seed, kept);
        }
      }
    }
    // Several blocks, spans and panels; with runs of output channels, too.
    for (const char* word : {"int4:sym:oc:g128", "int8:asym:ic:g32"}) {
      expect(*parse_grid(word), 97, 520, 270, ++seed, {0, 5, 350, 518, 519});
    }
    for (std::size_t tokens = 1; tokens <= 40; ++tokens) {
      expect(*parse_grid("int4:asym:oc:g32"), 33, 64, tokens, ++seed, {3, 4, 63});
    }
  }

  /// Columns in an order of their own, alone and with some kept.
  void expect_with_an_order(std::initializer_list<const char*> grids) const {
    unsigned seed = 0;
    for (const char* word : grids) {
      for (const std::size_t tokens : {1, 5, 14}) {
        const std::vector<std::uint32_t> kept = {0, 9, 76};
        ++seed;
        expect(*parse_grid(word), seed % 2 == 0 ? 70 : 33, 77, tokens, seed,
               seed % 3 == 0 ? kept : std::vector<std::uint32_t>(), true);
      }
    }
    expect(*parse_grid("int4:asym:oc:g128"), 97, 520, 100, ++seed, {}, true);
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
  /// Kept columns as the contract of kept_columns states them, beside the letter of the codes.
  std::vector<float> product(MatrixView<const float> x, const QuantizedTensor& weight) const {
    const KeptColumns& kept = weight.kept();
    const std::size_t count = kept.columns.size(), oc = weight.rows();
    std::vector<float> quiet(x.rows() * x.cols());
    for (std::size_t t = 0; t < x.rows(); ++t) {
      std::copy_n(x.row(t).data(), x.cols(), quiet.data() + t * x.cols());
      for (const std::uint32_t c : kept.columns) quiet[t * x.cols() + c] = 0;
    }
    std::vector<float> y = by_the_letter_({quiet.data(), x.rows(), x.cols()}, weight);
    for (std::size_t i = 0; i < y.size(); ++i) {
      for (std::size_t k = 0; k < count; ++k) {
        const float value = f16_to_float(kept.values[i % oc * count + k]);
        y[i] = std::fma(x(i / oc, kept.columns[k]), value, y[i]);
      }
    }
    return y;
  }

  Activations activations_;
  ByTheLetter by_the_letter_;
  float bad_;
};

}  // namespace quell::kernels
