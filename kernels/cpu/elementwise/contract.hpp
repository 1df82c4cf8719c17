// SPDX-License-Identifier: Apache-2.0
#pragma once

// elementwise, f32: the arithmetic between the matrix products, one row or one run of elements at a
// time. scalar.cpp is the specification: every entry performs the same IEEE operations on each
// element, and reductions keep 16 lanes (element i belongs to lane i mod 16) that are folded in the
// order l += l + 8, l + 4, l + 2, l + 1. So all entries give equal bits, NaN payloads excepted.
// Pointers need the alignment of float only. n may be 0 everywhere.
//
// The formulas, with the error of each fit (found by a Remez exchange in 40 digits, coefficients
// then rounded to float):
//
//   exp(x)   n = round(x / ln 2), r = x - n ln 2, exp(x) = 2^n (1 + r + r^2 Q(r)); |r| <= 0.347,
//   fit
//            3.1e-9 relative. x is clamped to [-104, 89] first, beyond which float has only 0 and
//            infinity; 2^n is applied in two halves, so results underflow to subnormals gracefully.
//   x sigmoid(u) = x e' / (1 + e) with e = exp(-|u|), e' = 1 for u >= 0 and e below: no overflow.
//   gelu(x)  x P(X <= x) of a standard normal X. With a = min(|x|, 20): the upper tail is
//            exp(-a^2 / 2) H(t), t = (a - 3) / (a + 3), H a polynomial; fit 3.1e-8 relative. The
//            rounding of a^2 is put back to first order, so the relative error of the tail stays
//            below 1e-6 down to results of 1e-30.
//   tanh(x)  x + x^3 P(x^2) below 0.625 (fit 4.7e-9 relative), else (1 - e) / (1 + e), e =
//   exp(-2|x|).

#include <cstddef>
#include <span>

#include "quell/kernels/isa.hpp"

namespace quell::kernels::elementwise {

constexpr unsigned kLanes = 16;

constexpr float kExpLow = -104.0f;  // exp(-104) < 2^-150, half the smallest subnormal
constexpr float kExpHigh = 89.0f;   // exp(89) > the largest float
constexpr float kLog2E = 0x1.715476p+0f;
constexpr float kLn2High = 0x1.62e43p-1f;
constexpr float kLn2Low = -0x1.05c61p-29f;  // ln 2 - kLn2High
// Adding 1.5 * 2^23 leaves the nearest integer (ties to even) in the low mantissa bits.
constexpr float kRounder = 12582912.0f;
constexpr float kExpQ[5] = {0x1.fffffcp-2f, 0x1.555490p-3f, 0x1.5558f4p-5f, 0x1.123a6ap-7f,
                            0x1.6a2356p-10f};

constexpr float kGeluLimit = 20.0f;  // exp(-200) is 0 in float
constexpr float kGeluH[10] = {0x1.f1b89cp-4f,  -0x1.a6b66ep-3f, 0x1.f8baf4p-4f,   -0x1.7a934ap-5f,
                              0x1.91c5acp-8f,  0x1.7c5da6p-9f,  -0x1.0091e4p-10f, -0x1.5da84ep-12f,
                              0x1.cf52d4p-14f, 0x1.957a24p-15f};
constexpr float kTanhSplit = 0.625f;
constexpr float kTanhP[5] = {-0x1.555530p-2f, 0x1.11068ep-3f, -0x1.b8265cp-5f, 0x1.518b16p-6f,
                             -0x1.72fc4cp-8f};
// gelu_tanh(x) = x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)) = x sigmoid(x (c0 + c1 x^2)).
constexpr float kGeluTanh0 = 1.5957691216057308f;
constexpr float kGeluTanh1 = 0.07135481627260025f;
constexpr float kQuickGelu = 1.702f;

/// x[i] = f(x[i]), times up[i] unless `up` is null.
using ActivateFunction = void (*)(float* x, const float* up, std::size_t n);

struct Entry {
  Isa isa;
  /// y[i] = exp(x[i]); y may be x.
  void (*exp)(const float* x, float* y, std::size_t n);
  /// In the order of the enumeration Activation: relu, silu, gelu, gelu_tanh, quick_gelu.
  ActivateFunction activate[5];
  /// y = (x * (1 / sqrt(sum x^2 / n + eps))) * weight, weight null: 1; y may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, float* y, std::size_t n);
  /// y = fma((x - mean) * (1 / sqrt(sum (x - mean)^2 / n + eps)), weight, bias), each may be null:
  /// 1 and 0 (then the product alone); y may be x.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, float* y,
                     std::size_t n);
  /// v = scale * row, then softcap * tanh(v / softcap) if softcap > 0; row = exp(v - max v) times
  /// the reciprocal of the sum.
  void (*softmax)(float* row, std::size_t n, float scale, float softcap);
  /// Half-split rotation of one vector: x[i], x[i + half] for i < half.
  void (*rotate)(float* x, const float* cosine, const float* sine, std::size_t half);
  /// x += y.
  void (*add)(float* x, const float* y, std::size_t n);
  /// The largest element (-infinity for n = 0) and the sum of exp(x - max), lanes in double.
  void (*sum_exp)(const float* x, std::size_t n, float* max, double* sum);
};

/// Best first, scalar last.
std::span<const Entry* const> table() noexcept;

}  // namespace quell::kernels::elementwise

namespace quell::kernels {
namespace scalar {
extern const elementwise::Entry elementwise_entry;
}
namespace avx2 {
extern const elementwise::Entry elementwise_entry;
}
namespace avx512 {
extern const elementwise::Entry elementwise_entry;
}
}  // namespace quell::kernels
