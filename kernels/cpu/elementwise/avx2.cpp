// SPDX-License-Identifier: Apache-2.0

// The sixteen lanes of the contract are two registers: lanes 0-7 and lanes 8-15. Absent lanes of a
// ragged end are loaded as zero and never stored; where they would count in a reduction they are
// set to what changes nothing, +0 for sums (which start at +0, so are never -0) and -infinity for
// maxima.

#include <immintrin.h>

#include "kernels/cpu/elementwise/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX2)
namespace quell::kernels::avx2 {
namespace {

namespace family = elementwise;

QUELL_INLINE __m256 all(float x) {
  return _mm256_set1_ps(x);
}

/// The lanes of a step that exist: none, some or all of eight.
QUELL_INLINE __m256i lanes_from(std::size_t i, std::size_t n) {
  const std::size_t left = i < n ? n - i : 0;
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(left < 8 ? static_cast<int>(left) : 8), lane);
}
QUELL_INLINE __m256 load(const float* x, std::size_t i, std::size_t n) {
  return i + 8 <= n ? _mm256_loadu_ps(x + i) : _mm256_maskload_ps(x + i, lanes_from(i, n));
}
QUELL_INLINE void store(float* x, std::size_t i, std::size_t n, __m256 value) {
  if (i + 8 <= n) {
    _mm256_storeu_ps(x + i, value);
  } else {
    _mm256_maskstore_ps(x + i, lanes_from(i, n), value);
  }
}
/// `value` where there is an element, `other` where there is none.
QUELL_INLINE __m256 present(std::size_t i, std::size_t n, __m256 value, __m256 other) {
  return _mm256_blendv_ps(other, value, _mm256_castsi256_ps(lanes_from(i, n)));
}

QUELL_INLINE float fold_sum(__m256 low, __m256 high) {
  const __m256 eight = _mm256_add_ps(low, high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
QUELL_INLINE float fold_max(__m256 low, __m256 high) {
  const __m256 eight = _mm256_max_ps(high, low);
  const __m128 four = _mm_max_ps(_mm256_extractf128_ps(eight, 1), _mm256_castps256_ps128(eight));
  const __m128 two = _mm_max_ps(_mm_movehl_ps(four, four), four);
  return _mm_cvtss_f32(_mm_max_ss(_mm_movehdup_ps(two), two));
}
/// Sixteen lanes of sums in double, four to a register.
QUELL_INLINE double fold_sum(const __m256d (&lane)[4]) {
  const __m256d a = _mm256_add_pd(lane[0], lane[2]), b = _mm256_add_pd(lane[1], lane[3]);
  const __m256d four = _mm256_add_pd(a, b);
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

QUELL_INLINE __m256 magnitude(__m256 x) {
  return _mm256_andnot_ps(all(-0.0f), x);
}
QUELL_INLINE __m256 negative_magnitude(__m256 x) {
  return _mm256_or_ps(x, all(-0.0f));
}

QUELL_INLINE __m256 power_of_two(__m256i exponent) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_add_epi32(exponent, _mm256_set1_epi32(127)), 23));
}

QUELL_INLINE __m256 exp_of(__m256 x) {
  x = _mm256_max_ps(all(family::kExpLow), x);
  x = _mm256_min_ps(all(family::kExpHigh), x);
  const __m256 shifted = _mm256_fmadd_ps(x, all(family::kLog2E), all(family::kRounder));
  const __m256 n = _mm256_sub_ps(shifted, all(family::kRounder));
  __m256 r = _mm256_fmadd_ps(n, all(-family::kLn2High), x);
  r = _mm256_fmadd_ps(n, all(-family::kLn2Low), r);
  __m256 q = all(family::kExpQ[4]);
  q = _mm256_fmadd_ps(q, r, all(family::kExpQ[3]));
  q = _mm256_fmadd_ps(q, r, all(family::kExpQ[2]));
  q = _mm256_fmadd_ps(q, r, all(family::kExpQ[1]));
  q = _mm256_fmadd_ps(q, r, all(family::kExpQ[0]));
  const __m256 p = _mm256_add_ps(all(1.0f), _mm256_fmadd_ps(q, _mm256_mul_ps(r, r), r));
  const __m256i exponent =
      _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(all(family::kRounder)));
  const __m256i half = _mm256_srai_epi32(exponent, 1);
  return _mm256_mul_ps(_mm256_mul_ps(p, power_of_two(half)),
                       power_of_two(_mm256_sub_epi32(exponent, half)));
}

