// SPDX-License-Identifier: Apache-2.0

// Laws of the kernel tables. Every entry of every family that this machine has gives the bits of
// the scalar entry, on all edges of size, from memory between guard pages, whatever the values, and
// the public functions give them for any number of threads. A new entry is tested by being listed.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/elementwise/contract.hpp"
#include "kernels/cpu/gemm_dense/contract.hpp"
#include "kernels/cpu/strip/contract.hpp"
#include "kernels/cpu/tensor_stats/contract.hpp"
#include "quell/kernels/elementwise.hpp"
#include "quell/kernels/gemm.hpp"
#include "quell/kernels/tensor_stats.hpp"
#include "support/guarded.hpp"
#include "support/same_bits.hpp"

namespace quell::kernels {
namespace {

using test::Edge;
using test::Guarded;
using test::Numbers;
using test::same_bits;

constexpr std::size_t kEdges[] = {0,  1,  2,  3,  7,  8,   15,  16,  17, 31,
                                  32, 33, 63, 64, 65, 127, 129, 255, 257};

/// Lowers the choice for the life of a test.
class Cap {
 public:
  explicit Cap(Isa isa) { set_isa_cap(isa); }
  Cap(const Cap&) = delete;
  Cap& operator=(const Cap&) = delete;
  ~Cap() { clear_isa_cap(); }
};

std::string name_of(Isa isa) {
  return std::string(to_string(isa));
}

#define QUELL_NEEDS(isa) \
  if (!has(isa)) GTEST_SKIP() << "this machine has no " << to_string(isa)

// ------------------------------------------------------------------ gemm_dense

class GemmDense : public testing::TestWithParam<const gemm_dense_family::Entry*> {};
INSTANTIATE_TEST_SUITE_P(gemm_dense, GemmDense,
                         testing::ValuesIn(gemm_dense_family::table().begin(),
                                           gemm_dense_family::table().end()),
                         [](const auto& entry) { return name_of(entry.param->isa); });

TEST_P(GemmDense, EntryFitsTheLimitsOfTheContract) {
  EXPECT_GE(GetParam()->tile_rows, 1u);
  EXPECT_LE(GetParam()->tile_rows, gemm_dense_family::kMaxTileRows);
  EXPECT_LE(GetParam()->panel_cols, gemm_dense_family::kMaxPanelCols);
  EXPECT_EQ(GetParam()->panel_cols * sizeof(float) % 32, 0u);
  EXPECT_GE(GetParam()->depth_block, 64u);
}

TEST_P(GemmDense, PacksEveryShapeWithoutTouchingItsSurroundings) {
  QUELL_NEEDS(GetParam()->isa);
  Numbers numbers(1);
  for (const std::size_t width :
       {std::size_t{1}, std::size_t{GetParam()->tile_rows}, std::size_t{GetParam()->panel_cols}}) {
    for (std::size_t rows = 1; rows <= width; ++rows) {
      for (const std::size_t depth : {1, 2, 7, 8, 9, 15, 16, 17, 33}) {
        for (const bool transposed : {false, true}) {
          for (const Edge edge : {Edge::front, Edge::back}) {
            const bool negate = (rows + depth) % 2 == 0;
            const std::size_t inner = transposed ? rows : depth;
            const std::size_t outer = transposed ? depth : rows;
            const std::size_t stride = inner + depth % 3;
            Guarded<float> source((outer - 1) * stride + inner, edge);
            numbers.fill(source.span());
            Guarded<float> packed(depth * width, edge);
            GetParam()->pack({source.data(), stride, transposed}, rows, width, depth, negate,
                             packed.data());
            for (std::size_t k = 0; k < depth; ++k) {
              for (std::size_t r = 0; r < width; ++r) {
                float expected = 0.0f;
                if (r < rows) expected = source[transposed ? k * stride + r : r * stride + k];
                if (negate) expected = -expected;
                ASSERT_TRUE(same_bits(packed[k * width + r], expected))
                    << "rows " << rows << " width " << width << " depth " << depth << " at k " << k
                    << " r " << r << (transposed ? " transposed" : "");
              }
            }
          }
        }
      }
    }
  }
}

/// The product as the contract states it: one accumulator, k ascending, fused.
void multiply_by_the_letter(const DenseProduct& p, MatrixView<const float> before,
                            MatrixView<float> c) {
  const auto at = [](const DenseOperand& operand, std::size_t row, std::size_t k) {
    return operand.transposed ? operand.matrix(k, row) : operand.matrix(row, k);
  };
  for (std::size_t r = 0; r < c.rows(); ++r) {
    for (std::size_t col = 0; col < c.cols(); ++col) {
      if (p.triangle == Triangle::lower && col > r) {
        c(r, col) = before(r, col);
        continue;
      }
      float sum = p.accumulate == Accumulate::set ? 0.0f : before(r, col);
      for (std::size_t k = 0; k < p.a.depth(); ++k) {
        const float a = at(p.a, r, k);
        sum = std::fma(p.accumulate == Accumulate::subtract ? -a : a, at(p.b, col, k), sum);
      }
      c(r, col) = sum;
    }
  }
}

struct Shape {
  std::size_t m, n, k;
};

std::vector<Shape> edge_shapes() {
  std::vector<Shape> shapes;
  for (const std::size_t edge : kEdges) {
    shapes.push_back({edge, 33, 17});
    shapes.push_back({17, edge, 33});
    shapes.push_back({31, 17, edge});
    shapes.push_back({edge, edge, 19});
    shapes.push_back({1, edge, 65});
  }
  shapes.push_back({65, 65, 700});   // several blocks of K, partial results in scratch
  shapes.push_back({600, 40, 300});  // several blocks of rows, B packed once for all
  shapes.push_back({530, 530, 5});
  return shapes;
}

/// Runs one product between guard pages and compares; every fourth element of the row pitch is a
/// gap that must keep its value.
void check_product(const Shape& s, unsigned variant, Context& context, Numbers& numbers) {
  const bool a_transposed = (variant & 1) != 0, b_transposed = (variant & 2) != 0;
  const auto accumulate = static_cast<Accumulate>(variant / 4 % 3);
  const bool lower = variant / 12 % 2 == 1 && s.m == s.n;
  const std::size_t gap = variant / 24 % 3;
  const Edge edge = variant % 5 < 3 ? Edge::back : Edge::front;
  const auto floats = [](std::size_t rows, std::size_t cols, std::size_t stride) {
    return rows == 0 || cols == 0 ? 0 : (rows - 1) * stride + cols;
  };
  const auto operand = [&](Guarded<float>& memory, std::size_t rows, std::size_t cols,
                           bool transposed) {
    return DenseOperand{{memory.data(), rows, cols, cols + gap}, transposed};
  };
  const std::size_t a_rows = a_transposed ? s.k : s.m, a_cols = a_transposed ? s.m : s.k;
  const std::size_t b_rows = b_transposed ? s.k : s.n, b_cols = b_transposed ? s.n : s.k;
  Guarded<float> a(floats(a_rows, a_cols, a_cols + gap), edge);
  Guarded<float> b(floats(b_rows, b_cols, b_cols + gap), edge);
  Guarded<float> c(floats(s.m, s.n, s.n + gap), edge);
  numbers.fill(a.span());
  numbers.fill(b.span());
  numbers.fill(c.span());
  const std::vector<float> before(c.begin(), c.end());
  std::vector<float> expected = before;
  const DenseProduct product{operand(a, a_rows, a_cols, a_transposed),
                             operand(b, b_rows, b_cols, b_transposed),
                             {c.data(), s.m, s.n, s.n + gap},
                             accumulate,
                             lower ? Triangle::lower : Triangle::full};
  const Status done = gemm_dense(product, context);
  ASSERT_TRUE(done) << done.error().message;
  multiply_by_the_letter(product, {before.data(), s.m, s.n, s.n + gap},
                         {expected.data(), s.m, s.n, s.n + gap});
  ASSERT_TRUE(same_bits(c.span(), expected))
      << "M " << s.m << " N " << s.n << " K " << s.k << " variant " << variant;
}

TEST_P(GemmDense, EqualsTheContractBitForBitOnEveryEdge) {
  QUELL_NEEDS(GetParam()->isa);
  const Cap cap(GetParam()->isa);
  SerialExecutor serial;
  const auto three = make_openmp_executor(3);
  Context one_thread(serial), three_threads(*three);
  Numbers numbers(2);
  unsigned variant = 0;
  for (const Shape& shape : edge_shapes()) {
    const bool small = shape.m * shape.n * shape.k < 40000;
    for (unsigned i = 0; i < (small ? 12u : 3u); ++i) {
      // 7 and 72 have no common divisor, so all 72 variants come round.
      variant = (variant + 7) % 72;
      check_product(shape, variant, i % 2 == 0 ? one_thread : three_threads, numbers);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(GemmDense, SumsInDoubleAddTheFinishedFloats) {
  QUELL_NEEDS(GetParam()->isa);
  const Cap cap(GetParam()->isa);
  SerialExecutor serial;
  const auto three = make_openmp_executor(3);
  Context one_thread(serial), three_threads(*three);
  Numbers numbers(5);
  unsigned variant = 0;
  for (const Shape& s : edge_shapes()) {
    ++variant;
    const bool transposed = variant % 2 == 0;
    const Triangle triangle = s.m == s.n && variant % 3 != 0 ? Triangle::lower : Triangle::full;
    Guarded<float> a(s.m * s.k), b(s.n * s.k);
    Guarded<double> sum(s.m * s.n);
    numbers.fill(a.span());
    numbers.fill(b.span());
    for (double& value : sum) value = 0.1;
    const auto operand = [&](Guarded<float>& memory, std::size_t rows) {
      return transposed ? DenseOperand{{memory.data(), s.k, rows}, true}
                        : DenseOperand{{memory.data(), rows, s.k}, false};
    };
    std::vector<float> product(s.m * s.n);
    const DenseProduct whole{operand(a, s.m), operand(b, s.n), {product.data(), s.m, s.n}};
    multiply_by_the_letter(whole, whole.c, whole.c);
    Context& context = variant % 2 == 0 ? one_thread : three_threads;
    const Status done = add_product(whole.a, whole.b, triangle, {sum.data(), s.m, s.n}, context);
    ASSERT_TRUE(done) << done.error().message;
    for (std::size_t i = 0; i < sum.size(); ++i) {
      const bool written = triangle == Triangle::full || i % s.n <= i / s.n;
      const double expected = written ? 0.1 + static_cast<double>(product[i]) : 0.1;
      ASSERT_TRUE(same_bits(sum[i], expected))
          << "M " << s.m << " N " << s.n << " K " << s.k << " at " << i;
    }
  }
}

TEST_P(GemmDense, PackedWeightsGiveTheSameBits) {
  QUELL_NEEDS(GetParam()->isa);
  const Cap cap(GetParam()->isa);
  const auto threads = make_openmp_executor(2);
  Context context(*threads);
  Numbers numbers(3);
  for (const std::size_t t : {0, 1, 2, 3, 13, 14, 15, 33, 130}) {
    for (const Shape& s : {Shape{t, 1, 1}, Shape{t, 33, 257}, Shape{t, 129, 64}, Shape{t, 70, 600},
                           Shape{t, 32, 0}, Shape{t, 0, 16}}) {
      Guarded<float> x(s.m * s.k), w(s.n * s.k), y(s.m * s.n), dense(s.m * s.n);
      numbers.fill(x.span());
      numbers.fill(w.span());
      const auto packed = pack({w.data(), s.n, s.k}, *threads);
      ASSERT_TRUE(packed) << packed.error().message;
      EXPECT_EQ(packed->rows(), s.n);
      EXPECT_EQ(packed->cols(), s.k);
      EXPECT_GE(packed->bytes(), s.n * s.k * sizeof(float));
      ASSERT_TRUE(gemm({x.data(), s.m, s.k}, *packed, {y.data(), s.m, s.n}, context));
      ASSERT_TRUE(gemm_dense(
          {{{x.data(), s.m, s.k}}, {{w.data(), s.n, s.k}}, {dense.data(), s.m, s.n}}, context));
      ASSERT_TRUE(same_bits(y.span(), dense.span())) << t << " x " << s.n << " x " << s.k;
    }
  }
}

TEST_P(GemmDense, InfinitiesAndNaNPropagateToTheirRowsAndColumnsOnly) {
  QUELL_NEEDS(GetParam()->isa);
  const Cap cap(GetParam()->isa);
  SerialExecutor serial;
  Context context(serial);
  const std::size_t m = 17, n = 35, k = 19;
  std::vector<float> a(m * k, 1.0f), b(n * k, 2.0f), c(m * n);
  a[3 * k + 5] = std::numeric_limits<float>::quiet_NaN();
  b[20 * k + 1] = std::numeric_limits<float>::infinity();
  ASSERT_TRUE(gemm_dense({{{a.data(), m, k}}, {{b.data(), n, k}}, {c.data(), m, n}}, context));
  for (std::size_t r = 0; r < m; ++r) {
    for (std::size_t col = 0; col < n; ++col) {
      const float value = c[r * n + col];
      if (r == 3) {
        EXPECT_TRUE(std::isnan(value)) << r << "," << col;
      } else if (col == 20) {
        EXPECT_EQ(value, std::numeric_limits<float>::infinity()) << r << "," << col;
      } else {
        EXPECT_EQ(value, 38.0f) << r << "," << col;
      }
    }
  }
}

TEST(GemmDenseBits, AreEqualForAnyNumberOfThreads) {
  const std::size_t m = 523, n = 523, k = 530;
  std::vector<float> a(m * k), b(n * k);
  Numbers numbers(4);
  numbers.fill(a);
  numbers.fill(b);
  for (const Triangle triangle : {Triangle::full, Triangle::lower}) {
    std::vector<float> first;
    for (const unsigned threads : {1u, 2u, 3u, 7u}) {
      const auto executor = make_openmp_executor(threads);
      Context context(*executor);
      std::vector<float> c(m * n, 1.0f);
      ASSERT_TRUE(gemm_dense({{{a.data(), m, k}},
                              {{b.data(), n, k}},
                              {c.data(), m, n},
                              Accumulate::subtract,
                              triangle},
                             context));
      if (first.empty()) first = c;
      EXPECT_TRUE(same_bits(c, first)) << threads << " threads";
    }
  }
}

// ------------------------------------------------------------------ elementwise

class Elementwise : public testing::TestWithParam<const elementwise::Entry*> {};
INSTANTIATE_TEST_SUITE_P(elementwise, Elementwise,
                         testing::ValuesIn(elementwise::table().begin(),
                                           elementwise::table().end()),
                         [](const auto& entry) { return name_of(entry.param->isa); });

/// Rows of every kind that has ever broken a kernel.
void fill_row(std::span<float> row, int kind, Numbers& numbers) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float scales[] = {1.0f, 40.0f, 1e-20f, 1e18f, 1e-40f};
  numbers.fill(row, scales[kind % 5]);
  if (row.empty()) return;
  if (kind == 5) row[row.size() / 2] = std::numeric_limits<float>::quiet_NaN();
  if (kind == 6) row.front() = -kInfinity;
  if (kind == 7) row.back() = kInfinity;
  if (kind == 8) {
    for (float& value : row) value = -0.0f;
  }
}
constexpr int kKinds = 9;

template <typename Operation>
void compare_rows(const elementwise::Entry& entry, const char* what, Operation operation) {
  for (const std::size_t n : kEdges) {
    for (int kind = 0; kind < kKinds; ++kind) {
      for (const Edge edge : {Edge::front, Edge::back}) {
        Numbers numbers(n * 16 + static_cast<unsigned>(kind));
        Guarded<float> row(n, edge), w(n, edge), b(n, edge);
        fill_row(row.span(), kind, numbers);
        numbers.fill(w.span());
        numbers.fill(b.span());
        std::vector<float> expected(row.begin(), row.end());
        operation(scalar::elementwise_entry, expected.data(), w.data(), b.data(), n);
        operation(entry, row.data(), w.data(), b.data(), n);
        ASSERT_TRUE(same_bits(row.span(), expected)) << what << " n " << n << " kind " << kind;
      }
    }
  }
}

TEST_P(Elementwise, RowOperationsGiveTheBitsOfTheSpecification) {
  QUELL_NEEDS(GetParam()->isa);
  using elementwise::Entry;
  const Entry& entry = *GetParam();
  const auto compare = [&](const char* what, auto operation) {
    compare_rows(entry, what, operation);
  };
  using P = const float*;
  compare("exp", [](const Entry& e, float* x, P, P, std::size_t n) { e.exp(x, x, n); });
  for (std::size_t kind = 0; kind < 5; ++kind) {
    compare("activation", [kind](const Entry& e, float* x, P, P, std::size_t n) {
      e.activate[kind](x, nullptr, n);
    });
    compare("gated activation",
            [kind](const Entry& e, float* x, P w, P, std::size_t n) { e.activate[kind](x, w, n); });
  }
  compare("rms_norm",
          [](const Entry& e, float* x, P w, P, std::size_t n) { e.rms_norm(x, w, 1e-5f, x, n); });
  compare("rms_norm without weight", [](const Entry& e, float* x, P, P, std::size_t n) {
    e.rms_norm(x, nullptr, 1e-5f, x, n);
  });
  compare("layer_norm", [](const Entry& e, float* x, P w, P b, std::size_t n) {
    e.layer_norm(x, w, b, 1e-5f, x, n);
  });
  compare("layer_norm without bias", [](const Entry& e, float* x, P w, P, std::size_t n) {
    e.layer_norm(x, w, nullptr, 1e-5f, x, n);
  });
  compare("softmax",
          [](const Entry& e, float* x, P, P, std::size_t n) { e.softmax(x, n, 0.125f, 0.0f); });
  compare("capped softmax",
          [](const Entry& e, float* x, P, P, std::size_t n) { e.softmax(x, n, 0.125f, 3.0f); });
  compare("rotate",
          [](const Entry& e, float* x, P w, P b, std::size_t n) { e.rotate(x, w, b, n / 2); });
  compare("add", [](const Entry& e, float* x, P w, P, std::size_t n) { e.add(x, w, n); });
}

TEST_P(Elementwise, LogSumExpPartsGiveTheBitsOfTheSpecification) {
  QUELL_NEEDS(GetParam()->isa);
  for (const std::size_t n : kEdges) {
    for (int kind = 0; kind < kKinds; ++kind) {
      Numbers numbers(n * 16 + static_cast<unsigned>(kind));
      Guarded<float> row(n);
      fill_row(row.span(), kind, numbers);
      float max = 0, expected_max = 0;
      double sum = 0, expected_sum = 0;
      GetParam()->sum_exp(row.data(), n, &max, &sum);
      scalar::elementwise_entry.sum_exp(row.data(), n, &expected_max, &expected_sum);
      EXPECT_TRUE(same_bits(max, expected_max)) << "n " << n << " kind " << kind;
      EXPECT_TRUE(same_bits(sum, expected_sum)) << "n " << n << " kind " << kind;
    }
  }
}

TEST_P(Elementwise, ExpAndActivationsAgreeOverAllExponents) {
  QUELL_NEEDS(GetParam()->isa);
  // 4,099 is prime: about a million floats of both signs, all exponents, infinities and NaN.
  std::vector<float> x;
  for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += 4099) {
    const auto word = static_cast<std::uint32_t>(bits);
    float value;
    std::memcpy(&value, &word, sizeof value);
    x.push_back(value);
  }
  std::vector<float> found(x.size()), expected(x.size());
  GetParam()->exp(x.data(), found.data(), x.size());
  scalar::elementwise_entry.exp(x.data(), expected.data(), x.size());
  ASSERT_TRUE(same_bits(found, expected));
  for (std::size_t kind = 0; kind < 5; ++kind) {
    found = expected = x;
    GetParam()->activate[kind](found.data(), nullptr, found.size());
    scalar::elementwise_entry.activate[kind](expected.data(), nullptr, expected.size());
    ASSERT_TRUE(same_bits(found, expected)) << "activation " << kind;
  }
}

// ------------------------------------------------------------------ strip

class Strip : public testing::TestWithParam<const strip::Entry*> {};
INSTANTIATE_TEST_SUITE_P(strip, Strip,
                         testing::ValuesIn(strip::table().begin(), strip::table().end()),
                         [](const auto& entry) { return name_of(entry.param->isa); });

TEST_P(Strip, ProductsGiveTheBitsOfTheSpecificationWhereverDepthIsCut) {
  QUELL_NEEDS(GetParam()->isa);
  Numbers numbers(6);
  for (const std::size_t rows : {0, 1, 2, 5, 6, 7, 8, 11, 12, 13, 16, 23, 24, 25, 40}) {
    for (const std::size_t depth : {0, 1, 2, 3, 8, 31}) {
      for (const Edge edge : {Edge::front, Edge::back}) {
        const std::size_t stride = depth + rows % 3;
        Guarded<float> c(rows == 0 ? 0 : (rows - 1) * stride + depth, edge);
        Guarded<float> x(depth * strip::kLanes, edge), out(rows * strip::kLanes, edge);
        numbers.fill(c.span());
        numbers.fill(x.span());
        numbers.fill(out.span());
        if (depth > 2) x[5] = std::numeric_limits<float>::infinity();
        std::vector<float> expected(out.begin(), out.end());
        scalar::strip_entry.subtract(c.data(), stride, rows, depth, x.data(), expected.data());
        const std::size_t cut = depth / 3;
        GetParam()->subtract(c.data(), stride, rows, cut, x.data(), out.data());
        if (rows != 0) {
          GetParam()->subtract(c.data() + cut, stride, rows, depth - cut,
                               x.data() + cut * strip::kLanes, out.data());
        }
        ASSERT_TRUE(same_bits(out.span(), expected)) << "rows " << rows << " depth " << depth;
      }
    }
  }
}

TEST(StripScalar, ProductIsTheOneOfTheContract) {
  const float c[] = {1, 2, 3, -1};
  std::vector<float> x(2 * strip::kLanes), out(2 * strip::kLanes, 10.0f);
  for (std::size_t lane = 0; lane < strip::kLanes; ++lane) {
    x[lane] = static_cast<float>(lane);
    x[strip::kLanes + lane] = 0.5f;
  }
  scalar::strip_entry.subtract(c, 2, 2, 2, x.data(), out.data());
  EXPECT_EQ(out[3], 10 - 3 - 1.0f);
  EXPECT_EQ(out[strip::kLanes + 3], 10 - 9 + 0.5f);
}

// ------------------------------------------------------------------ tensor_stats

class TensorStats : public testing::TestWithParam<const tensor_stats::Entry*> {};
INSTANTIATE_TEST_SUITE_P(tensor_stats, TensorStats,
                         testing::ValuesIn(tensor_stats::table().begin(),
                                           tensor_stats::table().end()),
                         [](const auto& entry) { return name_of(entry.param->isa); });

TEST_P(TensorStats, ChunksGiveTheBitsOfTheSpecification) {
  QUELL_NEEDS(GetParam()->isa);
  const auto& reference = scalar::tensor_stats_entry;
  std::vector<std::size_t> sizes(std::begin(kEdges), std::end(kEdges));
  sizes.push_back(tensor_stats::kChunk);
  for (const std::size_t n : sizes) {
    for (int kind = 0; kind < kKinds; ++kind) {
      Numbers numbers(n * 16 + static_cast<unsigned>(kind));
      Guarded<float> x(n);
      fill_row(x.span(), kind, numbers);
      tensor_stats::ChunkSums found, expected;
      GetParam()->chunk(x.data(), n, &found);
      reference.chunk(x.data(), n, &expected);
      EXPECT_EQ(found.count, expected.count);
      EXPECT_TRUE(same_bits(found.sum, expected.sum)) << "n " << n << " kind " << kind;
      EXPECT_TRUE(same_bits(found.sum2, expected.sum2)) << "n " << n << " kind " << kind;
      EXPECT_TRUE(same_bits(found.sum3, expected.sum3)) << "n " << n << " kind " << kind;
      EXPECT_TRUE(same_bits(found.sum4, expected.sum4)) << "n " << n << " kind " << kind;
      EXPECT_TRUE(same_bits(found.sum_abs, expected.sum_abs)) << "n " << n << " kind " << kind;
      EXPECT_EQ(found.max_abs, expected.max_abs);
      EXPECT_EQ(GetParam()->find(x.data(), n, found.max_abs),
                reference.find(x.data(), n, found.max_abs));
      EXPECT_EQ(GetParam()->find(x.data(), n, 12345.0f), n);
    }
  }
}

TEST_P(TensorStats, ColumnsGiveTheBitsOfTheSpecification) {
  QUELL_NEEDS(GetParam()->isa);
  for (const std::size_t cols : {1, 7, 8, 9, 15, 16, 17, 33, 127, 128}) {
    for (const std::size_t rows : {1, 2, 16}) {
      for (int kind = 0; kind < kKinds; ++kind) {
        const std::size_t stride = cols + static_cast<std::size_t>(kind % 2);
        Numbers numbers(cols * 16 + static_cast<unsigned>(kind));
        Guarded<float> x((rows - 1) * stride + cols);
        fill_row(x.span(), kind, numbers);
        auto found = std::make_unique<tensor_stats::ColumnSums>();
        auto expected = std::make_unique<tensor_stats::ColumnSums>();
        for (const std::uint32_t first : {0u, 16u}) {
          GetParam()->columns(x.data(), stride, rows, cols, first, found.get());
          scalar::tensor_stats_entry.columns(x.data(), stride, rows, cols, first, expected.get());
        }
        for (std::size_t c = 0; c < cols; ++c) {
          EXPECT_TRUE(same_bits(found->sum[c], expected->sum[c]));
          EXPECT_TRUE(same_bits(found->sum2[c], expected->sum2[c]));
          EXPECT_TRUE(same_bits(found->sum3[c], expected->sum3[c]));
          EXPECT_TRUE(same_bits(found->sum4[c], expected->sum4[c]));
          EXPECT_TRUE(same_bits(found->sum_abs[c], expected->sum_abs[c]));
          EXPECT_EQ(found->count[c], expected->count[c]);
          EXPECT_EQ(found->max_abs[c], expected->max_abs[c]);
          EXPECT_EQ(found->argmax[c], expected->argmax[c]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace quell::kernels
