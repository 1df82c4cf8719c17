// SPDX-License-Identifier: Apache-2.0
#pragma once

// quantize_rows: a row of activations to int8 with one scale, by its largest magnitude m:
//
//     scale = m / 127             code[k] = round(v[k] * (127 / m)), half to even
//
// where v = x, or x times a factor for each k (the scales of groups down the input channels), the
// product rounded to float. The quotient 127 / m is one division for the row; it would overflow for
// m below 2^-121, so where m < kTiny the values and m are multiplied by kLift first, which is exact
// as far as it matters. |code| <= 127 because v * (127 / m) is off by less than a millionth.
//
// m is 0: scale 1, codes 0. Some v is not finite: scale NaN, codes 0, so that the whole row of the
// product becomes NaN instead of something that looks like a result.

#include <cstddef>
#include <cstdint>
#include <span>

#include "quell/kernels/isa.hpp"

namespace quell::kernels::quantize_rows_family {

constexpr float kTiny = 0x1p-100f, kLift = 0x1p100f;

struct Entry {
  Isa isa;
  /// The largest |x[k] factors[k]|; not finite where one of them is not. `factors` may be null.
  float (*absmax)(const float* x, const float* factors, std::size_t n);
  /// codes[k] = round(((x[k] factors[k]) lift) inverse); null factors and a lift of 1 change
  /// nothing.
  void (*round)(const float* x, const float* factors, std::size_t n, float lift, float inverse,
                std::int8_t* codes);
  /// Of up to 2^24 codes.
  std::int32_t (*sum)(const std::int8_t* codes, std::size_t n);
};

/// Best first, scalar last.
std::span<const Entry* const> table() noexcept;

/// The scale, and codes of one row, from the two steps of an entry.
inline float quantize_row(const Entry& entry, const float* x, const float* factors, std::size_t n,
                          std::int8_t* codes) {
  const float most = entry.absmax(x, factors, n);
  if (!(most > 0 && most <= 0x1.fffffep127f)) {
    for (std::size_t k = 0; k < n; ++k) codes[k] = 0;
    return most == 0 ? 1.0f : __builtin_nanf("");
  }
  const float lift = most < kTiny ? kLift : 1.0f;
  entry.round(x, factors, n, lift, 127.0f / (most * lift), codes);
  return most / 127.0f;
}

}  // namespace quell::kernels::quantize_rows_family

namespace quell::kernels {
namespace scalar {
extern const quantize_rows_family::Entry quantize_rows_entry;
}
namespace avx2 {
extern const quantize_rows_family::Entry quantize_rows_entry;
}
namespace avx512 {
extern const quantize_rows_family::Entry quantize_rows_entry;
}
}  // namespace quell::kernels
