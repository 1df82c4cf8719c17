// SPDX-License-Identifier: Apache-2.0

// What a cache keeps of keys and values, and attention over it against the same in double.

#include "quell/kernels/attention.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/same_bits.hpp"

namespace quell::kernels {
namespace {

using test::Numbers;

constexpr double kHalfUlp = 0x1p-24;  // of a float, relative

Matrix random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Matrix made = *Matrix::uninitialized(rows, cols);
  Numbers(seed).fill(made.values());
  return made;
}

struct Kept {
  Matrix keys, values;
};

class Cached : public testing::Test {
 protected:
  KeyValueCache stored(CacheKind kind, std::size_t heads, const Matrix& keys,
                       const Matrix& values) {
    auto cache = KeyValueCache::create(kind, heads, keys.cols() / heads, keys.rows());
    EXPECT_TRUE(cache && cache->store(0, keys.view(), values.view(), context_));
    return *std::move(cache);
  }
  Kept read(const KeyValueCache& cache) {
    const std::size_t width = cache.heads() * cache.head_dim();
    Kept kept{*Matrix::uninitialized(cache.capacity(), width),
              *Matrix::uninitialized(cache.capacity(), width)};
    EXPECT_TRUE(cache.read(0, kept.keys.view(), kept.values.view(), context_));
    return kept;
  }
  /// The values of one head that hold `row` as token 20, where int4 is int4.
  std::vector<float> kept_of(CacheKind kind, const std::vector<float>& row) {
    Matrix values = *Matrix::zeros(21, row.size());
    std::copy(row.begin(), row.end(), values.row(20).begin());
    const Kept kept = read(stored(kind, 1, *Matrix::zeros(21, row.size()), values));
    const auto found = kept.values.row(20);
    return {found.begin(), found.end()};
  }

  SerialExecutor serial_;
  Context context_{serial_};
};

TEST_F(Cached, KeepsWhatAKindCanHold) {
  const float big = 3e38f, tiny = 1e-45f;
  for (const std::vector<float>& row :
       {std::vector<float>{1.5f, -0.0f, 1e-30f, big, tiny}, {-7}, {0, 0}}) {
    EXPECT_TRUE(test::same_bits(kept_of(CacheKind::f32, row), row));
  }
  EXPECT_EQ(kept_of(CacheKind::f16, {1, 2049, 2051, 65519, 65520, -big, 0x1p-25f, 0x1.8p-25f}),
            (std::vector<float>{1, 2048, 2052, 65504, 65504, -65504, 0, 0x1p-24f}));
  // A scale of 2: ties go to the even code.
  EXPECT_EQ(kept_of(CacheKind::int8, {254, -254, 1, 3, 5, -3, 2.5f}),
            (std::vector<float>{254, -254, 0, 4, 4, -4, 2}));
  // From -30 in steps of 4.
  EXPECT_EQ(kept_of(CacheKind::int4, {-30, 30, 0, -28, -24, 17.9f, -1.9f}),
            (std::vector<float>{-30, 30, 2, -30, -22, 18, -2}));
}

TEST_F(Cached, KeepsConstantsAndTheWidestRanges) {
  for (const float value : {0.0f, 3.7f, -1e-42f, 3.4e38f}) {
    EXPECT_EQ(kept_of(CacheKind::int4, {value, value, value}),
              (std::vector<float>{value, value, value}));
  }
  EXPECT_EQ(kept_of(CacheKind::int8, {0, 0}), (std::vector<float>{0, 0}));
  const float most = 3e38f;
  for (const CacheKind kind : {CacheKind::int8, CacheKind::int4}) {
    const std::vector<float> kept = kept_of(kind, {most, -most, 0});
    EXPECT_NEAR(kept[0] / most, 1, 1e-6) << to_string(kind);
    EXPECT_NEAR(kept[1] / most, -1, 1e-6) << to_string(kind);
    EXPECT_LE(std::fabs(kept[2] / most), 1.0f / 15 * 1.000001f) << to_string(kind);
  }
}

TEST_F(Cached, SaysNotANumberForAHeadThatHoldsOne) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    for (const CacheKind kind : kCacheKinds) {
      Matrix keys = random_matrix(40, 32, 1), values = random_matrix(40, 32, 2);
      values(20, 3) = bad;  // of head 0
      const Kept kept = read(stored(kind, 2, keys, values));
      EXPECT_FALSE(std::isfinite(kept.values(20, 3))) << to_string(kind);
      const Matrix queries = random_matrix(1, 32, 3);
      Matrix out = *Matrix::uninitialized(1, 32);
      CachedAttention attention{queries.view(), 2, 40};
      ASSERT_TRUE(attend(attention, stored(kind, 2, keys, values), out.view(), context_));
      EXPECT_FALSE(std::isfinite(out(0, 3))) << to_string(kind);
      for (std::size_t i = 16; i < 32; ++i) EXPECT_TRUE(std::isfinite(out(0, i)));
      keys(20, 3) = bad;
      ASSERT_TRUE(attend(attention, stored(kind, 2, keys, values), out.view(), context_));
      // As floats, a product of -infinity is a key that is not looked at.
      const bool codes = kind == CacheKind::int8 || kind == CacheKind::int4;
      if (codes || std::isnan(bad)) {
        EXPECT_TRUE(std::isnan(out(0, 0))) << to_string(kind);
      }
      // A window that begins after the token does not see it.
      attention.window = 19;
      ASSERT_TRUE(attend(attention, stored(kind, 2, keys, values), out.view(), context_));
      for (const float value : out.values()) EXPECT_TRUE(std::isfinite(value)) << to_string(kind);
    }
  }
}

