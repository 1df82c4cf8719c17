// SPDX-License-Identifier: Apache-2.0

// Laws of gemm_int8 and quantize_rows: every entry gives the bits of the scalar one, on all edges
// of size, from memory between guard pages, with codes and activations at their extremes; and the
// public product is what the contract says, computed here from canonical codes without any packing,
// for every grid, every cap and any number of threads.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/cpu/quantize_rows/contract.hpp"
#include "kernels/target.hpp"
#include "laws/product_law.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/half.hpp"
#include "quell/kernels/gemm.hpp"
#include "support/guarded.hpp"
#include "support/quantized.hpp"
#include "support/same_bits.hpp"

#if QUELL_X86
#include "kernels/cpu/gemm_int8/amx_product.hpp"
#include "laws/plain_tiles.hpp"
#endif

namespace quell::kernels {
namespace {

using gemm_int8::Codes;
using test::Edge;
using test::Guarded;
using test::Numbers;
using test::same_bits;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// ------------------------------------------------------------------ quantize_rows

class QuantizeRows : public testing::TestWithParam<const quantize_rows_family::Entry*> {};
INSTANTIATE_TEST_SUITE_P(quantize_rows, QuantizeRows,
                         testing::ValuesIn(quantize_rows_family::table().begin(),
                                           quantize_rows_family::table().end()),
                         [](const auto& entry) {
                           return std::string(to_string(entry.param->isa));
                         });

TEST_P(QuantizeRows, GivesTheBitsOfTheSpecification) {
  if (!has(GetParam()->isa)) GTEST_SKIP() << "this machine has no " << to_string(GetParam()->isa);
  const float scales[] = {1, 1e-30F, 1e-38F, 1e-43F, 1e30F, 0};
  for (const std::size_t n : {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 130, 1000}) {
    for (const float scale : scales) {
      for (const float planted : {0.0F, kNaN, -kInfinity, 3e38F, -1e-45F, -0.0F}) {
        for (const bool with_factors : {false, true}) {
          const Edge edge = n % 2 == 0 ? Edge::front : Edge::back;
          Guarded<float> x(n, edge), factors(n, edge);
          Guarded<std::int8_t> found(n, edge), expected(n, edge);
          Numbers numbers(n);
          numbers.fill(x.span(), scale);
          numbers.fill(factors.span());
          if (planted != 0) x[n / 2] = planted;
          const float* by = with_factors ? factors.data() : nullptr;
          const float a = quantize_row(*GetParam(), x.data(), by, n, found.data());
          const float b =
              quantize_row(scalar::quantize_rows_entry, x.data(), by, n, expected.data());
          ASSERT_TRUE(same_bits(a, b)) << n << " scale " << scale << " planted " << planted;
          ASSERT_EQ(std::memcmp(found.data(), expected.data(), n), 0) << n << " scale " << scale;
          ASSERT_EQ(GetParam()->sum(found.data(), n),
                    std::accumulate(found.begin(), found.end(), std::int32_t{0}));
        }
      }
    }
  }
}

TEST(RowsToInt8, RoundAsTheContractSays) {
  const auto& entry = scalar::quantize_rows_entry;
  std::int8_t codes[4];
  // Ties go to even: with a largest magnitude of 127 the values are the codes.
  const float ties[] = {127, 2.5F, -3.5F, 0.5F};
  EXPECT_EQ(quantize_row(entry, ties, nullptr, 4, codes), 1);
  EXPECT_EQ(std::vector<int>(codes, codes + 4), (std::vector<int>{127, 2, -4, 0}));
  const float zeros[] = {0, -0.0F};
  EXPECT_EQ(quantize_row(entry, zeros, nullptr, 2, codes), 1);
  EXPECT_EQ(codes[0], 0);
  const float tiny[] = {-0x1p-149F, 0x1p-149F};
  quantize_row(entry, tiny, nullptr, 2, codes);
  EXPECT_EQ(codes[0], -127);
  EXPECT_EQ(codes[1], 127);
  const float large[] = {std::numeric_limits<float>::max(), -1e38F};
  EXPECT_EQ(quantize_row(entry, large, nullptr, 2, codes), std::numeric_limits<float>::max() / 127);
  EXPECT_EQ(codes[0], 127);
  EXPECT_EQ(codes[1], -37);
  const float bad[] = {1, kNaN, 2};
  EXPECT_TRUE(std::isnan(quantize_row(entry, bad, nullptr, 3, codes)));
  EXPECT_EQ(codes[0], 0);
  const float x[] = {2, 4}, factors[] = {10, -1};
  EXPECT_EQ(quantize_row(entry, x, factors, 2, codes), 20.0F / 127);
  EXPECT_EQ(codes[0], 127);
  EXPECT_EQ(codes[1], -25);  // -25.4
}

// ------------------------------------------------------------------ gemm_int8

std::vector<const gemm_int8::Entry*> int8_entries() {
  std::vector<const gemm_int8::Entry*> entries;
  for (const Codes codes : {Codes::four_bits, Codes::eight_bits, Codes::two_level, Codes::table}) {
    for (const gemm_int8::Entry* entry : gemm_int8::table(codes)) entries.push_back(entry);
  }
#if QUELL_X86
  // The entry for tiles with tiles in plain C++, which leaves AVX-512 to be had.
  static const std::vector<gemm_int8::Entry> kPlain = [] {
    std::vector<gemm_int8::Entry> plain = {amx::entry_of<test::PlainTiles, Codes::four_bits>(),
                                           amx::entry_of<test::PlainTiles, Codes::eight_bits>(),
                                           amx::entry_of_two_level<test::PlainTiles>(),
                                           amx::entry_of<test::PlainTiles, Codes::table>()};
    for (gemm_int8::Entry& entry : plain) entry.isa = Isa::avx512vnni;
    return plain;
  }();
  for (const gemm_int8::Entry& entry : kPlain) entries.push_back(&entry);
#endif
  return entries;
}

std::string name_of(const gemm_int8::Entry& entry) {
  const auto table = gemm_int8::table(entry.codes);
  const bool listed = std::find(table.begin(), table.end(), &entry) != table.end();
  constexpr const char* kNames[] = {"w4a8_", "w8a8_", "w4u4a8_", "t4a8_"};
  return kNames[gemm_int8::index_of(entry.codes)] +
         (listed ? std::string(to_string(entry.isa)) : "plain_tiles");
}

class GemmInt8 : public testing::TestWithParam<const gemm_int8::Entry*> {};
INSTANTIATE_TEST_SUITE_P(gemm_int8, GemmInt8, testing::ValuesIn(int8_entries()),
                         [](const auto& entry) { return name_of(*entry.param); });

enum class Extremes { random, most, alternating };

TEST_P(GemmInt8, GivesTheBitsOfTheSpecification) {
  const gemm_int8::Entry& entry = *GetParam();
  if (!has(entry.isa)) GTEST_SKIP() << "this machine has no " << to_string(entry.isa);
  const gemm_int8::Entry& reference = scalar::gemm_int8_entries[gemm_int8::index_of(entry.codes)];
  const bool levels = entry.codes == Codes::two_level, table = entry.codes == Codes::table;
  // The last is the largest: all codes are 15 where they are at their most.
  alignas(16) constexpr std::uint8_t kTable[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                   129, 141, 153, 166, 181, 197, 217, 255};
  ASSERT_LE(entry.lone_rows, gemm_int8::kMaxRows);
  ASSERT_LE(entry.tile_rows, entry.lone_rows);
  const std::size_t unit_bytes = gemm_int8::unit_bytes(entry.codes);
  unsigned seed = 0;
  const unsigned more = entry.tile_panels > 1 ? entry.tile_rows : 0;
  for (unsigned tile = 1; tile <= entry.lone_rows + more; ++tile) {
    // First tiles of one panel, then those of as many as the entry takes.
    const unsigned rows = tile <= entry.lone_rows ? tile : tile - entry.lone_rows;
    const unsigned panels = tile <= entry.lone_rows ? 1 : entry.tile_panels;
    if (rows > 17 && rows % 5 != 2) continue;
    for (const std::size_t units : {1, 2, 7, 8, 9, 17, 32, 150}) {
      if (units == 150 && !levels) continue;  // some write out 128 at once
      for (const PanelScales scales :
           {PanelScales::none, PanelScales::f16, PanelScales::bf16, PanelScales::f32}) {
        for (const bool zeros : {false, true}) {
          if (zeros && (scales == PanelScales::none || levels || table)) continue;
          for (const std::size_t groups : {1, 2, 3, 17}) {
            if (groups > 3 && units > 2) continue;
            if (groups > 1 && levels) continue;
            ++seed;
            // A lone group may come in two parts.
            const std::size_t cut = groups > 1 ? 0 : seed % units;
            const auto extremes = static_cast<Extremes>(seed % 3);
            const std::size_t tail = (scales == PanelScales::f32    ? 128
                                      : scales == PanelScales::none ? 0
                                                                    : 64) +
                                     (zeros ? 64 : 0);
            const std::size_t block = units * unit_bytes + tail;
            Numbers numbers(seed);
            const auto byte = [&](float at) { return static_cast<int>(at * 128 + 128) & 255; };
            // Of two levels, the call begins with the row, and its last group may be shorter.
            const std::size_t level_units = 1 + seed % 7;
            const std::size_t level_groups = levels ? (units + level_units - 1) / level_units : 0;
            const std::size_t panel = groups * block + (level_groups + 3) / 4 * 64;
            Guarded<std::byte> codes(panels * panel);
            for (std::size_t i = 0; i < codes.size(); ++i) {
              codes[i] = static_cast<std::byte>(
                  extremes == Extremes::random ? byte(numbers.uniform()) : 255);
              // The largest integers with the lowest codes.
              const bool code = i % panel < units * unit_bytes;
              if ((levels || table) && code && seed % 6 < 3 && extremes != Extremes::random) {
                codes[i] = {};
              }
            }
            for (std::size_t g = 0; g < panels * groups; ++g) {
              for (std::size_t i = 0; i < tail - (zeros ? 64 : 0);
                   i += scales == PanelScales::f32 ? 4 : 2) {
                const float scale = numbers.bell() * 0.1F;
                const std::uint16_t half =
                    scales == PanelScales::f16 ? float_to_f16(scale) : float_to_bf16(scale);
                std::memcpy(
                    codes.data() + g / groups * panel + g % groups * block + units * unit_bytes + i,
                    scales == PanelScales::f32 ? static_cast<const void*>(&scale) : &half,
                    scales == PanelScales::f32 ? 4 : 2);
              }
            }
            const std::size_t first_unit = levels ? 0 : seed % 21;
            const std::size_t blocks = (first_unit + groups * units + 15) / 16;
            Guarded<std::int8_t> a(blocks * rows * 64, Edge::back);
            for (std::size_t i = 0; i < a.size(); ++i) {
              const int random = byte(numbers.uniform()) - 128;
              a[i] = static_cast<std::int8_t>(extremes == Extremes::random ? std::max(random, -127)
                                              : extremes == Extremes::most || i % 2 == 0 ? 127
                                                                                         : -127);
            }
            Guarded<std::int32_t> sums(groups * rows);
            for (std::int32_t& sum : sums) {
              sum = static_cast<std::int32_t>(numbers.uniform() * 127 * 4 *
                                              static_cast<float>(units));
            }
            Guarded<std::int32_t> level_starts(level_groups * rows);
            // A table's bytes are 128 more than what they mean, which an entry may use.
            for (std::size_t i = 0; table && i < sums.size(); ++i) {
              sums[i] = 0;
              const std::size_t k = (first_unit + i / rows * units) * 4;
              for (std::size_t at = k; at < k + units * 4; ++at) {
                sums[i] -= 128 * a[(at / 64 * rows + i % rows) * 64 + at % 64];
              }
            }
            for (unsigned r = 0; levels && r < rows; ++r) {
              sums[r] = 0;
              for (std::size_t k = 0; k < units * 4; ++k) {
                const int x = a[(k / 64 * rows + r) * 64 + k % 64];
                sums[r] -= 128 * x;
                level_starts[k / 4 / level_units * rows + r] -= 8 * x;
              }
            }
            // Panels of y lie further apart than a tile's rows.
            const std::size_t y_panel = (rows + seed % 3) * 32;
            const std::size_t elements = (panels - 1) * y_panel + rows * 32;
            std::vector<float> before(elements);
            for (float& value : before) value = numbers.bell();
            const auto run = [&](const gemm_int8::Entry& with, bool opened = false) {
              // Sums of a group are carried where y follows.
              Guarded<float> y(elements, Edge::front);
              Guarded<std::byte> work(with.work_bytes);
              std::copy(before.begin(), before.end(), y.begin());
              gemm_int8::TileProduct product;
              product.a = a.data();
              product.starts = sums.data();
              product.rows = rows;
              product.groups = groups;
              product.block_bytes = block;
              product.panel_bytes = panel;
              product.scales = scales;
              product.zeros = zeros;
              product.first = levels || cut != 0 || seed % 2 == 0;
              product.y_panel = y_panel;
              product.table = kTable;
              product.level_units = level_units;
              product.level_starts = level_starts.data();
              for (std::size_t p = 0; p < panels; p += with.tile_panels) {
                product.panels = std::min(with.tile_panels, panels - static_cast<unsigned>(p));
                product.y = y.data() + p * y_panel;
                product.carry = reinterpret_cast<std::int32_t*>(product.y);
                product.tail = codes.data() + p * panel + units * unit_bytes;
                product.integers = levels ? codes.data() + p * panel + block : nullptr;
                const auto part = [&](std::size_t from, std::size_t to) {
                  product.codes = codes.data() + p * panel + from * unit_bytes;
                  product.first_unit = first_unit + from;
                  product.units = to - from;
                  product.begins = from == 0;
                  product.ends = to == units;
                  product.opened = opened ? with.open(product, work.data()) : nullptr;
                  with.multiply(product);
                  if (opened && with.close != nullptr) with.close();
                };
                if (cut != 0) part(0, cut);
                part(cut, units);
              }
              return std::vector<float>(y.begin(), y.end());
            };
            // Panels start at lines of the cache, which the back of a page keeps only if the size
            // is a multiple of one.
            ASSERT_EQ(reinterpret_cast<std::uintptr_t>(codes.data()) % 64, 0U);
            const std::vector<float> expected = run(reference);
            for (const bool opened : {false, true}) {
              if (opened && (entry.open == nullptr || units == 150)) continue;
              ASSERT_TRUE(same_bits(run(entry, opened), expected))
                  << "rows " << rows << " units " << units << " groups " << groups << " scales "
                  << static_cast<int>(scales) << " zeros " << zeros << " cut " << cut << " panels "
                  << panels << " opened " << opened;
            }
          }
        }
      }
    }
  }
}

// ------------------------------------------------------------------ the public product

/// y as contract.hpp states it, from the canonical codes.
std::vector<float> by_the_letter(MatrixView<const float> x, const QuantizedTensor& weight) {
  const GridSpec& grid = weight.grid();
  const GroupLayout layout = group_layout(grid, weight.rows(), weight.cols());
  const GroupParameters& parameters = weight.parameters();
  const std::size_t cols = weight.cols();
  // Of two levels the sum of the whole row is a whole number, while 32 bits hold it.
  const Codebook* const codebook = info(grid.format).codebook;
  const bool levels =
      grid.two_level && grid.per == Channel::output && cols <= gemm_int8::kMostInLevels;
  std::vector<float> y(x.rows() * weight.rows());
  std::vector<std::uint8_t> codes(cols);
  std::vector<std::int8_t> rounded(cols);
  for (std::size_t o = 0; o < weight.rows(); ++o) {
    weight.unpack_row(o, codes);
    const float* factors =
        grid.per == Channel::input ? &parameters.scales[layout.index(o, 0)] : nullptr;
    for (std::size_t t = 0; t < x.rows(); ++t) {
      const float scale =
          quantize_row(scalar::quantize_rows_entry, x.row(t).data(), factors, cols, rounded.data());
      float sum = 0;
      std::int64_t whole = 0;
      for (std::size_t k = 0; k < cols; ++k) {
        const std::size_t index = layout.index(o, k);
        const int zero =
            grid.symmetric ? symmetric_zero(grid.format) : int{parameters.zeros[index]};
        const int level = codebook != nullptr ? static_cast<int>(codebook->levels[codes[k]])
                                              : int{codes[k]} - zero;
        whole += level * int{rounded[k]} * (levels ? int{parameters.integers[index]} : 1);
        const bool last = k + 1 == cols;
        if (levels) {
          if (last) sum = static_cast<float>(whole) * parameters.row_scales[o];
        } else if (grid.per == Channel::input) {
          if (last) sum = static_cast<float>(whole);
        } else if (last || layout.index(o, k + 1) != index) {
          sum = std::fma(static_cast<float>(whole), parameters.scales[index], sum);
          whole = 0;
        }
      }
      y[t * weight.rows() + o] = sum * scale;
    }
  }
  return y;
}

const ProductLaw kLaw(Activations::int8, by_the_letter, kInfinity);

TEST(QuantizedProduct, IsWhatTheContractSaysOnEveryGrid) {
  kLaw.expect_on_every_grid({0, 32, 64}, 23,
                            [](const FormatInfo& format) { return format.format != Format::nf4; });
}

TEST(QuantizedProduct, IsWhatTheContractSaysOnEdgesOfSize) {
  unsigned seed = 0;
  for (const std::size_t oc : {1, 15, 16, 17, 31, 32, 33, 65}) {
    for (const std::size_t ic : {1, 2, 3, 4, 5, 31, 33, 129}) {
      for (const char* word : {"int4:sym:oc:g4", "int4:asym:oc:g32", "int8:sym:oc:row",
                               "int4:sym:oc:g32:u4", "int3:sym:oc:g4:f32:u4", "iq4:sym:oc:g4"}) {
        ++seed;
        kLaw.expect(*parse_grid(word), oc, ic, 1 + seed % 4, seed);
      }
    }
  }
}

TEST(QuantizedProduct, IsWhatTheContractSaysForManyTokensAndLongRows) {
  unsigned seed = 0;
  for (const std::size_t tokens : {8, 12, 13, 24, 25, 100, 270}) {
    for (const char* word :
         {"int4:sym:oc:g128", "int4:asym:oc:row", "int8:sym:oc:g32", "int8full:sym:oc:row",
          "int4:sym:ic:g32", "int4:asym:ic:row", "int4:sym:oc:g32:u4", "int2:sym:oc:g20:bf16:u4",
          "iq4:sym:oc:g32", "iq4:sym:ic:g32"}) {
      ++seed;
      kLaw.expect(*parse_grid(word), tokens > 100 ? 40 : 161, tokens > 100 ? 300 : 520, tokens,
                  seed);
    }
  }
  // Longer than a span of 2,048 input channels, in one group and in many, with a ragged end.
  for (const char* word :
       {"int4:sym:oc:row", "int4:sym:oc:g128", "int8:asym:oc:row", "int4:sym:oc:g4096",
        "int4:sym:oc:g32:u4", "int4:sym:oc:row:u4", "iq4:sym:oc:g4096:f32"}) {
    ++seed;
    kLaw.expect(*parse_grid(word), 40, 5001, 14, seed);
    kLaw.expect(*parse_grid(word), 40, 5001, 1, seed);
  }
}

/// A weight of one value of `code` and `integer` times tokens of 127 and -127.
std::vector<float> product_of_extremes(std::uint8_t code, std::uint8_t integer, std::size_t cols,
                                       std::size_t tokens, Isa isa) {
  const GridSpec grid = *parse_grid("int4:sym:oc:g32:f32:u4");
  const std::size_t groups = group_layout(grid, 1, cols).cols;
  GroupParameters parameters = {1, groups, {}, {}, {1.0F}, {}};
  parameters.integers.assign(groups, integer);
  multiply_levels(parameters);
  const auto both = static_cast<std::uint8_t>(code | code << 4);
  auto weight = QuantizedTensor::create(
      grid, 1, cols, std::vector<std::uint8_t>(packed_size(cols, 4), both), std::move(parameters));
  std::vector<float> x(tokens * cols, 127.0F), y(tokens);
  for (std::size_t t = 1; t < tokens; t += 2) {
    std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(t * cols), cols, -127.0F);
  }
  SerialExecutor executor;
  Context context(executor);
  set_isa_cap(isa);
  const auto packed = pack(*weight, Activations::int8, executor);
  clear_isa_cap();
  EXPECT_TRUE(gemm({x.data(), tokens, cols}, *packed, {y.data(), tokens, 1}, context));
  return y;
}

TEST(QuantizedProduct, OfTwoLevelsHoldsTheLargestSumsOfTheLongestRows) {
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512vnni, Isa::amx, Isa::neondot}) {
    if (!has(isa)) continue;
    for (const std::size_t tokens : {1, 13}) {
      const auto least = product_of_extremes(0, 15, gemm_int8::kMostInLevels, tokens, isa);
      const auto most = product_of_extremes(15, 15, gemm_int8::kMostInLevels, tokens, isa);
      for (std::size_t t = 0; t < tokens; ++t) {
        const float sign = t % 2 == 0 ? 1.0F : -1.0F;
        ASSERT_EQ(least[t], sign * -120.0F * 127 * 140000) << to_string(isa) << " " << t;
        ASSERT_EQ(most[t], sign * 105.0F * 127 * 140000) << to_string(isa) << " " << t;
      }
    }
  }
}

