// SPDX-License-Identifier: Apache-2.0
#pragma once

// Comparison bit for bit, where any NaN equals any other: payloads are no part of a contract. Also
// a small generator, so that a test's numbers are the same with every standard library.

#include <gtest/gtest.h>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace quell::test {

template <std::floating_point T>
bool same_bits(T a, T b) {
  return (std::isnan(a) && std::isnan(b)) || std::memcmp(&a, &b, sizeof(T)) == 0;
}

/// Success, or the first difference.
inline testing::AssertionResult same_bits(std::span<const float> found,
                                          std::span<const float> expected) {
  if (found.size() != expected.size()) {
    return testing::AssertionFailure() << found.size() << " values, expected " << expected.size();
  }
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (!same_bits(found[i], expected[i])) {
      return testing::AssertionFailure()
             << "element " << i << " of " << found.size() << " is " << found[i] << ", expected "
             << expected[i] << ", bit for bit";
    }
  }
  return testing::AssertionSuccess();
}

/// A linear congruential generator (Knuth's MMIX constants), upper bits used.
class Numbers {
 public:
  explicit Numbers(std::uint64_t seed) : state_(seed * 2 + 1) {}
  /// Uniform in [-1, 1).
  float uniform() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(static_cast<std::int64_t>(state_) >> 40) * 0x1p-23f;
  }
  /// Roughly normal: the sum of four uniform numbers, variance 4/3.
  float bell() { return uniform() + uniform() + uniform() + uniform(); }
  void fill(std::span<float> values, float scale = 1.0f) {
    for (float& value : values) value = bell() * scale;
  }

 private:
  std::uint64_t state_;
};

}  // namespace quell::test
