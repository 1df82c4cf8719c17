// SPDX-License-Identifier: Apache-2.0

// One register holds the sixteen lanes of the contract. Ragged ends use masks: a lane that is not
// there is neither read nor written nor added to.

#include <immintrin.h>

#include "kernels/cpu/elementwise/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512)
namespace quell::kernels::avx512 {
namespace {

namespace family = elementwise;

QUELL_INLINE __m512 all(float x) {
  return _mm512_set1_ps(x);
}

QUELL_INLINE __mmask16 lanes_from(std::size_t i, std::size_t n) {
  return n - i >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << (n - i)) - 1);
}
QUELL_INLINE __m512 load(__mmask16 lanes, const float* x) {
  return _mm512_maskz_loadu_ps(lanes, x);
}
QUELL_INLINE void store(float* x, __mmask16 lanes, __m512 value) {
  _mm512_mask_storeu_ps(x, lanes, value);
}

QUELL_INLINE __m512 upper_half(__m512 x) {
  return _mm512_shuffle_f32x4(x, x, 0xee);
}

QUELL_INLINE float fold_sum(__m512 lane) {
  const __m256 eight =
      _mm256_add_ps(_mm512_castps512_ps256(lane), _mm512_castps512_ps256(upper_half(lane)));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
QUELL_INLINE float fold_max(__m512 lane) {
  const __m256 eight =
      _mm256_max_ps(_mm512_castps512_ps256(upper_half(lane)), _mm512_castps512_ps256(lane));
  const __m128 four = _mm_max_ps(_mm256_extractf128_ps(eight, 1), _mm256_castps256_ps128(eight));
  const __m128 two = _mm_max_ps(_mm_movehl_ps(four, four), four);
  return _mm_cvtss_f32(_mm_max_ss(_mm_movehdup_ps(two), two));
}
/// Lanes 0-7 and 8-15 of sums in double.
QUELL_INLINE double fold_sum(__m512d low, __m512d high) {
  const __m512d eight = _mm512_add_pd(low, high);
  const __m256d four =
      _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

QUELL_INLINE __m512 magnitude(__m512 x) {
  return _mm512_abs_ps(x);
}
QUELL_INLINE __m512 negative_magnitude(__m512 x) {
  return _mm512_or_ps(x, all(-0.0f));
}

QUELL_INLINE __m512 exp_of(__m512 x) {
  x = _mm512_max_ps(all(family::kExpLow), x);
  x = _mm512_min_ps(all(family::kExpHigh), x);
  const __m512 shifted = _mm512_fmadd_ps(x, all(family::kLog2E), all(family::kRounder));
  const __m512 n = _mm512_sub_ps(shifted, all(family::kRounder));
  __m512 r = _mm512_fmadd_ps(n, all(-family::kLn2High), x);
  r = _mm512_fmadd_ps(n, all(-family::kLn2Low), r);
  __m512 q = all(family::kExpQ[4]);
  q = _mm512_fmadd_ps(q, r, all(family::kExpQ[3]));
  q = _mm512_fmadd_ps(q, r, all(family::kExpQ[2]));
  q = _mm512_fmadd_ps(q, r, all(family::kExpQ[1]));
  q = _mm512_fmadd_ps(q, r, all(family::kExpQ[0]));
  const __m512 p = _mm512_add_ps(all(1.0f), _mm512_fmadd_ps(q, _mm512_mul_ps(r, r), r));
  // The scalar code multiplies by two powers of two, of which only the last can round: the same as
  // this one step.
  return _mm512_scalef_ps(p, n);
}

QUELL_INLINE __m512 tanh_of(__m512 x) {
  const __m512 a = magnitude(x);
  const __m512 z = _mm512_mul_ps(x, x);
  __m512 p = all(family::kTanhP[4]);
  p = _mm512_fmadd_ps(p, z, all(family::kTanhP[3]));
  p = _mm512_fmadd_ps(p, z, all(family::kTanhP[2]));
  p = _mm512_fmadd_ps(p, z, all(family::kTanhP[1]));
  p = _mm512_fmadd_ps(p, z, all(family::kTanhP[0]));
  const __m512 near = _mm512_fmadd_ps(_mm512_mul_ps(x, z), p, x);
  const __m512 e = exp_of(_mm512_mul_ps(all(-2.0f), a));
  const __m512 quotient = _mm512_div_ps(_mm512_sub_ps(all(1.0f), e), _mm512_add_ps(all(1.0f), e));
  const __m512 far = _mm512_or_ps(magnitude(quotient), _mm512_and_ps(x, all(-0.0f)));
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, all(family::kTanhSplit), _CMP_LT_OQ), far,
                              near);
}

