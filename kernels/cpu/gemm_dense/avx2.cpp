// SPDX-License-Identifier: Apache-2.0

#include <immintrin.h>

#include "kernels/cpu/gemm_dense/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX2)
namespace quell::kernels::avx2 {
namespace {

// 4 x 3 accumulators, 3 vectors of B and 1 broadcast of A are 16 of 16 registers. Per step of k
// that is 12 multiplications, two a cycle, beside 7 loads, two a cycle. 6 x 2 has 8 loads: equal on
// a quiet core (98 % of the multiply limit from the first cache), 10 % slower where another
// hardware thread competes for the load units, as on shared machines.
constexpr unsigned kTileRows = 4;
constexpr unsigned kVectors = 3;
// A panel is 24 KB and a tile 4 KB, within a first cache of 32 KB.
constexpr unsigned kDepthBlock = 256;
constexpr unsigned kWidth = 8;
constexpr unsigned kPanelCols = kVectors * kWidth;

/// sum += a * b, fused. Written out because GCC 12, given the intrinsic, reorders two steps into
/// one another, copies accumulators and spills them in the innermost loop.
QUELL_INLINE void multiply_add(__m256& sum, __m256 a, __m256 b) {
  __asm__("vfmadd231ps %1, %2, %0" : "+x"(sum) : "x"(a), "x"(b));
}

template <unsigned Rows>
QUELL_INLINE void step(const float* a, const float* b, __m256 (&sum)[Rows][kVectors]) {
  __m256 b_v[kVectors];
  QUELL_UNROLL
  for (unsigned v = 0; v < kVectors; ++v) b_v[v] = _mm256_load_ps(b + v * kWidth);
  QUELL_UNROLL
  for (unsigned r = 0; r < Rows; ++r) {
    const __m256 a_r = _mm256_broadcast_ss(a + r);
    QUELL_UNROLL
    for (unsigned v = 0; v < kVectors; ++v) multiply_add(sum[r][v], a_r, b_v[v]);
  }
}

template <unsigned Rows>
void tile(const gemm_dense_family::TileProduct& p) {
  const float* a = p.a;
  const float* b = p.b;
  const char* ahead = static_cast<const char*>(p.ahead);
  __m256 sum[Rows][kVectors];
  if (p.from != nullptr) {
    QUELL_UNROLL
    for (unsigned r = 0; r < Rows; ++r) {
      QUELL_UNROLL
      for (unsigned v = 0; v < kVectors; ++v) {
        const float* from = p.from + r * p.from_stride + v * kWidth;
        sum[r][v] = _mm256_loadu_ps(from);
        // The tile below comes next; by then it has arrived.
        _mm_prefetch(reinterpret_cast<const char*>(from + Rows * p.from_stride), _MM_HINT_T0);
      }
    }
  } else {
    QUELL_UNROLL
    for (unsigned r = 0; r < Rows; ++r) {
      QUELL_UNROLL
      for (unsigned v = 0; v < kVectors; ++v) sum[r][v] = _mm256_setzero_ps();
    }
  }
  // Two steps at a time halve the loop's own instructions and the prefetches.
  std::size_t k = p.depth;
  for (; k >= 2; k -= 2) {
    _mm_prefetch(ahead, _MM_HINT_T1);
    ahead += 2 * p.ahead_step;
    step<Rows>(a, b, sum);
    step<Rows>(a + Rows, b + kPanelCols, sum);
    a += 2 * Rows;
    b += 2 * kPanelCols;
  }
  if (k != 0) step<Rows>(a, b, sum);
  QUELL_UNROLL
  for (unsigned r = 0; r < Rows; ++r) {
    QUELL_UNROLL
    for (unsigned v = 0; v < kVectors; ++v) {
      _mm256_storeu_ps(p.to + r * p.to_stride + v * kWidth, sum[r][v]);
    }
  }
}

using TileFunction = void (*)(const gemm_dense_family::TileProduct&);
constexpr TileFunction kTiles[kTileRows + 1] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>};

void multiply(const gemm_dense_family::TileProduct& product) {
  kTiles[product.rows](product);
}

/// Eight rows of eight become eight columns: single elements, pairs and halves are interleaved.
QUELL_INLINE void transpose(__m256 (&x)[8]) {
  __m256 t[8];
  QUELL_UNROLL
  for (unsigned i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
  }
  QUELL_UNROLL
  for (unsigned i = 0; i < 8; i += 4) {
    x[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    x[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    x[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    x[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  QUELL_UNROLL
  for (unsigned j = 0; j < 4; ++j) {
    t[j] = _mm256_permute2f128_ps(x[j], x[j + 4], 0x20);
    t[j + 4] = _mm256_permute2f128_ps(x[j], x[j + 4], 0x31);
  }
  QUELL_UNROLL
  for (unsigned j = 0; j < 8; ++j) x[j] = t[j];
}

/// All bits of the first `count` of eight lanes.
QUELL_INLINE __m256i first(std::size_t count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count < 8 ? static_cast<int>(count) : 8), lane);
}

/// Up to eight rows of a row-major source; `width` floats (<= 8) of every step of k are written.
void pack_rows(const float* src, std::size_t stride, std::size_t rows, std::size_t width,
               std::size_t dst_width, std::size_t depth, __m256 sign, float* dst) {
  const __m256i written = first(width);
  for (std::size_t k = 0; k < depth; k += 8) {
    const std::size_t steps = depth - k < 8 ? depth - k : 8;
    const __m256i read = first(steps);
    __m256 x[8];
    QUELL_UNROLL
    for (unsigned r = 0; r < 8; ++r) {
      x[r] = r < rows ? _mm256_maskload_ps(src + r * stride + k, read) : _mm256_setzero_ps();
    }
    transpose(x);
    float* out = dst + k * dst_width;
    QUELL_UNROLL
    for (unsigned j = 0; j < 8; ++j) {
      if (j >= steps) continue;
      const __m256 value = _mm256_xor_ps(x[j], sign);
      // A masked store is slow on some processors; whole vectors are the rule.
      if (width == 8) {
        _mm256_storeu_ps(out + j * dst_width, value);
      } else {
        _mm256_maskstore_ps(out + j * dst_width, written, value);
      }
    }
  }
}

void pack(const gemm_dense_family::Source& source, std::size_t rows, std::size_t width,
          std::size_t depth, bool negate, float* dst) {
  const __m256 sign = _mm256_set1_ps(negate ? -0.0f : 0.0f);
  for (std::size_t r = 0; r < width; r += 8) {
    const std::size_t part_rows = rows <= r ? 0 : rows - r < 8 ? rows - r : 8;
    const std::size_t part_width = width - r < 8 ? width - r : 8;
    if (!source.transposed) {
      pack_rows(source.data + r * source.stride, source.stride, part_rows, part_width, width, depth,
                sign, dst + r);
      continue;
    }
    const __m256i read = first(part_rows), written = first(part_width);
    const bool whole = part_rows == 8 && part_width == 8;
    for (std::size_t k = 0; k < depth; ++k) {
      const float* in = source.data + k * source.stride + r;
      float* out = dst + k * width + r;
      if (whole) {
        _mm256_storeu_ps(out, _mm256_xor_ps(_mm256_loadu_ps(in), sign));
      } else {
        _mm256_maskstore_ps(out, written, _mm256_xor_ps(_mm256_maskload_ps(in, read), sign));
      }
    }
  }
}

}  // namespace

extern const gemm_dense_family::Entry gemm_dense_entry = {Isa::avx2,   kTileRows, kPanelCols,
                                                          kDepthBlock, pack,      multiply};

}  // namespace quell::kernels::avx2
QUELL_TARGET_END
