// SPDX-License-Identifier: Apache-2.0

// Packing into memory of the caller, and looking at bytes that were packed before.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <string>
#include <vector>

#include "quell/core/random.hpp"
#include "quell/kernels/gemm.hpp"
#include "quell/kernels/isa.hpp"
#include "quell/kernels/quantize_rows.hpp"
#include "support/quantized.hpp"
#include "support/same_bits.hpp"

namespace quell::kernels {
namespace {

using test::same_bits;

GridSpec grid_of(const char* word) {
  return *parse_grid(word);
}

/// A weight packed for its activations; `ordered` has kept columns and an order as well.
struct Packing {
  const char* word;
  Activations activations = Activations::int8;
  bool ordered = false;
};
/// Without a value where nothing multiplies such a weight so.
Result<PackedWeights> packed(const Packing& packing, std::size_t rows, std::uint32_t cols) {
  SerialExecutor serial;
  const std::uint32_t columns[] = {0, 5, cols - 1};
  const GridSpec grid = grid_of(packing.word);
  if (!packing.ordered) {
    return pack(test::random_quantized(grid, rows, cols, 1), packing.activations, serial);
  }
  std::vector<std::uint32_t> order(cols);
  for (std::uint32_t k = 0; k < cols; ++k) order[k] = (37 * k + 11) % cols;
  return pack(test::random_keeping(grid, rows, cols, columns, 1), packing.activations, serial,
              order);
}

class PackedMemory : public testing::Test {
 protected:
  std::vector<float> product(const PackedWeights& weight) {
    constexpr std::size_t kTokens = 14;  // several tiles, but for entries with tiles of 32
    std::vector<float> x(kTokens * weight.cols()), y(kTokens * weight.rows());
    Random(7).fill_normal(x);
    EXPECT_TRUE(gemm({x.data(), kTokens, weight.cols()}, weight, {y.data(), kTokens, weight.rows()},
                     context_));
    return y;
  }
  /// Packs both ways, looks at the bytes again, and expects the same bytes and the same products.
  void expect_the_same(const QuantizedTensor& weight, Activations activations) {
    const std::string where = to_string(weight.grid());
    const auto own = pack(weight, activations, serial_);
    const auto size = packed_bytes(weight, activations);
    ASSERT_EQ(own.has_value(), size.has_value()) << where;
    if (!own) {
      EXPECT_EQ(size.error().message, own.error().message);
      return;
    }
    ASSERT_EQ(*size, own->bytes()) << where;
    // The line after the last stays as it was.
    auto memory = AlignedBytes::allocate(*size + 64);
    ASSERT_TRUE(memory);
    std::memset(memory->data(), 0x5a, memory->size());
    const auto lent = pack_into(weight, activations, {memory->data(), memory->size()}, serial_);
    ASSERT_TRUE(lent) << lent.error().message;
    EXPECT_EQ(lent->memory().data(), memory->data());
    ASSERT_EQ(lent->bytes(), *size);
    EXPECT_EQ(std::memcmp(own->memory().data(), memory->data(), *size), 0) << where;
    EXPECT_EQ(memory->data()[*size], std::byte{0x5a}) << where;
    const auto seen = view_packed(own->memory());
    ASSERT_TRUE(seen) << where << ": " << seen.error().message;
    EXPECT_EQ(seen->kernel(), own->kernel());
    const std::vector<float> expected = product(*own);
    EXPECT_TRUE(same_bits(product(*lent), expected)) << where;
    EXPECT_TRUE(same_bits(product(*seen), expected)) << where;
  }
  AlignedBytes copy(std::span<const std::byte> bytes) {
    auto memory = AlignedBytes::allocate(bytes.size());
    std::memcpy(memory->data(), bytes.data(), bytes.size());
    return *std::move(memory);
  }

