// SPDX-License-Identifier: Apache-2.0

// A cache of keys and values: making it, rounding tokens into it, reading them back. One work item
// is one head in one block. Rounding is plain C++, the same instructions on every machine: it sees
// a token once, attention reads it again for every later one.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "kernels/cache_form.hpp"
#include "kernels/cpu/quantize_rows/contract.hpp"
#include "kernels/dispatch.hpp"
#include "quell/core/checked.hpp"
#include "quell/core/half.hpp"

namespace quell::kernels {
namespace {

using attention_family::kBlock;

constexpr float kLargestHalf = 65504.0f;
constexpr float kLargest = 0x1.fffffep127f;

/// One head's keys or values in one block.
struct Side {
  std::byte* data;
  const BlockForm* form;
  std::size_t first, step;  // element of channel d of token t: first t + step d

  std::size_t element(std::size_t t, std::size_t d) const { return first * t + step * d; }
  float* scale(std::size_t t) const { return reinterpret_cast<float*>(data + form->scales) + t; }
  float* lowest(std::size_t t) const { return scale(t) + kBlock; }
};
Side keys_in(std::byte* head, const CacheForm& form, std::size_t block) {
  return {head + form.keys.offset(block), &form.keys.form(block), 1, kBlock};
}
Side values_in(std::byte* head, const CacheForm& form, std::size_t block) {
  return {head + form.keys.offset(form.blocks) + form.values.offset(block),
          &form.values.form(block), form.dims, 1};
}

struct Range {
  float scale, lowest;
};

/// codes = round((x - lowest) / scale), half to even, with scale = (largest - lowest) / 15, all in
/// double: a range of floats may be larger than any float. Where the scale is 0 as a float, the
/// lowest value stands for all.
Range round_to_int4(const float* x, std::size_t n, std::uint8_t* codes) {
  float low = kLargest, high = -kLargest;
  bool finite = true;
  for (std::size_t d = 0; d < n; ++d) {
    finite = finite && std::fabs(x[d]) <= kLargest;
    low = std::min(low, x[d]);
    high = std::max(high, x[d]);
  }
  std::fill(codes, codes + n, std::uint8_t{0});
  if (!finite) return {__builtin_nanf(""), 0};
  const double lowest = static_cast<double>(low);
  const auto scale = static_cast<float>((static_cast<double>(high) - lowest) / 15);
  if (scale == 0) return {0, low};
  const double inverse = 1 / static_cast<double>(scale);
  // Adding 1.5 * 2^52 rounds to a whole number, ties to even. A scale that is subnormal may be too
  // small by half: 15 is the limit.
  constexpr double kRounder = 6755399441055744.0;
  for (std::size_t d = 0; d < n; ++d) {
    const double steps = (static_cast<double>(x[d]) - lowest) * inverse + kRounder;
    codes[d] = static_cast<std::uint8_t>(std::min(steps - kRounder, 15.0));
  }
  return {scale, low};
}

std::uint16_t to_half(float x) {
  const bool beyond = std::fabs(x) > kLargestHalf && std::fabs(x) <= kLargest;
  return float_to_f16(beyond ? std::copysign(kLargestHalf, x) : x);
}

void store_token(const Side& side, std::size_t t, const float* x, std::size_t n,
                 const quantize_rows_family::Entry& rounding, std::byte* work) {
  switch (side.form->kind) {
    case CacheKind::f32:
      for (std::size_t d = 0; d < n; ++d) {
        reinterpret_cast<float*>(side.data)[side.element(t, d)] = x[d];
      }
      return;
    case CacheKind::f16:
      for (std::size_t d = 0; d < n; ++d) {
        reinterpret_cast<std::uint16_t*>(side.data)[side.element(t, d)] = to_half(x[d]);
      }
      return;
    case CacheKind::int8: {
      auto* codes = reinterpret_cast<std::int8_t*>(work);
      *side.scale(t) = quantize_rows_family::quantize_row(rounding, x, nullptr, n, codes);
      for (std::size_t d = 0; d < n; ++d) side.data[side.element(t, d)] = work[d];
      return;
    }
    case CacheKind::int4:
      break;
  }
  auto* codes = reinterpret_cast<std::uint8_t*>(work);
  const Range range = round_to_int4(x, n, codes);
  *side.scale(t) = range.scale;
  *side.lowest(t) = range.lowest;
  for (std::size_t d = 0; d < n; ++d) {
    const std::size_t i = side.element(t, d);
    std::byte& both = side.data[i / 32 * 16 + i % 16];
    const auto code = static_cast<std::byte>(codes[d]);
    both = i % 32 < 16 ? (both & std::byte{0xf0}) | code : (both & std::byte{0x0f}) | (code << 4);
  }
}

void read_token(const Side& side, std::size_t t, float* x, std::size_t n) {
  for (std::size_t d = 0; d < n; ++d) {
    const std::size_t i = side.element(t, d);
    switch (side.form->kind) {
      case CacheKind::f32:
        x[d] = reinterpret_cast<const float*>(side.data)[i];
        break;
      case CacheKind::f16:
        x[d] = f16_to_float(reinterpret_cast<const std::uint16_t*>(side.data)[i]);
        break;
      case CacheKind::int8:
        x[d] = static_cast<float>(static_cast<std::int8_t>(side.data[i])) * *side.scale(t);
        break;
      case CacheKind::int4: {
        const auto both = static_cast<unsigned>(side.data[i / 32 * 16 + i % 16]);
        const auto code = static_cast<float>(i % 32 < 16 ? both & 15u : both >> 4);
        x[d] = std::fma(code, *side.scale(t), *side.lowest(t));
      }
    }
  }
}

Status check(const char* what, const KeyValueCache& cache, std::size_t position,
             MatrixView<const float> keys, MatrixView<const float> values) {
  const std::size_t width = cache.heads() * cache.head_dim();
  const auto size = [](MatrixView<const float> x) {
    return std::to_string(x.rows()) + " x " + std::to_string(x.cols());
  };
  if (keys.rows() != values.rows() || keys.cols() != width || values.cols() != width) {
    return Error{ErrorCode::shape, std::string(what) + ": keys are " + size(keys) + " and values " +
                                       size(values) + ", expected equal rows of " +
                                       std::to_string(width)};
  }
  if (position > cache.capacity() || keys.rows() > cache.capacity() - position) {
    return Error{ErrorCode::shape, std::string(what) + ": " + std::to_string(keys.rows()) +
                                       " tokens at position " + std::to_string(position) +
                                       " do not fit a cache of " +
                                       std::to_string(cache.capacity())};
  }
  return ok();
}

// Storing a value takes about 2 ns, handing work to another thread some microseconds.
constexpr std::size_t kElementsPerGrain = 8192;

/// work(head, block, first token, last token of the block, slot) for all of [position, end).
template <typename Work>
void for_blocks(const KeyValueCache& cache, std::size_t position, std::size_t end, Context& context,
                Work work) {
  if (position == end) return;
  const std::size_t first = position / kBlock, blocks = (end - 1) / kBlock + 1 - first;
  const std::size_t elements = std::min(kBlock * blocks, end - position) / blocks;
  const std::size_t grain = kElementsPerGrain / (2 * cache.head_dim() * (elements + 1)) + 1;
  context.executor().run(cache.heads() * blocks, grain,
                         [&](std::size_t from, std::size_t to, unsigned slot) {
                           for (std::size_t i = from; i < to; ++i) {
                             const std::size_t block = first + i % blocks;
                             work(i / blocks, block, std::max(position, block * kBlock),
                                  std::min(end, (block + 1) * kBlock), slot);
                           }
                         });
}

}  // namespace

std::string_view to_string(CacheKind kind) noexcept {
  constexpr std::string_view kNames[] = {"f32", "f16", "int8", "int4"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::optional<CacheKind> parse_cache_kind(std::string_view word) noexcept {
  for (const CacheKind kind : kCacheKinds) {
    if (word == to_string(kind)) return kind;
  }
  return std::nullopt;
}

Result<KeyValueCache> KeyValueCache::create(CacheKind kind, std::size_t heads, std::size_t head_dim,
                                            std::size_t capacity) {
  // Sizes of a block are computed from head_dim unchecked: 2^32 channels stay far below 2^64.
  const bool small = heads != 0 && head_dim != 0 && head_dim < (std::uint64_t{1} << 32) &&
                     capacity < (std::uint64_t{1} << 32);
  const CacheForm form = form_of(kind, small ? head_dim : 0, small ? capacity : 0);
  const auto side = checked_multiply(form.keys.first.bytes + form.values.first.bytes, form.blocks);
  const auto total = side ? checked_multiply(*side, heads) : std::nullopt;
  if (!small || !total) {
    return Error{ErrorCode::shape, "a cache of " + std::to_string(heads) + " heads of " +
                                       std::to_string(head_dim) + " channels for " +
                                       std::to_string(capacity) +
                                       " tokens cannot be made; expected at least one head and "
                                       "channel, and sizes that fit in memory"};
  }
  KeyValueCache cache;
  cache.kind_ = kind;
  cache.heads_ = heads;
  cache.head_dim_ = head_dim;
  cache.capacity_ = capacity;
  const bool codes = kind == CacheKind::int8 || kind == CacheKind::int4;
  if (codes && head_dim % 2 == 0) {
    QUELL_TRY(rotation, Hadamard::of_size(head_dim & (~head_dim + 1)));
    cache.rotation_ = std::move(rotation);
  }
  QUELL_TRY(bytes, AlignedBytes::allocate(heads * form.head_bytes()));
  cache.bytes_ = std::move(bytes);
  return cache;
}

std::size_t KeyValueCache::bytes_per_token() const noexcept {
  const CacheForm form = CacheAccess::form(*this);
  return heads_ * ((form.keys.rest.bytes + form.values.rest.bytes) / kBlock);
}

Status KeyValueCache::store(std::size_t position, MatrixView<const float> keys,
                            MatrixView<const float> values, Context& context) {
  QUELL_TRY(check("storing in a cache", *this, position, keys, values));
  const std::size_t turned = rotation_ ? keys.rows() * keys.cols() * sizeof(float) : 0;
  QUELL_TRY(context.reserve(head_dim_, turned));
  if (rotation_) {
    const MatrixView<float> copy(reinterpret_cast<float*>(context.shared().data()), keys.rows(),
                                 keys.cols());
    for (std::size_t r = 0; r < keys.rows(); ++r) {
      std::copy(keys.row(r).begin(), keys.row(r).end(), copy.row(r).begin());
    }
    // Needs no scratch: the order of this transform is 1.
    QUELL_TRY(rotation_->apply(copy, context));
    keys = copy;
  }
  const CacheForm form = CacheAccess::form(*this);
  const auto& rounding = choose(quantize_rows_family::table());
  for_blocks(*this, position, position + keys.rows(), context,
             [&](std::size_t h, std::size_t block, std::size_t from, std::size_t to, unsigned i) {
               std::byte* head = bytes_.data() + h * form.head_bytes();
               const Side key_side = keys_in(head, form, block);
               const Side value_side = values_in(head, form, block);
               if (from % kBlock == 0) {
                 std::memset(key_side.data, 0, key_side.form->bytes);
                 std::memset(value_side.data, 0, value_side.form->bytes);
               }
               for (std::size_t token = from; token < to; ++token) {
                 const std::size_t t = token % kBlock, r = token - position;
                 std::byte* work = context.slot(i).data();
                 store_token(key_side, t, keys.row(r).data() + h * head_dim_, head_dim_, rounding,
                             work);
                 store_token(value_side, t, values.row(r).data() + h * head_dim_, head_dim_,
                             rounding, work);
               }
             });
  return ok();
}

Status KeyValueCache::read(std::size_t position, MatrixView<float> keys, MatrixView<float> values,
                           Context& context) const {
  QUELL_TRY(check("reading a cache", *this, position, keys, values));
  const CacheForm form = CacheAccess::form(*this);
  for_blocks(*this, position, position + keys.rows(), context,
             [&](std::size_t h, std::size_t block, std::size_t from, std::size_t to, unsigned) {
               auto* head = const_cast<std::byte*>(CacheAccess::head(*this, form, h));
               for (std::size_t token = from; token < to; ++token) {
                 const std::size_t t = token % kBlock, r = token - position;
                 read_token(keys_in(head, form, block), t, keys.row(r).data() + h * head_dim_,
                            head_dim_);
                 read_token(values_in(head, form, block), t, values.row(r).data() + h * head_dim_,
                            head_dim_);
               }
             });
  return rotation_ ? rotation_->apply(keys, context) : ok();
}

}  // namespace quell::kernels
