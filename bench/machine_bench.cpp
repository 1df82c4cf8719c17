// SPDX-License-Identifier: Apache-2.0

// What the machine can do at most: fused multiply-adds from registers and reads of memory, by
// threads. Every other result is a share of one of these.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "quell/core/tensor.hpp"
#include "quell/kernels/explain.hpp"
#include "quell/kernels/limits.hpp"

int main(int argc, char** argv) {
  using namespace quell;
  benchmark::Initialize(&argc, argv);
  const unsigned all = make_openmp_executor()->width();
  // 512 MB: larger than the caches that virtual machines share.
  constexpr std::size_t kBytes = std::size_t{512} << 20;
  auto memory = AlignedBytes::allocate(kBytes);
  if (!memory) panic(memory.error().message.c_str());
  std::memset(memory->data(), 1, kBytes);
  const std::byte* data = memory->data();
  for (unsigned threads = 1; threads <= all; threads *= 2) {
    benchmark::RegisterBenchmark(("f32_fma/threads_" + std::to_string(threads)).c_str(),
                                 [threads](benchmark::State& state) {
                                   const auto executor = make_openmp_executor(threads);
                                   double best = 0;
                                   for (auto _ : state)
                                     best = std::max(best, kernels::fma_limit(*executor));
                                   state.counters["GFLOP/s"] = best;
                                 });
    benchmark::RegisterBenchmark(("read/threads_" + std::to_string(threads)).c_str(),
                                 [threads, data](benchmark::State& state) {
                                   const auto executor = make_openmp_executor(threads);
                                   double best = 0;
                                   for (auto _ : state)
                                     best = std::max(best,
                                                     kernels::read_limit(*executor, data, kBytes));
                                   state.counters["GB/s"] = best;
                                 });
  }
  std::string features;
  for (const std::string_view name : kernels::cpu_features()) features += " " + std::string(name);
  benchmark::AddCustomContext("cpu_features", features);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