  SerialExecutor serial_;
  Context context_{serial_};
};

TEST_F(PackedMemory, HoldsTheBytesOfTheOwnedFormOnEveryGrid) {
  unsigned seed = 0;
  for (const FormatInfo& format : kFormats) {
    for (const bool symmetric : {true, false}) {
      for (const Channel per : {Channel::output, Channel::input}) {
        for (const std::uint32_t group : {0u, 32u, 6u}) {
          const bool two_level = seed % 2 == 1;
          GridSpec grid = {format.format, symmetric, per, group, ScaleType::f16, two_level};
          if (!check_grid(grid)) grid.two_level = false;
          if (!check_grid(grid)) continue;
          ++seed;
          const auto weight = test::random_quantized(grid, 69, 61 + seed % 9, seed);
          expect_the_same(weight, Activations::f32);
          expect_the_same(weight, Activations::int8);
          expect_the_same(weight, Activations::bf16);
        }
      }
    }
  }
  ASSERT_GT(seed, 50u);
}

TEST_F(PackedMemory, HoldsNoLeftoversWhereFloatsEndBeforeALine) {
  // Five panels of eight output channels and 61 input channels, say, end 32 bytes past a line.
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    set_isa_cap(isa);
    expect_the_same(test::random_quantized(grid_of("int4:sym:oc:g6"), 37, 61, 1), Activations::f32);
    clear_isa_cap();
  }
}

TEST_F(PackedMemory, HoldsFloatsAsTheOwnedFormDoes) {
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
      set_isa_cap(isa);
      std::vector<float> values(37 * 19);
      Random(3).fill_normal(values);
      const MatrixView<const float> weight(values.data(), 37, 18, 19);
      const auto own = pack(weight, type, serial_);
      ASSERT_TRUE(own);
      ASSERT_EQ(*packed_bytes(weight, type), own->bytes());
      auto memory = AlignedBytes::allocate(own->bytes());
      const auto lent = pack_into(weight, type, {memory->data(), memory->size()}, serial_);
      ASSERT_TRUE(lent) << lent.error().message;
      EXPECT_EQ(std::memcmp(own->memory().data(), memory->data(), memory->size()), 0);
      const auto seen = view_packed(lent->memory());
      ASSERT_TRUE(seen) << seen.error().message;
      EXPECT_EQ(seen->kernel(), own->kernel());
      EXPECT_TRUE(same_bits(product(*lent), product(*own)));
      EXPECT_TRUE(same_bits(product(*seen), product(*own)));
      clear_isa_cap();
    }
  }
}

TEST_F(PackedMemory, IsRefusedWhenTooSmallOrAtAnOddPlace) {
  const auto weight = test::random_quantized(grid_of("int4:sym:oc:g32"), 64, 64, 1);
  const std::size_t size = *packed_bytes(weight, Activations::int8);
  auto memory = AlignedBytes::allocate(size + 64);
  const auto small = pack_into(weight, Activations::int8, {memory->data(), size - 1}, serial_);
  ASSERT_FALSE(small);
  EXPECT_EQ(small.error().code, ErrorCode::shape);
  EXPECT_NE(small.error().message.find(std::to_string(size)), std::string::npos);
  EXPECT_NE(small.error().message.find(std::to_string(size - 1)), std::string::npos);
  const auto odd = pack_into(weight, Activations::int8, {memory->data() + 16, size}, serial_);
  ASSERT_FALSE(odd);
  EXPECT_NE(odd.error().message.find("16 bytes past a multiple of 64"), std::string::npos);
  std::vector<float> floats(64);
  EXPECT_FALSE(pack_into({floats.data(), 8, 8}, DType::f32, {memory->data(), 100}, serial_));
}

TEST_F(PackedMemory, QuantizedPanelsServeEveryInstructionSet) {
  const auto weight = test::random_quantized(grid_of("int4:asym:oc:g32"), 69, 96, 1);
  const auto own = pack(weight, Activations::int8, serial_);
  ASSERT_TRUE(own);
  const std::vector<float> expected = product(*own);
  set_isa_cap(Isa::scalar);
  const auto seen = view_packed(own->memory());
  clear_isa_cap();
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->kernel(), "gemm_w4a8/scalar");
  EXPECT_TRUE(same_bits(product(*seen), expected));
}