QUELL_INLINE __m512 times_sigmoid(__m512 x, __m512 u) {
  const __m512 e = exp_of(negative_magnitude(u));
  const __mmask16 below = _mm512_cmp_ps_mask(u, all(0.0f), _CMP_LT_OQ);
  return _mm512_div_ps(_mm512_mask_mul_ps(x, below, x, e), _mm512_add_ps(all(1.0f), e));
}

struct Relu {
  static QUELL_INLINE __m512 of(__m512 x) { return _mm512_max_ps(all(0.0f), x); }
};
struct Silu {
  static QUELL_INLINE __m512 of(__m512 x) { return times_sigmoid(x, x); }
};
struct Gelu {
  static QUELL_INLINE __m512 of(__m512 x) {
    const __m512 a = _mm512_min_ps(all(family::kGeluLimit), magnitude(x));
    const __m512 square = _mm512_mul_ps(a, a);
    const __m512 lost = _mm512_fmsub_ps(a, a, square);
    const __m512 t = _mm512_div_ps(_mm512_sub_ps(a, all(3.0f)), _mm512_add_ps(a, all(3.0f)));
    __m512 h = all(family::kGeluH[9]);
    QUELL_UNROLL
    for (int i = 8; i >= 0; --i) h = _mm512_fmadd_ps(h, t, all(family::kGeluH[i]));
    const __m512 e = exp_of(_mm512_mul_ps(all(-0.5f), square));
    const __m512 tail = _mm512_mul_ps(_mm512_fmadd_ps(e, _mm512_mul_ps(all(-0.5f), lost), e), h);
    const __mmask16 below = _mm512_cmp_ps_mask(x, all(0.0f), _CMP_LT_OQ);
    return _mm512_mul_ps(x, _mm512_mask_blend_ps(below, _mm512_sub_ps(all(1.0f), tail), tail));
  }
};
struct GeluTanh {
  static QUELL_INLINE __m512 of(__m512 x) {
    const __m512 slope =
        _mm512_fmadd_ps(_mm512_mul_ps(x, x), all(family::kGeluTanh1), all(family::kGeluTanh0));
    return times_sigmoid(x, _mm512_mul_ps(x, slope));
  }
};
struct QuickGelu {
  static QUELL_INLINE __m512 of(__m512 x) {
    return times_sigmoid(x, _mm512_mul_ps(x, all(family::kQuickGelu)));
  }
};

template <typename Function>
void activate(float* x, const float* up, std::size_t n) {
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    __m512 y = Function::of(load(lanes, x + i));
    if (up != nullptr) y = _mm512_mul_ps(y, load(lanes, up + i));
    store(x + i, lanes, y);
  }
}

void exp(const float* x, float* y, std::size_t n) {
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    store(y + i, lanes, exp_of(load(lanes, x + i)));
  }
}

/// 1 / sqrt(sum / n + eps), by the correctly rounded scalar instructions.
QUELL_INLINE float inverse_root(float sum, std::size_t n, float eps) {
  const __m128 root = _mm_sqrt_ss(_mm_set_ss(sum / static_cast<float>(n) + eps));
  return 1.0f / _mm_cvtss_f32(root);
}

