// SPDX-License-Identifier: Apache-2.0

// The specification of attention.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/attention/contract.hpp"
#include "quell/core/half.hpp"

namespace quell::kernels::scalar {
namespace {

namespace family = attention_family;
using family::kBlock;

float float_at(const std::byte* bytes, std::size_t i) {
  float value = 0;
  std::memcpy(&value, bytes + i * sizeof(float), sizeof value);
  return value;
}

struct F32 {
  static constexpr bool kScale = false, kLowest = false;
  static float at(const std::byte* bytes, std::size_t i) { return float_at(bytes, i); }
};
struct F16 {
  static constexpr bool kScale = false, kLowest = false;
  static float at(const std::byte* bytes, std::size_t i) {
    std::uint16_t value = 0;
    std::memcpy(&value, bytes + i * sizeof value, sizeof value);
    return f16_to_float(value);
  }
};
struct Int8 {
  static constexpr bool kScale = true, kLowest = false;
  static float at(const std::byte* bytes, std::size_t i) {
    return static_cast<float>(static_cast<std::int8_t>(bytes[i]));
  }
};
struct Int4 {
  static constexpr bool kScale = true, kLowest = true;
  static float at(const std::byte* bytes, std::size_t i) {
    const auto both = static_cast<unsigned>(bytes[i / 32 * 16 + i % 16]);
    return static_cast<float>(i % 32 < 16 ? both & 15u : both >> 4);
  }
};

template <typename Kind>
void products(const family::KeyProduct& p) {
  for (std::size_t b = 0; b < p.keys.count; ++b) {
    const std::byte* block = p.keys.data + b * p.keys.bytes;
    const std::byte* scales = block + p.keys.scales;
    for (unsigned h = 0; h < p.heads; ++h) {
      const float* query = p.queries + h * p.query_stride;
      for (std::size_t t = 0; t < kBlock; ++t) {
        float s = 0;
        for (std::size_t d = 0; d < p.head_dim; ++d) {
          s = std::fma(query[d], Kind::at(block, d * kBlock + t), s);
        }
        if constexpr (Kind::kLowest) {
          const float low = float_at(scales, kBlock + t) * p.query_sums[h];
          s = std::fma(s, float_at(scales, t), low);
        } else if constexpr (Kind::kScale) {
          s = s * float_at(scales, t);
        }
        p.products[h * p.product_stride + b * kBlock + t] = s;
      }
    }
  }
}

template <typename Kind>
void sums(const family::ValueSum& p) {
  for (std::size_t t = p.first; t < p.last; ++t) {
    const std::byte* block = p.values.data + t / kBlock * p.values.bytes;
    const std::byte* scales = block + p.values.scales;
    const std::size_t row = t % kBlock;
    for (unsigned h = 0; h < p.heads; ++h) {
      float weight = p.weights[h * p.weight_stride + t];
      if constexpr (Kind::kLowest) {
        float& low = p.lows[h * kBlock + row];
        low = std::fma(weight, float_at(scales, kBlock + row), low);
      }
      if constexpr (Kind::kScale) weight = weight * float_at(scales, row);
      float* sum = p.sums + h * p.dims;
      for (std::size_t d = 0; d < p.dims; ++d) {
        sum[d] = std::fma(weight, Kind::at(block, row * p.dims + d), sum[d]);
      }
    }
  }
}

}  // namespace

extern const attention_family::Entry attention_entry = {
    Isa::scalar,
    {products<F32>, products<F16>, products<Int8>, products<Int4>},
    {sums<F32>, sums<F16>, sums<Int8>, sums<Int4>}};

}  // namespace quell::kernels::scalar