// Half a step of each kind, and the rounding of the arithmetic around it.
TEST_F(Cached, ErrorsOfValuesStayWithinHalfAStep) {
  for (const std::size_t head_dim : {1, 12, 48, 64, 80, 128}) {
    const std::size_t length = 50;
    Matrix values = random_matrix(length, 2 * head_dim, head_dim);
    for (std::size_t t = 0; t < length; ++t) values(t, t % (2 * head_dim)) *= 1000;
    const Matrix keys = random_matrix(length, 2 * head_dim, 7);
    for (const CacheKind kind : kCacheKinds) {
      const Kept kept = read(stored(kind, 2, keys, values));
      for (std::size_t t = 0; t < length; ++t) {
        for (std::size_t i = 0; i < 2 * head_dim; ++i) {
          const auto head = values.row(t).subspan(i / head_dim * head_dim, head_dim);
          const auto [low, high] = std::minmax_element(head.begin(), head.end());
          const double most = std::max(std::fabs(*low), std::fabs(*high));
          const double range = static_cast<double>(*high) - static_cast<double>(*low);
          const double x = static_cast<double>(values(t, i));
          const double half = std::fabs(x) * 0x1p-11 + 0x1p-25;
          double bound = 0;
          if (kind == CacheKind::f16) bound = half;
          if (kind == CacheKind::int8) bound = most / 254 + 2 * most * kHalfUlp;
          if (kind == CacheKind::int4) bound = t < 16 ? half : range / 30 + 4 * most * kHalfUlp;
          ASSERT_LE(std::fabs(static_cast<double>(kept.values(t, i)) - x), bound)
              << to_string(kind) << ", head_dim " << head_dim << ", token " << t;
        }
      }
    }
  }
}

/// The error of products of keys with queries, root mean square over tokens from 16 on.
double product_error(const Matrix& keys, const Matrix& kept, const Matrix& queries) {
  double sum = 0;
  std::size_t count = 0;
  for (std::size_t t = 16; t < keys.rows(); ++t) {
    for (std::size_t r = 0; r < queries.rows(); ++r, ++count) {
      double error = 0;
      for (std::size_t i = 0; i < keys.cols(); ++i) {
        error += static_cast<double>(queries(r, i)) *
                 (static_cast<double>(kept(t, i)) - static_cast<double>(keys(t, i)));
      }
      sum += error * error;
    }
  }
  return std::sqrt(sum / static_cast<double>(count));
}

