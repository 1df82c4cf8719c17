// SPDX-License-Identifier: Apache-2.0
#pragma once

// Codes of 1 to 8 bits in bytes, lowest bits first: code i occupies bits [i * bits, (i + 1) * bits)
// of the stream, and bit k of the stream is bit k % 8 of byte k / 8. With 4 bits the first code is
// the low nibble. Eight codes fill exactly `bits` bytes, which is the step of the general loop; the
// bits after the last code are zero when packed and ignored when unpacked.
//
//     3 bits:  byte 0  c2 c2 | c1 c1 c1 | c0 c0 c0      (bit 7 on the left)
//              byte 1  c5 | c4 c4 c4 | c3 c3 c3 | c2
//              byte 2  c7 c7 c7 | c6 c6 c6 | c5 c5

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "quell/core/panic.hpp"

namespace quell {

/// Bytes of `count` codes: ceil(count * bits / 8), computed without overflow.
constexpr std::size_t packed_size(std::size_t count, unsigned bits) noexcept {
  return count / 8 * bits + (count % 8 * bits + 7) / 8;
}

/// Writes packed_size(codes.size(), bits) bytes, no more. Bits of a code above `bits` are dropped.
/// 1 <= bits <= 8; `packed` has at least that size; no overlap.
inline void pack_codes(std::span<const std::uint8_t> codes, unsigned bits,
                       std::span<std::uint8_t> packed);

/// Reads packed_size(codes.size(), bits) bytes, no more, and fills `codes`.
inline void unpack_codes(std::span<const std::uint8_t> packed, unsigned bits,
                         std::span<std::uint8_t> codes);

// ------------------------------------------------------------------ definitions

namespace detail {

// Eight codes through one word. With the width as a constant all inner loops unroll.
template <unsigned kBits>
inline void pack_eights(const std::uint8_t* __restrict codes, std::size_t eights,
                        std::uint8_t* __restrict packed) {
  constexpr std::uint64_t kMask = (1u << kBits) - 1u;
  for (; eights != 0; --eights, codes += 8, packed += kBits) {
    std::uint64_t word = 0;
    for (unsigned i = 0; i < 8; ++i) word |= (codes[i] & kMask) << (i * kBits);
    for (unsigned i = 0; i < kBits; ++i) packed[i] = static_cast<std::uint8_t>(word >> (8 * i));
  }
}

template <unsigned kBits>
inline void unpack_eights(const std::uint8_t* __restrict packed, std::size_t eights,
                          std::uint8_t* __restrict codes) {
  constexpr std::uint64_t kMask = (1u << kBits) - 1u;
  for (; eights != 0; --eights, codes += 8, packed += kBits) {
    std::uint64_t word = 0;
    for (unsigned i = 0; i < kBits; ++i) word |= std::uint64_t{packed[i]} << (8 * i);
    for (unsigned i = 0; i < 8; ++i) {
      codes[i] = static_cast<std::uint8_t>((word >> (i * kBits)) & kMask);
    }
  }
}

// Full groups of eight at any width; 8 bits are a copy and never come here.
inline void pack_all_eights(const std::uint8_t* codes, std::size_t eights, unsigned bits,
                            std::uint8_t* packed) {
  switch (bits) {
    case 1:
      return pack_eights<1>(codes, eights, packed);
    case 2:
      return pack_eights<2>(codes, eights, packed);
    case 3:
      return pack_eights<3>(codes, eights, packed);
    case 4:
      return pack_eights<4>(codes, eights, packed);
    case 5:
      return pack_eights<5>(codes, eights, packed);
    case 6:
      return pack_eights<6>(codes, eights, packed);
    default:
      return pack_eights<7>(codes, eights, packed);
  }
}

inline void unpack_all_eights(const std::uint8_t* packed, std::size_t eights, unsigned bits,
                              std::uint8_t* codes) {
  switch (bits) {
    case 1:
      return unpack_eights<1>(packed, eights, codes);
    case 2:
      return unpack_eights<2>(packed, eights, codes);
    case 3:
      return unpack_eights<3>(packed, eights, codes);
    case 4:
      return unpack_eights<4>(packed, eights, codes);
    case 5:
      return unpack_eights<5>(packed, eights, codes);
    case 6:
      return unpack_eights<6>(packed, eights, codes);
    default:
      return unpack_eights<7>(packed, eights, codes);
  }
}

}  // namespace detail

inline void pack_codes(std::span<const std::uint8_t> codes, unsigned bits,
                       std::span<std::uint8_t> packed) {
  QUELL_ASSERT(bits >= 1 && bits <= 8 && packed.size() >= packed_size(codes.size(), bits));
  const std::size_t n = codes.size();
  if (n == 0) return;
  if (bits == 8) {
    std::memcpy(packed.data(), codes.data(), n);
    return;
  }
  const std::uint8_t* __restrict src = codes.data();
  std::uint8_t* __restrict dst = packed.data();
  const std::size_t done = n - n % 8;
  if (bits == 4) {
    for (std::size_t i = 0; i < done / 2; ++i) {
      dst[i] = static_cast<std::uint8_t>((src[2 * i] & 15u) | (src[2 * i + 1] & 15u) << 4);
    }
  } else {
    detail::pack_all_eights(src, done / 8, bits, dst);
  }
  if (done == n) return;
  // The rest is padded with zeros to eight codes, and only the bytes it occupies are stored.
  std::uint8_t last_codes[8] = {};
  std::uint8_t last_bytes[8] = {};
  std::memcpy(last_codes, src + done, n - done);
  detail::pack_all_eights(last_codes, 1, bits, last_bytes);
  std::memcpy(dst + done / 8 * bits, last_bytes, packed_size(n - done, bits));
}

inline void unpack_codes(std::span<const std::uint8_t> packed, unsigned bits,
                         std::span<std::uint8_t> codes) {
  QUELL_ASSERT(bits >= 1 && bits <= 8 && packed.size() >= packed_size(codes.size(), bits));
  const std::size_t n = codes.size();
  if (n == 0) return;
  if (bits == 8) {
    std::memcpy(codes.data(), packed.data(), n);
    return;
  }
  const std::uint8_t* __restrict src = packed.data();
  std::uint8_t* __restrict dst = codes.data();
  const std::size_t done = n - n % 8;
  if (bits == 4) {
    for (std::size_t i = 0; i < done / 2; ++i) {
      dst[2 * i] = src[i] & 15u;
      dst[2 * i + 1] = static_cast<std::uint8_t>(src[i] >> 4);
    }
  } else {
    detail::unpack_all_eights(src, done / 8, bits, dst);
  }
  if (done == n) return;
  std::uint8_t last_bytes[8] = {};
  std::uint8_t last_codes[8];
  std::memcpy(last_bytes, src + done / 8 * bits, packed_size(n - done, bits));
  detail::unpack_all_eights(last_bytes, 1, bits, last_codes);
  std::memcpy(dst + done, last_codes, n - done);
}

}  // namespace quell
