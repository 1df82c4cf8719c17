// SPDX-License-Identifier: Apache-2.0

#include "quell/kernels/hadamard.hpp"

#include <gtest/gtest.h>

#include <bitset>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "kernels/hadamard_orders.hpp"
#include "support/same_bits.hpp"

namespace quell::kernels {
namespace {

using test::Numbers;
using test::same_bits;

Hadamard of_size(std::size_t size) {
  auto made = Hadamard::of_size(size);
  if (!made) panic(made.error().message.c_str());
  return *std::move(made);
}

std::vector<float> transformed(std::size_t size, std::vector<float> x) {
  SerialExecutor serial;
  Context context(serial);
  const Status done = of_size(size).apply({x.data(), 1, x.size()}, context);
  EXPECT_TRUE(done) << done.error().message;
  return x;
}

/// Element (i, j) of H of `size`: H_m(i / L, j / L) S(i % L, j % L), L = size / m.
class Matrix {
 public:
  explicit Matrix(std::size_t size)
      : order_(hadamard_order(size)), length_(size / order_), signs_(hadamard_signs(order_)) {}
  int operator()(std::size_t i, std::size_t j) const {
    const int outer = signs_[i / length_ * order_ + j / length_];
    return __builtin_parityll(i % length_ & j % length_) != 0 ? -outer : outer;
  }

 private:
  std::size_t order_, length_;
  std::vector<std::int8_t> signs_;
};

std::vector<double> by_definition(const std::vector<float>& x) {
  const Matrix h(x.size());
  std::vector<double> y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    for (std::size_t j = 0; j < x.size(); ++j) y[i] += h(i, j) * static_cast<double>(x[j]);
    y[i] /= std::sqrt(static_cast<double>(x.size()));
  }
  return y;
}

double norm(const std::vector<float>& x) {
  double sum = 0;
  for (const float value : x) sum += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(sum);
}
template <typename T>
double distance(const std::vector<float>& x, const std::vector<T>& y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double d = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum += d * d;
  }
  return std::sqrt(sum);
}

/// e of the header: each of k steps rounds every value once, which is 2^-24 of the norm, because
/// the steps are orthogonal up to a factor; a sum over m values with m / 4 + 1 roundings each is
/// off by at most (m / 4 + 1) 2^-24 times the sum of magnitudes, which sqrt(m) times the norm
/// bounds where the exact sum may have just the norm; scale and multiplication round once each.
double relative_bound(const Hadamard& h) {
  const auto m = static_cast<double>(h.order());
  const double steps = std::log2(static_cast<double>(h.size() / h.order()));
  return (steps + 2 + (m > 1 ? std::sqrt(m) * (m / 4 + 1) : 0)) * 0x1p-24;
}

std::vector<std::size_t> orders() {
  std::set<std::size_t> found;
  for (std::size_t size = 1; size <= Hadamard::kMaxOrder; ++size) {
    found.insert(hadamard_order(size));
  }
  found.erase(0);
  return {found.begin(), found.end()};
}

TEST(HadamardOrders, AreTheOnesOfRealModelsAndMore) {
  const std::size_t models[][2] = {
      {4096, 1},    {11008, 172}, {5120, 20}, {13824, 108}, {28672, 28},  {14336, 28},
      {896, 28},    {4864, 76},   {1536, 12}, {8960, 140},  {18944, 148}, {27648, 108},
      {29568, 924}, {12288, 12},  {768, 12},  {3072, 12},   {1280, 20},   {1600, 100},
      {6400, 100},  {2880, 180},  {40, 20},   {9984, 156},  {44, 44},     {36, 36},
      {52, 52},     {60, 60},     {1, 1},     {2, 1},       {200, 100},   {368, 368}};
  for (const auto& [size, order] : models) {
    EXPECT_EQ(hadamard_order(size), order) << size;
    EXPECT_TRUE(hadamard_supported(size)) << size;
  }
  for (const std::size_t size : {0, 3, 6, 10, 14, 92, 116, 184, 1001}) {
    EXPECT_EQ(hadamard_order(size), 0u) << size;
    EXPECT_FALSE(hadamard_supported(size)) << size;
  }
}