// A channel far larger than the rest takes the codes of a token that is rounded as it is, which
// values are.
TEST_F(Cached, KeysWithAnOutlierChannelAreRotatedAndKept) {
  const std::size_t head_dim = 128, length = 200;
  for (const float outlier : {30.0f, 1000.0f}) {
    Matrix keys = random_matrix(length, head_dim, 1);
    for (std::size_t t = 0; t < length; ++t) keys(t, 5) *= outlier;
    Matrix queries = random_matrix(16, head_dim, 2);
    // Such a channel of keys meets small queries, or it alone would decide every product.
    for (std::size_t r = 0; r < queries.rows(); ++r) queries(r, 5) /= outlier;
    for (const CacheKind kind : {CacheKind::int8, CacheKind::int4}) {
      const Kept kept = read(stored(kind, 1, keys, keys));
      const double rotated = product_error(keys, kept.keys, queries);
      // At 1000 four bits are too few either way.
      if (kind == CacheKind::int8 || outlier == 30) {
        EXPECT_LT(rotated, product_error(keys, kept.values, queries) / 2)
            << to_string(kind) << ", outlier " << outlier;
      }
      // Of a rotated key, no channel is above |k[5]| / sqrt(128) + |others|; half a step of int8 is
      // the largest over 254, of int4 at most the largest over 15. The error of a product is at
      // most |q| |e|, |e| <= sqrt(128) half a step, and the rotation changes neither.
      double half_step = 0, query = 0;
      for (std::size_t t = 16; t < length; ++t) {
        double others = 0;
        for (std::size_t i = 0; i < head_dim; ++i) {
          const double k = static_cast<double>(keys(t, i));
          if (i != 5) others += k * k;
        }
        const double top = std::fabs(static_cast<double>(keys(t, 5))) / std::sqrt(128.0);
        half_step = std::max(half_step,
                             (top + std::sqrt(others)) / (kind == CacheKind::int8 ? 254.0 : 15.0));
      }
      for (std::size_t r = 0; r < queries.rows(); ++r) {
        double square = 0;
        for (const float q : queries.row(r)) {
          square += static_cast<double>(q) * static_cast<double>(q);
        }
        query = std::max(query, std::sqrt(square));
      }
      EXPECT_LE(rotated, query * std::sqrt(128.0) * half_step * 1.0001)
          << to_string(kind) << ", outlier " << outlier;
    }
  }
}

// Attention in double over what the cache keeps. A score is a sum of n = head_dim + 4 roundings
// (of int4, of codes up to 15 scale and the lowest value apart), rotated ones those of two
// rotations as well; so it is off by at most d. A weight is then off by 2 d + 4e-7 (exp twice, the
// sum of `length` terms in sixteen lanes), a sum of `length` products by as many roundings.
TEST_F(Cached, AttentionEqualsTheSameInDouble) {
  struct Case {
    std::size_t heads, kv_heads, head_dim, length, window;
    float outlier;
  };
  for (const Case& c :
       {Case{4, 4, 12, 40, 0, 1}, Case{8, 2, 64, 300, 0, 1}, Case{6, 2, 80, 129, 50, 1},
        Case{8, 1, 128, 257, 0, 1000}, Case{1, 1, 48, 1, 0, 1}, Case{20, 2, 32, 100, 0, 30}}) {
    const std::size_t d = c.head_dim, width = c.kv_heads * d,
                      rows = std::min<std::size_t>(2, c.length);
    Matrix keys = random_matrix(c.length, width, c.length),
           values = random_matrix(c.length, width, 5);
    for (std::size_t t = 0; t < c.length; ++t) keys(t, 5) *= c.outlier;
    const Matrix queries = random_matrix(rows, c.heads * d, 6);
    const float scale = 1 / std::sqrt(static_cast<float>(d)) / c.outlier;
    for (const CacheKind kind : kCacheKinds) {
      const KeyValueCache cache = stored(kind, c.kv_heads, keys, values);
      const Kept kept = read(cache);
      Matrix out = *Matrix::uninitialized(rows, c.heads * d);
      const CachedAttention attention{queries.view(), c.heads, c.length, scale, 0, c.window};
      ASSERT_TRUE(attend(attention, cache, out.view(), context_));
      for (std::size_t r = 0; r < rows; ++r) {
        const std::size_t last = c.length - rows + r + 1;
        const std::size_t first = c.window != 0 && last > c.window ? last - c.window : 0;
        for (std::size_t h = 0; h < c.heads; ++h) {
          const std::size_t from = h * c.kv_heads / c.heads * d;
          std::vector<double> weight(last);
          double top = -INFINITY, total = 0, off = 0;
          for (std::size_t t = first; t < last; ++t) {
            double q2 = 0, k2 = 0, product = 0;
            for (std::size_t i = 0; i < d; ++i) {
              const double q = static_cast<double>(queries(r, h * d + i));
              const double k = static_cast<double>(kept.keys(t, from + i));
              product += q * k;
              q2 += q * q;
              k2 += k * k;
            }
            weight[t] = product * static_cast<double>(scale);
            top = std::max(top, weight[t]);
            // sum |q| |k| <= |q| |k|; of int4 |lowest| and 15 scale are at most 2 |k| each, for all
            // d channels: sqrt(d) |q| times 3 sqrt(d) |k| would be safe, 4 |q| |k| sqrt(d) is too.
            const double spread =
                kind == CacheKind::int4 ? 4 * std::sqrt(static_cast<double>(d)) : 1;
            const double roundings = static_cast<double>(d) + 4 + 4 * 9;
            off = std::max(off, std::sqrt(q2 * k2) * spread * roundings * kHalfUlp *
                                        static_cast<double>(scale) +
                                    std::fabs(weight[t]) * 4 * kHalfUlp);
          }
          for (std::size_t t = first; t < last; ++t) total += weight[t] = std::exp(weight[t] - top);
          for (std::size_t i = 0; i < d; ++i) {
            double sum = 0, magnitudes = 0;
            for (std::size_t t = first; t < last; ++t) {
              const double part = weight[t] / total * static_cast<double>(kept.values(t, from + i));
              sum += part;
              magnitudes += weight[t] / total *
                            (std::fabs(static_cast<double>(kept.values(t, from + i))) +
                             (kind == CacheKind::int4 ? 8.0 : 0.0));
            }
            const double bound =
                magnitudes * (2 * off + 4e-7 + static_cast<double>(last - first + 4) * kHalfUlp);
            ASSERT_NEAR(static_cast<double>(out(r, h * d + i)), sum, bound)
                << to_string(kind) << ", head_dim " << d << ", head " << h << ", channel " << i;
          }
        }
      }
    }
  }
}