TEST(QuantizedProduct, OfTwoLevelsWithLongerRowsAddsGroupsAsFloats) {
  const GridSpec grid = *parse_grid("int4:sym:oc:g32:u4");
  SerialExecutor executor;
  for (const std::size_t cols : {gemm_int8::kMostInLevels, gemm_int8::kMostInLevels + 1}) {
    const bool levels = cols <= gemm_int8::kMostInLevels;
    const QuantizedTensor weight = test::random_quantized(grid, 2, cols, 1);
    const auto packed = pack(weight, Activations::int8, executor);
    ASSERT_TRUE(packed);
    EXPECT_EQ(packed->kernel().find(levels ? "gemm_w4u4a8/" : "gemm_w4a8/"), 0U);
    kLaw.expect(grid, 2, cols, 1, 5);
  }
}

TEST(QuantizedProduct, AddsKeptColumnsAsTheContractSays) {
  kLaw.expect_with_kept_columns({"int4:sym:oc:g32", "int4:asym:oc:row", "int3:asym:oc:g4",
                                 "int2:sym:oc:g16", "int8:asym:oc:g32", "int8full:sym:oc:row",
                                 "int4:sym:oc:g32:u4", "int4:asym:ic:g32", "int8:sym:ic:row"});
}

TEST(QuantizedProduct, GathersWhereColumnsHaveAnOrder) {
  kLaw.expect_with_an_order({"int4:sym:oc:g32", "int3:asym:oc:g4", "int8:asym:oc:row",
                             "int4:asym:ic:g32", "int4:sym:oc:g32:u4"});
}