QUELL_INLINE __m256 tanh_of(__m256 x) {
  const __m256 a = magnitude(x);
  const __m256 z = _mm256_mul_ps(x, x);
  __m256 p = all(family::kTanhP[4]);
  p = _mm256_fmadd_ps(p, z, all(family::kTanhP[3]));
  p = _mm256_fmadd_ps(p, z, all(family::kTanhP[2]));
  p = _mm256_fmadd_ps(p, z, all(family::kTanhP[1]));
  p = _mm256_fmadd_ps(p, z, all(family::kTanhP[0]));
  const __m256 near = _mm256_fmadd_ps(_mm256_mul_ps(x, z), p, x);
  const __m256 e = exp_of(_mm256_mul_ps(all(-2.0f), a));
  const __m256 quotient = _mm256_div_ps(_mm256_sub_ps(all(1.0f), e), _mm256_add_ps(all(1.0f), e));
  const __m256 far = _mm256_or_ps(magnitude(quotient), _mm256_and_ps(x, all(-0.0f)));
  return _mm256_blendv_ps(far, near, _mm256_cmp_ps(a, all(family::kTanhSplit), _CMP_LT_OQ));
}

QUELL_INLINE __m256 times_sigmoid(__m256 x, __m256 u) {
  const __m256 e = exp_of(negative_magnitude(u));
  const __m256 below = _mm256_cmp_ps(u, all(0.0f), _CMP_LT_OQ);
  return _mm256_div_ps(_mm256_blendv_ps(x, _mm256_mul_ps(x, e), below),
                       _mm256_add_ps(all(1.0f), e));
}

struct Relu {
  static QUELL_INLINE __m256 of(__m256 x) { return _mm256_max_ps(all(0.0f), x); }
};
struct Silu {
  static QUELL_INLINE __m256 of(__m256 x) { return times_sigmoid(x, x); }
};
struct Gelu {
  static QUELL_INLINE __m256 of(__m256 x) {
    const __m256 a = _mm256_min_ps(all(family::kGeluLimit), magnitude(x));
    const __m256 square = _mm256_mul_ps(a, a);
    const __m256 lost = _mm256_fmsub_ps(a, a, square);
    const __m256 t = _mm256_div_ps(_mm256_sub_ps(a, all(3.0f)), _mm256_add_ps(a, all(3.0f)));
    __m256 h = all(family::kGeluH[9]);
    QUELL_UNROLL
    for (int i = 8; i >= 0; --i) h = _mm256_fmadd_ps(h, t, all(family::kGeluH[i]));
    const __m256 e = exp_of(_mm256_mul_ps(all(-0.5f), square));
    const __m256 tail = _mm256_mul_ps(_mm256_fmadd_ps(e, _mm256_mul_ps(all(-0.5f), lost), e), h);
    const __m256 below = _mm256_cmp_ps(x, all(0.0f), _CMP_LT_OQ);
    return _mm256_mul_ps(x, _mm256_blendv_ps(_mm256_sub_ps(all(1.0f), tail), tail, below));
  }
};
struct GeluTanh {
  static QUELL_INLINE __m256 of(__m256 x) {
    const __m256 slope =
        _mm256_fmadd_ps(_mm256_mul_ps(x, x), all(family::kGeluTanh1), all(family::kGeluTanh0));
    return times_sigmoid(x, _mm256_mul_ps(x, slope));
  }
};
struct QuickGelu {
  static QUELL_INLINE __m256 of(__m256 x) {
    return times_sigmoid(x, _mm256_mul_ps(x, all(family::kQuickGelu)));
  }
};

template <typename Function>
void activate(float* x, const float* up, std::size_t n) {
  for (std::size_t i = 0; i < n; i += 8) {
    __m256 y = Function::of(load(x, i, n));
    if (up != nullptr) y = _mm256_mul_ps(y, load(up, i, n));
    store(x, i, n, y);
  }
}

void exp(const float* x, float* y, std::size_t n) {
  for (std::size_t i = 0; i < n; i += 8) store(y, i, n, exp_of(load(x, i, n)));
}

/// 1 / sqrt(sum / n + eps), by the correctly rounded scalar instructions.
QUELL_INLINE float inverse_root(float sum, std::size_t n, float eps) {
  const __m128 root = _mm_sqrt_ss(_mm_set_ss(sum / static_cast<float>(n) + eps));
  return 1.0f / _mm_cvtss_f32(root);
}

