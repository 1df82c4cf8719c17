// SPDX-License-Identifier: Apache-2.0

// A register holds the 16 tokens of a block, or 16 channels of a token. Products: two blocks at a
// time, so that even one head has two chains of additions. Sums: 64 channels of up to four heads
// stay in registers for the tokens of a block.

#include <immintrin.h>

#include "kernels/cpu/attention/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512)
namespace quell::kernels::avx512 {
namespace {

namespace family = attention_family;
using family::kBlock;

QUELL_INLINE __m128i load_bytes(const std::byte* bytes) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
}

// Blocks are asked for so far ahead: 2 KB and more, 200 ns at 10 GB/s, which is the way from
// memory. The processor sees these streams too, but without being asked an f16 cache came at two
// thirds of the speed of memory, and with it at nine tenths (Ice Lake server). Past the end a line
// is asked for in vain.
constexpr std::size_t kAhead = 2;

QUELL_INLINE void prefetch(const std::byte* line) {
  _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T0);
}

// kLineRegisters: registers of elements to a cache line; kStep: registers that are read at once.
// load<N>: N registers of elements from element i on, a multiple of 16 (of int4, of 32).
struct F32 {
  static constexpr bool kScale = false, kLowest = false;
  static constexpr unsigned kLineRegisters = 1;
  static constexpr unsigned kStep = 1;
  template <unsigned N>
  static QUELL_INLINE void load(const std::byte* bytes, std::size_t i, __m512* out) {
    QUELL_UNROLL
    for (unsigned n = 0; n < N; ++n) out[n] = _mm512_loadu_ps(bytes + (i + n * 16) * 4);
  }
};
struct F16 {
  static constexpr bool kScale = false, kLowest = false;
  static constexpr unsigned kLineRegisters = 2;
  static constexpr unsigned kStep = 1;
  template <unsigned N>
  static QUELL_INLINE void load(const std::byte* bytes, std::size_t i, __m512* out) {
    QUELL_UNROLL
    for (unsigned n = 0; n < N; ++n) {
      const std::byte* from = bytes + (i + n * 16) * 2;
      out[n] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
  }
};
struct Int8 {
  static constexpr bool kScale = true, kLowest = false;
  static constexpr unsigned kLineRegisters = 4;
  static constexpr unsigned kStep = 1;
  template <unsigned N>
  static QUELL_INLINE void load(const std::byte* bytes, std::size_t i, __m512* out) {
    QUELL_UNROLL
    for (unsigned n = 0; n < N; ++n) {
      out[n] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_bytes(bytes + i + n * 16)));
    }
  }
};
struct Int4 {
  static constexpr bool kScale = true, kLowest = true;
  static constexpr unsigned kLineRegisters = 8;
  static constexpr unsigned kStep = 2;
  template <unsigned N>
  static QUELL_INLINE void load(const std::byte* bytes, std::size_t i, __m512* out) {
    // The look-up takes the low four bits of each lane alone.
    const __m512 codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    QUELL_UNROLL
    for (unsigned n = 0; n < N; n += 2) {
      const __m512i both = _mm512_cvtepu8_epi32(load_bytes(bytes + i / 2 + n * 8));
      out[n] = _mm512_permutexvar_ps(both, codes);
      if (n + 1 < N) out[n + 1] = _mm512_permutexvar_ps(_mm512_srli_epi32(both, 4), codes);
    }
  }
};

/// Adds N channels from d on to the products of H heads with B blocks.
template <typename Kind, unsigned H, unsigned B, unsigned N>
QUELL_INLINE void add_channels(const family::KeyProduct& p, const std::byte* block, std::size_t d,
                               __m512 (&sum)[B][H]) {
  QUELL_UNROLL
  for (unsigned b = 0; b < B; ++b) {
    __m512 keys[N];
    Kind::template load<N>(block + b * p.keys.bytes, d * kBlock, keys);
    QUELL_UNROLL
    for (unsigned n = 0; n < N; ++n) {
      QUELL_UNROLL
      for (unsigned h = 0; h < H; ++h) {
        const __m512 query = _mm512_set1_ps(p.queries[h * p.query_stride + d + n]);
        sum[b][h] = _mm512_fmadd_ps(query, keys[n], sum[b][h]);
      }
    }
  }
}

template <typename Kind, unsigned H, unsigned B>
QUELL_INLINE void multiply_blocks(const family::KeyProduct& p, std::size_t first) {
  const std::byte* block = p.keys.data + first * p.keys.bytes;
  __m512 sum[B][H];
  QUELL_UNROLL
  for (unsigned b = 0; b < B; ++b) {
    QUELL_UNROLL
    for (unsigned h = 0; h < H; ++h) sum[b][h] = _mm512_setzero_ps();
  }
  std::size_t d = 0;
  for (; d + Kind::kLineRegisters <= p.head_dim; d += Kind::kLineRegisters) {
    QUELL_UNROLL
    for (unsigned b = 0; b < B; ++b) {
      prefetch(block + (kAhead + b) * p.keys.bytes + d / Kind::kLineRegisters * 64);
    }
    QUELL_UNROLL
    for (unsigned n = 0; n < Kind::kLineRegisters; n += Kind::kStep) {
      add_channels<Kind, H, B, Kind::kStep>(p, block, d + n, sum);
    }
  }
  for (; d + Kind::kStep <= p.head_dim; d += Kind::kStep) {
    add_channels<Kind, H, B, Kind::kStep>(p, block, d, sum);
  }
  if (d < p.head_dim) add_channels<Kind, H, B, 1>(p, block, d, sum);
  QUELL_UNROLL
  for (unsigned b = 0; b < B; ++b) {
    const std::byte* scales = block + b * p.keys.bytes + p.keys.scales;
    QUELL_UNROLL
    for (unsigned h = 0; h < H; ++h) {
      __m512 s = sum[b][h];
      if constexpr (Kind::kLowest) {
        const __m512 low = _mm512_mul_ps(_mm512_loadu_ps(scales + kBlock * sizeof(float)),
                                         _mm512_set1_ps(p.query_sums[h]));
        s = _mm512_fmadd_ps(s, _mm512_loadu_ps(scales), low);
      } else if constexpr (Kind::kScale) {
        s = _mm512_mul_ps(s, _mm512_loadu_ps(scales));
      }
      _mm512_storeu_ps(p.products + h * p.product_stride + (first + b) * kBlock, s);
    }
  }
}

