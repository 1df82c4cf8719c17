// SPDX-License-Identifier: Apache-2.0

// Two registers hold the 16 tokens of a block, or 16 channels of a token; eight more hold the
// products or sums of four heads.

#include <immintrin.h>

#include "kernels/cpu/attention/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX2)
namespace quell::kernels::avx2 {
namespace {

namespace family = attention_family;
using family::kBlock;

QUELL_INLINE __m256 load_floats(const std::byte* bytes) {
  return _mm256_loadu_ps(reinterpret_cast<const float*>(bytes));
}
QUELL_INLINE __m128i load_bytes(const std::byte* bytes) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
}
QUELL_INLINE __m128i load_half(const std::byte* bytes) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
}

// load: sixteen elements from element i on, a multiple of 16.
struct F32 {
  static constexpr bool kScale = false, kLowest = false;
  static QUELL_INLINE void load(const std::byte* bytes, std::size_t i, __m256 (&out)[2]) {
    out[0] = load_floats(bytes + i * 4);
    out[1] = load_floats(bytes + i * 4 + 32);
  }
};
struct F16 {
  static constexpr bool kScale = false, kLowest = false;
  static QUELL_INLINE void load(const std::byte* bytes, std::size_t i, __m256 (&out)[2]) {
    out[0] = _mm256_cvtph_ps(load_bytes(bytes + i * 2));
    out[1] = _mm256_cvtph_ps(load_bytes(bytes + i * 2 + 16));
  }
};
struct Int8 {
  static constexpr bool kScale = true, kLowest = false;
  static QUELL_INLINE void load(const std::byte* bytes, std::size_t i, __m256 (&out)[2]) {
    out[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_half(bytes + i)));
    out[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_half(bytes + i + 8)));
  }
};
struct Int4 {
  static constexpr bool kScale = true, kLowest = true;
  static QUELL_INLINE void load(const std::byte* bytes, std::size_t i, __m256 (&out)[2]) {
    const __m128i both = load_bytes(bytes + i / 32 * 16);
    const __m128i shifted = i % 32 < 16 ? both : _mm_srli_epi16(both, 4);
    const __m128i codes = _mm_and_si128(shifted, _mm_set1_epi8(15));
    out[0] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes));
    out[1] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(codes, codes)));
  }
};

template <typename Kind, unsigned H>
void products_of(const family::KeyProduct& p) {
  for (std::size_t b = 0; b < p.keys.count; ++b) {
    const std::byte* block = p.keys.data + b * p.keys.bytes;
    const std::byte* scales = block + p.keys.scales;
    __m256 sum[H][2];
    QUELL_UNROLL
    for (unsigned h = 0; h < H; ++h) sum[h][0] = sum[h][1] = _mm256_setzero_ps();
    for (std::size_t d = 0; d < p.head_dim; ++d) {
      __m256 keys[2];
      Kind::load(block, d * kBlock, keys);
      QUELL_UNROLL
      for (unsigned h = 0; h < H; ++h) {
        const __m256 query = _mm256_set1_ps(p.queries[h * p.query_stride + d]);
        sum[h][0] = _mm256_fmadd_ps(query, keys[0], sum[h][0]);
        sum[h][1] = _mm256_fmadd_ps(query, keys[1], sum[h][1]);
      }
    }
    QUELL_UNROLL
    for (unsigned h = 0; h < H; ++h) {
      QUELL_UNROLL
      for (unsigned half = 0; half < 2; ++half) {
        const std::byte* here = scales + half * 32;
        __m256 s = sum[h][half];
        if constexpr (Kind::kLowest) {
          const __m256 low = _mm256_mul_ps(load_floats(here + kBlock * sizeof(float)),
                                           _mm256_set1_ps(p.query_sums[h]));
          s = _mm256_fmadd_ps(s, load_floats(here), low);
        } else if constexpr (Kind::kScale) {
          s = _mm256_mul_ps(s, load_floats(here));
        }
        _mm256_storeu_ps(p.products + h * p.product_stride + b * kBlock + half * 8, s);
      }
    }
  }
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

/// All ones in lanes from <= first_lane + lane < to.
QUELL_INLINE __m256 lanes_in(std::size_t first_lane, std::size_t from, std::size_t to) {
  const __m256i lane = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(first_lane)),
                                        _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  const __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(from)), lane);
  const __m256i inside = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(to)), lane);
  return _mm256_castsi256_ps(_mm256_andnot_si256(below, inside));
}

template <typename Kind, unsigned H>
void sums_of(const family::ValueSum& p) {
  for (std::size_t b = p.first / kBlock; b * kBlock < p.last; ++b) {
    const std::byte* block = p.values.data + b * p.values.bytes;
    const std::byte* scales = block + p.values.scales;
    const std::size_t start = b * kBlock;
    const std::size_t from = p.first > start ? p.first - start : 0;
    const std::size_t to = p.last - start < kBlock ? p.last - start : kBlock;
    alignas(32) float weights[H][kBlock];
    QUELL_UNROLL
    for (unsigned h = 0; h < H; ++h) {
      QUELL_UNROLL
      for (unsigned half = 0; half < 2; ++half) {
        const std::byte* here = scales + half * 32;
        __m256 weight = _mm256_loadu_ps(p.weights + h * p.weight_stride + start + half * 8);
        if constexpr (Kind::kLowest) {
          float* lows = p.lows + h * kBlock + half * 8;
          const __m256 before = _mm256_loadu_ps(lows);
          const __m256 after =
              _mm256_fmadd_ps(weight, load_floats(here + kBlock * sizeof(float)), before);
          const __m256 inside = lanes_in(half * 8, from, to);
          _mm256_storeu_ps(lows, _mm256_blendv_ps(before, after, inside));
        }
        if constexpr (Kind::kScale) weight = _mm256_mul_ps(weight, load_floats(here));
        _mm256_store_ps(weights[h] + half * 8, weight);
      }
    }
    for (std::size_t d = 0; d < p.dims; d += 16) {
      __m256 sum[H][2];
      QUELL_UNROLL
      for (unsigned h = 0; h < H; ++h) {
        sum[h][0] = _mm256_loadu_ps(p.sums + h * p.dims + d);
        sum[h][1] = _mm256_loadu_ps(p.sums + h * p.dims + d + 8);
      }
      for (std::size_t t = from; t < to; ++t) {
        __m256 values[2];
        Kind::load(block, t * p.dims + d, values);
        QUELL_UNROLL
        for (unsigned h = 0; h < H; ++h) {
          const __m256 weight = _mm256_set1_ps(weights[h][t]);
          sum[h][0] = _mm256_fmadd_ps(weight, values[0], sum[h][0]);
          sum[h][1] = _mm256_fmadd_ps(weight, values[1], sum[h][1]);
        }
      }
      QUELL_UNROLL
      for (unsigned h = 0; h < H; ++h) {
        _mm256_storeu_ps(p.sums + h * p.dims + d, sum[h][0]);
        _mm256_storeu_ps(p.sums + h * p.dims + d + 8, sum[h][1]);
      }
    }
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
    Isa::avx2,
    {products<F32>, products<F16>, products<Int8>, products<Int4>},
    {sums<F32>, sums<F16>, sums<Int8>, sums<Int4>}};

}  // namespace quell::kernels::avx2
QUELL_TARGET_END
