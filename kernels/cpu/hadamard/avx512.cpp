// SPDX-License-Identifier: Apache-2.0

// Sums and differences: up to 256 values lie in 16 registers and go through 8 steps there, 4 within
// registers and 4 between them; wider steps take up to 4 at a time. 4,096 values are thus read and
// written twice.

#include <immintrin.h>

#include "kernels/cpu/hadamard/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512)
namespace quell::kernels::avx512 {
namespace {

using hadamard_family::kStrip;
using hadamard_family::Problem;

constexpr std::size_t kLanes = 16;
constexpr unsigned kSteps = 4;  // between registers in one pass: 16 of the 32 registers

/// 1 in lanes without bit h, else -1.
template <unsigned h>
QUELL_INLINE __m512 sides() {
  constexpr auto minus = static_cast<__mmask16>(h == 1   ? 0xaaaa
                                                : h == 2 ? 0xcccc
                                                : h == 4 ? 0xf0f0
                                                         : 0xff00);
  return _mm512_mask_blend_ps(minus, _mm512_set1_ps(1.0f), _mm512_set1_ps(-1.0f));
}

/// The steps 1, 2, 4 and 8. Lane b receives fma(b, -1, a), which is a - b to the bit.
QUELL_INLINE __m512 within(__m512 x) {
  x = _mm512_fmadd_ps(x, sides<1>(), _mm512_permute_ps(x, 0xb1));
  x = _mm512_fmadd_ps(x, sides<2>(), _mm512_permute_ps(x, 0x4e));
  x = _mm512_fmadd_ps(x, sides<4>(), _mm512_shuffle_f32x4(x, x, 0xb1));
  return _mm512_fmadd_ps(x, sides<8>(), _mm512_shuffle_f32x4(x, x, 0x4e));
}

template <unsigned Steps>
QUELL_INLINE void between(__m512 (&x)[1u << Steps]) {
  QUELL_UNROLL
  for (unsigned step = 0; step < Steps; ++step) {
    QUELL_UNROLL
    for (unsigned i = 0; i < (1u << Steps); ++i) {
      const unsigned h = 1u << step;
      if ((i & h) != 0) continue;
      const __m512 a = x[i], b = x[i + h];
      x[i] = _mm512_add_ps(a, b);
      x[i + h] = _mm512_sub_ps(a, b);
    }
  }
}

/// The steps from `h` on of all of `length` values; with `Within`, those before too, and h is one
/// register, known to the compiler.
template <unsigned Steps, bool Within, bool Scaled>
void pass(float* x, std::size_t length, std::size_t h, float scale) {
  constexpr unsigned kCount = 1u << Steps;
  if (Within) h = kLanes;
  const __m512 factor = _mm512_set1_ps(scale);
  for (std::size_t first = 0; first < length; first += kCount * h) {
    for (std::size_t j = first; j < first + h; j += kLanes) {
      __m512 v[kCount];
      QUELL_UNROLL
      for (unsigned i = 0; i < kCount; ++i) {
        v[i] = _mm512_loadu_ps(x + j + i * h);
        if (Within) v[i] = within(v[i]);
      }
      between<Steps>(v);
      QUELL_UNROLL
      for (unsigned i = 0; i < kCount; ++i) {
        _mm512_storeu_ps(x + j + i * h, Scaled ? _mm512_mul_ps(v[i], factor) : v[i]);
      }
    }
  }
}

using Pass = void (*)(float*, std::size_t, std::size_t, float);
constexpr Pass kFirst[2][kSteps + 1] = {
    {pass<0, true, false>, pass<1, true, false>, pass<2, true, false>, pass<3, true, false>,
     pass<4, true, false>},
    {pass<0, true, true>, pass<1, true, true>, pass<2, true, true>, pass<3, true, true>,
     pass<4, true, true>}};
constexpr Pass kLater[2][kSteps + 1] = {{nullptr, pass<1, false, false>, pass<2, false, false>,
                                         pass<3, false, false>, pass<4, false, false>},
                                        {nullptr, pass<1, false, true>, pass<2, false, true>,
                                         pass<3, false, true>, pass<4, false, true>}};

/// Fewer values than a register has lanes.
void short_slice(float* x, std::size_t length, bool scaled, float scale) {
  for (std::size_t h = 1; h < length; h *= 2) {
    for (std::size_t i = 0; i < length; ++i) {
      if ((i & h) != 0) continue;
      const float a = x[i], b = x[i + h];
      x[i] = a + b;
      x[i + h] = a - b;
    }
  }
  for (std::size_t i = 0; scaled && i < length; ++i) x[i] = x[i] * scale;
}

/// Steps of `count` slices, one after the other.
void slices(float* x, std::size_t count, unsigned log2_length, bool scaled, float scale) {
  const std::size_t length = std::size_t{1} << log2_length;
  if (length >= kLanes && log2_length <= 4 + kSteps) {
    return kFirst[scaled][log2_length - 4](x, count * length, kLanes, scale);
  }
  for (; count != 0; --count, x += length) {
    if (length < kLanes) {
      short_slice(x, length, scaled, scale);
      continue;
    }
    kFirst[0][kSteps](x, length, kLanes, scale);
    std::size_t h = kLanes << kSteps;
    for (unsigned left = log2_length - 4 - kSteps; left != 0;) {
      // 5 steps are 3 and 2, not 4 and 1: registers of a pass lie whole pages apart, where a cache
      // holds few lines at once.
      const unsigned passes = (left + kSteps - 1) / kSteps;
      const unsigned steps = (left + passes - 1) / passes;
      left -= steps;
      kLater[scaled && left == 0][steps](x, length, h, scale);
      h <<= steps;
    }
  }
}

/// Both halves of a strip.
struct Pair {
  __m512 low, high;
};
QUELL_INLINE Pair load(const float* x) {
  return {_mm512_loadu_ps(x), _mm512_loadu_ps(x + kLanes)};
}
QUELL_INLINE Pair operator+(Pair a, Pair b) {
  return {_mm512_add_ps(a.low, b.low), _mm512_add_ps(a.high, b.high)};
}
QUELL_INLINE Pair operator-(Pair a, Pair b) {
  return {_mm512_sub_ps(a.low, b.low), _mm512_sub_ps(a.high, b.high)};
}
/// v and -v, eight codes apart.
QUELL_INLINE void store_both(float* sums, unsigned code, Pair v) {
  const __m512 sign = _mm512_set1_ps(-0.0f);
  float* to = sums + code * kStrip;
  _mm512_store_ps(to, v.low);
  _mm512_store_ps(to + kLanes, v.high);
  _mm512_store_ps(to + 8 * kStrip, _mm512_xor_ps(v.low, sign));
  _mm512_store_ps(to + 8 * kStrip + kLanes, _mm512_xor_ps(v.high, sign));
}

/// All sums of the quads at x, x + 4 stride, ...
void hold_sums(const float* x, std::size_t stride, std::size_t quads, float* sums) {
  for (std::size_t q = 0; q < quads; ++q, x += 4 * stride, sums += 16 * kStrip) {
    const Pair x0 = load(x), x1 = load(x + stride);
    const Pair x2 = load(x + 2 * stride), x3 = load(x + 3 * stride);
    const Pair a[2] = {x0 + x1, x0 - x1}, b[2] = {x2 + x3, x2 - x3};
    QUELL_UNROLL
    for (unsigned code = 0; code < 8; ++code) {
      const Pair &left = a[code & 1], &right = b[code / 2 & 1];
      store_both(sums, code, (code & 4) != 0 ? left - right : left + right);
    }
  }
}

/// The row of sums that a byte of four codes names.
QUELL_INLINE const float* named(const float* sums, std::uint32_t codes, unsigned r) {
  return sums + (codes >> (8 * r) & 0xff) * (kStrip / 16);
}

/// kStrip columns. x is written when the sums of all quads are held or added.
void multiply_strip(const Problem& p, float* x, std::size_t stride, float* sums) {
  using hadamard_family::kHeldQuads;
  float* const results = sums + kHeldQuads * 16 * kStrip;
  const std::size_t quads = p.order / 4;
  const __m512 factor = _mm512_set1_ps(p.scale);
  for (std::size_t first = 0; first < quads; first += kHeldQuads) {
    const std::size_t held = quads - first < kHeldQuads ? quads - first : kHeldQuads;
    hold_sums(x + 4 * first * stride, stride, held, sums);
    const bool last = first + held == quads;
    // Four rows: eight chains of additions, which hide the latency, and one load for their codes.
    for (std::size_t i = 0; i < p.order; i += 4) {
      const std::uint8_t* from = p.codes + i / 4 * p.order + 4 * first;
      std::uint32_t codes;
      Pair y[4];
      std::size_t q = 0;
      if (first == 0) {
        __builtin_memcpy(&codes, from, 4);
        QUELL_UNROLL
        for (unsigned r = 0; r < 4; ++r) y[r] = load(named(sums, codes, r));
        q = 1;
      } else {
        QUELL_UNROLL
        for (unsigned r = 0; r < 4; ++r) y[r] = load(results + (i + r) * kStrip);
      }
      for (; q < held; ++q) {
        __builtin_memcpy(&codes, from + 4 * q, 4);
        QUELL_UNROLL
        for (unsigned r = 0; r < 4; ++r) {
          y[r] = y[r] + load(named(sums + q * 16 * kStrip, codes, r));
        }
      }
      QUELL_UNROLL
      for (unsigned r = 0; r < 4; ++r) {
        float* to = last ? x + (i + r) * stride : results + (i + r) * kStrip;
        _mm512_storeu_ps(to, last ? _mm512_mul_ps(y[r].low, factor) : y[r].low);
        _mm512_storeu_ps(to + kLanes, last ? _mm512_mul_ps(y[r].high, factor) : y[r].high);
      }
    }
  }
}

/// Slices shorter than a strip: on a copy, filled up with zeros.
void multiply_short(const Problem& p, float* x, std::size_t length, float* sums) {
  float* copy = sums + (hadamard_family::kHeldQuads * 16 + p.order) * kStrip;
  for (std::size_t i = 0; i < p.order; ++i) {
    for (std::size_t j = 0; j < kStrip; ++j) {
      copy[i * kStrip + j] = j < length ? x[i * length + j] : 0.0f;
    }
  }
  multiply_strip(p, copy, kStrip, sums);
  for (std::size_t i = 0; i < p.order; ++i) {
    for (std::size_t j = 0; j < length; ++j) x[i * length + j] = copy[i * kStrip + j];
  }
}

void transform(const Problem& p, float* x, std::size_t blocks, float* scratch) {
  const std::size_t length = std::size_t{1} << p.log2_slice;
  slices(x, blocks * p.order, p.log2_slice, p.order == 1, p.scale);
  if (p.order == 1) return;
  for (; blocks != 0; --blocks, x += p.order * length) {
    if (length < kStrip) {
      multiply_short(p, x, length, scratch);
    } else {
      for (std::size_t j = 0; j < length; j += kStrip) multiply_strip(p, x + j, length, scratch);
    }
  }
}

}  // namespace

extern const hadamard_family::Entry hadamard_entry = {Isa::avx512, transform};

}  // namespace quell::kernels::avx512
QUELL_TARGET_END
