// SPDX-License-Identifier: Apache-2.0

// Hadamard transforms of rows, in place, by every entry that the machine has. Cold: over rows that
// together exceed any cache; warm: over the same T rows again. GB/s counts each value once, though
// it is read and written; share is of the bandwidth of reading alone from memory, measured between
// the repetitions, so that a cold transform that costs nothing but memory shows about a half. Each
// case is compared bit for bit with the scalar entry before it is timed. QUELL_BENCH_THREADS: 2.
//
// Also products with sparse rows: five of a thousand weights kept at random in 4096 x 14336. Here
// GB/s counts the elements, 8 bytes each, once a call, and GFLOP/s two operations an element and
// row of x.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cpu/hadamard/contract.hpp"
#include "quell/core/random.hpp"
#include "quell/kernels/explain.hpp"
#include "quell/kernels/hadamard.hpp"
#include "quell/kernels/limits.hpp"
#include "quell/kernels/sparse_rows.hpp"

namespace quell::bench {
namespace {

using kernels::Hadamard;
using kernels::Isa;

constexpr std::size_t kFloats = std::size_t{64} << 20;  // 256 MB, more than shared caches hold

std::vector<float>& values() {
  static std::vector<float> all = [] {
    std::vector<float> made(kFloats);
    const Random draw(1, 2);
    for (std::size_t i = 0; i < kFloats; i += 2) {
      const std::uint64_t bits = draw.bits(i);
      made[i] = static_cast<float>(static_cast<std::int32_t>(bits)) * 0x1p-31F;
      made[i + 1] = static_cast<float>(static_cast<std::int32_t>(bits >> 32)) * 0x1p-31F;
    }
    return made;
  }();
  return all;
}

struct Case {
  std::size_t size, cols, rows;
  bool cold;
};

bool equals_scalar(const Hadamard& hadamard, const Case& c, Isa isa, kernels::Context& context) {
  std::vector<float> found(values().begin(),
                           values().begin() + static_cast<std::ptrdiff_t>(c.rows * c.cols));
  std::vector<float> expected = found;
  kernels::set_isa_cap(Isa::scalar);
  const Status first = hadamard.apply({expected.data(), c.rows, c.cols}, context);
  kernels::set_isa_cap(isa);
  const Status second = hadamard.apply({found.data(), c.rows, c.cols}, context);
  return first && second &&
         std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)) == 0;
}

double median(std::vector<double>& sorted) {
  std::sort(sorted.begin(), sorted.end());
  return sorted[sorted.size() / 2];
}

void time(benchmark::State& state, const Case& c, Isa isa, kernels::Context& context) {
  auto hadamard = Hadamard::of_size(c.size);
  if (!hadamard) panic(hadamard.error().message.c_str());
  if (!equals_scalar(*hadamard, c, isa, context)) return state.SkipWithError("wrong result");
  const std::size_t floats = c.rows * c.cols, calls = kFloats / floats;
  std::vector<double> limits, rates;
  for (auto _ : state) {
    state.PauseTiming();
    limits.push_back(kernels::read_limit(context.executor(),
                                         reinterpret_cast<const std::byte*>(values().data()),
                                         kFloats * sizeof(float)));
    state.ResumeTiming();
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < calls; ++i) {
      float* x = values().data() + (c.cold ? i * floats : 0);
      if (!hadamard->apply({x, c.rows, c.cols}, context)) panic("no scratch");
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    rates.push_back(static_cast<double>(calls * floats * sizeof(float)) / taken.count() * 1e-9);
  }
  kernels::clear_isa_cap();
  const double rate = median(rates), limit = median(limits);
  state.counters["GB/s"] = rate;
  state.counters["read_GB/s"] = limit;
  state.counters["share"] = rate / limit;
  state.counters["us_per_call"] = static_cast<double>(floats * sizeof(float)) / rate * 1e-3;
}

struct Sparse {
  static constexpr std::size_t kRows = 4096, kCols = 14336;
  std::vector<std::uint32_t> start{0}, columns;
  std::vector<float> elements;

  Sparse() {
    const Random draw(3, 4);
    for (std::size_t r = 0; r < kRows; ++r) {
      for (std::size_t c = 0; c < kCols; ++c) {
        const std::uint64_t bits = draw.bits(r * kCols + c);
        if (bits % 1000 >= 5) continue;
        columns.push_back(static_cast<std::uint32_t>(c));
        elements.push_back(static_cast<float>(static_cast<std::int32_t>(bits >> 32)) * 0x1p-31F);
      }
      start.push_back(static_cast<std::uint32_t>(elements.size()));
    }
  }
};

