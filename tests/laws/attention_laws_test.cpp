// SPDX-License-Identifier: Apache-2.0

// Laws of the family attention: every entry gives the bits of the scalar one between guard pages,
// for every kind of element, ragged sizes and values that are not numbers; the public functions do
// for any number of threads, and over f32 and f16 give the bits of plain loops.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cache_form.hpp"
#include "kernels/cpu/attention/contract.hpp"
#include "quell/core/half.hpp"
#include "quell/kernels/elementwise.hpp"
#include "support/guarded.hpp"
#include "support/same_bits.hpp"

namespace quell::kernels {
namespace {

namespace family = attention_family;
using family::kBlock;
using test::Edge;
using test::Guarded;
using test::Numbers;
using test::same_bits;

class AttentionEntry : public testing::TestWithParam<const family::Entry*> {};
INSTANTIATE_TEST_SUITE_P(attention, AttentionEntry,
                         testing::ValuesIn(family::table().begin(), family::table().end()),
                         [](const auto& entry) {
                           return std::string(to_string(entry.param->isa));
                         });

/// Blocks with any codes; `odd` plants an infinity and a NaN among elements or scales.
void fill_blocks(std::span<std::byte> bytes, const BlockForm& form, std::size_t count, bool odd,
                 Numbers& numbers) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (std::size_t b = 0; b < count; ++b) {
    std::byte* block = bytes.data() + b * form.bytes;
    const std::size_t codes = form.scales == 0 ? form.bytes : form.scales;
    for (std::size_t i = 0; i < codes; ++i) {
      block[i] = static_cast<std::byte>(static_cast<int>(numbers.uniform() * 128));
    }
    if (form.kind == CacheKind::f32 || form.kind == CacheKind::f16) {
      const std::size_t size = form.kind == CacheKind::f32 ? 4 : 2;
      for (std::size_t i = 0; i < codes / size; ++i) {
        float value = numbers.bell();
        if (odd && i % 97 == 5) value = i % 2 == 0 ? nan : INFINITY;
        const std::uint16_t half = float_to_f16(value);
        std::memcpy(block + i * size,
                    size == 4 ? static_cast<const void*>(&value) : static_cast<const void*>(&half),
                    size);
      }
      continue;
    }
    for (std::size_t i = 0; i < (form.bytes - form.scales) / sizeof(float); ++i) {
      const float value = odd && i % 13 == 4 ? nan : numbers.bell();
      std::memcpy(block + form.scales + i * sizeof(float), &value, sizeof value);
    }
  }
}

constexpr std::size_t kHeadDims[] = {1, 12, 13, 48, 64, 80, 100, 128, 160};

TEST_P(AttentionEntry, ProductsAreThoseOfTheSpecification) {
  if (!has(GetParam()->isa)) GTEST_SKIP() << "this machine has no " << to_string(GetParam()->isa);
  for (const CacheKind kind : kCacheKinds) {
    const auto k = static_cast<std::size_t>(kind);
    for (const std::size_t head_dim : kHeadDims) {
      for (const std::size_t count : {1, 2, 5}) {
        for (const unsigned heads : {1u, 2u, 3u, 4u}) {
          Numbers numbers(head_dim * 100 + count * 10 + heads + k);
          const bool odd = head_dim % 3 == 1;
          const BlockForm form = BlockForm::of(kind, kBlock * head_dim);
          Guarded<std::byte> blocks(count * form.bytes);
          fill_blocks(blocks.span(), form, count, odd, numbers);
          const std::size_t gap = heads % 2 == 0 ? 3 : 0, stride = head_dim + gap;
          Guarded<float> queries((heads - 1) * stride + head_dim,
                                 gap == 0 ? Edge::back : Edge::front);
          numbers.fill(queries.span());
          Guarded<float> query_sums(heads);
          numbers.fill(query_sums.span());
          Guarded<float> found(heads * count * kBlock);
          std::vector<float> expected(found.size());
          family::KeyProduct p{{blocks.data(), form.bytes, form.scales, count},
                               head_dim,
                               heads,
                               queries.data(),
                               stride,
                               query_sums.data(),
                               expected.data(),
                               count * kBlock};
          scalar::attention_entry.products[k](p);
          p.products = found.data();
          GetParam()->products[k](p);
          ASSERT_TRUE(same_bits(found.span(), expected))
              << to_string(kind) << ", head_dim " << head_dim << ", " << count << " blocks, "
              << heads << " heads";
        }
      }
    }
  }
}

TEST_P(AttentionEntry, SumsAreThoseOfTheSpecification) {
  if (!has(GetParam()->isa)) GTEST_SKIP() << "this machine has no " << to_string(GetParam()->isa);
  constexpr std::size_t kRanges[][2] = {{0, 1},  {0, 16},  {3, 14}, {15, 17},
                                        {0, 48}, {17, 47}, {5, 5}};
  for (const CacheKind kind : kCacheKinds) {
    const auto k = static_cast<std::size_t>(kind);
    for (const std::size_t head_dim : kHeadDims) {
      const std::size_t dims = form_of(kind, head_dim, 1).dims;
      for (const auto& [first, last] : kRanges) {
        for (const unsigned heads : {1u, 2u, 3u, 4u}) {
          Numbers numbers(head_dim * 100 + last * 10 + heads + k);
          const std::size_t count = (last + kBlock - 1) / kBlock;
          const BlockForm form = BlockForm::of(kind, kBlock * dims);
          Guarded<std::byte> blocks(count * form.bytes);
          fill_blocks(blocks.span(), form, count, head_dim % 3 == 1, numbers);
          Guarded<float> weights(heads * count * kBlock);
          numbers.fill(weights.span());
          for (unsigned h = 0; h < heads; ++h) {
            for (std::size_t t = 0; t < count * kBlock; ++t) {
              if (t < first || t >= last) weights[h * count * kBlock + t] = 0;
            }
          }
          Guarded<float> sums(heads * dims), lows(heads * kBlock);
          numbers.fill(sums.span());
          numbers.fill(lows.span());
          lows[first % kBlock] = -0.0f;
          std::vector<float> expected_sums(sums.begin(), sums.end());
          std::vector<float> expected_lows(lows.begin(), lows.end());
          family::ValueSum p{{blocks.data(), form.bytes, form.scales, count},
                             dims,
                             first,
                             last,
                             heads,
                             weights.data(),
                             count * kBlock,
                             expected_sums.data(),
                             expected_lows.data()};
          scalar::attention_entry.sums[k](p);
          p.sums = sums.data();
          p.lows = lows.data();
          GetParam()->sums[k](p);
          const std::string where = std::string(to_string(kind)) + ", head_dim " +
                                    std::to_string(head_dim) + ", tokens " + std::to_string(first) +
                                    " to " + std::to_string(last) + ", " + std::to_string(heads) +
                                    " heads";
          ASSERT_TRUE(same_bits(sums.span(), expected_sums)) << where;
          ASSERT_TRUE(same_bits(lows.span(), expected_lows)) << where;
        }
      }
    }
  }
}

struct Shape {
  std::size_t heads, kv_heads, head_dim, rows, window;
  float softcap;
};
constexpr Shape kShapes[] = {{4, 4, 12, 1, 0, 0},  {4, 1, 48, 1, 0, 0},   {14, 2, 64, 1, 37, 0},
                             {3, 1, 80, 2, 0, 30}, {18, 2, 16, 3, 16, 0}, {2, 1, 128, 1, 0, 0},
                             {5, 5, 7, 8, 40, 0}};

Matrix random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Matrix made = *Matrix::uninitialized(rows, cols);
  Numbers(seed).fill(made.values());
  return made;
}

