// SPDX-License-Identifier: Apache-2.0

// Sums and differences: up to 64 values lie in 8 registers and go through 6 steps there, 3 within
// registers and 3 between them; wider steps take up to 3 at a time.

#include <immintrin.h>

#include "kernels/cpu/hadamard/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX2)
namespace quell::kernels::avx2 {
namespace {

using hadamard_family::kStrip;
using hadamard_family::Problem;

constexpr std::size_t kLanes = 8;
constexpr unsigned kSteps = 3;  // between registers in one pass: 8 of the 16 registers

/// The steps 1, 2 and 4. Lane b receives fma(b, -1, a), which is a - b to the bit.
QUELL_INLINE __m256 within(__m256 x) {
  const __m256 one = _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1);
  const __m256 two = _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1);
  const __m256 four = _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1);
  x = _mm256_fmadd_ps(x, one, _mm256_permute_ps(x, 0xb1));
  x = _mm256_fmadd_ps(x, two, _mm256_permute_ps(x, 0x4e));
  return _mm256_fmadd_ps(x, four, _mm256_permute2f128_ps(x, x, 1));
}

template <unsigned Steps>
QUELL_INLINE void between(__m256 (&x)[1u << Steps]) {
  QUELL_UNROLL
  for (unsigned step = 0; step < Steps; ++step) {
    QUELL_UNROLL
    for (unsigned i = 0; i < (1u << Steps); ++i) {
      const unsigned h = 1u << step;
      if ((i & h) != 0) continue;
      const __m256 a = x[i], b = x[i + h];
      x[i] = _mm256_add_ps(a, b);
      x[i + h] = _mm256_sub_ps(a, b);
    }
  }
}

/// The steps from `h` on, and with `Within` those before, of `length` values.
template <unsigned Steps, bool Within, bool Scaled>
void pass(float* x, std::size_t length, std::size_t h, float scale) {
  constexpr unsigned kCount = 1u << Steps;
  const __m256 factor = _mm256_set1_ps(scale);
  for (std::size_t first = 0; first < length; first += kCount * h) {
    for (std::size_t j = first; j < first + h; j += kLanes) {
      __m256 v[kCount];
      QUELL_UNROLL
      for (unsigned i = 0; i < kCount; ++i) {
        v[i] = _mm256_loadu_ps(x + j + i * h);
        if (Within) v[i] = within(v[i]);
      }
      between<Steps>(v);
      QUELL_UNROLL
      for (unsigned i = 0; i < kCount; ++i) {
        _mm256_storeu_ps(x + j + i * h, Scaled ? _mm256_mul_ps(v[i], factor) : v[i]);
      }
    }
  }
}

using Pass = void (*)(float*, std::size_t, std::size_t, float);
constexpr Pass kFirst[2][kSteps + 1] = {
    {pass<0, true, false>, pass<1, true, false>, pass<2, true, false>, pass<3, true, false>},
    {pass<0, true, true>, pass<1, true, true>, pass<2, true, true>, pass<3, true, true>}};
constexpr Pass kLater[2][kSteps + 1] = {
    {nullptr, pass<1, false, false>, pass<2, false, false>, pass<3, false, false>},
    {nullptr, pass<1, false, true>, pass<2, false, true>, pass<3, false, true>}};

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

void slice(float* x, unsigned log2_length, bool scaled, float scale) {
  const std::size_t length = std::size_t{1} << log2_length;
  if (length < kLanes) return short_slice(x, length, scaled, scale);
  unsigned left = log2_length - 3;
  unsigned steps = left < kSteps ? left : kSteps;
  left -= steps;
  kFirst[scaled && left == 0][steps](x, length, kLanes, scale);
  std::size_t h = kLanes << steps;
  while (left != 0) {
    // 4 steps are 2 and 2, not 3 and 1: registers of a pass lie whole pages apart, where a cache
    // holds few lines at once.
    const unsigned passes = (left + kSteps - 1) / kSteps;
    steps = (left + passes - 1) / passes;
    left -= steps;
    kLater[scaled && left == 0][steps](x, length, h, scale);
    h <<= steps;
  }
}

