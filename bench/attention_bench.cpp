// SPDX-License-Identifier: Apache-2.0

// Speed of attention over a cache: one token, 32 query heads on 8 key heads of 128 channels. Caches
// are cold (copies beyond the last cache of the processor, one after the other, as the layers of a
// model are) and the bound is the memory's, measured beside each iteration.
//
//   attention_bench                          two threads, best instruction set
//   QUELL_ISA=avx2 attention_bench           capped
//   QUELL_BENCH_THREADS=1 attention_bench
//
// Names: kind/tokens. Counters: GB/s of cache read, and read_%, their share of the bound; medians.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "quell/core/tensor.hpp"
#include "quell/kernels/attention.hpp"
#include "quell/kernels/explain.hpp"
#include "quell/kernels/limits.hpp"

namespace quell::bench {
namespace {

using Clock = std::chrono::steady_clock;
using kernels::CacheKind;
using kernels::KeyValueCache;

constexpr std::size_t kColdBytes = std::size_t{300} << 20;
constexpr std::size_t kHeads = 32, kKeyHeads = 8, kHeadDim = 128;

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

template <typename T>
T require(Result<T> result) {
  if (!result) panic(result.error().message.c_str());
  return *std::move(result);
}
void require(const Status& done) {
  if (!done) panic(done.error().message.c_str());
}

Matrix numbers(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Matrix x = require(Matrix::uninitialized(rows, cols));
  std::uint64_t state = seed;
  for (float& value : x.values()) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = static_cast<float>(static_cast<std::int64_t>(state) >> 40) * 0x1p-23f;
  }
  return x;
}

/// Attention in double over what the cache keeps. Weights sum to one and values are below 2, so the
/// rounding of 128 products in float moves a score by less than 1e-4, and the output by 4e-4.
bool agrees(const KeyValueCache& cache, MatrixView<const float> queries,
            MatrixView<const float> out, float scale, kernels::Context& context) {
  const std::size_t length = cache.capacity(), width = kKeyHeads * kHeadDim;
  Matrix keys = require(Matrix::uninitialized(length, width));
  Matrix values = require(Matrix::uninitialized(length, width));
  require(cache.read(0, keys.view(), values.view(), context));
  for (const std::size_t head : {0, 13, 31}) {
    const std::size_t from = head / (kHeads / kKeyHeads) * kHeadDim;
    std::vector<double> weights(length);
    double total = 0;
    for (std::size_t t = 0; t < length; ++t) {
      double product = 0;
      for (std::size_t d = 0; d < kHeadDim; ++d) {
        product += static_cast<double>(queries(0, head * kHeadDim + d)) *
                   static_cast<double>(keys(t, from + d));
      }
      total += weights[t] = std::exp(product * static_cast<double>(scale));
    }
    for (std::size_t d = 0; d < kHeadDim; ++d) {
      double sum = 0;
      for (std::size_t t = 0; t < length; ++t) {
        sum += weights[t] / total * static_cast<double>(values(t, from + d));
      }
      const double found = static_cast<double>(out(0, head * kHeadDim + d));
      if (!(std::fabs(found - sum) <= 4e-4)) {
        std::fprintf(stderr, "head %zu channel %zu is %g, expected %g\n", head, d, found, sum);
        return false;
      }
    }
  }
  return true;
}

void measure(benchmark::State& state, CacheKind kind, std::size_t length, Executor& executor) {
  kernels::Context context(executor);
  const std::size_t width = kKeyHeads * kHeadDim;
  const Matrix keys = numbers(length, width, 1), values = numbers(length, width, 2);
  const Matrix queries = numbers(1, kHeads * kHeadDim, 3);
  Matrix out = require(Matrix::uninitialized(1, kHeads * kHeadDim));
  std::vector<KeyValueCache> copies;
  do {
    copies.push_back(require(KeyValueCache::create(kind, kKeyHeads, kHeadDim, length)));
    require(copies.back().store(0, keys.view(), values.view(), context));
  } while (copies.size() * copies[0].bytes_per_token() * length < kColdBytes);
  const AlignedBytes other = require(AlignedBytes::allocate(kColdBytes));
  std::fill(const_cast<std::byte*>(other.data()),
            const_cast<std::byte*>(other.data()) + other.size(), std::byte{1});
  kernels::CachedAttention attention;
  attention.queries = queries.view();
  attention.heads = kHeads;
  attention.length = length;
  attention.scale = 1 / std::sqrt(static_cast<float>(kHeadDim));
  require(kernels::attend(attention, copies[0], out.view(), context));
  if (!agrees(copies[0], queries.view(), out.view(), attention.scale, context)) {
    state.SkipWithError("a wrong result is not timed");
    return;
  }
  const std::size_t calls = copies.size() / 2;
  std::size_t next = 0;
  std::vector<double> bytes, shares;
  for (auto _ : state) {
    const double read = kernels::read_limit(executor, other.data(), kColdBytes / 2);
    const auto start = Clock::now();
    for (std::size_t i = 0; i < calls; ++i) {
      require(kernels::attend(attention, copies[next++ % copies.size()], out.view(), context));
    }
    const double taken =
        std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(calls);
    state.SetIterationTime(taken);
    bytes.push_back(static_cast<double>(copies[0].bytes_per_token() * length) / taken * 1e-9);
    shares.push_back(100 * bytes.back() / read);
  }
  state.counters["GB/s"] = median(bytes);
  state.counters["read_%"] = median(shares);
}

int main_of(int argc, char** argv) {
  const char* wanted = std::getenv("QUELL_BENCH_THREADS");
  const auto executor = make_openmp_executor(wanted != nullptr ? std::atoi(wanted) : 2);
  for (const CacheKind kind : kernels::kCacheKinds) {
    for (const std::size_t length : {1024, 8192}) {
      const std::string name = std::string(to_string(kind)) + "/" + std::to_string(length);
      benchmark::RegisterBenchmark(name.c_str(),
                                   [kind, length, &executor](benchmark::State& state) {
                                     measure(state, kind, length, *executor);
                                   })
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond)
          ->MinTime(0.1);
    }
  }
  std::string features;
  for (const std::string_view name : kernels::cpu_features()) features.append(" ").append(name);
  benchmark::AddCustomContext("cpu_features", features);
  benchmark::AddCustomContext("threads", std::to_string(executor->width()));
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace quell::bench

int main(int argc, char** argv) {
  return quell::bench::main_of(argc, argv);
}