KeyValueCache filled(CacheKind kind, const Shape& shape, MatrixView<const float> keys,
                     MatrixView<const float> values, Context& context) {
  auto cache = KeyValueCache::create(kind, shape.kv_heads, shape.head_dim, keys.rows());
  EXPECT_TRUE(cache && cache->store(0, keys, values, context));
  return *std::move(cache);
}

// Also the promise of f32 and f16: plain loops over what read() gives.
TEST_P(AttentionEntry, PublicFunctionsGiveThemForAnyThreads) {
  if (!has(GetParam()->isa)) GTEST_SKIP() << "this machine has no " << to_string(GetParam()->isa);
  for (const Shape& shape : kShapes) {
    for (const std::size_t length : {1, 15, 16, 17, 33, 150, 300}) {
      if (length < shape.rows) continue;
      const std::size_t width = shape.kv_heads * shape.head_dim, d = shape.head_dim;
      const Matrix keys = random_matrix(length, width, length);
      const Matrix values = random_matrix(length, width, length + 1);
      const Matrix queries = random_matrix(shape.rows, shape.heads * d, length + 2);
      for (const CacheKind kind : kCacheKinds) {
        const CachedAttention problem{queries.view(), shape.heads,  length, 0.3f,
                                      shape.softcap,  shape.window, nullptr};
        Matrix expected = *Matrix::uninitialized(shape.rows, shape.heads * d);
        set_isa_cap(Isa::scalar);
        {
          SerialExecutor serial;
          Context context(serial);
          const KeyValueCache cache = filled(kind, shape, keys.view(), values.view(), context);
          ASSERT_TRUE(attend(problem, cache, expected.view(), context));
          Matrix k = *Matrix::uninitialized(length, width),
                 v = *Matrix::uninitialized(length, width);
          ASSERT_TRUE(cache.read(0, k.view(), v.view(), context));
          const bool plain = kind == CacheKind::f32 || kind == CacheKind::f16;
          for (std::size_t r = 0; plain && r < shape.rows; ++r) {
            for (std::size_t h = 0; h < shape.heads; ++h) {
              const std::size_t from = h * shape.kv_heads / shape.heads * d;
              const std::size_t last = length - shape.rows + r + 1;
              const std::size_t first =
                  shape.window != 0 && last > shape.window ? last - shape.window : 0;
              std::vector<float> row(last - first);
              for (std::size_t t = first; t < last; ++t) {
                float sum = 0;
                for (std::size_t i = 0; i < d; ++i) {
                  sum = std::fma(queries(r, h * d + i), k(t, from + i), sum);
                }
                row[t - first] = sum;
              }
              attention_softmax({row.data(), 1, row.size()}, 0.3f, shape.softcap, {0, 0, false});
              for (std::size_t i = 0; i < d; ++i) {
                float sum = 0;
                for (std::size_t t = first; t < last; ++t) {
                  sum = std::fma(row[t - first], v(t, from + i), sum);
                }
                ASSERT_TRUE(same_bits(expected(r, h * d + i), sum))
                    << to_string(kind) << ", head " << h << " channel " << i;
              }
            }
          }
        }
        set_isa_cap(GetParam()->isa);
        for (const unsigned threads : {1u, 2u, 5u}) {
          const auto executor = make_openmp_executor(threads);
          Context context(*executor);
          const KeyValueCache cache = filled(kind, shape, keys.view(), values.view(), context);
          Matrix found = *Matrix::uninitialized(shape.rows, shape.heads * d);
          ASSERT_TRUE(attend(problem, cache, found.view(), context));
          ASSERT_TRUE(same_bits(found.values(), expected.values()))
              << to_string(kind) << ", length " << length << ", head_dim " << d << ", " << threads
              << " threads";
        }
        clear_isa_cap();
      }
    }
  }
}

