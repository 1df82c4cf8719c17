// SPDX-License-Identifier: Apache-2.0

// Laws of gemm_float: every entry gives the bits of the scalar one, on all edges of size and from
// memory between guard pages; and the public product is what the contract says, computed here from
// canonical codes without any packing, for every grid, every cap and any number of threads.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/gemm_float/contract.hpp"
#include "laws/product_law.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/half.hpp"
#include "quell/core/tensor.hpp"
#include "quell/grid/scale.hpp"
#include "quell/kernels/gemm.hpp"
#include "support/guarded.hpp"
#include "support/quantized.hpp"
#include "support/same_bits.hpp"

namespace quell::kernels {
namespace {

using test::Edge;
using test::Guarded;
using test::Numbers;
using test::same_bits;

using gemm_float::Weights;

std::vector<const gemm_float::Entry*> float_entries() {
  std::vector<const gemm_float::Entry*> entries;
  for (unsigned kind = 0; kind < gemm_float::kKinds; ++kind) {
    for (const gemm_float::Entry* entry : gemm_float::table(static_cast<Weights>(kind))) {
      EXPECT_EQ(entry->weights, static_cast<Weights>(kind));
      entries.push_back(entry);
    }
  }
  return entries;
}

std::string name_of(Weights weights) {
  switch (weights) {
    case Weights::four_bits:
      return "w4a16";
    case Weights::eight_bits:
      return "w8a16";
    case Weights::f16:
      return "f16";
    case Weights::bf16:
      return "bf16";
  }
  return "";
}

class GemmFloat : public testing::TestWithParam<const gemm_float::Entry*> {};
INSTANTIATE_TEST_SUITE_P(gemm_float, GemmFloat, testing::ValuesIn(float_entries()),
                         [](const auto& entry) {
                           return name_of(entry.param->weights) + "_" +
                                  std::string(to_string(entry.param->isa));
                         });

TEST_P(GemmFloat, GivesTheBitsOfTheSpecification) {
  const gemm_float::Entry& entry = *GetParam();
  if (!has(entry.isa)) GTEST_SKIP() << "this machine has no " << to_string(entry.isa);
  const gemm_float::Entry& reference =
      scalar::gemm_float_entries[static_cast<unsigned>(entry.weights)];
  const bool floats = entry.weights == Weights::f16 || entry.weights == Weights::bf16;
  ASSERT_LE(entry.tile_rows, gemm_float::kMaxRows);
  const std::size_t unit_bytes = gemm_float::unit_bytes(entry.weights);
  unsigned seed = 0;
  for (unsigned rows = 1; rows <= entry.tile_rows; ++rows) {
    for (const std::size_t units : {1, 2, 8, 31, 32, 33, 64, 70}) {
      for (const PanelScales scales :
           {PanelScales::none, PanelScales::f16, PanelScales::bf16, PanelScales::f32}) {
        for (const bool zeros : {false, true}) {
          if (zeros && (scales == PanelScales::none || floats)) continue;
          const std::size_t groups = 1 + ++seed % 3;
          const std::size_t scale_bytes = scales == PanelScales::f32    ? 128
                                          : scales == PanelScales::none ? 0
                                                                        : 64;
          const std::size_t block = units * unit_bytes + scale_bytes + (zeros ? 64 : 0);
          Numbers numbers(seed);
          Guarded<std::byte> codes(groups * block);
          for (std::byte& code : codes) {
            code = static_cast<std::byte>(static_cast<int>(numbers.uniform() * 128 + 128) & 255);
          }
          // Floats are numbers and an infinity: sums of any bits would all be NaN.
          for (std::size_t i = 0; floats && i < codes.size(); i += 2) {
            const float value = i == 6 ? std::numeric_limits<float>::infinity() : numbers.bell();
            const std::uint16_t word =
                entry.weights == Weights::f16 ? float_to_f16(value) : float_to_bf16(value);
            std::memcpy(codes.data() + i, &word, sizeof word);
          }
          for (std::size_t g = 0; g < groups; ++g) {
            for (std::size_t i = 0; i < scale_bytes; i += scales == PanelScales::f32 ? 4 : 2) {
              const float scale = numbers.bell() * 0.1F;
              const std::uint16_t half =
                  scales == PanelScales::f16 ? float_to_f16(scale) : float_to_bf16(scale);
              std::memcpy(codes.data() + g * block + units * unit_bytes + i,
                          scales == PanelScales::f32 ? static_cast<const void*>(&scale) : &half,
                          scales == PanelScales::f32 ? 4 : 2);
            }
          }
          const std::size_t first_unit = seed % 5;
          Guarded<float> a((first_unit + groups * units) * 4 * rows, Edge::back);
          numbers.fill(a.span());
          if (seed % 7 == 0) a[a.size() / 2] = std::numeric_limits<float>::infinity();
          if (seed % 11 == 0) a[a.size() / 3] = 1e-42F;
          Guarded<float> table(16);  // any values: codebooks are no lines
          numbers.fill(table.span());
          std::vector<float> before(rows * 32);
          numbers.fill(before);
          const auto run = [&](const gemm_float::Entry& with) {
            Guarded<float> y(rows * 32, Edge::front);
            std::copy(before.begin(), before.end(), y.begin());
            gemm_float::TileProduct product;
            product.a = a.data();
            product.first_unit = first_unit;
            product.rows = rows;
            product.codes = codes.data();
            product.tail = codes.data() + units * unit_bytes;
            product.groups = groups;
            product.units = units;
            product.block_bytes = block;
            product.scales = scales;
            product.zeros = zeros;
            product.table = table.data();
            product.zero = floats ? 0 : 128;
            product.first = seed % 2 == 0;
            product.y = y.data();
            with.multiply(product);
            return std::vector<float>(y.begin(), y.end());
          };
          ASSERT_TRUE(same_bits(run(entry), run(reference)))
              << "rows " << rows << " units " << units << " groups " << groups << " scales "
              << static_cast<int>(scales) << " zeros " << zeros;
        }
      }
    }
  }
}

// ------------------------------------------------------------------ the public product

/// y as contract.hpp states it, from the canonical codes.
std::vector<float> by_the_letter(MatrixView<const float> x, const QuantizedTensor& weight) {
  constexpr std::size_t kChunk = 128;
  const GridSpec& grid = weight.grid();
  const GroupLayout layout = group_layout(grid, weight.rows(), weight.cols());
  const GroupParameters& parameters = weight.parameters();
  const bool scale_x = grid.per == Channel::input;
  const std::size_t cols = weight.cols();
  std::vector<float> y(x.rows() * weight.rows());
  std::vector<std::uint8_t> codes(cols);
  for (std::size_t o = 0; o < weight.rows(); ++o) {
    weight.unpack_row(o, codes);
    for (std::size_t t = 0; t < x.rows(); ++t) {
      float sum = 0, chunk = 0;
      double offset = 0;
      std::size_t in_group = 0;
      for (std::size_t k = 0; k < cols; ++k) {
        const std::size_t index = layout.index(o, k);
        const float scale = parameters.scales[index];
        const float value = scale_x ? x(t, k) * scale : x(t, k);
        int zero = symmetric_zero(grid.format);
        if (!grid.symmetric) zero = scale_x ? 0 : parameters.zeros[index];
        if (!grid.symmetric && scale_x) {
          offset += static_cast<double>(value) * parameters.zeros[index];
        }
        chunk = std::fma(value, code_level(grid.format, codes[k], zero), chunk);
        ++in_group;
        const bool last = k + 1 == cols;
        const bool ends = last || (!scale_x && layout.index(o, k + 1) != index);
        if (ends || in_group % kChunk == 0) {
          // What pads a last unit to four input channels is +0 times something finite.
          if (last && cols % 4 != 0) chunk += 0.0F;
          sum = std::fma(chunk, scale_x ? 1.0F : scale, sum);
          chunk = 0;
        }
        if (ends) in_group = 0;
      }
      y[t * weight.rows() + o] = sum - static_cast<float>(offset);
    }
  }
  return y;
}

const ProductLaw kLaw(Activations::f32, by_the_letter, std::numeric_limits<float>::quiet_NaN());

TEST(FloatProduct, IsWhatTheContractSaysOnEveryGrid) {
  kLaw.expect_on_every_grid({0, 32, 160}, 53, [](const FormatInfo&) { return true; });
}

TEST(FloatProduct, IsWhatTheContractSaysOnEdgesOfSize) {
  unsigned seed = 0;
  for (const std::size_t oc : {1, 16, 17, 31, 33, 65}) {
    for (const std::size_t ic : {1, 2, 3, 4, 5, 127, 128, 129, 260}) {
      for (const char* word : {"int4:sym:oc:g4", "int4:asym:oc:g32", "int8:sym:oc:row"}) {
        ++seed;
        kLaw.expect(*parse_grid(word), oc, ic, 1 + seed % 4, seed);
      }
    }
  }
}

TEST(FloatProduct, IsWhatTheContractSaysForManyTokensAndLongRows) {
  unsigned seed = 0;
  for (const std::size_t tokens : {8, 12, 13, 24, 50, 270}) {
    for (const char* word : {"int4:sym:oc:g128", "int4:asym:oc:row", "int8:sym:oc:g32",
                             "int4:sym:ic:g32", "int4:asym:ic:row"}) {
      ++seed;
      kLaw.expect(*parse_grid(word), tokens > 100 ? 40 : 161, tokens > 100 ? 300 : 520, tokens,
                  seed);
    }
  }
  // Longer than a span of 512 input channels, in one group and in many, with a ragged end.
  for (const char* word :
       {"int4:sym:oc:row", "int4:sym:oc:g128", "int8:asym:oc:row", "int4:sym:oc:g1024"}) {
    for (const std::size_t tokens : {1, 2, 14}) {
      kLaw.expect(*parse_grid(word), 40, 2501, tokens, ++seed);
    }
  }
}

// A token alone gives the bits that it gives among others: what is computed does not depend on the
// height of a tile.
TEST(FloatProduct, OfATokenDoesNotDependOnItsNeighbours) {
  const auto executor = make_openmp_executor(2);
  Context context(*executor);
  const std::size_t tokens = 30, oc = 96, ic = 700;
  for (const char* word : {"int4:sym:oc:g64", "int4:asym:ic:g32", "int8:sym:oc:row"}) {
    for (const Activations activations : {Activations::f32, Activations::int8}) {
      const QuantizedTensor weight = test::random_quantized(*parse_grid(word), oc, ic, 5);
      auto packed = pack(weight, activations, *executor);
      ASSERT_TRUE(packed);
      std::vector<float> x(tokens * ic), all(tokens * oc), one(oc);
      Numbers(3).fill(x);
      ASSERT_TRUE(gemm({x.data(), tokens, ic}, *packed, {all.data(), tokens, oc}, context));
      for (std::size_t t = 0; t < tokens; ++t) {
        ASSERT_TRUE(gemm({x.data() + t * ic, 1, ic}, *packed, {one.data(), 1, oc}, context));
        ASSERT_TRUE(same_bits(one, {all.data() + t * oc, oc})) << word << " token " << t;
      }
    }
  }
}

// The product of the dequantized weight: the bound is that of the sums, 128 + chunks + 4 roundings
// of 2^-24 of the sum of the magnitudes of all terms.
TEST(FloatProduct, IsNearTheProductOfTheDequantizedWeight) {
  SerialExecutor executor;
  Context context(executor);
  unsigned seed = 0;
  for (const char* word : {"int4:sym:oc:g128", "int3:asym:oc:g32", "int8full:sym:oc:row",
                           "int4:asym:ic:g32", "int4:sym:oc:g6", "int4:sym:ic:g16"}) {
    const std::size_t tokens = 5, oc = 64, ic = 1000;
    const QuantizedTensor weight = test::random_quantized(*parse_grid(word), oc, ic, ++seed);
    auto packed = pack(weight, Activations::f32, executor);
    ASSERT_TRUE(packed) << packed.error().message;
    std::vector<float> x(tokens * ic), y(tokens * oc), w(ic);
    Numbers(seed).fill(x);
    ASSERT_TRUE(gemm({x.data(), tokens, ic}, *packed, {y.data(), tokens, oc}, context));
    for (std::size_t o = 0; o < oc; ++o) {
      weight.dequantize_row(o, w);
      for (std::size_t t = 0; t < tokens; ++t) {
        double exact = 0, magnitudes = 0;
        for (std::size_t k = 0; k < ic; ++k) {
          const double term = static_cast<double>(x[t * ic + k]) * static_cast<double>(w[k]);
          exact += term;
          magnitudes += std::fabs(term);
        }
        // Zeros down the input channels come off at the end: terms up to 15 of a step instead of
        // 8. Weights packed as floats are added one by one.
        const double bound =
            (std::strstr(word, "g6") || std::strstr(word, "g16") ? 1000.0 : 140.0) *
            (std::strstr(word, "asym:ic") != nullptr ? 16.0 : 1.0) * 0x1p-24;
        EXPECT_NEAR(static_cast<double>(y[t * oc + o]), exact, bound * magnitudes) << word;
      }
    }
  }
}

TEST(FloatProduct, GathersWhereColumnsHaveAnOrder) {
  kLaw.expect_with_an_order({"int4:sym:oc:g32", "int3:asym:oc:g4", "int8:asym:oc:row",
                             "nf4:sym:oc:g32", "int4:asym:ic:g32"});
}

TEST(FloatProduct, AddsKeptColumnsAsTheContractSays) {
  kLaw.expect_with_kept_columns({"int4:sym:oc:g32", "int4:asym:oc:row", "int3:asym:oc:g4",
                                 "int2:sym:oc:g16", "int8:asym:oc:g32", "nf4:sym:oc:g32",
                                 "int4:sym:oc:g32:u4", "int4:asym:ic:g32", "int8:sym:ic:row"});
}

// Groups that panels cannot hold are multiplied as floats, with the kept channels in their places.
TEST(FloatProduct, HasTheKeptChannelsInTheirPlaces) {
  SerialExecutor executor;
  Context context(executor);
  const std::size_t oc = 40, ic = 96;
  Matrix weight = *Matrix::uninitialized(oc, ic);
  Numbers(7).fill(weight.values());
  const std::uint32_t columns[] = {3, 95};
  for (std::size_t o = 0; o < oc; ++o) weight(o, 3) *= 1000;
  for (const char* word : {"int4:sym:oc:g32", "int4:sym:oc:g6"}) {
    const auto codes = quantize_keeping(weight.view(), *parse_grid(word), ScaleMethod::absmax, {},
                                        columns, executor);
    ASSERT_TRUE(codes) << codes.error().message;
    auto packed = pack(*codes, Activations::f32, executor);
    ASSERT_TRUE(packed) << packed.error().message;
    EXPECT_EQ(packed->kernel().find("gemm_dense") == 0, std::strstr(word, "g6") != nullptr);
    std::vector<float> x(ic), y(oc), row(ic);
    x[3] = 1;
    ASSERT_TRUE(gemm({x.data(), 1, ic}, *packed, {y.data(), 1, oc}, context));
    for (std::size_t o = 0; o < oc; ++o) {
      codes->dequantize_row(o, row);
      EXPECT_EQ(y[o], row[3]);
      EXPECT_NEAR(y[o], weight(o, 3), std::fabs(weight(o, 3)) * 0x1p-11F);  // f16
    }
  }
}

// ------------------------------------------------------------------ floats of 16 bits

TEST(HalfProduct, IsWhatTheContractSays) {
  constexpr std::size_t kSizes[][3] = {// OC, IC, tokens
                                       {1, 1, 1},    {17, 5, 2},    {33, 61, 5},  {70, 260, 12},
                                       {64, 128, 1}, {40, 2501, 3}, {96, 520, 50}};
  unsigned seed = 0;
  for (const DType type : {DType::f16, DType::bf16}) {
    for (const auto& [oc, ic, tokens] : kSizes) {
      Numbers numbers(++seed);
      Guarded<float> x(tokens * ic, Edge::back), weight(oc * ic, Edge::back);
      numbers.fill(x.span());
      numbers.fill(weight.span());
      weight[weight.size() / 2] *= 1000.0F;  // an outlier
      std::vector<float> expected(tokens * oc);
      for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t o = 0; o < oc; ++o) {
          float sum = 0, chunk = 0;
          for (std::size_t k = 0; k < ic; ++k) {
            const float w = weight[o * ic + k];
            const float rounded = type == DType::f16 ? f16_to_float(float_to_f16(w))
                                                     : bf16_to_float(float_to_bf16(w));
            chunk = std::fma(x[t * ic + k], rounded, chunk);
            if (k + 1 == ic && ic % 4 != 0) chunk += 0.0F;
            if ((k + 1) % 128 == 0 || k + 1 == ic) {
              sum += chunk;
              chunk = 0;
            }
          }
          expected[t * oc + o] = sum;
        }
      }
      for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::neon}) {
        for (const unsigned threads : {1u, 3u}) {
          set_isa_cap(isa);
          const auto executor = make_openmp_executor(threads);
          Context context(*executor);
          auto packed = pack(MatrixView<const float>(weight.data(), oc, ic), type, *executor);
          clear_isa_cap();
          ASSERT_TRUE(packed) << packed.error().message;
          Guarded<float> y(tokens * oc, Edge::back);
          ASSERT_TRUE(gemm({x.data(), tokens, ic}, *packed, {y.data(), tokens, oc}, context));
          ASSERT_TRUE(same_bits(y.span(), expected))
              << to_string(type) << " OC " << oc << " IC " << ic << " T " << tokens << " "
              << packed->kernel() << " threads " << threads;
        }
      }
    }
  }
}

TEST(HalfProduct, RefusesWhatAFloatOf16BitsCannotHold) {
  SerialExecutor executor;
  std::vector<float> values = {1, -65519, 3, std::numeric_limits<float>::infinity()};
  const auto packed = [&](DType type) {
    return pack(MatrixView<const float>(values.data(), 2, 2), type, executor);
  };
  EXPECT_TRUE(packed(DType::f16));  // the last that rounds to 65504; an infinity is one
  values[2] = -65520;
  const auto beyond = packed(DType::f16);
  ASSERT_FALSE(beyond);
  EXPECT_EQ(beyond.error().code, ErrorCode::numeric);
  EXPECT_NE(beyond.error().message.find("(1, 0) is -65520"), std::string::npos)
      << beyond.error().message;
  EXPECT_TRUE(packed(DType::bf16));
  EXPECT_TRUE(packed(DType::f32));
  const auto other = packed(DType::i8);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, ErrorCode::unsupported);
}

}  // namespace
}  // namespace quell::kernels
