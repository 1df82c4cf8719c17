// SPDX-License-Identifier: Apache-2.0
#pragma once

// The tiles of kernels/cpu/amx_tiles.hpp in plain C++, as the processor's manual tells them. What
// makes the processor stop the program (shapes that do not fit, an unconfigured tile) aborts.

#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "kernels/cpu/amx_tiles.hpp"
#include "quell/core/half.hpp"

namespace quell::test {

struct TileState {
  kernels::TileShapes shapes;
  bool configured = false;
  std::byte bytes[kernels::kTileRegisters][16][64];
};

struct PlainTiles {
  static inline thread_local TileState state;

  static void need(bool fits) {
    if (!fits) std::abort();
  }
  /// Bytes of tile t that may be used: past its shape there is nothing.
  static unsigned rows(unsigned t) {
    need(state.configured && state.shapes.rows[t] != 0);
    return state.shapes.rows[t];
  }
  static unsigned row_bytes(unsigned t) {
    need(state.configured && state.shapes.row_bytes[t] != 0);
    return state.shapes.row_bytes[t];
  }

  static void configure(const kernels::TileShapes& shapes) {
    need(shapes.palette == 1 && shapes.start_row == 0);
    for (unsigned t = 0; t < 16; ++t) {
      need(shapes.rows[t] <= 16 && shapes.row_bytes[t] <= 64);
      need(t < kernels::kTileRegisters || (shapes.rows[t] == 0 && shapes.row_bytes[t] == 0));
    }
    state.shapes = shapes;
    state.configured = true;
    std::memset(state.bytes, 0, sizeof state.bytes);
  }
  static void release() { state.configured = false; }

  template <unsigned kTile>
  static void zero() {
    need(rows(kTile) != 0);
    std::memset(state.bytes[kTile], 0, sizeof state.bytes[kTile]);
  }
  template <unsigned kTile>
  static void load(const void* from, std::size_t stride) {
    zero<kTile>();
    for (unsigned r = 0; r < rows(kTile); ++r) {
      std::memcpy(state.bytes[kTile][r], static_cast<const std::byte*>(from) + r * stride,
                  row_bytes(kTile));
    }
  }
  template <unsigned kTile>
  static void store(void* to, std::size_t stride) {
    for (unsigned r = 0; r < rows(kTile); ++r) {
      std::memcpy(static_cast<std::byte*>(to) + r * stride, state.bytes[kTile][r],
                  row_bytes(kTile));
    }
  }
  template <unsigned kC, unsigned kA, unsigned kB>
  static void add_product() {
    static_assert(kC != kA && kC != kB && kA != kB);
    need(rows(kC) == rows(kA) && row_bytes(kC) == row_bytes(kB) && row_bytes(kA) / 4 == rows(kB));
    need(row_bytes(kA) % 4 == 0 && row_bytes(kC) % 4 == 0);
    for (unsigned m = 0; m < rows(kC); ++m) {
      std::uint32_t sums[16];
      std::memcpy(sums, state.bytes[kC][m], sizeof sums);
      const unsigned cols = row_bytes(kC) / 4, depth = row_bytes(kA);
      for (unsigned k = 0; k < depth; ++k) {
        const int a = static_cast<std::int8_t>(state.bytes[kA][m][k]);
        const std::byte* b = &state.bytes[kB][k / 4][k % 4];
        for (unsigned n = 0; n < cols; ++n) {
          sums[n] += static_cast<std::uint32_t>(a * std::to_integer<int>(b[4 * n]));
        }
      }
      std::memcpy(state.bytes[kC][m], sums, sizeof sums);
    }
  }
  template <unsigned kC, unsigned kA, unsigned kB>
  static void add_bf16_product() {
    static_assert(kC != kA && kC != kB && kA != kB);
    need(rows(kC) == rows(kA) && row_bytes(kC) == row_bytes(kB) && row_bytes(kA) / 4 == rows(kB));
    need(row_bytes(kA) % 4 == 0 && row_bytes(kC) % 4 == 0);
    const auto word = [](unsigned tile, unsigned row, unsigned index) {
      std::uint16_t bits;
      std::memcpy(&bits, &state.bytes[tile][row][2 * index], sizeof bits);
      return normal(bf16_to_float(bits));
    };
    const unsigned cols = row_bytes(kC) / 4, pairs = row_bytes(kA) / 4;
    for (unsigned m = 0; m < rows(kC); ++m) {
      float sums[16];
      std::memcpy(sums, state.bytes[kC][m], sizeof sums);
      for (unsigned n = 0; n < cols; ++n) {
        float apart[2] = {};
        for (unsigned k = 0; k < 2 * pairs; ++k) {
          const float b = word(kB, k / 2, 2 * n + k % 2);
          apart[k % 2] = normal(std::fma(word(kA, m, k), b, apart[k % 2]));
        }
        sums[n] = normal(normal(sums[n]) + normal(apart[0] + apart[1]));
      }
      std::memcpy(state.bytes[kC][m], sums, sizeof sums);
    }
  }
  /// Subnormal numbers count as zero.
  static float normal(float value) {
    return std::fabs(value) < FLT_MIN ? std::copysign(0.0F, value) : value;
  }
};

}  // namespace quell::test
