// SPDX-License-Identifier: Apache-2.0

#include "quell/core/bits.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "quell/core/random.hpp"

namespace quell {
namespace {

using Bytes = std::vector<std::uint8_t>;

TEST(PackCodes, PutsTheFirstCodeIntoTheLowestBits) {
  Bytes packed(2);
  pack_codes(Bytes{0x1, 0x2, 0xF}, 4, packed);
  EXPECT_EQ(packed, (Bytes{0x21, 0x0F}));
  // 3 bits: 5 = 101, 1 = 001, 6 = 110 give the stream 101 100 011 read from bit 0.
  pack_codes(Bytes{5, 1, 6}, 3, packed);
  EXPECT_EQ(packed, (Bytes{0x8D, 0x01}));
  packed.resize(1);
  pack_codes(Bytes{3, 0, 1, 2}, 2, packed);
  EXPECT_EQ(packed, (Bytes{0x93}));
  pack_codes(Bytes{1, 0, 1, 1, 0, 0, 0, 1}, 1, packed);
  EXPECT_EQ(packed, (Bytes{0x8D}));
}

TEST(PackCodes, SizesRoundUpToBytes) {
  EXPECT_EQ(packed_size(0, 5), 0u);
  EXPECT_EQ(packed_size(1, 1), 1u);
  EXPECT_EQ(packed_size(8, 3), 3u);
  EXPECT_EQ(packed_size(9, 3), 4u);
  EXPECT_EQ(packed_size(11, 7), 10u);
  // No overflow where the count of bits does not fit.
  EXPECT_EQ(packed_size(SIZE_MAX / 8 * 8, 8), SIZE_MAX / 8 * 8);
}

TEST(PackCodes, UnpackingIsTheInverseAtEveryWidthAndLength) {
  const Random random(5);
  for (unsigned bits = 1; bits <= 8; ++bits) {
    for (std::size_t n = 0; n <= 70; ++n) {
      Bytes codes(n);
      for (std::size_t i = 0; i < n; ++i) {
        codes[i] = static_cast<std::uint8_t>(random.below(n * 100 + i, 1u << bits));
      }
      // Exactly sized heap buffers: a byte too far is found by the address sanitizer; the guard
      // bytes find a write without it.
      const std::size_t size = packed_size(n, bits);
      Bytes packed(size + 1, 0xA5);
      pack_codes(codes, bits, std::span(packed).first(size));
      ASSERT_EQ(packed[size], 0xA5);
      packed.resize(size);
      packed.shrink_to_fit();
      Bytes back(n + 1, 0x5A);
      unpack_codes(packed, bits, std::span(back).first(n));
      ASSERT_EQ(back[n], 0x5A);
      back.pop_back();
      ASSERT_EQ(back, codes) << bits << " bits, " << n << " codes";
      for (std::size_t i = 0; i < n * bits; ++i) {
        const unsigned bit = packed[i / 8] >> (i % 8) & 1u;
        ASSERT_EQ(bit, codes[i / bits] >> (i % bits) & 1u);
      }
      if (n * bits % 8 != 0) {
        ASSERT_EQ(packed.back() >> (n * bits % 8), 0);
      }
    }
  }
}

TEST(PackCodes, DropsBitsAboveTheWidth) {
  for (unsigned bits = 1; bits < 8; ++bits) {
    const Bytes codes(11, 0xFF);
    Bytes packed(packed_size(11, bits));
    pack_codes(codes, bits, packed);
    Bytes back(11);
    unpack_codes(packed, bits, back);
    EXPECT_EQ(back, Bytes(11, static_cast<std::uint8_t>((1u << bits) - 1)));
  }
}

TEST(UnpackCodes, IgnoresWhatFollowsTheLastCode) {
  Bytes back(3);
  unpack_codes(Bytes{0x21, 0xFF}, 4, back);
  EXPECT_EQ(back, (Bytes{1, 2, 15}));
  back.resize(1);
  unpack_codes(Bytes{0xFF}, 3, back);
  EXPECT_EQ(back, (Bytes{7}));
}

}  // namespace
}  // namespace quell
