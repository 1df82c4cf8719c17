// SPDX-License-Identifier: Apache-2.0
#pragma once

// A cache of keys and values, and attention of a few tokens over it. Decoding reads the whole cache
// for every token, so its bytes are its time:
//
//     kind   keys and values of one head and token                      bytes, head_dim 128
//     f32    as they come                                               1024
//     f16    rounded to binary16; finite values beyond it become the    512
//            largest, 65504
//     int8   codes -127..127, one scale: largest magnitude / 127        264
//     int4   codes 0..15, one scale and one lowest value; the first     144
//            16 tokens are f16
//
// Keys have channels far larger than the rest (Liu et al., KIVI, ICML 2024; Hooper et al., KVQuant,
// NeurIPS 2024), which would take all codes for themselves. So int8 and int4 keys are rotated
// first, by a Hadamard transform in blocks of the largest power of two that divides head_dim: such
// a channel is spread over all of them (Ashkboos et al., QuaRot, NeurIPS 2024), and products with
// queries that are rotated too stay what they were. Values have no such channels. The first tokens
// draw much of all attention, so int4 keeps them.
//
// Memory of a cache comes when it is made; later calls take their scratch from the context. The
// same bits for any number of threads and on every x86 instruction set.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/core/view.hpp"
#include "quell/kernels/context.hpp"
#include "quell/kernels/hadamard.hpp"

namespace quell::kernels {

enum class CacheKind : std::uint8_t { f32, f16, int8, int4 };
constexpr CacheKind kCacheKinds[] = {CacheKind::f32, CacheKind::f16, CacheKind::int8,
                                     CacheKind::int4};
std::string_view to_string(CacheKind kind) noexcept;
/// Nothing for any other word.
std::optional<CacheKind> parse_cache_kind(std::string_view word) noexcept;

/// Keys and values of one layer and sequence.
class KeyValueCache {
 public:
  KeyValueCache() noexcept = default;
  /// For `heads` key heads and up to `capacity` tokens. Errors: shape (no heads or channels, or
  /// more bytes than fit), resource.
  static Result<KeyValueCache> create(CacheKind kind, std::size_t heads, std::size_t head_dim,
                                      std::size_t capacity);

  CacheKind kind() const noexcept { return kind_; }
  std::size_t heads() const noexcept { return heads_; }
  std::size_t head_dim() const noexcept { return head_dim_; }
  std::size_t capacity() const noexcept { return capacity_; }
  /// Of keys and values, scales included; of int4 for tokens from the 17th on.
  std::size_t bytes_per_token() const noexcept;

  /// Puts tokens at `position` and after, over what was there; keys and values are [T, heads *
  /// head_dim]. Tokens have to come in order: storing the first of a run of 16 forgets the rest of
  /// that run. In int8 and int4 a head that holds a value which is not finite becomes NaN as a
  /// whole. Errors: shape (other sizes, no room), resource.
  Status store(std::size_t position, MatrixView<const float> keys, MatrixView<const float> values,
               Context& context);

  /// What is kept of the tokens at `position` and after, which were stored, as floats. Errors: as
  /// store.
  Status read(std::size_t position, MatrixView<float> keys, MatrixView<float> values,
              Context& context) const;

 private:
  friend struct CacheAccess;
  CacheKind kind_ = CacheKind::f32;
  std::size_t heads_ = 0, head_dim_ = 0, capacity_ = 0;
  std::optional<Hadamard> rotation_;  // of keys and queries
  AlignedBytes bytes_;
};

/// What turns one query's products with the keys it sees, oldest first, into weights, in place.
/// Called by several threads at once.
class RowWeighting {
 public:
  virtual ~RowWeighting() = default;
  virtual void weigh(std::size_t row, std::size_t head, std::span<float> products) const = 0;
};

struct CachedAttention {
  /// [T, heads * head_dim]; row r is the query of the token at position length - T + r, which sees
  /// itself and the tokens before it. Query head h reads key head h * key heads / heads.
  MatrixView<const float> queries;
  std::size_t heads = 0;   // a multiple of the cache's
  std::size_t length = 0;  // tokens in the cache
  float scale = 1;         // as attention_softmax
  float softcap = 0;
  std::size_t window = 0;  // 0: all of the past, else only the last `window` tokens
  const RowWeighting* weighting = nullptr;  // null: softmax of scale * products under the cap
};

/// out[r] = sum over tokens of weight times value, [T, heads * head_dim]; not over `queries`. Over
/// f32 and f16, the bits that gemm_dense and attention_softmax give over read() of the cache.
/// Errors: shape, resource.
Status attend(const CachedAttention& attention, const KeyValueCache& cache, MatrixView<float> out,
              Context& context);

}  // namespace quell::kernels
