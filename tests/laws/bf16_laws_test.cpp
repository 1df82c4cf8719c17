// SPDX-License-Identifier: Apache-2.0

// Laws of gemm_bf16. Its entries differ in the order of their sums, so each is held to the bound of
// the contract, and bit for bit to a plain loop in its own order. The instructions in plain C++
// stand in for those that this machine may not have: packing, maps of indices and loops are tested
// everywhere.

#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/gemm_bf16/contract.hpp"
#include "kernels/packed_form.hpp"
#include "kernels/target.hpp"
#include "laws/plain_tiles.hpp"
#include "laws/plain_vectors.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/half.hpp"
#include "quell/core/tensor.hpp"
#include "quell/grid/scale.hpp"
#include "quell/kernels/explain.hpp"
#include "quell/kernels/gemm.hpp"
#include "support/guarded.hpp"
#include "support/quantized.hpp"
#include "support/same_bits.hpp"
#if QUELL_X86
#include "kernels/cpu/gemm_bf16/amx_product.hpp"
#include "kernels/cpu/gemm_bf16/avx512bf16_product.hpp"
#endif

namespace quell::kernels {
namespace {

using gemm_bf16::TileProduct;
using gemm_bf16::Weights;
using test::Edge;
using test::Guarded;
using test::Numbers;
using test::same_bits;

enum class Order { vectors, tiles };

struct Case {
  std::string name;
  const gemm_bf16::Entry* entry;
  Order order;
  Isa needs;
};

std::vector<Case> cases() {
  std::vector<Case> all;
#if QUELL_X86
  static const gemm_bf16::Entry kVectors[] = {
      avx512bf16::entry_of<test::PlainVectors, Weights::four_bits>(),
      avx512bf16::entry_of<test::PlainVectors, Weights::eight_bits>(),
      avx512bf16::entry_of<test::PlainVectors, Weights::bf16>()};
  static const gemm_bf16::Entry kTiles[] = {amx::entry_of<test::PlainTiles, Weights::four_bits>(),
                                            amx::entry_of<test::PlainTiles, Weights::eight_bits>(),
                                            amx::entry_of<test::PlainTiles, Weights::bf16>()};
  const char* names[] = {"w4", "w8", "w16"};
  for (unsigned kind = 0; kind < gemm_bf16::kKinds; ++kind) {
    const std::string name = names[kind];
    all.push_back({name + "_plain_vectors", &kVectors[kind], Order::vectors, Isa::avx512});
    all.push_back({name + "_plain_tiles", &kTiles[kind], Order::tiles, Isa::avx512});
    for (const gemm_bf16::Entry* entry : gemm_bf16::table(gemm_bf16::kWeights[kind])) {
      EXPECT_EQ(entry->weights, gemm_bf16::kWeights[kind]);
      all.push_back({name + "_" + std::string(to_string(entry->isa)), entry,
                     entry->isa == Isa::amx ? Order::tiles : Order::vectors, entry->isa});
    }
  }
#endif
  return all;
}

// Subnormal numbers count as zero, on the way in and on the way out.
float flushed(float value) {
  return std::fabs(value) < FLT_MIN ? std::copysign(0.0F, value) : value;
}
float fused(float a, float b, float sum) {
  return flushed(std::fma(flushed(a), flushed(b), flushed(sum)));
}

/// Weight of OC c and input channel k of group g, exact.
float weight_at(const TileProduct& p, Weights weights, std::size_t g, std::size_t k,
                std::size_t c) {
  const std::byte* unit = p.codes + g * p.block_bytes + k / kUnit * gemm_bf16::unit_bytes(weights);
  if (weights == Weights::bf16) return panel_float(true, unit, c, k % kUnit);
  const std::byte* tail = p.tail + g * p.block_bytes;
  const float own = p.zeros ? static_cast<float>(panel_zero(p.scales, tail, c)) : 0;
  if (weights == Weights::four_bits) return p.table[panel_code(4, unit, c, k % kUnit)] - own;
  return static_cast<float>(panel_code(8, unit, c, k % kUnit)) - (p.zeros ? own : p.zero);
}
float token_at(const TileProduct& p, std::size_t r, std::size_t k) {
  constexpr std::size_t kBlock = gemm_bf16::kBlock;
  return bf16_to_float(p.a[(k / kBlock * p.rows + r) * kBlock + k % kBlock]);
}

/// Units [begin, end) of a chunk of group g, in the order of an instruction.
float sum_of(const TileProduct& p, Weights weights, Order order, std::size_t g, std::size_t begin,
             std::size_t end, std::size_t r, std::size_t c) {
  const std::size_t before = (p.first_unit + g * p.units) * kUnit;  // in the tile
  const auto x = [&](std::size_t k) { return token_at(p, r, before + k); };
  float sum = 0;
  if (order == Order::vectors) {
    for (std::size_t k = begin * kUnit; k < end * kUnit; k += 2) {
      sum = fused(x(k + 1), weight_at(p, weights, g, k + 1, c), sum);
      sum = fused(x(k), weight_at(p, weights, g, k, c), sum);
    }
    return sum;
  }
  constexpr std::size_t kBlock = gemm_bf16::kBlock;
  const std::size_t first = before + begin * kUnit, last = before + end * kUnit;
  for (std::size_t block = first / kBlock; block * kBlock < last; ++block) {
    float even = 0, odd = 0;
    for (std::size_t k = block * kBlock; k < (block + 1) * kBlock; k += 2) {
      const bool inside = k >= first && k < last;  // groups are whole units
      const float w0 = inside ? weight_at(p, weights, g, k - before, c) : 0;
      const float w1 = inside ? weight_at(p, weights, g, k + 1 - before, c) : 0;
      even = fused(token_at(p, r, k), w0, even);
      odd = fused(token_at(p, r, k + 1), w1, odd);
    }
    sum = flushed(sum + flushed(even + odd));
  }
  return sum;
}

struct Expected {
  std::vector<float> bits;
  std::vector<double> exact, bound;
};

Expected expected(const TileProduct& p, Weights weights, Order order,
                  const std::vector<float>& before) {
  Expected all;
  for (std::size_t r = 0; r < p.rows; ++r) {
    for (std::size_t c = 0; c < kPanelCols; ++c) {
      float y = p.first ? 0 : before[r * kPanelCols + c];
      double exact = y, magnitudes = std::fabs(y), lost = 0;
      std::size_t longest = 0, chunks = 0;
      for (std::size_t g = 0; g < p.groups; ++g) {
        const float scale = panel_scale(p.scales, p.tail + g * p.block_bytes, c);
        for (std::size_t begin = 0; begin < p.units; begin += gemm_bf16::kChunkUnits) {
          const std::size_t end = std::min(p.units, begin + gemm_bf16::kChunkUnits);
          y = std::fma(sum_of(p, weights, order, g, begin, end, r, c), scale, y);
          const std::size_t n = (end - begin) * kUnit;
          longest = std::max(longest, n);
          ++chunks;
          lost +=
              static_cast<double>(2 * n + 32) * 0x1p-126 * std::fabs(static_cast<double>(scale));
          for (std::size_t k = begin * kUnit; k < end * kUnit; ++k) {
            const float x = token_at(p, r, (p.first_unit + g * p.units) * kUnit + k);
            const float w = weight_at(p, weights, g, k, c);
            const double term =
                static_cast<double>(x) * static_cast<double>(w) * static_cast<double>(scale);
            exact += term;
            magnitudes += std::fabs(term);
            if (flushed(x) != x || flushed(w) != w) lost += std::fabs(term);
          }
        }
      }
      const double share = static_cast<double>(longest + chunks) * 0x1p-24;
      all.bits.push_back(y);
      all.exact.push_back(exact);
      // Half of the smallest subnormal float32 for each y that rounds to one.
      all.bound.push_back(share / (1 - share) * magnitudes + lost +
                          static_cast<double>(chunks) * 0x1p-150);
    }
  }
  return all;
}

class GemmBf16 : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(gemm_bf16, GemmBf16, testing::ValuesIn(cases()),
                         [](const auto& each) { return each.param.name; });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GemmBf16);

TEST_P(GemmBf16, GivesTheBitsOfItsOrderAndKeepsTheBound) {
  const auto& [name, entry, order, needs] = GetParam();
  if (!has(needs)) GTEST_SKIP() << "this machine has no " << to_string(needs);
  const Weights weights = entry->weights;
  const bool floats = weights == Weights::bf16;
  ASSERT_LE(entry->tile_rows, gemm_bf16::kMaxRows);
  const std::size_t unit_bytes = gemm_bf16::unit_bytes(weights);
  unsigned seed = 0, opened_pieces = 0;
  for (unsigned rows = 1; rows <= entry->tile_rows; ++rows) {
    const bool edge = rows <= 2 || rows == 16 || rows == 17 || rows == entry->tile_rows;
    if (!edge && rows != 7) continue;
    for (const std::size_t units : {1, 3, 8, 9, 32, 128, 130}) {
      for (const PanelScales scales :
           {PanelScales::none, PanelScales::f16, PanelScales::bf16, PanelScales::f32}) {
        for (const bool zeros : {false, true}) {
          if (zeros && (scales == PanelScales::none || floats)) continue;
          if (++seed % 3 != 0 && units > 100) continue;
          const std::size_t groups = units > 100 ? 1 : 1 + seed % 3;
          const std::size_t scale_bytes = scales == PanelScales::f32    ? 128
                                          : scales == PanelScales::none ? 0
                                                                        : 64;
          const std::size_t block = units * unit_bytes + scale_bytes + (zeros ? 64 : 0);
          Numbers numbers(seed);
          Guarded<std::byte> codes(groups * block);
          for (std::byte& code : codes) {
            code = static_cast<std::byte>(static_cast<int>(numbers.uniform() * 128 + 128) & 255);
          }
          for (std::size_t i = 0; floats && i < codes.size(); i += 2) {
            const float value = numbers.bell() * (i % 62 == 6 ? 1e-38F : 1.0F);
            const std::uint16_t word = float_to_bf16(value);
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
          const std::size_t first_unit = seed % 2 == 0 ? seed % 13 : 0;
          const std::size_t blocks =
              (first_unit + groups * units + gemm_bf16::kBlockUnits - 1) / gemm_bf16::kBlockUnits;
          Guarded<std::uint16_t> a(blocks * gemm_bf16::kBlock * rows, Edge::back);
          for (std::size_t i = 0; i < a.size(); ++i) {
            // Whole tokens are tiny, so that products and sums are flushed.
            const bool tiny = seed % 4 == 1 && i / gemm_bf16::kBlock % rows == 0;
            a[i] = float_to_bf16(numbers.bell() * (tiny ? 4e-38F : i % 37 == 5 ? 1e-39F : 1.0F));
          }
          const bool infinite = seed % 7 == 0;
          if (infinite) a[a.size() / 2] = float_to_bf16(std::numeric_limits<float>::infinity());
          Guarded<float> table(16);
          for (std::size_t code = 0; code < 16; ++code) {
            table[code] = zeros ? static_cast<float>(code) : 127 - 17 * static_cast<float>(code);
          }
          std::vector<float> before(rows * kPanelCols);
          numbers.fill(before);
          TileProduct product = {};
          product.first_unit = first_unit;
          product.codes = codes.data();
          product.tail = codes.data() + units * unit_bytes;
          product.groups = groups;
          product.units = units;
          product.block_bytes = block;
          product.scales = scales;
          product.zeros = zeros;
          product.table = table.data();
          product.zero = 128;
          product.first = seed % 2 == 0;
          alignas(64) static std::byte work[std::size_t{64} << 10];
          ASSERT_LE(entry->work_bytes, sizeof work);
          if (entry->open != nullptr && seed % 2 == 0) {
            product.opened = entry->open(product, work);
            ASSERT_NE(product.opened, nullptr);
            opened_pieces += product.opened == work ? 1 : 0;
          }
          product.a = a.data();
          product.rows = rows;
          Guarded<float> y(rows * kPanelCols, Edge::front);
          std::copy(before.begin(), before.end(), y.begin());
          product.y = y.data();
          entry->multiply(product);
          if (product.opened != nullptr) entry->close();
          const Expected all = expected(product, weights, order, before);
          ASSERT_TRUE(same_bits(y.span(), all.bits))
              << "rows " << rows << " units " << units << " groups " << groups << " scales "
              << static_cast<int>(scales) << " zeros " << zeros << " first " << first_unit;
          for (std::size_t i = 0; i < y.size() && !infinite; ++i) {
            ASSERT_LE(std::fabs(static_cast<double>(y[i]) - all.exact[i]), all.bound[i])
                << "rows " << rows << " units " << units << " groups " << groups;
          }
        }
      }
    }
  }
  EXPECT_TRUE(entry->open == nullptr || opened_pieces > 0);
}

// ------------------------------------------------------------------ the public product

/// x' w in double, and how far an entry may be from it.
struct Bounded {
  std::vector<double> exact, bound;
};

Bounded bounded(MatrixView<const float> x, const QuantizedTensor& weight) {
  const GridSpec& grid = weight.grid();
  const GroupLayout layout = group_layout(grid, weight.rows(), weight.cols());
  const GroupParameters& parameters = weight.parameters();
  const bool scale_x = grid.per == Channel::input;
  Bounded all;
  std::vector<std::uint8_t> codes(weight.cols());
  for (std::size_t t = 0; t < x.rows(); ++t) {
    for (std::size_t o = 0; o < weight.rows(); ++o) {
      weight.unpack_row(o, codes);
      double exact = 0, magnitudes = 0, offset = 0;
      for (std::size_t k = 0; k < weight.cols(); ++k) {
        const std::size_t index = layout.index(o, k);
        const float scale = parameters.scales[index];
        const auto rounded =
            static_cast<double>(bf16_to_float(float_to_bf16(scale_x ? x(t, k) * scale : x(t, k))));
        int zero = symmetric_zero(grid.format);
        if (!grid.symmetric) zero = scale_x ? 0 : parameters.zeros[index];
        const double term = rounded * static_cast<double>(code_level(grid.format, codes[k], zero)) *
                            (scale_x ? 1.0 : static_cast<double>(scale));
        exact += term;
        magnitudes += std::fabs(term);
        if (scale_x && !grid.symmetric) offset += rounded * parameters.zeros[index];
      }
      // Chunks of at most 512 terms, or of 128 without instructions for pairs of bfloat16. The
      // offset is rounded, and so is the difference.
      const std::size_t group = scale_x ? weight.cols() : layout.length;
      const std::size_t groups = (weight.cols() + group - 1) / group;
      const double share = 0x1p-24 * static_cast<double>(std::min<std::size_t>(512, group) +
                                                         groups * ((group + 127) / 128));
      all.exact.push_back(exact - offset);
      all.bound.push_back(share * magnitudes * 1.001 +
                          0x1p-23 * (std::fabs(offset) + std::fabs(exact)) + 1e-35);
    }
  }
  return all;
}

std::vector<float> tokens_of(std::size_t tokens, std::size_t ic, unsigned seed) {
  Numbers numbers(seed);
  std::vector<float> x(tokens * ic);
  for (float& value : x) value = numbers.bell() * (numbers.uniform() > 0.95F ? 100.0F : 1.0F);
  return x;
}

constexpr const char* kGrids[] = {"int4:sym:oc:g128",    "int4:asym:oc:g32", "int2:sym:oc:g4",
                                  "int3:asym:oc:g12",    "int4n:sym:oc:row", "int8:sym:oc:row",
                                  "int8full:sym:oc:g64", "int8:asym:oc:g32", "iq4:sym:oc:g32",
                                  "int4:sym:ic:g32",     "int4:asym:ic:g64", "int8:asym:ic:row",
                                  "int4:sym:oc:g32:u4"};

TEST(Bf16Product, KeepsTheBoundOnEveryMachineAndForAnyThreads) {
  unsigned seed = 0;
  for (const char* word : kGrids) {
    for (const std::size_t tokens : {1, 5, 33}) {
      const std::size_t oc = ++seed % 2 == 0 ? 70 : 33, ic = 61 + seed % 5 * 150;
      const QuantizedTensor weight = test::random_quantized(*parse_grid(word), oc, ic, seed);
      const std::vector<float> x = tokens_of(tokens, ic, seed);
      const Bounded all = bounded({x.data(), tokens, ic}, weight);
      for (const Isa isa :
           {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512bf16, Isa::amx, Isa::neondot}) {
        if (!has(isa)) continue;
        std::vector<float> first;
        for (const unsigned threads : {1u, 3u}) {
          set_isa_cap(isa);
          const auto executor = make_openmp_executor(threads);
          Context context(*executor);
          auto packed = pack(weight, Activations::bf16, *executor);
          clear_isa_cap();
          ASSERT_TRUE(packed) << packed.error().message;
          std::vector<float> y(tokens * oc);
          ASSERT_TRUE(gemm({x.data(), tokens, ic}, *packed, {y.data(), tokens, oc}, context));
          for (std::size_t i = 0; i < y.size(); ++i) {
            ASSERT_LE(std::fabs(static_cast<double>(y[i]) - all.exact[i]), all.bound[i])
                << word << " " << packed->kernel() << " T " << tokens;
          }
          if (first.empty()) first = y;
          ASSERT_TRUE(same_bits(y, first)) << word << " " << packed->kernel();
        }
      }
    }
  }
}

// The driver with the plain instructions: activations laid out, spans, offsets, tiles of tokens.
TEST(Bf16Product, OfPlainInstructionsKeepsTheBoundAndIsATokensOwn) {
  if (!has(Isa::avx512)) GTEST_SKIP() << "this machine has no avx512";
  unsigned seed = 0;
  for (const char* word : kGrids) {
    const std::size_t tokens = ++seed % 3 == 0 ? 75 : 34, oc = 70, ic = 61 + seed % 5 * 170;
    const GridSpec grid = *parse_grid(word);
    const QuantizedTensor weight = test::random_quantized(grid, oc, ic, seed);
    const std::vector<float> x = tokens_of(tokens, ic, seed);
    const Bounded all = bounded({x.data(), tokens, ic}, weight);
    SerialExecutor serial;
    const auto packed = pack(weight, Activations::bf16, serial);
    ASSERT_TRUE(packed);
    const auto plan = plan_quantized(Activations::bf16, grid, oc, ic, 0, false);
    ASSERT_TRUE(plan);
    for (const Case& each : cases()) {
      if (each.name.find("plain") == std::string::npos) continue;
      if ((each.entry->weights == Weights::four_bits) != (plan->layout.code_bits == 4)) continue;
      if (each.entry->weights == Weights::bf16) continue;
      const auto form = make_bf16_form_with(*each.entry, *plan, PackedBytes(packed->memory()));
      std::vector<float> first;
      for (const unsigned threads : {1u, 3u}) {
        const auto executor = make_openmp_executor(threads);
        Context context(*executor);
        std::vector<float> y(tokens * oc);
        ASSERT_TRUE(form->multiply({x.data(), tokens, ic}, {y.data(), tokens, oc}, context));
        for (std::size_t i = 0; i < y.size(); ++i) {
          ASSERT_LE(std::fabs(static_cast<double>(y[i]) - all.exact[i]), all.bound[i])
              << word << " " << each.name << " element " << i;
        }
        if (first.empty()) first = y;
        ASSERT_TRUE(same_bits(y, first)) << word << " " << each.name;
      }
      Context context(serial);
      std::vector<float> alone(oc);
      for (std::size_t t = 0; t < tokens; t += 11) {
        ASSERT_TRUE(form->multiply({x.data() + t * ic, 1, ic}, {alone.data(), 1, oc}, context));
        ASSERT_TRUE(same_bits(alone, {first.data() + t * oc, oc})) << word << " " << each.name;
      }
    }
  }
}

// Without such instructions it is the float32 product of rounded activations, to the bit.
TEST(Bf16Product, WithoutInstructionsIsTheFloatProductOfRoundedActivations) {
  const std::size_t tokens = 14, oc = 70, ic = 700;
  const std::vector<float> x = tokens_of(tokens, ic, 3);
  std::vector<float> rounded;
  for (const float value : x) rounded.push_back(bf16_to_float(float_to_bf16(value)));
  std::vector<float> dense(oc * ic);
  Numbers(4).fill(dense);
  const QuantizedTensor codes = test::random_quantized(*parse_grid("int4:asym:oc:g32"), oc, ic, 5);
  SerialExecutor executor;
  Context context(executor);
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    set_isa_cap(isa);
    const MatrixView<const float> weight(dense.data(), oc, ic);
    auto half = pack(weight, DType::bf16, executor);
    auto half_bf16 = pack(weight, DType::bf16, executor, Activations::bf16);
    auto four = pack(codes, Activations::f32, executor);
    auto four_bf16 = pack(codes, Activations::bf16, executor);
    clear_isa_cap();
    ASSERT_TRUE(half && half_bf16 && four && four_bf16);
    const auto product = [&](const std::vector<float>& with, const PackedWeights& packed) {
      std::vector<float> y(tokens * oc);
      EXPECT_TRUE(gemm({with.data(), tokens, ic}, packed, {y.data(), tokens, oc}, context));
      return y;
    };
    EXPECT_TRUE(same_bits(product(x, *half_bf16), product(rounded, *half)));
    EXPECT_TRUE(same_bits(product(x, *four_bf16), product(rounded, *four)));
    EXPECT_FALSE(same_bits(product(x, *half_bf16), product(x, *half)));
  }
}

// Kept columns and an order of columns are the driver's. With activations that are bfloat16 already
// the product differs from that of float32 activations in the order of its sums alone.
TEST(Bf16Product, HasKeptColumnsAndAnOrderOfColumns) {
  const std::size_t tokens = 5, oc = 40, ic = 96;
  SerialExecutor executor;
  Context context(executor);
  Matrix weight = *Matrix::uninitialized(oc, ic);
  Numbers(7).fill(weight.values());
  const std::uint32_t columns[] = {3, 95};
  const auto codes = quantize_keeping(weight.view(), *parse_grid("int4:sym:oc:g32"),
                                      ScaleMethod::absmax, {}, columns, executor);
  ASSERT_TRUE(codes) << codes.error().message;
  std::vector<std::uint32_t> order;
  for (std::uint32_t k = 0; k < ic; ++k) order.push_back((k * 5 + 1) % ic);
  std::vector<float> x(tokens * ic), exact(tokens * oc), y(tokens * oc);
  Numbers(2).fill(x);
  for (float& value : x) value = bf16_to_float(float_to_bf16(value));
  const auto f32 = pack(*codes, Activations::f32, executor, order);
  const auto bf16 = pack(*codes, Activations::bf16, executor, order);
  ASSERT_TRUE(f32 && bf16);
  ASSERT_TRUE(gemm({x.data(), tokens, ic}, *f32, {exact.data(), tokens, oc}, context));
  // 96 terms and three groups on either side, of which none is above 4 * 4 in magnitude.
  const float bound = 2 * 99 * 0x1p-24F * 96 * 16;
  const auto near = [&](const std::string& name) {
    for (std::size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], exact[i], bound) << name;
  };
  ASSERT_TRUE(gemm({x.data(), tokens, ic}, *bf16, {y.data(), tokens, oc}, context));
  near(bf16->kernel());
  if (!has(Isa::avx512)) return;
  const auto plan = plan_quantized(Activations::bf16, codes->grid(), oc, ic, 2, true);
  ASSERT_TRUE(plan);
  for (const Case& each : cases()) {
    if (each.name.find("w4_plain") == std::string::npos) continue;
    const auto form = make_bf16_form_with(*each.entry, *plan, PackedBytes(bf16->memory()));
    ASSERT_TRUE(form->multiply({x.data(), tokens, ic}, {y.data(), tokens, oc}, context));
    near(each.name);
  }
}