TEST(HadamardOrders, EveryMatrixIsSymmetricAndItsOwnInverseTimesTheOrder) {
  const auto all = orders();
  EXPECT_GT(all.size(), 60u);
  for (const std::size_t m : all) {
    const std::vector<std::int8_t> h = hadamard_signs(m);
    ASSERT_EQ(h.size(), m * m);
    std::vector<std::int8_t> transposed(m * m);
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j < m; ++j) {
        ASSERT_TRUE(h[i * m + j] == 1 || h[i * m + j] == -1) << m << " at " << i << ", " << j;
        transposed[j * m + i] = h[i * m + j];
      }
    }
    ASSERT_EQ(h, transposed) << m;
    // Signs as bits: two rows are orthogonal if they differ in half of their places.
    std::vector<std::bitset<Hadamard::kMaxOrder>> rows(m);
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j < m; ++j) rows[i][j] = h[i * m + j] < 0;
      for (std::size_t j = 0; j < i; ++j) {
        ASSERT_EQ(2 * (rows[i] ^ rows[j]).count(), m) << m << " rows " << i << ", " << j;
      }
    }
  }
}

TEST(HadamardOrders, CodesSpellTheSigns) {
  for (const std::size_t m : {12, 20, 172}) {
    const std::vector<std::int8_t> h = hadamard_signs(m);
    const std::vector<std::uint8_t> codes = hadamard_codes(m);
    ASSERT_EQ(codes.size(), m * m / 4);
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j < m; ++j) {
        const unsigned byte = codes[i / 4 * m + j / 4 * 4 + i % 4], code = byte / 16;
        ASSERT_EQ(byte % 16, 0u);
        int sign = (code & 8) != 0 ? -1 : 1;
        if (j % 4 >= 2 && (code & 4) != 0) sign = -sign;
        if (j % 4 == 1 && (code & 1) != 0) sign = -sign;
        if (j % 4 == 3 && (code & 2) != 0) sign = -sign;
        ASSERT_EQ(sign, h[i * m + j]) << m << " at " << i << ", " << j;
      }
    }
  }
  EXPECT_TRUE(hadamard_codes(1).empty());
}

TEST(Hadamard, HasKnownValues) {
  EXPECT_EQ(transformed(1, {-3}), (std::vector<float>{-3}));
  EXPECT_EQ(transformed(4, {10, 1, 1, 1}), (std::vector<float>{6.5F, 4.5F, 4.5F, 4.5F}));
  EXPECT_EQ(transformed(4, {1, 2, 3, 4}), (std::vector<float>{5, -1, -2, 0}));
  // Two blocks of a row stay apart.
  EXPECT_EQ(transformed(4, {1, 2, 3, 4, 0, 0, 0, 8}),
            (std::vector<float>{5, -1, -2, 0, 4, -4, -4, 4}));
}

TEST(Hadamard, OfAUnitVectorIsItsColumnOfTheMatrix) {
  for (const std::size_t n : {2, 8, 16, 64, 128, 12, 24, 40, 192, 52, 156, 172, 344}) {
    const Matrix h(n);
    const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(n)));
    for (std::size_t j = 0; j < n; ++j) {
      std::vector<float> x(n);
      x[j] = 1;
      x = transformed(n, x);
      for (std::size_t i = 0; i < n; ++i) {
        ASSERT_EQ(x[i], static_cast<float>(h(i, j)) * scale) << n << ": " << i << ", " << j;
      }
    }
  }
}

TEST(Hadamard, EqualsTheProductWithTheMatrixWithinItsBound) {
  Numbers numbers(1);
  for (const std::size_t n :
       {2,   4,   8,   32,  256, 512, 2048, 12,  20,  28,   36,   44,   60,  76,
        108, 140, 148, 156, 172, 924, 200,  768, 896, 1376, 1600, 2880, 4864}) {
    std::vector<float> x(n);
    numbers.fill(x);
    x[n / 3] = 1000;
    const std::vector<float> y = transformed(n, x);
    EXPECT_LE(distance(y, by_definition(x)), 1.01 * relative_bound(of_size(n)) * norm(x)) << n;
  }
}

