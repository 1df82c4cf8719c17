// SPDX-License-Identifier: Apache-2.0
#pragma once

// attention: one token's queries times cached keys, and its weights times cached values. What turns
// products into weights is softmax of the family elementwise, or a rule of the caller's.
//
// Keys and values of one head lie in blocks of 16 tokens, one block after the other:
//
//     keys     channel after channel, the 16 tokens side by side: channel d of token t is
//              element i = 16 d + t
//     values   token after token, its channels side by side: element i = dims t + d, with zeros
//              from head_dim up to `dims`
//     then, of int8 and int4, 16 scales; of int4, 16 lowest values as well (f32)
//
//              what it stands for           where element i is
//     f32      float                        bytes 4 i .. 4 i + 3
//     f16      binary16                     bytes 2 i, 2 i + 1
//     int8     scale * code                 byte i
//     int4     scale * code + lowest        byte 16 (i / 32) + i % 16, the low four bits where
//                                           i % 32 < 16; code 0..15
//
// What every entry promises, bit for bit: with e the element, without its scale and lowest value,
//
//     s = +0;  for d ascending: s = fma(q[d], e(t, d), s)
//     product = s                                                           f32, f16
//               s * scale[t]                                                int8
//               fma(s, scale[t], lowest[t] * query_sum)                     int4
//
//     for t ascending: sum[d] = fma(w, e(t, d), sum[d])      w = weight[t], or weight[t] * scale[t]
//     lane t % 16 of low = fma(weight[t], lowest[t], low)                   int4
//
// A product has one accumulator, and a sum one for all tokens: what gemm_dense does, so that over
// an f32 or f16 cache one token has the bits that it has among many.

#include <cstddef>
#include <span>

#include "quell/kernels/isa.hpp"

namespace quell::kernels::attention_family {

constexpr unsigned kBlock = 16;    // tokens
constexpr unsigned kMaxHeads = 4;  // of a call: their accumulators for 32 tokens fill 8 registers

/// Consecutive blocks of one head.
struct Blocks {
  const std::byte* data;  // 64-byte aligned, as are all blocks
  std::size_t bytes;      // of a block
  std::size_t scales;     // offset of the 16 scales in a block; of the lowest values: 64 more
  std::size_t count;
};

struct KeyProduct {
  Blocks keys;
  std::size_t head_dim;
  unsigned heads;        // 1..kMaxHeads
  const float* queries;  // [heads, query_stride], head_dim of each row are read
  std::size_t query_stride;
  const float* query_sums;  // [heads], of int4 only
  float* products;          // [heads, product_stride], 64-byte aligned; 16 a block are written
  std::size_t product_stride;
};

struct ValueSum {
  Blocks values;
  std::size_t dims;         // a multiple of 16, or of 32 for int4
  std::size_t first, last;  // tokens that count, from the start of the blocks
  unsigned heads;           // 1..kMaxHeads
  const float* weights;     // [heads, weight_stride], 64-byte aligned, 0 outside first..last
  std::size_t weight_stride;
  float* sums;  // [heads, dims], 64-byte aligned; added to
  float* lows;  // [heads, 16], as sums; of int4 only
};

/// In the order of the enumeration CacheKind: f32, f16, int8, int4.
struct Entry {
  Isa isa;
  void (*products[4])(const KeyProduct& product);
  void (*sums[4])(const ValueSum& sum);
};

/// Best first, scalar last.
std::span<const Entry* const> table() noexcept;

}  // namespace quell::kernels::attention_family

namespace quell::kernels {
namespace scalar {
extern const attention_family::Entry attention_entry;
}
namespace avx2 {
extern const attention_family::Entry attention_entry;
}
namespace avx512 {
extern const attention_family::Entry attention_entry;
}
}  // namespace quell::kernels
