// SPDX-License-Identifier: Apache-2.0

#include <immintrin.h>

#include "kernels/cpu/gemm_dense/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512)
namespace quell::kernels::avx512 {
namespace {

// 9 x 3 accumulators, 3 vectors of B and 1 broadcast of A are 31 of 32 registers. What decides is
// the number of loads: 12 for 27 multiplications. 14 x 2 needs 16 for 28 and measured 8 % slower on
// an Ice Lake server, which managed 0.8 loads of 64 bytes a cycle beside two multiplications; 6 x 4
// and 5 x 5 are within 2 % of 9 x 3. Embedded broadcasts ({1to16} operands) are one load for each
// multiplication: 0.7 times.
constexpr unsigned kTileRows = 9;
constexpr unsigned kVectors = 3;
// A panel is 36 KB and a tile 7 KB: together they fit a first cache of 48 KB.
constexpr unsigned kDepthBlock = 192;
constexpr unsigned kWidth = 16;
constexpr unsigned kPanelCols = kVectors * kWidth;

/// sum += a * b, fused. Written out because GCC 12, given the intrinsic, reorders two steps into
/// one another, copies accumulators and spills them in the innermost loop.
QUELL_INLINE void multiply_add(__m512& sum, __m512 a, __m512 b) {
  __asm__("vfmadd231ps %1, %2, %0" : "+v"(sum) : "v"(a), "v"(b));
}

template <unsigned Rows>
QUELL_INLINE void step(const float* a, const float* b, __m512 (&sum)[Rows][kVectors]) {
  __m512 b_v[kVectors];
  QUELL_UNROLL
  for (unsigned v = 0; v < kVectors; ++v) b_v[v] = _mm512_load_ps(b + v * kWidth);
  QUELL_UNROLL
  for (unsigned r = 0; r < Rows; ++r) {
    const __m512 a_r = _mm512_set1_ps(a[r]);
    QUELL_UNROLL
    for (unsigned v = 0; v < kVectors; ++v) multiply_add(sum[r][v], a_r, b_v[v]);
  }
}

template <unsigned Rows>
void tile(const gemm_dense_family::TileProduct& p) {
  const float* a = p.a;
  const float* b = p.b;
  const char* ahead = static_cast<const char*>(p.ahead);
  __m512 sum[Rows][kVectors];
  if (p.from != nullptr) {
    QUELL_UNROLL
    for (unsigned r = 0; r < Rows; ++r) {
      QUELL_UNROLL
      for (unsigned v = 0; v < kVectors; ++v) {
        const float* from = p.from + r * p.from_stride + v * kWidth;
        sum[r][v] = _mm512_loadu_ps(from);
        // The tile below comes next; by then it has arrived.
        _mm_prefetch(reinterpret_cast<const char*>(from + Rows * p.from_stride), _MM_HINT_T0);
      }
    }
  } else {
    QUELL_UNROLL
    for (unsigned r = 0; r < Rows; ++r) {
      QUELL_UNROLL
      for (unsigned v = 0; v < kVectors; ++v) sum[r][v] = _mm512_setzero_ps();
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
      _mm512_storeu_ps(p.to + r * p.to_stride + v * kWidth, sum[r][v]);
    }
  }
}

using TileFunction = void (*)(const gemm_dense_family::TileProduct&);
constexpr TileFunction kTiles[kTileRows + 1] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>,
                                                tile<5>, tile<6>, tile<7>, tile<8>, tile<9>};

void multiply(const gemm_dense_family::TileProduct& product) {
  kTiles[product.rows](product);
}

/// Sixteen rows of sixteen become sixteen columns: four rounds of pairwise interleaving, of single
/// elements, pairs, quarters and halves.
QUELL_INLINE void transpose(__m512 (&x)[16]) {
  __m512 t[16];
  QUELL_UNROLL
  for (unsigned i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
  }
  // x[4 q + j] now holds, in each quarter h, elements (4 q .. 4 q + 3, 4 h + j).
  QUELL_UNROLL
  for (unsigned i = 0; i < 16; i += 4) {
    x[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
    x[i + 1] =
        _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
    x[i + 2] = _mm512_castpd_ps(
        _mm512_unpacklo_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
    x[i + 3] = _mm512_castpd_ps(
        _mm512_unpackhi_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
  }
  QUELL_UNROLL
  for (unsigned j = 0; j < 4; ++j) {
    t[j] = _mm512_shuffle_f32x4(x[j], x[j + 4], 0x88);
    t[j + 4] = _mm512_shuffle_f32x4(x[j], x[j + 4], 0xdd);
    t[j + 8] = _mm512_shuffle_f32x4(x[j + 8], x[j + 12], 0x88);
    t[j + 12] = _mm512_shuffle_f32x4(x[j + 8], x[j + 12], 0xdd);
  }
  QUELL_UNROLL
  for (unsigned j = 0; j < 4; ++j) {
    x[j] = _mm512_shuffle_f32x4(t[j], t[j + 8], 0x88);
    x[j + 4] = _mm512_shuffle_f32x4(t[j + 4], t[j + 12], 0x88);
    x[j + 8] = _mm512_shuffle_f32x4(t[j], t[j + 8], 0xdd);
    x[j + 12] = _mm512_shuffle_f32x4(t[j + 4], t[j + 12], 0xdd);
  }
}

QUELL_INLINE __mmask16 first(std::size_t count) {
  return count >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << count) - 1);
}

/// Up to sixteen rows of a row-major source; `width` floats (<= 16) of every step of k are written.
void pack_rows(const float* src, std::size_t stride, std::size_t rows, std::size_t width,
               std::size_t dst_width, std::size_t depth, __m512 sign, float* dst) {
  const __mmask16 written = first(width);
  for (std::size_t k = 0; k < depth; k += 16) {
    const std::size_t steps = depth - k < 16 ? depth - k : 16;
    const __mmask16 read = first(steps);
    __m512 x[16];
    QUELL_UNROLL
    for (unsigned r = 0; r < 16; ++r) {
      x[r] = r < rows ? _mm512_maskz_loadu_ps(read, src + r * stride + k) : _mm512_setzero_ps();
    }
    transpose(x);
    float* out = dst + k * dst_width;
    if (steps == 16) {
      QUELL_UNROLL
      for (unsigned j = 0; j < 16; ++j) {
        _mm512_mask_storeu_ps(out + j * dst_width, written, _mm512_xor_ps(x[j], sign));
      }
    } else {
      // Through the unrolled loop as well, so that x stays in registers.
      QUELL_UNROLL
      for (unsigned j = 0; j < 16; ++j) {
        if (j < steps) {
          _mm512_mask_storeu_ps(out + j * dst_width, written, _mm512_xor_ps(x[j], sign));
        }
      }
    }
  }
}

void pack(const gemm_dense_family::Source& source, std::size_t rows, std::size_t width,
          std::size_t depth, bool negate, float* dst) {
  const __m512 sign = _mm512_set1_ps(negate ? -0.0f : 0.0f);
  for (std::size_t r = 0; r < width; r += 16) {
    const std::size_t part_rows = rows <= r ? 0 : rows - r < 16 ? rows - r : 16;
    const std::size_t part_width = width - r < 16 ? width - r : 16;
    if (!source.transposed) {
      pack_rows(source.data + r * source.stride, source.stride, part_rows, part_width, width, depth,
                sign, dst + r);
      continue;
    }
    const __mmask16 read = first(part_rows), written = first(part_width);
    for (std::size_t k = 0; k < depth; ++k) {
      const __m512 x = _mm512_maskz_loadu_ps(read, source.data + k * source.stride + r);
      _mm512_mask_storeu_ps(dst + k * width + r, written, _mm512_xor_ps(x, sign));
    }
  }
}

}  // namespace

extern const gemm_dense_family::Entry gemm_dense_entry = {Isa::avx512, kTileRows, kPanelCols,
                                                          kDepthBlock, pack,      multiply};

}  // namespace quell::kernels::avx512
QUELL_TARGET_END