TEST_F(Cached, BytesAreCounted) {
  const auto bytes = [](CacheKind kind, std::size_t heads, std::size_t head_dim) {
    return KeyValueCache::create(kind, heads, head_dim, 0)->bytes_per_token();
  };
  EXPECT_EQ(bytes(CacheKind::f32, 1, 128), 1024u);
  EXPECT_EQ(bytes(CacheKind::f16, 1, 128), 512u);
  EXPECT_EQ(bytes(CacheKind::int8, 1, 128), 264u);
  EXPECT_EQ(bytes(CacheKind::int4, 1, 128), 144u);
  EXPECT_EQ(bytes(CacheKind::int8, 8, 64), 8 * 136u);
}

TEST_F(Cached, WordsAreReadBack) {
  for (const CacheKind kind : kCacheKinds) EXPECT_EQ(parse_cache_kind(to_string(kind)), kind);
  for (const char* word : {"", "int5", "F16", "int88"}) {
    EXPECT_FALSE(parse_cache_kind(word).has_value()) << word;
  }
}

TEST_F(Cached, WrongSizesAreRefused) {
  EXPECT_EQ(KeyValueCache::create(CacheKind::f16, 0, 4, 4).error().code, ErrorCode::shape);
  EXPECT_EQ(KeyValueCache::create(CacheKind::f16, 1, 0, 4).error().code, ErrorCode::shape);
  EXPECT_EQ(
      KeyValueCache::create(CacheKind::f32, std::size_t{1} << 40, 1u << 30, 1u << 30).error().code,
      ErrorCode::shape);
  auto cache = *KeyValueCache::create(CacheKind::f16, 2, 4, 8);
  const Matrix three = random_matrix(3, 8, 1), two = random_matrix(2, 8, 1);
  const Matrix narrow = random_matrix(3, 7, 1);
  EXPECT_EQ(cache.store(6, three.view(), three.view(), context_).error().code, ErrorCode::shape);
  EXPECT_EQ(cache.store(0, three.view(), two.view(), context_).error().code, ErrorCode::shape);
  EXPECT_EQ(cache.store(0, narrow.view(), narrow.view(), context_).error().code, ErrorCode::shape);
  EXPECT_TRUE(cache.store(5, three.view(), three.view(), context_));
  Matrix out = *Matrix::uninitialized(2, 8);
  const auto refused = [&](MatrixView<const float> queries, std::size_t heads, std::size_t length) {
    return attend({queries, heads, length}, cache, out.view(), context_);
  };
  EXPECT_EQ(refused(two.view(), 2, 9).error().code, ErrorCode::shape);
  EXPECT_EQ(refused(two.view(), 2, 1).error().code, ErrorCode::shape);
  EXPECT_EQ(refused(two.view(), 3, 8).error().code, ErrorCode::shape);
  EXPECT_EQ(refused(narrow.view(), 2, 8).error().code, ErrorCode::shape);
}

}  // namespace
}  // namespace quell::kernels