TEST_F(PackedMemory, FloatsOfAnotherWidthAreRefused) {
  std::vector<float> values(64, 1.0f);
  set_isa_cap(Isa::scalar);
  const auto packed = pack({values.data(), 8, 8}, serial_);
  clear_isa_cap();
  ASSERT_TRUE(packed);
  if (!has(Isa::avx2)) GTEST_SKIP() << "this machine has one width of panels";
  set_isa_cap(Isa::avx2);
  const auto here = pack({values.data(), 8, 8}, serial_);
  clear_isa_cap();
  // Whatever this machine packs it reads; the scalar entry, which it has too, reads the other.
  EXPECT_TRUE(view_packed(here->memory()));
  EXPECT_EQ(view_packed(packed->memory())->kernel(), "gemm_dense/scalar");
  set_isa_cap(Isa::scalar);
  const auto refused = view_packed(here->memory());
  clear_isa_cap();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::unsupported);
}

TEST_F(PackedMemory, EveryCutAndEveryChangedByteOfTheLabelIsRefusedOrHarmless) {
  for (const Packing& packing :
       {Packing{"int4:asym:oc:g32"}, Packing{"int8:asym:ic:g32"}, Packing{"int4:sym:oc:g32:f32"},
        Packing{"int4:sym:oc:g32:u4"}, Packing{"iq4:sym:oc:g32"},
        Packing{"int4:sym:oc:g32", Activations::bf16},
        Packing{"int4:asym:oc:g32", Activations::int8, true}}) {
    const char* const word = packing.word;
    const auto own = packed(packing, 64, 64);
    ASSERT_TRUE(own);
    const std::size_t size = own->bytes();
    for (std::size_t cut = 0; cut < size; cut += cut + 200 < size ? 192 : 1) {
      EXPECT_FALSE(view_packed(own->memory().first(cut))) << word << " cut to " << cut;
    }
    EXPECT_FALSE(view_packed(own->memory().subspan(1)));
    std::size_t taken = 0;
    for (std::size_t at = size - 64; at < size; ++at) {
      AlignedBytes changed = copy(own->memory());
      for (unsigned value = 0; value < 256; ++value) {
        changed.data()[at] = static_cast<std::byte>(value);
        const auto seen = view_packed({changed.data(), size});
        if (!seen) continue;
        ++taken;  // another name for the same sizes, such as another format of as many bits
        ASSERT_LE(seen->rows() * seen->cols(), 2 * size);
        product(*seen);  // under a sanitizer: nothing outside is touched
      }
    }
    EXPECT_GE(taken, 64u);
    EXPECT_LT(taken, 64u * 40) << "the label checks hardly anything";
  }
}

TEST_F(PackedMemory, KeptColumnsAreCheckedAndOnlyThoseThatExistAreTaken) {
  for (const char* word : {"int4:asym:oc:g32", "int8:asym:ic:g32"}) {
    const std::uint32_t columns[] = {0, 5, 63};
    const auto weight = test::random_keeping(grid_of(word), 96, 64, columns, 1);
    for (const Activations activations : {Activations::f32, Activations::int8}) {
      expect_the_same(weight, activations);
      const auto own = pack(weight, activations, serial_);
      ASSERT_TRUE(own);
      EXPECT_NE(own->kernel().find("kept_columns/"), std::string::npos) << own->kernel();
      // Their numbers are the line before the label.
      const std::size_t size = own->bytes(), at = size - 128;
      const auto with = [&](std::initializer_list<std::uint32_t> numbers) {
        AlignedBytes changed = copy(own->memory());
        std::memcpy(changed.data() + at, numbers.begin(), numbers.size() * sizeof(std::uint32_t));
        const auto seen = view_packed({changed.data(), size});
        if (seen) product(*seen);
        return seen ? std::string() : seen.error().message;
      };
      EXPECT_EQ(with({0, 5, 63}), "");
      EXPECT_EQ(with({1, 2, 3}), "");
      EXPECT_NE(with({0, 5, 64}).find("is number 64, expected 6 to 63"), std::string::npos);
      EXPECT_NE(with({0, 5, 5}), "");
      EXPECT_NE(with({5, 0, 63}), "");
      EXPECT_NE(with({0, 5, 0xFFFFFFFFu}), "");
      // How many there are says the label, at byte 44: the sizes no longer fit, or there are more
      // than input channels.
      for (const std::uint32_t count : {0u, 2u, 4u, 64u, 65u, 0xFFFFFFFFu}) {
        AlignedBytes changed = copy(own->memory());
        std::memcpy(changed.data() + size - 64 + 44, &count, sizeof count);
        EXPECT_FALSE(view_packed({changed.data(), size})) << count;
      }
    }
  }
  // Floats have none.
  std::vector<float> values(64, 1.0f);
  const auto floats = pack({values.data(), 8, 8}, DType::f16, serial_);
  AlignedBytes changed = copy(floats->memory());
  changed.data()[floats->bytes() - 64 + 44] = std::byte{1};
  const auto refused = view_packed({changed.data(), changed.size()});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("without codes"), std::string::npos);
}