TEST(AttentionCache, TokensOneByOneAreKeptAsAllAtOnce) {
  const Shape shape{4, 2, 20, 1, 0, 0};
  const std::size_t most = 300, width = shape.kv_heads * shape.head_dim;
  const Matrix keys = random_matrix(most, width, 1), values = random_matrix(most, width, 2);
  const auto executor = make_openmp_executor(3);
  Context context(*executor);
  for (const CacheKind kind : kCacheKinds) {
    auto slow = KeyValueCache::create(kind, shape.kv_heads, shape.head_dim, most);
    Matrix k = *Matrix::uninitialized(most, width), v = *Matrix::uninitialized(most, width);
    Matrix slow_k = *Matrix::uninitialized(most, width);
    Matrix slow_v = *Matrix::uninitialized(most, width);
    for (std::size_t length = 1; length <= most; ++length) {
      // Tokens that are taken back and put again, as after a draft that was refused.
      const std::size_t again = length % 5 == 0 ? length - std::min<std::size_t>(length, 21) : 0;
      const std::size_t at = length % 5 == 0 ? again : length - 1;
      ASSERT_TRUE(slow->store(at, keys.view().rows_from(at, length - at),
                              values.view().rows_from(at, length - at), context));
      const KeyValueCache whole = filled(kind, shape, keys.view().rows_from(0, length),
                                         values.view().rows_from(0, length), context);
      const auto rows = [&](Matrix& m) { return m.view().rows_from(0, length); };
      ASSERT_TRUE(whole.read(0, rows(k), rows(v), context));
      ASSERT_TRUE(slow->read(0, rows(slow_k), rows(slow_v), context));
      ASSERT_TRUE(
          same_bits(slow_k.values().first(length * width), k.values().first(length * width)))
          << to_string(kind) << ", " << length << " tokens";
      ASSERT_TRUE(
          same_bits(slow_v.values().first(length * width), v.values().first(length * width)))
          << to_string(kind) << ", " << length << " tokens";
    }
  }
}

}  // namespace
}  // namespace quell::kernels
