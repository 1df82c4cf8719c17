// SPDX-License-Identifier: Apache-2.0
#pragma once

// SHA-256 (FIPS 180-4) over bytes that arrive in pieces: of tensors as they are written, of files
// as they are copied. It guards against damage and mix-ups; it also lets users compare results by
// hash.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace quell::io {

class Sha256 {
 public:
  void update(std::span<const std::byte> bytes) noexcept;
  /// The digest in 64 lower-case hex digits. Call once, last.
  std::string finish_hex() noexcept;

 private:
  void compress(const std::byte* block) noexcept;

  // First 32 bits of the fractional parts of the square roots of the first 8 primes.
  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> pending_ = {};  // the start of a block that is not full yet
  std::uint64_t length_ = 0;                // bytes seen so far
};

}  // namespace quell::io