TEST_F(PackedMemory, AnOrderOfColumnsIsPartOfItAndChecked) {
  // The third grid is multiplied as floats, in the order of x.
  for (const char* word : {"int4:asym:oc:g32", "int8:asym:ic:g32", "int4:sym:oc:g6"}) {
    const std::uint32_t columns[] = {0, 5};
    const auto weight = test::random_keeping(grid_of(word), 96, 64, columns, 1);
    std::vector<std::uint32_t> order(64);
    for (std::uint32_t k = 0; k < 64; ++k) order[k] = (37 * k + 11) % 64;
    const auto own = pack(weight, Activations::f32, serial_, order);
    ASSERT_TRUE(own);
    const std::size_t size = own->bytes();
    EXPECT_EQ(*packed_bytes(weight, Activations::f32, order), size);
    auto memory = AlignedBytes::allocate(size);
    ASSERT_TRUE(
        pack_into(weight, Activations::f32, {memory->data(), memory->size()}, serial_, order));
    EXPECT_EQ(std::memcmp(memory->data(), own->memory().data(), size), 0);
    // A token with a single one in it shows which column its channel multiplies.
    std::vector<float> x(64), y(96), row(64);
    for (const std::size_t k : {0u, 5u, 9u, 63u}) {
      std::fill(x.begin(), x.end(), 0.0f);
      x[order[k]] = 1;
      const auto seen = view_packed(own->memory());
      ASSERT_TRUE(seen) << seen.error().message;
      ASSERT_TRUE(gemm({x.data(), 1, 64}, *seen, {y.data(), 1, 96}, context_));
      for (std::size_t o = 0; o < 96; ++o) {
        weight.dequantize_row(o, row);
        ASSERT_NEAR(y[o], row[k], 1e-5f) << word << " column " << k;
      }
    }
    if (own->kernel().starts_with("gemm_dense")) continue;
    // The order is the 64 x 4 bytes before the label.
    AlignedBytes changed = copy(own->memory());
    const std::uint32_t bad = 64;
    std::memcpy(changed.data() + size - 64 - 256 + 4 * 17, &bad, sizeof bad);
    const auto refused = view_packed({changed.data(), size});
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("column 17 belongs to input channel 64 of 64"),
              std::string::npos)
        << refused.error().message;
  }
  const auto weight = test::random_quantized(grid_of("int4:sym:oc:g32"), 8, 4, 1);
  for (const std::vector<std::uint32_t>& wrong :
       {std::vector<std::uint32_t>{0, 1, 2}, {0, 1, 2, 4}, {0, 1, 1, 3}}) {
    const auto refused = pack(weight, Activations::int8, serial_, wrong);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::shape);
  }
}

TEST_F(PackedMemory, AnyContentOfPanelsIsMultipliedWithoutHarm) {
  std::size_t refused = 0;
  for (const Packing& kind :
       {Packing{"int4:asym:oc:g32"}, Packing{"int3:asym:oc:g32:f32"}, Packing{"int8:asym:oc:g64"},
        Packing{"int4:asym:ic:g32"}, Packing{"int8:asym:ic:row"}, Packing{"nf4:sym:oc:g32"},
        Packing{"int4:sym:oc:g32:u4"}, Packing{"iq4:sym:oc:g32"},
        Packing{"int4:asym:oc:g32", Activations::int8, true}}) {
    for (const Activations activations : {Activations::f32, Activations::int8, Activations::bf16}) {
      const auto own = packed({kind.word, activations, kind.ordered}, 96, 128);
      if (!own) {
        ++refused;  // nf4 with int8 and bf16
        continue;
      }
      // A line of kept columns and 128 numbers of an order stay as they are: indexes are checked.
      const std::size_t end = own->bytes() - 64 - (kind.ordered ? 64 + 512 : 0);
      for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512vnni, Isa::amx}) {
        AlignedBytes noise = copy(own->memory());
        for (std::size_t i = 0; i < end; ++i) {
          noise.data()[i] = static_cast<std::byte>((i * i * 2654435761u) >> 13);
        }
        set_isa_cap(isa);
        const auto seen = view_packed({noise.data(), noise.size()});
        clear_isa_cap();
        ASSERT_TRUE(seen);
        product(*seen);
      }
    }
  }
  EXPECT_EQ(refused, 2u);
}