constexpr unsigned kRegisters = kStrip / kLanes;  // of a row of a strip

/// kStrip columns: all sums of quads first, after which x is free for the results.
void multiply_strip(const Problem& p, float* x, std::size_t stride, float* sums) {
  const std::size_t quads = p.order / 4;
  const __m256 sign = _mm256_set1_ps(-0.0f);
  for (std::size_t q = 0; q < quads; ++q) {
    for (unsigned part = 0; part < kRegisters; ++part) {
      const float* from = x + 4 * q * stride + part * kLanes;
      float* to = sums + q * 16 * kStrip + part * kLanes;
      const __m256 x0 = _mm256_loadu_ps(from), x1 = _mm256_loadu_ps(from + stride);
      const __m256 x2 = _mm256_loadu_ps(from + 2 * stride);
      const __m256 x3 = _mm256_loadu_ps(from + 3 * stride);
      const __m256 a[2] = {_mm256_add_ps(x0, x1), _mm256_sub_ps(x0, x1)};
      const __m256 b[2] = {_mm256_add_ps(x2, x3), _mm256_sub_ps(x2, x3)};
      QUELL_UNROLL
      for (unsigned code = 0; code < 8; ++code) {
        const __m256 left = a[code & 1], right = b[code / 2 & 1];
        const __m256 v = (code & 4) != 0 ? _mm256_sub_ps(left, right) : _mm256_add_ps(left, right);
        _mm256_store_ps(to + code * kStrip, v);
        _mm256_store_ps(to + (code + 8) * kStrip, _mm256_xor_ps(v, sign));
      }
    }
  }
  const __m256 factor = _mm256_set1_ps(p.scale);
  // Two rows: eight chains of additions, which hide the latency.
  for (std::size_t i = 0; i < p.order; i += 2) {
    const std::uint8_t* codes = p.codes + i / 4 * p.order + i % 4;
    __m256 y[2][kRegisters];
    QUELL_UNROLL
    for (unsigned r = 0; r < 2; ++r) {
      QUELL_UNROLL
      for (unsigned part = 0; part < kRegisters; ++part) {
        y[r][part] = _mm256_load_ps(sums + codes[r] * kStrip + part * kLanes);
      }
    }
    for (std::size_t q = 1; q < quads; ++q) {
      const float* from = sums + q * 16 * kStrip;
      QUELL_UNROLL
      for (unsigned r = 0; r < 2; ++r) {
        const float* of_row = from + codes[4 * q + r] * kStrip;
        QUELL_UNROLL
        for (unsigned part = 0; part < kRegisters; ++part) {
          y[r][part] = _mm256_add_ps(y[r][part], _mm256_load_ps(of_row + part * kLanes));
        }
      }
    }
    QUELL_UNROLL
    for (unsigned r = 0; r < 2; ++r) {
      QUELL_UNROLL
      for (unsigned part = 0; part < kRegisters; ++part) {
        _mm256_storeu_ps(x + (i + r) * stride + part * kLanes, _mm256_mul_ps(y[r][part], factor));
      }
    }
  }
}

/// Slices shorter than a strip: on a copy, filled up with zeros.
void multiply_short(const Problem& p, float* x, std::size_t length, float* sums) {
  float* copy = sums + p.order / 4 * 16 * kStrip;
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
  for (std::size_t block = 0; block < blocks; ++block, x += p.order * length) {
    for (std::size_t i = 0; i < p.order; ++i) {
      slice(x + i * length, p.log2_slice, p.order == 1, p.scale);
    }
    if (p.order == 1) continue;
    if (length < kStrip) {
      multiply_short(p, x, length, scratch);
    } else {
      for (std::size_t j = 0; j < length; j += kStrip) multiply_strip(p, x + j, length, scratch);
    }
  }
}

}  // namespace

extern const hadamard_family::Entry hadamard_entry = {Isa::avx2, transform};

}  // namespace quell::kernels::avx2
QUELL_TARGET_END
