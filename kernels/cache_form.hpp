// SPDX-License-Identifier: Apache-2.0
#pragma once

// Where things lie in a KeyValueCache: head after head, first the blocks of its keys, then those of
// its values (cpu/attention/contract.hpp). Block 0 of an int4 cache is f16.

#include <cstddef>

#include "kernels/cpu/attention/contract.hpp"
#include "quell/core/checked.hpp"
#include "quell/kernels/attention.hpp"

namespace quell::kernels {

struct BlockForm {
  CacheKind kind = CacheKind::f32;
  std::size_t scales = 0;  // offset of the scales
  std::size_t bytes = 0;

  static constexpr BlockForm of(CacheKind kind, std::size_t elements) {
    constexpr std::size_t kLine = attention_family::kBlock * sizeof(float);  // 64 bytes
    const auto lines = [](std::size_t size) { return ceil_divide(size, kLine) * kLine; };
    switch (kind) {
      case CacheKind::f32:
        return {kind, 0, lines(elements * 4)};
      case CacheKind::f16:
        return {kind, 0, lines(elements * 2)};
      case CacheKind::int8:
        return {kind, lines(elements), lines(elements) + kLine};
      case CacheKind::int4:
        break;
    }
    // Two elements to a byte in runs of 32, the last of which may be half full.
    const std::size_t codes = lines(ceil_divide(elements, 32) * 16);
    return {kind, codes, codes + 2 * kLine};
  }
};

/// The keys or the values of a head.
struct SideForm {
  BlockForm first, rest;  // block 0, all others
  std::size_t offset(std::size_t block) const {
    return block == 0 ? 0 : first.bytes + (block - 1) * rest.bytes;
  }
  const BlockForm& form(std::size_t block) const { return block == 0 ? first : rest; }
};

struct CacheForm {
  std::size_t dims = 0;  // channels of a value with the zeros behind them
  std::size_t blocks = 0;
  SideForm keys, values;
  std::size_t head_bytes() const { return keys.offset(blocks) + values.offset(blocks); }
};

inline CacheForm form_of(CacheKind kind, std::size_t head_dim, std::size_t capacity) {
  constexpr std::size_t kBlock = attention_family::kBlock;
  CacheForm form;
  const std::size_t unit = kind == CacheKind::int4 ? 32 : 16;
  form.dims = ceil_divide(head_dim, unit) * unit;
  form.blocks = ceil_divide(capacity, kBlock);
  const CacheKind first = kind == CacheKind::int4 ? CacheKind::f16 : kind;
  form.keys = {BlockForm::of(first, kBlock * head_dim), BlockForm::of(kind, kBlock * head_dim)};
  form.values = {BlockForm::of(first, kBlock * form.dims), BlockForm::of(kind, kBlock * form.dims)};
  return form;
}

/// What the functions over a cache see of it.
struct CacheAccess {
  static CacheForm form(const KeyValueCache& cache) {
    return form_of(cache.kind_, cache.head_dim_, cache.capacity_);
  }
  static const std::byte* head(const KeyValueCache& cache, const CacheForm& form,
                               std::size_t head) {
    return cache.bytes_.data() + head * form.head_bytes();
  }
  static const Hadamard* rotation(const KeyValueCache& cache) {
    return cache.rotation_ ? &*cache.rotation_ : nullptr;
  }
};

}  // namespace quell::kernels