TEST(LentScratch, IsAllThatAProductUses) {
  SerialExecutor serial;
  const auto weight = test::random_quantized(grid_of("int4:sym:oc:g32"), 64, 64, 1);
  const auto packed = pack(weight, Activations::int8, serial);
  std::vector<float> x(5 * 64, 1.0f), y(5 * 64), expected(5 * 64);
  Context own(serial);
  ASSERT_TRUE(gemm({x.data(), 5, 64}, *packed, {expected.data(), 5, 64}, own));
  Context none(serial, {});
  const Status refused = gemm({x.data(), 5, 64}, *packed, {y.data(), 5, 64}, none);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::resource);
  EXPECT_EQ(y, std::vector<float>(5 * 64)) << "nothing is done before it fails";
  const std::size_t needed = none.needed_bytes();
  EXPECT_NE(refused.error().message.find(std::to_string(needed)), std::string::npos);
  auto memory = AlignedBytes::allocate(needed);
  Context lent(serial, {memory->data(), needed});
  ASSERT_TRUE(gemm({x.data(), 5, 64}, *packed, {y.data(), 5, 64}, lent));
  EXPECT_EQ(y, expected);
  Context less(serial, {memory->data(), needed - 1});
  EXPECT_FALSE(gemm({x.data(), 5, 64}, *packed, {y.data(), 5, 64}, less));
}

TEST(QuantizeRows, ByHand) {
  const float infinity = std::numeric_limits<float>::infinity();
  // The largest is 2: x * 63.5, half to even. Then zeros, then a row that no scale fits.
  const std::vector<float> x = {2, -1, 0.5f, 0, 0, 0, 1, infinity, 3};
  std::vector<std::int8_t> codes(9, 99);
  std::vector<float> scales(3);
  SerialExecutor serial;
  ASSERT_TRUE(quantize_rows({x.data(), 3, 3}, {codes.data(), 3, 3}, scales, serial));
  EXPECT_EQ(codes, (std::vector<std::int8_t>{127, -64, 32, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(scales[0], 2.0f / 127.0f);
  EXPECT_EQ(scales[1], 1.0f);
  EXPECT_TRUE(std::isnan(scales[2]));
}

TEST(QuantizeRows, NeverDependsOnThreadsAndReadsStridedRows) {
  const std::size_t rows = 301, cols = 777, stride = 800;
  std::vector<float> x(rows * stride);
  Random(5).fill_normal(x);
  x[7 * stride + 3] = 3000.0f;  // an outlier
  const MatrixView<const float> view(x.data(), rows, cols, stride);
  std::vector<std::int8_t> one(rows * cols), three(rows * cols);
  std::vector<float> one_scale(rows), three_scale(rows);
  SerialExecutor serial;
  const auto threads = make_openmp_executor(3);
  ASSERT_TRUE(quantize_rows(view, {one.data(), rows, cols}, one_scale, serial));
  ASSERT_TRUE(quantize_rows(view, {three.data(), rows, cols}, three_scale, *threads));
  EXPECT_EQ(one, three);
  EXPECT_EQ(one_scale, three_scale);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < cols; ++c) {
      // Half a step, and the roundings of the quotient and two products, 2^-24 of 127 steps each.
      ASSERT_LE(std::fabs(x[r * stride + c] - one[r * cols + c] * one_scale[r]),
                0.5001f * one_scale[r]);
    }
  }
  EXPECT_FALSE(quantize_rows(view, {one.data(), rows, cols - 1}, one_scale, serial));
  EXPECT_FALSE(quantize_rows(view, {one.data(), rows, cols}, {one_scale.data(), 3}, serial));
}

}  // namespace
}  // namespace quell::kernels