TEST(QuantizedProduct, OfNothingWritesNothing) {
  SerialExecutor executor;
  Context context(executor);
  auto packed = pack(test::random_quantized(*parse_grid("int4:sym:oc:g32"), 33, 64, 1),
                     Activations::int8, executor);
  ASSERT_TRUE(packed);
  EXPECT_TRUE(gemm({nullptr, 0, 64}, *packed, {nullptr, 0, 33}, context));
  float x[64] = {}, y[33] = {};
  EXPECT_FALSE(gemm({x, 1, 64}, *packed, {y, 1, 32}, context));
}

TEST(QuantizedProduct, IsRefusedWhereItWouldHaveToGuess) {
  SerialExecutor executor;
  struct Case {
    const char* grid;
    std::size_t oc, ic;
    const char* reason;
  };
  const Case cases[] = {{"int4:sym:oc:g6", 8, 64, "whole units of 4"},
                        {"int4:sym:ic:g16", 64, 8, "whole panels of 32"},
                        {"int4:sym:oc:row", 1, 70000, "exceed 32 bits"},
                        {"nf4:sym:oc:g32", 8, 64, "codebook"}};
  for (const Case& each : cases) {
    const QuantizedTensor weight =
        test::random_quantized(*parse_grid(each.grid), each.oc, each.ic, 1);
    const auto refused = pack(weight, Activations::int8, executor);
    ASSERT_FALSE(refused) << each.grid;
    EXPECT_EQ(refused.error().code, ErrorCode::unsupported);
    EXPECT_NE(refused.error().message.find(each.reason), std::string::npos)
        << refused.error().message;
    EXPECT_TRUE(pack(weight, Activations::f32, executor)) << each.grid;
  }
}

}  // namespace
}  // namespace quell::kernels