template <typename Kind, unsigned H>
void products_of(const family::KeyProduct& p) {
  std::size_t b = 0;
  for (; b + 2 <= p.keys.count; b += 2) multiply_blocks<Kind, H, 2>(p, b);
  if (b < p.keys.count) multiply_blocks<Kind, H, 1>(p, b);
}

template <typename Kind>
void products(const family::KeyProduct& p) {
  switch (p.heads) {
    case 1:
      return products_of<Kind, 1>(p);
    case 2:
      return products_of<Kind, 2>(p);
    case 3:
      return products_of<Kind, 3>(p);
    default:
      return products_of<Kind, 4>(p);
  }
}

/// Tokens [from, to) of a block into V registers of channels from d on.
template <typename Kind, unsigned H, unsigned V>
QUELL_INLINE void add_tokens(const family::ValueSum& p, const std::byte* block, std::size_t from,
                             std::size_t to, std::size_t d, const float (&weights)[H][kBlock]) {
  __m512 sum[H][V];
  QUELL_UNROLL
  for (unsigned h = 0; h < H; ++h) {
    QUELL_UNROLL
    for (unsigned v = 0; v < V; ++v) {
      sum[h][v] = _mm512_loadu_ps(p.sums + h * p.dims + d + v * 16);
    }
  }
  for (std::size_t t = from; t < to; ++t) {
    const std::size_t i = t * p.dims + d;
    const std::byte* ahead = block + kAhead * p.values.bytes + i * 4 / Kind::kLineRegisters;
    QUELL_UNROLL
    for (unsigned v = 0; v < V; v += Kind::kLineRegisters) {
      prefetch(ahead + v * 64 / Kind::kLineRegisters);
    }
    __m512 values[V];
    Kind::template load<V>(block, i, values);
    QUELL_UNROLL
    for (unsigned h = 0; h < H; ++h) {
      const __m512 weight = _mm512_set1_ps(weights[h][t]);
      QUELL_UNROLL
      for (unsigned v = 0; v < V; ++v) {
        sum[h][v] = _mm512_fmadd_ps(weight, values[v], sum[h][v]);
      }
    }
  }
  QUELL_UNROLL
  for (unsigned h = 0; h < H; ++h) {
    QUELL_UNROLL
    for (unsigned v = 0; v < V; ++v) {
      _mm512_storeu_ps(p.sums + h * p.dims + d + v * 16, sum[h][v]);
    }
  }
}

template <typename Kind, unsigned H>
void sums_of(const family::ValueSum& p) {
  for (std::size_t b = p.first / kBlock; b * kBlock < p.last; ++b) {
    const std::byte* block = p.values.data + b * p.values.bytes;
    const std::byte* scales = block + p.values.scales;
    const std::size_t start = b * kBlock;
    const std::size_t from = p.first > start ? p.first - start : 0;
    const std::size_t to = p.last - start < kBlock ? p.last - start : kBlock;
    alignas(64) float weights[H][kBlock];
    QUELL_UNROLL
    for (unsigned h = 0; h < H; ++h) {
      __m512 weight = _mm512_loadu_ps(p.weights + h * p.weight_stride + start);
      if constexpr (Kind::kLowest) {
        const auto lanes = static_cast<__mmask16>(((1u << to) - 1) & ~((1u << from) - 1));
        const __m512 lowest = _mm512_loadu_ps(scales + kBlock * sizeof(float));
        const __m512 low = _mm512_loadu_ps(p.lows + h * kBlock);
        _mm512_storeu_ps(p.lows + h * kBlock, _mm512_mask3_fmadd_ps(weight, lowest, low, lanes));
      }
      if constexpr (Kind::kScale) weight = _mm512_mul_ps(weight, _mm512_loadu_ps(scales));
      _mm512_store_ps(weights[h], weight);
    }
    std::size_t d = 0;
    for (; d + 64 <= p.dims; d += 64) add_tokens<Kind, H, 4>(p, block, from, to, d, weights);
    constexpr unsigned kLeft = Kind::kStep;  // int4 has its channels in runs of 32
    for (; d < p.dims; d += 16 * kLeft) add_tokens<Kind, H, kLeft>(p, block, from, to, d, weights);
  }
}

template <typename Kind>
void sums(const family::ValueSum& p) {
  switch (p.heads) {
    case 1:
      return sums_of<Kind, 1>(p);
    case 2:
      return sums_of<Kind, 2>(p);
    case 3:
      return sums_of<Kind, 3>(p);
    default:
      return sums_of<Kind, 4>(p);
  }
}

}  // namespace

extern const attention_family::Entry attention_entry = {
    Isa::avx512,
    {products<F32>, products<F16>, products<Int8>, products<Int4>},
    {sums<F32>, sums<F16>, sums<Int8>, sums<Int4>}};

}  // namespace quell::kernels::avx512
QUELL_TARGET_END