TEST(Hadamard, TwiceGivesTheRowBackWithinItsBound) {
  Numbers numbers(2);
  for (const std::size_t n :
       {1, 2, 128, 4096, 16384, 65536, 12, 52, 768, 1280, 3584, 11008, 13824, 14336, 29568}) {
    std::vector<float> x(n);
    numbers.fill(x);
    x[n / 2] = 300;
    const std::vector<float> back = transformed(n, transformed(n, x));
    EXPECT_LE(distance(back, x), 2.02 * relative_bound(of_size(n)) * norm(x)) << n;
  }
}

TEST(Hadamard, OnPowersOfFourIsExactForSmallIntegers) {
  // All sums are integers below 2^24 and the scale is a power of two.
  std::vector<float> x(4096);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 37 % 201) - 100;
  EXPECT_EQ(transformed(4096, transformed(4096, x)), x);
}

TEST(Hadamard, SpreadsOneOutlierOverTheRow) {
  for (const std::size_t n : {4096, 11008, 14336}) {
    Numbers numbers(3);
    std::vector<float> x(n);
    numbers.fill(x, 0.866F);  // deviation 1
    x[n / 5] = 100;
    const auto peak = [&](const std::vector<float>& row) {
      double max = 0;
      for (const float value : row) max = std::max(max, std::fabs(static_cast<double>(value)));
      return max / (norm(row) / std::sqrt(static_cast<double>(n)));
    };
    EXPECT_GT(peak(x), 30);
    // 100 / sqrt(n) everywhere plus normal values, of which the largest of so many is about 4.
    EXPECT_LT(peak(transformed(n, x)), 6.5) << n;
  }
}

TEST(Hadamard, SpreadsNaNAndInfinityOverTheirBlockOnly) {
  std::vector<float> x(3 * 48, 1.0F);
  x[50] = std::numeric_limits<float>::quiet_NaN();
  x[100] = std::numeric_limits<float>::infinity();
  x = transformed(48, x);
  for (std::size_t i = 0; i < 48; ++i) {
    EXPECT_TRUE(std::isfinite(x[i])) << i;
    EXPECT_TRUE(std::isnan(x[48 + i])) << i;
    EXPECT_FALSE(std::isfinite(x[96 + i])) << i;
  }
}

TEST(Hadamard, KeepsInnerProductsOfRows) {
  // (x R)(w R)^T = x w^T, what a rotated layer relies on.
  Numbers numbers(4);
  for (const std::size_t n : {256, 768, 11008}) {
    std::vector<float> x(n), w(n);
    numbers.fill(x);
    numbers.fill(w);
    const auto inner = [n](const std::vector<float>& a, const std::vector<float>& b) {
      double sum = 0;
      for (std::size_t i = 0; i < n; ++i) {
        sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
      }
      return sum;
    };
    const double before = inner(x, w), after = inner(transformed(n, x), transformed(n, w));
    EXPECT_LE(std::fabs(after - before),
              2.02 * 1.01 * relative_bound(of_size(n)) * norm(x) * norm(w))
        << n;
  }
}

TEST(Hadamard, RefusesOtherSizesAndNamesWhatWorks) {
  const auto none = Hadamard::of_size(92);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::shape);
  EXPECT_NE(none.error().message.find("92 is 23 times 4"), std::string::npos)
      << none.error().message;
  EXPECT_NE(none.error().message.find("blocks of 4"), std::string::npos) << none.error().message;
  EXPECT_FALSE(Hadamard::of_size(0));
  EXPECT_FALSE(Hadamard::of_size(std::numeric_limits<std::size_t>::max()));
  EXPECT_TRUE(Hadamard::of_size(std::size_t{1} << 40));  // nothing is allocated by size

  SerialExecutor serial;
  Context context(serial);
  std::vector<float> x(200, 1.0F);
  const Status ragged = of_size(128).apply({x.data(), 1, 200}, context);
  ASSERT_FALSE(ragged);
  EXPECT_EQ(ragged.error().code, ErrorCode::shape);
  EXPECT_NE(ragged.error().message.find("200"), std::string::npos);
  EXPECT_NE(ragged.error().message.find("128"), std::string::npos);
  EXPECT_EQ(x, std::vector<float>(200, 1.0F));
  EXPECT_TRUE(of_size(128).apply({x.data(), 0, 128}, context));
  EXPECT_TRUE(of_size(128).apply({x.data(), 3, 0, 1}, context));
}

}  // namespace
}  // namespace quell::kernels