void time_sparse(benchmark::State& state, std::size_t rows, Isa isa, kernels::Context& context) {
  static const Sparse sparse;
  const auto weight =
      kernels::SparseRows::of(Sparse::kCols, sparse.start, sparse.columns, sparse.elements);
  if (!weight) panic(weight.error().message.c_str());
  const MatrixView<const float> x(values().data(), rows, Sparse::kCols);
  std::vector<float> found(rows * Sparse::kRows), expected(rows * Sparse::kRows);
  const auto add = [&](std::vector<float>& y) {
    if (!kernels::add_sparse_product(x, *weight, {y.data(), rows, Sparse::kRows}, context)) {
      panic("no scratch");
    }
  };
  kernels::set_isa_cap(Isa::scalar);
  add(expected);
  kernels::set_isa_cap(isa);
  add(found);
  if (std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)) != 0) {
    return state.SkipWithError("wrong result");
  }
  std::vector<double> seconds, limits;
  for (auto _ : state) {
    state.PauseTiming();
    limits.push_back(kernels::read_limit(context.executor(),
                                         reinterpret_cast<const std::byte*>(values().data()),
                                         kFloats * sizeof(float)));
    state.ResumeTiming();
    const auto start = std::chrono::steady_clock::now();
    add(found);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    seconds.push_back(taken.count());
  }
  kernels::clear_isa_cap();
  const double time = median(seconds), limit = median(limits);
  const auto count = static_cast<double>(sparse.elements.size());
  state.counters["GB/s"] = 8 * count / time * 1e-9;
  state.counters["read_GB/s"] = limit;
  state.counters["share"] = 8 * count / time * 1e-9 / limit;
  state.counters["GFLOP/s"] = 2 * count * static_cast<double>(rows) / time * 1e-9;
  state.counters["us_per_call"] = time * 1e6;
}

}  // namespace
}  // namespace quell::bench

int main(int argc, char** argv) {
  using namespace quell;
  benchmark::Initialize(&argc, argv);
  const char* asked = std::getenv("QUELL_BENCH_THREADS");
  const auto executor =
      make_openmp_executor(asked != nullptr ? static_cast<unsigned>(std::atoi(asked)) : 2);
  kernels::Context context(*executor);
  // Inputs of down_proj: Llama-2 7B's 11008 = 172 * 64, Llama-3 8B's 14336 = 28 * 512.
  const std::size_t shapes[][2] = {
      {4096, 4096}, {14336, 14336}, {11008, 11008}, {128, 4096}, {128, 14336}};
  for (const auto& [size, cols] : shapes) {
    for (const std::size_t rows : {1, 512}) {
      for (const bool cold : {false, true}) {
        for (const kernels::hadamard_family::Entry* entry : kernels::hadamard_family::table()) {
          if (!kernels::has(entry->isa)) continue;
          const std::string name = "hadamard/" + std::string(kernels::to_string(entry->isa)) + "/" +
                                   std::to_string(size) + "of" + std::to_string(cols) + "/T" +
                                   std::to_string(rows) + (cold ? "/cold" : "/warm");
          const bench::Case c{size, cols, rows, cold};
          benchmark::RegisterBenchmark(name.c_str(),
                                       [&context, c, entry](benchmark::State& state) {
                                         bench::time(state, c, entry->isa, context);
                                       })
              ->UseRealTime()
              ->Unit(benchmark::kMillisecond);
        }
      }
    }
  }
  for (const std::size_t rows : {1, 3, 4, 16, 512}) {
    for (const kernels::Isa isa : {kernels::Isa::avx2, kernels::Isa::scalar}) {
      if (!kernels::has(isa)) continue;
      const std::string name = "sparse_rows/" + std::string(kernels::to_string(isa)) +
                               "/4096x14336/T" + std::to_string(rows);
      benchmark::RegisterBenchmark(name.c_str(),
                                   [&context, rows, isa](benchmark::State& state) {
                                     bench::time_sparse(state, rows, isa, context);
                                   })
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
    }
  }
  std::string features;
  for (const std::string_view name : kernels::cpu_features()) features += " " + std::string(name);
  benchmark::AddCustomContext("cpu_features", features);
  benchmark::AddCustomContext("threads", std::to_string(executor->width()));
  benchmark::AddCustomContext("compiler", __VERSION__);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
