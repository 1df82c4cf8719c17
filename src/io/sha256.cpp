// SPDX-License-Identifier: Apache-2.0
// One block is 64 rounds over eight words. The words rotate by name rather than by assignment: the
// round macro of other implementations is here a function called with the words in shifted order,
// which compilers unroll into registers. The message schedule keeps only its last 16 words.
#include "io/sha256.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "io/descriptor.hpp"
#include "io/file.hpp"
#include "quell/io/output.hpp"

namespace quell::io {
namespace {

// First 32 bits of the fractional parts of the cube roots of the first 64 primes.
constexpr std::array<std::uint32_t, 64> kRoundConstants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

constexpr std::uint32_t rotate(std::uint32_t x, int by) noexcept {
  return (x >> by) | (x << (32 - by));
}

std::uint32_t load_big_endian(const std::byte* p) noexcept {
  return (std::to_integer<std::uint32_t>(p[0]) << 24) |
         (std::to_integer<std::uint32_t>(p[1]) << 16) |
         (std::to_integer<std::uint32_t>(p[2]) << 8) | std::to_integer<std::uint32_t>(p[3]);
}

inline void step(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t& d,
                 std::uint32_t e, std::uint32_t f, std::uint32_t g, std::uint32_t& h,
                 std::uint32_t word) noexcept {
  const std::uint32_t choice = g ^ (e & (f ^ g));
  const std::uint32_t majority = (a & b) | (c & (a | b));
  const std::uint32_t sum1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
  const std::uint32_t sum0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
  const std::uint32_t t = h + sum1 + choice + word;
  d += t;
  h = t + sum0 + majority;
}

}  // namespace

void Sha256::compress(const std::byte* block) noexcept {
  std::uint32_t w[16];
  for (std::size_t i = 0; i < 16; ++i) w[i] = load_big_endian(block + 4 * i);
  auto [a, b, c, d, e, f, g, h] = state_;
  for (std::size_t i = 0; i < 64; i += 16) {
    if (i != 0) {
      for (std::size_t j = 0; j < 16; ++j) {
        const std::uint32_t x = w[(j + 1) & 15];
        const std::uint32_t y = w[(j + 14) & 15];
        const std::uint32_t s0 = rotate(x, 7) ^ rotate(x, 18) ^ (x >> 3);
        const std::uint32_t s1 = rotate(y, 17) ^ rotate(y, 19) ^ (y >> 10);
        w[j] += s0 + w[(j + 9) & 15] + s1;
      }
    }
    const std::uint32_t* const k = kRoundConstants.data() + i;
    for (std::size_t j = 0; j < 16; j += 8) {
      step(a, b, c, d, e, f, g, h, w[j] + k[j]);
      step(h, a, b, c, d, e, f, g, w[j + 1] + k[j + 1]);
      step(g, h, a, b, c, d, e, f, w[j + 2] + k[j + 2]);
      step(f, g, h, a, b, c, d, e, w[j + 3] + k[j + 3]);
      step(e, f, g, h, a, b, c, d, w[j + 4] + k[j + 4]);
      step(d, e, f, g, h, a, b, c, w[j + 5] + k[j + 5]);
      step(c, d, e, f, g, h, a, b, w[j + 6] + k[j + 6]);
      step(b, c, d, e, f, g, h, a, w[j + 7] + k[j + 7]);
    }
  }
  const std::array<std::uint32_t, 8> added = {a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < 8; ++i) state_[i] += added[i];
}

void Sha256::update(std::span<const std::byte> bytes) noexcept {
  const std::size_t held = static_cast<std::size_t>(length_ % 64);
  length_ += bytes.size();
  if (held != 0) {
    const std::size_t taken = std::min(bytes.size(), 64 - held);
    if (taken != 0) std::memcpy(pending_.data() + held, bytes.data(), taken);
    bytes = bytes.subspan(taken);
    if (held + taken < 64) return;
    compress(pending_.data());
  }
  while (bytes.size() >= 64) {
    compress(bytes.data());
    bytes = bytes.subspan(64);
  }
  if (!bytes.empty()) std::memcpy(pending_.data(), bytes.data(), bytes.size());
}

std::string Sha256::finish_hex() noexcept {
  // The message ends with a one bit, zeros, and its length in bits as 64 bits, big endian.
  const std::uint64_t bits = length_ * 8;
  std::array<std::byte, 72> tail = {std::byte{0x80}};
  const std::size_t held = static_cast<std::size_t>(length_ % 64);
  const std::size_t zeros = (held < 56 ? 56 : 120) - held;
  for (std::size_t i = 0; i < 8; ++i) {
    tail[zeros + i] = static_cast<std::byte>((bits >> (56 - 8 * i)) & 0xff);
  }
  update(std::span(tail).first(zeros + 8));
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const std::uint32_t word : state_) {
    for (int shift = 28; shift >= 0; shift -= 4) hex += kDigits[(word >> shift) & 15];
  }
  return hex;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish_hex();
}

std::string sha256_hex(std::string_view text) {
  return sha256_hex(std::as_bytes(std::span(text)));
}

Result<std::string> sha256_file(const std::filesystem::path& path) {
  QUELL_TRY(file, File::open(path));
  Sha256 hash;
  std::vector<std::byte> chunk(kCopyChunk);
  for (std::uint64_t done = 0; done < file.size();) {
    const std::uint64_t left = file.size() - done;
    const auto piece = std::span(chunk).first(
        static_cast<std::size_t>(std::min<std::uint64_t>(left, chunk.size())));
    QUELL_TRY(file.read_at(done, piece));
    hash.update(piece);
    done += piece.size();
  }
  return hash.finish_hex();
}

}  // namespace quell::io
