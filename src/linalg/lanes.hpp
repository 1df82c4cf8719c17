// SPDX-License-Identifier: Apache-2.0
#pragma once

// Sixteen floats side by side, for the plain loops between the products. The vector extension of
// GCC and Clang keeps them in four registers of the architecture's floor, where an array of sixteen
// sums tends to be stored and loaded in every round; multiplication and addition stay separate, so
// the bits are those of the same loop over an array.

#include <cstddef>
#include <cstring>

namespace quell::linalg {

struct Lanes {
  static constexpr std::size_t kCount = 16;
  using Four = float __attribute__((vector_size(16)));
  Four part[4];

  static Lanes zero() { return {}; }
  static Lanes load(const float* from) {
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
  }
  void store(float* to) const { std::memcpy(to, this, sizeof *this); }

  /// this += factor * x
  void add_product(float factor, const float* x) {
    const Lanes lanes = load(x);
    for (int i = 0; i < 4; ++i) part[i] += factor * lanes.part[i];
  }
  Lanes operator+(const Lanes& other) const {
    Lanes sum;
    for (int i = 0; i < 4; ++i) sum.part[i] = part[i] + other.part[i];
    return sum;
  }
  Lanes operator-(const Lanes& other) const {
    Lanes difference;
    for (int i = 0; i < 4; ++i) difference.part[i] = part[i] - other.part[i];
    return difference;
  }
  Lanes operator/(float divisor) const {
    Lanes quotient;
    for (int i = 0; i < 4; ++i) quotient.part[i] = part[i] / divisor;
    return quotient;
  }
};

/// Sum over j in [first, last) of coefficient[j] * x[j], x: [.][16]. Two sums, for even and odd
/// distance from `first`, because one chain of additions is bound by their latency.
inline Lanes weighted_sum(const float* coefficients, const float* x, std::size_t first,
                          std::size_t last) {
  Lanes even = Lanes::zero(), odd = Lanes::zero();
  std::size_t j = first;
  for (; j + 2 <= last; j += 2) {
    even.add_product(coefficients[j], x + j * Lanes::kCount);
    odd.add_product(coefficients[j + 1], x + (j + 1) * Lanes::kCount);
  }
  if (j < last) even.add_product(coefficients[j], x + j * Lanes::kCount);
  return even + odd;
}

}  // namespace quell::linalg
