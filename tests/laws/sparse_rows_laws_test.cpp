// SPDX-License-Identifier: Apache-2.0

// Laws of the family sparse_rows: every entry gives the bits of the scalar one from memory between
// guard pages; the public function gives one accumulator, in order, fused, whatever path it takes.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/sparse_rows/contract.hpp"
#include "quell/kernels/sparse_rows.hpp"
#include "support/guarded.hpp"
#include "support/same_bits.hpp"

namespace quell::kernels {
namespace {

using test::Edge;
using test::Guarded;
using test::Numbers;
using test::same_bits;

class SparseRowsEntry : public testing::TestWithParam<const sparse_rows::Entry*> {};
INSTANTIATE_TEST_SUITE_P(sparse_rows, SparseRowsEntry,
                         testing::ValuesIn(sparse_rows::table().begin(),
                                           sparse_rows::table().end()),
                         [](const auto& entry) {
                           return std::string(to_string(entry.param->isa));
                         });

/// Rows of 0 to 12 elements, now and then one of 40, in any order and with repetitions.
struct Sparse {
  std::vector<std::uint32_t> start{0}, columns;
  std::vector<float> values;

  Sparse(std::size_t rows, std::size_t cols, Numbers& numbers) {
    const auto below = [&](std::size_t n) {
      return static_cast<std::size_t>(std::fabs(numbers.uniform()) * 1e6f) % n;
    };
    for (std::size_t r = 0; r < rows; ++r) {
      const std::size_t count = below(9) == 0 ? 40 : below(13);
      for (std::size_t k = 0; k < count; ++k) {
        columns.push_back(static_cast<std::uint32_t>(below(cols)));
        values.push_back(numbers.bell());
      }
      start.push_back(static_cast<std::uint32_t>(values.size()));
    }
  }
};

/// A copy that ends, or begins, at a guard page.
template <typename T>
void fill(Guarded<T>& to, const std::vector<T>& from) {
  std::copy(from.begin(), from.end(), to.begin());
}

TEST_P(SparseRowsEntry, GivesTheBitsOfTheSpecification) {
  if (!has(GetParam()->isa)) GTEST_SKIP() << "this machine has no " << to_string(GetParam()->isa);
  Numbers numbers(1);
  for (const std::size_t rows : {0, 1, 2, 3, 4, 5, 7, 8, 33}) {
    for (const std::size_t cols : {1, 2, 100}) {
      for (const Edge edge : {Edge::front, Edge::back}) {
        const Sparse sparse(rows, cols, numbers);
        Guarded<std::uint32_t> start(sparse.start.size(), edge);
        Guarded<std::uint32_t> columns(sparse.columns.size(), edge);
        Guarded<float> values(sparse.values.size(), edge);
        fill(start, sparse.start);
        fill(columns, sparse.columns);
        fill(values, sparse.values);
        const sparse_rows::Elements w{start.data(), columns.data(), values.data()};
        const std::size_t first = rows / 4;
        for (const std::size_t lanes : {std::size_t{1}, std::size_t{sparse_rows::kLanes}}) {
          const auto of = [&](const sparse_rows::Entry& entry) {
            return lanes == 1 ? entry.one : entry.strip;
          };
          Guarded<float> x(cols * lanes, edge), y((rows - first) * lanes, edge);
          numbers.fill(x.span());
          numbers.fill(y.span(), 1e-3f);
          if (cols > 2) x[7] = std::numeric_limits<float>::infinity();
          // The strip's y must lie at a line; that of scalar as well, though it does not care.
          Guarded<float> expected(y.size(), edge);
          std::copy(y.begin(), y.end(), expected.begin());
          of(scalar::sparse_rows_entry)(w, first, rows, x.data(), expected.data());
          of (*GetParam())(w, first, rows, x.data(), y.data());
          ASSERT_TRUE(same_bits(y.span(), expected.span()))
              << "rows " << rows << " cols " << cols << " lanes " << lanes;
        }
      }
    }
  }
}

TEST_P(SparseRowsEntry, PublicFunctionIsOneFusedAccumulatorForAnyRowsStridesAndThreads) {
  if (!has(GetParam()->isa)) GTEST_SKIP() << "this machine has no " << to_string(GetParam()->isa);
  set_isa_cap(GetParam()->isa);
  Numbers numbers(2);
  for (const std::size_t rows : {1, 3, 63, 65, 2500}) {  // 2,500: more than one grain of elements
    const std::size_t cols = 50;
    const Sparse sparse(rows, cols, numbers);
    const auto w = SparseRows::of(cols, sparse.start, sparse.columns, sparse.values);
    ASSERT_TRUE(w) << w.error().message;
    for (const std::size_t t_count : {0, 1, 3, 4, 15, 16, 17, 20, 35}) {
      const std::size_t gap = t_count % 3;
      const std::size_t x_stride = cols + gap, y_stride = rows + gap;
      const auto floats = [&](std::size_t width, std::size_t stride) {
        return t_count == 0 ? 0 : (t_count - 1) * stride + width;
      };
      Guarded<float> x(floats(cols, x_stride)), y(floats(rows, y_stride));
      numbers.fill(x.span());
      numbers.fill(y.span());
      const std::vector<float> before(y.begin(), y.end());
      std::vector<float> expected = before;
      for (std::size_t t = 0; t < t_count; ++t) {
        for (std::size_t r = 0; r < rows; ++r) {
          float& sum = expected[t * y_stride + r];
          for (std::size_t k = sparse.start[r]; k < sparse.start[r + 1]; ++k) {
            sum = std::fma(sparse.values[k], x[t * x_stride + sparse.columns[k]], sum);
          }
        }
      }
      for (const unsigned threads : {1u, 2u, 5u}) {
        std::copy(before.begin(), before.end(), y.begin());
        const auto executor = make_openmp_executor(threads);
        Context context(*executor);
        const Status done = add_sparse_product({x.data(), t_count, cols, x_stride}, *w,
                                               {y.data(), t_count, rows, y_stride}, context);
        ASSERT_TRUE(done) << done.error().message;
        ASSERT_TRUE(same_bits(y.span(), expected))
            << "rows " << rows << " T " << t_count << ", " << threads << " threads";
      }
    }
  }
  clear_isa_cap();
}

}  // namespace
}  // namespace quell::kernels