TEST(Bf16Product, OfBf16WeightsKeepsTheBound) {
  constexpr std::size_t kSizes[][3] = {// OC, IC, tokens
                                       {1, 1, 1},
                                       {17, 5, 2},
                                       {33, 61, 5},
                                       {40, 2501, 3},
                                       {96, 520, 50}};
  unsigned seed = 0;
  for (const auto& [oc, ic, tokens] : kSizes) {
    const std::vector<float> x = tokens_of(tokens, ic, ++seed);
    std::vector<float> weight(oc * ic), y(tokens * oc);
    Numbers(seed + 100).fill(weight);
    SerialExecutor executor;
    Context context(executor);
    const MatrixView<const float> view(weight.data(), oc, ic);
    const auto packed = pack(view, DType::bf16, executor, Activations::bf16);
    ASSERT_TRUE(packed) << packed.error().message;
    const auto check = [&](const std::string& kernel) {
      for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t o = 0; o < oc; ++o) {
          double exact = 0, magnitudes = 0;
          for (std::size_t k = 0; k < ic; ++k) {
            const double term =
                static_cast<double>(bf16_to_float(float_to_bf16(x[t * ic + k]))) *
                static_cast<double>(bf16_to_float(float_to_bf16(weight[o * ic + k])));
            exact += term;
            magnitudes += std::fabs(term);
          }
          const double terms = static_cast<double>(std::min<std::size_t>(ic, 512) + ic / 128 + 1);
          ASSERT_LE(std::fabs(static_cast<double>(y[t * oc + o]) - exact),
                    1.001 * terms * 0x1p-24 * magnitudes)
              << kernel << " OC " << oc << " IC " << ic << " T " << tokens;
        }
      }
    };
    ASSERT_TRUE(gemm({x.data(), tokens, ic}, *packed, {y.data(), tokens, oc}, context));
    check(packed->kernel());
    if (!has(Isa::avx512)) continue;
    PackedPlan plan = plan_halves(PackedKind::bf16_panels, oc, ic);
    plan.bf16_activations = true;
    for (const Case& each : cases()) {
      if (each.entry->weights != Weights::bf16 || each.name.find("plain") == std::string::npos) {
        continue;
      }
      const auto form = make_bf16_form_with(*each.entry, plan, PackedBytes(packed->memory()));
      ASSERT_TRUE(form->multiply({x.data(), tokens, ic}, {y.data(), tokens, oc}, context));
      check(each.name);
    }
  }
}

