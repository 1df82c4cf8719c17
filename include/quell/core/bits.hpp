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

// Up to eight codes from or into one word; `bytes` of it exist in memory.
inline void pack_up_to_eight(const std::uint8_t* codes, std::size_t count, unsigned bits,
                             std::uint8_t* packed) {
  const std::uint64_t mask = (1u << bits) - 1u;
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < count; ++i) word |= (codes[i] & mask) << (i * bits);
  const std::size_t bytes = packed_size(count, bits);
  for (std::size_t i = 0; i < bytes; ++i) packed[i] = static_cast<std::uint8_t>(word >> (8 * i));
}

inline void unpack_up_to_eight(const std::uint8_t* packed, std::size_t count, unsigned bits,
                               std::uint8_t* codes) {
  const std::uint64_t mask = (1u << bits) - 1u;
  const std::size_t bytes = packed_size(count, bits);
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < bytes; ++i) word |= static_cast<std::uint64_t>(packed[i]) << (8 * i);
  for (std::size_t i = 0; i < count; ++i) {
    codes[i] = static_cast<std::uint8_t>((word >> (i * bits)) & mask);
  }
}

}  // namespace detail

inline void pack_codes(std::span<const std::uint8_t> codes, unsigned bits,
                       std::span<std::uint8_t> packed) {
  QUELL_ASSERT(bits >= 1 && bits <= 8 && packed.size() >= packed_size(codes.size(), bits));
  const std::uint8_t* __restrict src = codes.data();
  std::uint8_t* __restrict dst = packed.data();
  const std::size_t n = codes.size();
  std::size_t done = 0;
  switch (bits) {
    case 8:
      if (n != 0) std::memcpy(dst, src, n);
      return;
    case 4:
      for (; done + 2 <= n; done += 2) {
        dst[done / 2] = static_cast<std::uint8_t>((src[done] & 15u) | (src[done + 1] & 15u) << 4);
      }
      break;
    case 2:
      for (; done + 4 <= n; done += 4) {
        dst[done / 4] =
            static_cast<std::uint8_t>((src[done] & 3u) | (src[done + 1] & 3u) << 2 |
                                      (src[done + 2] & 3u) << 4 | (src[done + 3] & 3u) << 6);
      }
      break;
    default:
      for (; done + 8 <= n; done += 8) {
        detail::pack_up_to_eight(src + done, 8, bits, dst + done / 8 * bits);
      }
  }
  // With 2 and 4 bits the rest is less than one byte and starts at one.
  if (done < n) detail::pack_up_to_eight(src + done, n - done, bits, dst + packed_size(done, bits));
}

inline void unpack_codes(std::span<const std::uint8_t> packed, unsigned bits,
                         std::span<std::uint8_t> codes) {
  QUELL_ASSERT(bits >= 1 && bits <= 8 && packed.size() >= packed_size(codes.size(), bits));
  const std::uint8_t* __restrict src = packed.data();
  std::uint8_t* __restrict dst = codes.data();
  const std::size_t n = codes.size();
  std::size_t done = 0;
  switch (bits) {
    case 8:
      if (n != 0) std::memcpy(dst, src, n);
      return;
    case 4:
      for (; done + 2 <= n; done += 2) {
        const std::uint8_t byte = src[done / 2];
        dst[done] = byte & 15u;
        dst[done + 1] = static_cast<std::uint8_t>(byte >> 4);
      }
      break;
    case 2:
      for (; done + 4 <= n; done += 4) {
        const std::uint8_t byte = src[done / 4];
        dst[done] = byte & 3u;
        dst[done + 1] = (byte >> 2) & 3u;
        dst[done + 2] = (byte >> 4) & 3u;
        dst[done + 3] = static_cast<std::uint8_t>(byte >> 6);
      }
      break;
    default:
      for (; done + 8 <= n; done += 8) {
        detail::unpack_up_to_eight(src + done / 8 * bits, 8, bits, dst + done);
      }
  }
  if (done < n)
    detail::unpack_up_to_eight(src + packed_size(done, bits), n - done, bits, dst + done);
}

}  // namespace quell
