// SPDX-License-Identifier: Apache-2.0

// The specification of elementwise. Comparisons are written the way the wide minimum and maximum
// treat NaN and equal zeros: the second operand wins.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cpu/elementwise/contract.hpp"

namespace quell::kernels::scalar {
namespace {

namespace family = elementwise;
using family::kLanes;

float maximum(float a, float b) {
  return a > b ? a : b;
}
float minimum(float a, float b) {
  return a < b ? a : b;
}

template <typename T>
T fold_sum(T* lane) {
  for (unsigned width = kLanes / 2; width > 0; width /= 2) {
    for (unsigned l = 0; l < width; ++l) lane[l] = lane[l] + lane[l + width];
  }
  return lane[0];
}

float fold_max(float* lane) {
  for (unsigned width = kLanes / 2; width > 0; width /= 2) {
    for (unsigned l = 0; l < width; ++l) lane[l] = maximum(lane[l + width], lane[l]);
  }
  return lane[0];
}

float power_of_two(std::int32_t exponent) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
}

float exp_one(float x) {
  x = maximum(family::kExpLow, x);
  x = minimum(family::kExpHigh, x);
  const float shifted = std::fma(x, family::kLog2E, family::kRounder);
  const float n = shifted - family::kRounder;
  float r = std::fma(n, -family::kLn2High, x);
  r = std::fma(n, -family::kLn2Low, r);
  float q = family::kExpQ[4];
  for (int i = 3; i >= 0; --i) q = std::fma(q, r, family::kExpQ[i]);
  const float p = 1.0f + std::fma(q, r * r, r);
  const std::int32_t exponent =
      std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(family::kRounder);
  const std::int32_t half = exponent >> 1;
  return p * power_of_two(half) * power_of_two(exponent - half);
}

float tanh_one(float x) {
  const float a = std::fabs(x);
  const float z = x * x;
  float p = family::kTanhP[4];
  for (int i = 3; i >= 0; --i) p = std::fma(p, z, family::kTanhP[i]);
  const float near = std::fma(x * z, p, x);
  const float e = exp_one(-2.0f * a);
  const float far = std::copysign((1.0f - e) / (1.0f + e), x);
  return a < family::kTanhSplit ? near : far;
}

/// x / (1 + exp(-u)).
float times_sigmoid(float x, float u) {
  const float e = exp_one(-std::fabs(u));
  return (u < 0.0f ? x * e : x) / (1.0f + e);
}

float relu_one(float x) {
  return maximum(0.0f, x);
}
float silu_one(float x) {
  return times_sigmoid(x, x);
}
float gelu_tanh_one(float x) {
  return times_sigmoid(x, x * std::fma(x * x, family::kGeluTanh1, family::kGeluTanh0));
}
float quick_gelu_one(float x) {
  return times_sigmoid(x, x * family::kQuickGelu);
}

float gelu_one(float x) {
  const float a = minimum(family::kGeluLimit, std::fabs(x));
  const float square = a * a;
  const float lost = std::fma(a, a, -square);  // a^2 = square + lost exactly
  const float t = (a - 3.0f) / (a + 3.0f);
  float h = family::kGeluH[9];
  for (int i = 8; i >= 0; --i) h = std::fma(h, t, family::kGeluH[i]);
  const float e = exp_one(-0.5f * square);
  const float tail = std::fma(e, -0.5f * lost, e) * h;
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

template <float (*function)(float)>
void activate(float* x, const float* up, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const float y = function(x[i]);
    x[i] = up != nullptr ? y * up[i] : y;
  }
}

void exp(const float* x, float* y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) y[i] = exp_one(x[i]);
}

void rms_norm(const float* x, const float* weight, float eps, float* y, std::size_t n) {
  float lane[kLanes] = {};
  for (std::size_t i = 0; i < n; ++i) lane[i % kLanes] = std::fma(x[i], x[i], lane[i % kLanes]);
  const float inverse = 1.0f / std::sqrt(fold_sum(lane) / static_cast<float>(n) + eps);
  for (std::size_t i = 0; i < n; ++i) {
    const float unit = x[i] * inverse;
    y[i] = weight != nullptr ? unit * weight[i] : unit;
  }
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, float* y,
                std::size_t n) {
  float lane[kLanes] = {};
  for (std::size_t i = 0; i < n; ++i) lane[i % kLanes] = lane[i % kLanes] + x[i];
  const float mean = fold_sum(lane) / static_cast<float>(n);
  float square_lane[kLanes] = {};
  for (std::size_t i = 0; i < n; ++i) {
    const float d = x[i] - mean;
    square_lane[i % kLanes] = std::fma(d, d, square_lane[i % kLanes]);
  }
  const float inverse = 1.0f / std::sqrt(fold_sum(square_lane) / static_cast<float>(n) + eps);
  for (std::size_t i = 0; i < n; ++i) {
    const float unit = (x[i] - mean) * inverse;
    const float w = weight != nullptr ? weight[i] : 1.0f;
    y[i] = bias != nullptr ? std::fma(unit, w, bias[i]) : unit * w;
  }
}

void softmax(float* row, std::size_t n, float scale, float softcap) {
  float top[kLanes];
  for (float& lane : top) lane = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < n; ++i) {
    float v = row[i] * scale;
    if (softcap > 0.0f) v = softcap * tanh_one(v / softcap);
    row[i] = v;
    top[i % kLanes] = maximum(v, top[i % kLanes]);
  }
  const float max = fold_max(top);
  float lane[kLanes] = {};
  for (std::size_t i = 0; i < n; ++i) {
    row[i] = exp_one(row[i] - max);
    lane[i % kLanes] = lane[i % kLanes] + row[i];
  }
  const float inverse = 1.0f / fold_sum(lane);
  for (std::size_t i = 0; i < n; ++i) row[i] = row[i] * inverse;
}

void rotate(float* x, const float* cosine, const float* sine, std::size_t half) {
  for (std::size_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = std::fma(a, cosine[i], -(b * sine[i]));
    x[i + half] = std::fma(b, cosine[i], a * sine[i]);
  }
}

void add(float* x, const float* y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) x[i] = x[i] + y[i];
}

void sum_exp(const float* x, std::size_t n, float* max, double* sum) {
  float top[kLanes];
  for (float& lane : top) lane = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < n; ++i) top[i % kLanes] = maximum(x[i], top[i % kLanes]);
  *max = fold_max(top);
  double lane[kLanes] = {};
  for (std::size_t i = 0; i < n; ++i) {
    lane[i % kLanes] = lane[i % kLanes] + static_cast<double>(exp_one(x[i] - *max));
  }
  *sum = fold_sum(lane);
}

}  // namespace

extern const elementwise::Entry elementwise_entry = {
    Isa::scalar,
    exp,
    {activate<relu_one>, activate<silu_one>, activate<gelu_one>, activate<gelu_tanh_one>,
     activate<quick_gelu_one>},
    rms_norm,
    layer_norm,
    softmax,
    rotate,
    add,
    sum_exp};

}  // namespace quell::kernels::scalar