TEST(Bf16Product, IsKeptByTheLabelAndNamedByExplain) {
  SerialExecutor executor;
  Context context(executor);
  const std::size_t oc = 40, ic = 100;
  const std::vector<float> x = tokens_of(3, ic, 1);
  std::vector<float> dense(oc * ic), y(3 * oc), again(3 * oc);
  Numbers(2).fill(dense);
  for (const char* word : {"", "int4:sym:oc:g32", "int8:asym:ic:row"}) {
    const QuantizedTensor codes =
        test::random_quantized(*parse_grid(*word != 0 ? word : "int4:sym:oc"), oc, ic, 7);
    const auto packed = *word != 0 ? pack(codes, Activations::bf16, executor)
                                   : pack(MatrixView<const float>(dense.data(), oc, ic),
                                          DType::bf16, executor, Activations::bf16);
    ASSERT_TRUE(packed) << packed.error().message;
    const auto seen = view_packed(packed->memory());
    ASSERT_TRUE(seen) << seen.error().message;
    EXPECT_EQ(seen->kernel(), packed->kernel());
    ASSERT_TRUE(gemm({x.data(), 3, ic}, *packed, {y.data(), 3, oc}, context));
    ASSERT_TRUE(gemm({x.data(), 3, ic}, *seen, {again.data(), 3, oc}, context));
    EXPECT_TRUE(same_bits(y, again));
    const std::string family = packed->kernel().substr(0, packed->kernel().find('/'));
    EXPECT_TRUE(family.ends_with("bf16")) << family;
    bool named = false;
    for (const FamilyReport& report : explain()) {
      for (const EntryReport& entry : report.entries) {
        named = named || (entry.chosen &&
                          std::string(report.name) + "/" + std::string(to_string(entry.isa)) ==
                              packed->kernel());
      }
    }
    EXPECT_TRUE(named) << packed->kernel();
  }
}

TEST(Bf16Product, RefusesWhatWouldBeRoundedTwice) {
  SerialExecutor executor;
  const auto refused = pack(test::random_quantized(*parse_grid("nf4:sym:oc:g32"), 32, 64, 1),
                            Activations::bf16, executor);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::unsupported);
  EXPECT_NE(refused.error().message.find("not exact in bfloat16"), std::string::npos)
      << refused.error().message;
  const std::vector<float> values(64);
  const MatrixView<const float> weight(values.data(), 8, 8);
  for (const DType type : {DType::f32, DType::f16}) {
    const auto as = pack(weight, type, executor, Activations::bf16);
    ASSERT_FALSE(as);
    EXPECT_NE(as.error().message.find("pack them as bf16"), std::string::npos);
  }
  EXPECT_FALSE(pack(weight, DType::bf16, executor, Activations::int8));
}

}  // namespace
}  // namespace quell::kernels