void rms_norm(const float* x, const float* weight, float eps, float* y, std::size_t n) {
  __m512 squares = all(0.0f);
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    const __m512 value = load(lanes, x + i);
    squares = _mm512_mask3_fmadd_ps(value, value, squares, lanes);
  }
  const __m512 inverse = all(inverse_root(fold_sum(squares), n, eps));
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    __m512 unit = _mm512_mul_ps(load(lanes, x + i), inverse);
    if (weight != nullptr) unit = _mm512_mul_ps(unit, load(lanes, weight + i));
    store(y + i, lanes, unit);
  }
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, float* y,
                std::size_t n) {
  __m512 sum = all(0.0f);
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    sum = _mm512_mask_add_ps(sum, lanes, sum, load(lanes, x + i));
  }
  const __m512 mean = all(fold_sum(sum) / static_cast<float>(n));
  __m512 squares = all(0.0f);
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    const __m512 d = _mm512_sub_ps(load(lanes, x + i), mean);
    squares = _mm512_mask3_fmadd_ps(d, d, squares, lanes);
  }
  const __m512 inverse = all(inverse_root(fold_sum(squares), n, eps));
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    const __m512 unit = _mm512_mul_ps(_mm512_sub_ps(load(lanes, x + i), mean), inverse);
    const __m512 w = weight != nullptr ? load(lanes, weight + i) : all(1.0f);
    store(
        y + i, lanes,
        bias != nullptr ? _mm512_fmadd_ps(unit, w, load(lanes, bias + i)) : _mm512_mul_ps(unit, w));
  }
}

void softmax(float* row, std::size_t n, float scale, float softcap) {
  __m512 top = all(-__builtin_inff());
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    __m512 v = _mm512_mul_ps(load(lanes, row + i), all(scale));
    if (softcap > 0.0f) {
      v = _mm512_mul_ps(all(softcap), tanh_of(_mm512_div_ps(v, all(softcap))));
    }
    store(row + i, lanes, v);
    top = _mm512_mask_max_ps(top, lanes, v, top);
  }
  const __m512 max = all(fold_max(top));
  __m512 sum = all(0.0f);
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    const __m512 e = exp_of(_mm512_sub_ps(load(lanes, row + i), max));
    store(row + i, lanes, e);
    sum = _mm512_mask_add_ps(sum, lanes, sum, e);
  }
  const __m512 inverse = all(1.0f / fold_sum(sum));
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    store(row + i, lanes, _mm512_mul_ps(load(lanes, row + i), inverse));
  }
}

void rotate(float* x, const float* cosine, const float* sine, std::size_t half) {
  for (std::size_t i = 0; i < half; i += 16) {
    const __mmask16 lanes = lanes_from(i, half);
    const __m512 a = load(lanes, x + i), b = load(lanes, x + half + i);
    const __m512 c = load(lanes, cosine + i), s = load(lanes, sine + i);
    store(x + i, lanes, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
    store(x + half + i, lanes, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
  }
}

void add(float* x, const float* y, std::size_t n) {
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    store(x + i, lanes, _mm512_add_ps(load(lanes, x + i), load(lanes, y + i)));
  }
}

void sum_exp(const float* x, std::size_t n, float* max, double* sum) {
  __m512 top = all(-__builtin_inff());
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    top = _mm512_mask_max_ps(top, lanes, load(lanes, x + i), top);
  }
  *max = fold_max(top);
  __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_from(i, n);
    // Absent lanes add +0, which leaves a sum that starts at +0 as it is.
    const __m512 e =
        _mm512_maskz_mov_ps(lanes, exp_of(_mm512_sub_ps(load(lanes, x + i), all(*max))));
    low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(e)));
    high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_castps512_ps256(upper_half(e))));
  }
  *sum = fold_sum(low, high);
}

}  // namespace

extern const elementwise::Entry elementwise_entry = {
    Isa::avx512,
    exp,
    {activate<Relu>, activate<Silu>, activate<Gelu>, activate<GeluTanh>, activate<QuickGelu>},
    rms_norm,
    layer_norm,
    softmax,
    rotate,
    add,
    sum_exp};

}  // namespace quell::kernels::avx512
QUELL_TARGET_END
