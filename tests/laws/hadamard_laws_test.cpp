// SPDX-License-Identifier: Apache-2.0

// Laws of the family hadamard: every entry gives the bits of the scalar one, between guard pages,
// on rows and scratch; so does the public function, for any number of threads, rows and strides.

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/hadamard/contract.hpp"
#include "kernels/hadamard_orders.hpp"
#include "quell/kernels/hadamard.hpp"
#include "support/guarded.hpp"
#include "support/same_bits.hpp"

namespace quell::kernels {
namespace {

using hadamard_family::Problem;
using test::Edge;
using test::Guarded;
using test::Numbers;
using test::same_bits;

class HadamardEntry : public testing::TestWithParam<const hadamard_family::Entry*> {};
INSTANTIATE_TEST_SUITE_P(hadamard, HadamardEntry,
                         testing::ValuesIn(hadamard_family::table().begin(),
                                           hadamard_family::table().end()),
                         [](const auto& entry) {
                           return std::string(to_string(entry.param->isa));
                         });

// Every length of a slice up to 2^13 (all numbers of passes), every remainder of an order by the
// rows and quads that entries take at once, and slices shorter and longer than a strip.
std::vector<std::size_t> sizes() {
  std::vector<std::size_t> all;
  for (std::size_t size = 1; size <= 8192; size *= 2) all.push_back(size);
  for (const std::size_t order : {12, 20, 28, 44, 156, 172}) {
    for (std::size_t length = 1; length <= 128; length *= 2) all.push_back(order * length);
  }
  for (const std::size_t size : {36, 52, 60, 76, 108, 140, 148, 924, 12 * 1024, 28 * 512}) {
    all.push_back(size);
  }
  return all;
}

void fill_row(std::span<float> row, int kind, Numbers& numbers) {
  const float scales[] = {1.0f, 1e-20f, 1e36f, 1e-40f};
  numbers.fill(row, scales[kind % 4]);
  if (kind == 4) row[row.size() / 2] = std::numeric_limits<float>::quiet_NaN();
  if (kind == 5) row.back() = -std::numeric_limits<float>::infinity();
  if (kind == 6) {  // sums that are zeros of either sign
    for (std::size_t i = 0; i < row.size(); ++i)
      row[i] = i % 3 == 0 ? -0.0f : i % 2 == 0 ? 1.0f : -1.0f;
  }
  if (kind == 7) {
    for (float& value : row) value = -0.0f;
  }
}

TEST_P(HadamardEntry, GivesTheBitsOfTheSpecification) {
  if (!has(GetParam()->isa)) GTEST_SKIP() << "this machine has no " << to_string(GetParam()->isa);
  for (const std::size_t size : sizes()) {
    const std::size_t order = hadamard_order(size);
    const std::vector<std::uint8_t> codes = hadamard_codes(order);
    const Problem problem{order, static_cast<unsigned>(std::countr_zero(size / order)),
                          codes.data(),
                          static_cast<float>(1 / std::sqrt(static_cast<double>(size)))};
    Guarded<float> scratch(hadamard_family::scratch_floats(order));
    for (int kind = 0; kind < 8; ++kind) {
      const Edge edge = kind % 2 == 0 ? Edge::back : Edge::front;
      const std::size_t blocks = size > 1000 ? 1 : 1 + static_cast<std::size_t>(kind) % 3;
      Numbers numbers(size * 8 + static_cast<unsigned>(kind));
      Guarded<float> x(blocks * size, edge);
      for (std::size_t b = 0; b < blocks; ++b) {
        fill_row(x.span().subspan(b * size, size), kind, numbers);
      }
      std::vector<float> expected(x.begin(), x.end());
      // Whatever scratch holds must not show.
      for (float& value : scratch) value = std::numeric_limits<float>::quiet_NaN();
      scalar::hadamard_entry.transform(problem, expected.data(), blocks, scratch.data());
      for (float& value : scratch) value = std::numeric_limits<float>::quiet_NaN();
      GetParam()->transform(problem, x.data(), blocks, scratch.data());
      ASSERT_TRUE(same_bits(x.span(), expected)) << "size " << size << " kind " << kind;
    }
  }
}

TEST_P(HadamardEntry, PublicFunctionGivesThemForAnyRowsStridesAndThreads) {
  if (!has(GetParam()->isa)) GTEST_SKIP() << "this machine has no " << to_string(GetParam()->isa);
  set_isa_cap(GetParam()->isa);
  for (const std::size_t size : {1, 16, 128, 1024, 12, 56, 896, 172}) {
    const auto hadamard = Hadamard::of_size(size);
    ASSERT_TRUE(hadamard);
    const std::vector<std::uint8_t> codes = hadamard_codes(hadamard->order());
    const Problem problem{
        hadamard->order(), static_cast<unsigned>(std::countr_zero(size / hadamard->order())),
        codes.data(), static_cast<float>(1 / std::sqrt(static_cast<double>(size)))};
    std::vector<float> scratch(hadamard_family::scratch_floats(hadamard->order()));
    for (const std::size_t rows : {0, 1, 3, 67}) {
      for (const std::size_t blocks : {1, 3}) {
        for (const std::size_t gap : {0, 1, 7}) {  // odd strides: rows at any multiple of 4 bytes
          const std::size_t stride = blocks * size + gap;
          Guarded<float> x(rows == 0 ? 0 : (rows - 1) * stride + blocks * size,
                           gap == 1 ? Edge::front : Edge::back);
          Numbers numbers(size + rows + gap);
          numbers.fill(x.span());
          const std::vector<float> before(x.begin(), x.end());
          std::vector<float> expected = before;  // gaps stay
          for (std::size_t t = 0; t < rows; ++t) {
            scalar::hadamard_entry.transform(problem, expected.data() + t * stride, blocks,
                                             scratch.data());
          }
          for (const unsigned threads : {1u, 2u, 5u}) {
            std::copy(before.begin(), before.end(), x.begin());
            const auto executor = make_openmp_executor(threads);
            Context context(*executor);
            const Status done = hadamard->apply({x.data(), rows, blocks * size, stride}, context);
            ASSERT_TRUE(done) << done.error().message;
            ASSERT_TRUE(same_bits(x.span(), expected))
                << "size " << size << " rows " << rows << " blocks " << blocks << " gap " << gap
                << ", " << threads << " threads";
          }
        }
      }
    }
  }
  clear_isa_cap();
}

}  // namespace
}  // namespace quell::kernels
