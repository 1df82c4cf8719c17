// SPDX-License-Identifier: Apache-2.0
#pragma once

// The tile registers of AMX, one function an instruction. Products are templates over this struct,
// so that tests can run them with plain C++ of the same meaning (tests/laws/plain_tiles.hpp) on
// machines that have no tiles.
//
// There are eight tiles, of up to 16 rows of up to 64 bytes, whose shapes belong to the thread. A
// product takes tiles A [rows, 4 n] of bytes, B [n, 4 cols], where byte 4 c + b of row i is element
// (4 i + b, c) of the matrix, and C [rows, cols] of 32-bit integers; or A [rows, 2 n] of bfloat16,
// B [n, 2 cols], where word 2 c + b of row i is element (2 i + b, c), and C of float32.
//
// They are written out because GCC 12's intrinsics do not tell the compiler that memory is read and
// written. Assembly needs no target region either.

#include <cstddef>
#include <cstdint>

#include "kernels/target.hpp"

namespace quell::kernels {

constexpr unsigned kTileRegisters = 8;

/// What ldtilecfg reads.
struct TileShapes {
  std::uint8_t palette;  // 1
  std::uint8_t start_row;
  std::uint8_t unused[14];
  std::uint16_t row_bytes[16];  // up to 64; zero: no such tile
  std::uint8_t rows[16];        // up to 16
};
static_assert(sizeof(TileShapes) == 64);

struct AmxTiles {
  /// All tiles become zero. Hundreds of cycles: once for many products.
  static QUELL_INLINE void configure(const TileShapes& shapes) {
    __asm__ volatile("ldtilecfg %0" : : "m"(shapes));
  }
  /// Gives the registers back: what they hold slows every switch of threads.
  static QUELL_INLINE void release() { __asm__ volatile("tilerelease" : : : "memory"); }

  template <unsigned kTile>
  static QUELL_INLINE void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  /// Row i from `from + i stride`, bytes; any alignment.
  template <unsigned kTile>
  static QUELL_INLINE void load(const void* from, std::size_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                     :
                     : "r"(from), "r"(stride), "i"(kTile)
                     : "memory");
  }
  template <unsigned kTile>
  static QUELL_INLINE void store(void* to, std::size_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                     :
                     : "r"(to), "r"(stride), "i"(kTile)
                     : "memory");
  }
  /// C += A B with A signed and B unsigned, modulo 2^32.
  template <unsigned kC, unsigned kA, unsigned kB>
  static QUELL_INLINE void add_product() {
    __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }
  /// C += A B of bfloat16, C of float32. For an element of C: the products of even k are added from
  /// +0, and so are those of odd k, each fused and in ascending order; then both sums; then these
  /// to C. Every step rounds to nearest even, and subnormal numbers count as zero.
  template <unsigned kC, unsigned kA, unsigned kB>
  static QUELL_INLINE void add_bf16_product() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }
};

}  // namespace quell::kernels
