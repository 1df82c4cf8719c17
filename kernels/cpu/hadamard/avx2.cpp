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

/// The steps from `h` on of all of `length` values; with `Within`, those before too, and h is one
/// register, known to the compiler.
template <unsigned Steps, bool Within, bool Scaled>
void pass(float* x, std::size_t length, std::size_t h, float scale) {
  constexpr unsigned kCount = 1u << Steps;
  if (Within) h = kLanes;
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

/// Steps of `count` slices, one after the other.
void slices(float* x, std::size_t count, unsigned log2_length, bool scaled, float scale) {
  const std::size_t length = std::size_t{1} << log2_length;
  if (length >= kLanes && log2_length <= 3 + kSteps) {
    return kFirst[scaled][log2_length - 3](x, count * length, kLanes, scale);
  }
  for (; count != 0; --count, x += length) {
    if (length < kLanes) {
      short_slice(x, length, scaled, scale);
      continue;
    }
    kFirst[0][kSteps](x, length, kLanes, scale);
    std::size_t h = kLanes << kSteps;
    for (unsigned left = log2_length - 3 - kSteps; left != 0;) {
      // 4 steps are 2 and 2, not 3 and 1: registers of a pass lie whole pages apart, where a cache
      // holds few lines at once.
      const unsigned passes = (left + kSteps - 1) / kSteps;
      const unsigned steps = (left + passes - 1) / passes;
      left -= steps;
      kLater[scaled && left == 0][steps](x, length, h, scale);
      h <<= steps;
    }
  }
}

constexpr unsigned kRegisters = kStrip / kLanes;  // of a row of a strip

/// All sums of the quads at x, x + 4 stride, ...
void hold_sums(const float* x, std::size_t stride, std::size_t quads, float* sums) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  for (std::size_t q = 0; q < quads; ++q, x += 4 * stride, sums += 16 * kStrip) {
    for (std::size_t j = 0; j < kStrip; j += kLanes) {
      const __m256 x0 = _mm256_loadu_ps(x + j), x1 = _mm256_loadu_ps(x + stride + j);
      const __m256 x2 = _mm256_loadu_ps(x + 2 * stride + j);
      const __m256 x3 = _mm256_loadu_ps(x + 3 * stride + j);
      const __m256 a[2] = {_mm256_add_ps(x0, x1), _mm256_sub_ps(x0, x1)};
      const __m256 b[2] = {_mm256_add_ps(x2, x3), _mm256_sub_ps(x2, x3)};
      QUELL_UNROLL
      for (unsigned code = 0; code < 8; ++code) {
        const __m256 left = a[code & 1], right = b[code / 2 & 1];
        const __m256 v = (code & 4) != 0 ? _mm256_sub_ps(left, right) : _mm256_add_ps(left, right);
        _mm256_store_ps(sums + code * kStrip + j, v);
        _mm256_store_ps(sums + (code + 8) * kStrip + j, _mm256_xor_ps(v, sign));
      }
    }
  }
}

/// kStrip columns. x is written when the sums of all quads are held or added.
void multiply_strip(const Problem& p, float* x, std::size_t stride, float* sums) {
  using hadamard_family::kHeldQuads;
  float* const results = sums + kHeldQuads * 16 * kStrip;
  const std::size_t quads = p.order / 4;
  const __m256 factor = _mm256_set1_ps(p.scale);
  for (std::size_t first = 0; first < quads; first += kHeldQuads) {
    const std::size_t held = quads - first < kHeldQuads ? quads - first : kHeldQuads;
    hold_sums(x + 4 * first * stride, stride, held, sums);
    const bool last = first + held == quads;
    // Two rows: eight chains of additions, which hide the latency.
    for (std::size_t i = 0; i < p.order; i += 2) {
      const std::uint8_t* codes = p.codes + i / 4 * p.order + 4 * first + i % 4;
      // The row of sums that a byte names.
      const auto named = [&](std::size_t q, unsigned r) {
        return sums + q * 16 * kStrip + codes[4 * q + r] * (kStrip / 16);
      };
      __m256 y[2][kRegisters];
      QUELL_UNROLL
      for (unsigned r = 0; r < 2; ++r) {
        const float* from = first == 0 ? named(0, r) : results + (i + r) * kStrip;
        QUELL_UNROLL
        for (unsigned k = 0; k < kRegisters; ++k) y[r][k] = _mm256_load_ps(from + k * kLanes);
      }
      for (std::size_t q = first == 0 ? 1 : 0; q < held; ++q) {
        QUELL_UNROLL
        for (unsigned r = 0; r < 2; ++r) {
          const float* from = named(q, r);
          QUELL_UNROLL
          for (unsigned k = 0; k < kRegisters; ++k) {
            y[r][k] = _mm256_add_ps(y[r][k], _mm256_load_ps(from + k * kLanes));
          }
        }
      }
      QUELL_UNROLL
      for (unsigned r = 0; r < 2; ++r) {
        float* to = last ? x + (i + r) * stride : results + (i + r) * kStrip;
        QUELL_UNROLL
        for (unsigned k = 0; k < kRegisters; ++k) {
          _mm256_storeu_ps(to + k * kLanes, last ? _mm256_mul_ps(y[r][k], factor) : y[r][k]);
        }
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

extern const hadamard_family::Entry hadamard_entry = {Isa::avx2, transform};

}  // namespace quell::kernels::avx2
QUELL_TARGET_END