void rms_norm(const float* x, const float* weight, float eps, float* y, std::size_t n) {
  __m256 sum[2] = {all(0.0f), all(0.0f)};
  for (std::size_t i = 0; i < n; i += 16) {
    QUELL_UNROLL
    for (unsigned h = 0; h < 2; ++h) {
      // Absent lanes are +0 and add +0.
      const __m256 value = load(x, i + 8 * h, n);
      sum[h] = _mm256_fmadd_ps(value, value, sum[h]);
    }
  }
  const __m256 inverse = all(inverse_root(fold_sum(sum[0], sum[1]), n, eps));
  for (std::size_t i = 0; i < n; i += 8) {
    __m256 unit = _mm256_mul_ps(load(x, i, n), inverse);
    if (weight != nullptr) unit = _mm256_mul_ps(unit, load(weight, i, n));
    store(y, i, n, unit);
  }
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, float* y,
                std::size_t n) {
  __m256 sum[2] = {all(0.0f), all(0.0f)};
  for (std::size_t i = 0; i < n; i += 16) {
    QUELL_UNROLL
    for (unsigned h = 0; h < 2; ++h) sum[h] = _mm256_add_ps(sum[h], load(x, i + 8 * h, n));
  }
  const __m256 mean = all(fold_sum(sum[0], sum[1]) / static_cast<float>(n));
  __m256 squares[2] = {all(0.0f), all(0.0f)};
  for (std::size_t i = 0; i < n; i += 16) {
    QUELL_UNROLL
    for (unsigned h = 0; h < 2; ++h) {
      const __m256 d = present(i + 8 * h, n, _mm256_sub_ps(load(x, i + 8 * h, n), mean), all(0.0f));
      squares[h] = _mm256_fmadd_ps(d, d, squares[h]);
    }
  }
  const __m256 inverse = all(inverse_root(fold_sum(squares[0], squares[1]), n, eps));
  for (std::size_t i = 0; i < n; i += 8) {
    const __m256 unit = _mm256_mul_ps(_mm256_sub_ps(load(x, i, n), mean), inverse);
    const __m256 w = weight != nullptr ? load(weight, i, n) : all(1.0f);
    store(y, i, n,
          bias != nullptr ? _mm256_fmadd_ps(unit, w, load(bias, i, n)) : _mm256_mul_ps(unit, w));
  }
}

void softmax(float* row, std::size_t n, float scale, float softcap) {
  const __m256 lowest = all(-__builtin_inff());
  __m256 top[2] = {lowest, lowest};
  for (std::size_t i = 0; i < n; i += 16) {
    QUELL_UNROLL
    for (unsigned h = 0; h < 2; ++h) {
      __m256 v = _mm256_mul_ps(load(row, i + 8 * h, n), all(scale));
      if (softcap > 0.0f) {
        v = _mm256_mul_ps(all(softcap), tanh_of(_mm256_div_ps(v, all(softcap))));
      }
      store(row, i + 8 * h, n, v);
      top[h] = _mm256_max_ps(present(i + 8 * h, n, v, lowest), top[h]);
    }
  }
  const __m256 max = all(fold_max(top[0], top[1]));
  __m256 sum[2] = {all(0.0f), all(0.0f)};
  for (std::size_t i = 0; i < n; i += 16) {
    QUELL_UNROLL
    for (unsigned h = 0; h < 2; ++h) {
      const __m256 e = exp_of(_mm256_sub_ps(load(row, i + 8 * h, n), max));
      store(row, i + 8 * h, n, e);
      sum[h] = _mm256_add_ps(sum[h], present(i + 8 * h, n, e, all(0.0f)));
    }
  }
  const __m256 inverse = all(1.0f / fold_sum(sum[0], sum[1]));
  for (std::size_t i = 0; i < n; i += 8) {
    store(row, i, n, _mm256_mul_ps(load(row, i, n), inverse));
  }
}

void rotate(float* x, const float* cosine, const float* sine, std::size_t half) {
  for (std::size_t i = 0; i < half; i += 8) {
    const __m256 a = load(x, i, half), b = load(x + half, i, half);
    const __m256 c = load(cosine, i, half), s = load(sine, i, half);
    store(x, i, half, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
    store(x + half, i, half, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
  }
}

void add(float* x, const float* y, std::size_t n) {
  for (std::size_t i = 0; i < n; i += 8) {
    store(x, i, n, _mm256_add_ps(load(x, i, n), load(y, i, n)));
  }
}

void sum_exp(const float* x, std::size_t n, float* max, double* sum) {
  const __m256 lowest = all(-__builtin_inff());
  __m256 top[2] = {lowest, lowest};
  for (std::size_t i = 0; i < n; i += 16) {
    QUELL_UNROLL
    for (unsigned h = 0; h < 2; ++h) {
      top[h] = _mm256_max_ps(present(i + 8 * h, n, load(x, i + 8 * h, n), lowest), top[h]);
    }
  }
  *max = fold_max(top[0], top[1]);
  const __m256 shift = all(*max);
  __m256d lane[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(),
                     _mm256_setzero_pd()};
  for (std::size_t i = 0; i < n; i += 16) {
    QUELL_UNROLL
    for (unsigned h = 0; h < 2; ++h) {
      const __m256 e =
          present(i + 8 * h, n, exp_of(_mm256_sub_ps(load(x, i + 8 * h, n), shift)), all(0.0f));
      lane[2 * h] = _mm256_add_pd(lane[2 * h], _mm256_cvtps_pd(_mm256_castps256_ps128(e)));
      lane[2 * h + 1] =
          _mm256_add_pd(lane[2 * h + 1], _mm256_cvtps_pd(_mm256_extractf128_ps(e, 1)));
    }
  }
  *sum = fold_sum(lane);
}

}  // namespace

extern const elementwise::Entry elementwise_entry = {
    Isa::avx2,
    exp,
    {activate<Relu>, activate<Silu>, activate<Gelu>, activate<GeluTanh>, activate<QuickGelu>},
    rms_norm,
    layer_norm,
    softmax,
    rotate,
    add,
    sum_exp};

}  // namespace quell::kernels::avx2
QUELL_TARGET_END
