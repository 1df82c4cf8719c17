// SPDX-License-Identifier: Apache-2.0

// Speed of gemm_dense beside the multiply limit and its rivals. Every iteration measures the limit
// first and the product right after it, so that a slow minute of a shared machine hits both;
// `share` is their ratio. Repetitions of all cases are interleaved and the median is what counts.
//
//   gemm_bench                        two threads, best instruction set
//   QUELL_ISA=avx2 gemm_bench         capped: the limit is capped, too
//   QUELL_BENCH_THREADS=1 gemm_bench
//
// The cap does not reach the contenders: Eigen is compiled for this machine, and OpenBLAS is
// lowered by OPENBLAS_CORETYPE=Haswell.
//
// Names: what/contender/M_N_K. Flops are 2 M N K, and T N (N + 1) for the symmetric product.

#include <benchmark/benchmark.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "contenders/contenders.hpp"
#include "quell/core/tensor.hpp"
#include "quell/kernels/explain.hpp"
#include "quell/kernels/gemm.hpp"
#include "quell/kernels/limits.hpp"

namespace quell::bench {
namespace {

using Clock = std::chrono::steady_clock;

Matrix filled(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  auto matrix = Matrix::uninitialized(rows, cols);
  if (!matrix) panic(matrix.error().message.c_str());
  std::uint64_t state = seed * 2 + 1;
  for (float& value : matrix->values()) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = static_cast<float>(static_cast<std::int64_t>(state) >> 40) * 0x1p-23f;
  }
  // An outlier channel, as real activations have; speed must not depend on it.
  for (std::size_t r = 0; r < rows; ++r) (*matrix)(r, 7 % cols) *= 100.0f;
  return *std::move(matrix);
}

void require(const Status& status) {
  if (!status) panic(status.error().message.c_str());
}

/// Compares some elements of C = A B^T (or X^T X) with double before anything is timed. The bound
/// is that of K roundings, K u sum |a b|.
void check(const std::string& name, MatrixView<const float> c, std::size_t depth,
           const std::function<float(std::size_t, std::size_t)>& a,
           const std::function<float(std::size_t, std::size_t)>& b) {
  for (std::size_t i = 0; i < 64; ++i) {
    const std::size_t row = i * 7919 % c.rows(), col = i * 104729 % c.cols() % (row + 1);
    double exact = 0, magnitude = 0;
    for (std::size_t k = 0; k < depth; ++k) {
      const double term = static_cast<double>(a(row, k)) * static_cast<double>(b(col, k));
      exact += term;
      magnitude += std::fabs(term);
    }
    const double found = static_cast<double>(c(row, col));
    if (!(std::fabs(found - exact) <= static_cast<double>(depth) * 0x1p-24 * magnitude)) {
      std::fprintf(stderr, "%s: element (%zu, %zu) is %g, expected %g; not timed\n", name.c_str(),
                   row, col, found, exact);
      std::exit(1);
    }
  }
}

struct Operands {
  std::size_t m, n, k;
  Matrix a, b, c;
  Operands(std::size_t rows, std::size_t cols, std::size_t depth)
      : m(rows),
        n(cols),
        k(depth),
        a(filled(rows, depth, 1)),
        b(filled(cols, depth, 2)),
        c(filled(rows, cols, 3)) {}
};

void measure(const std::string& name, double flops, double bytes, Executor& executor,
             std::function<void()> run) {
  benchmark::RegisterBenchmark(
      name.c_str(),
      [=, &executor](benchmark::State& state) {
        double limit = 0, seconds = 0, share = 0;
        for (auto _ : state) {
          const double before = kernels::fma_limit(executor);
          const auto start = Clock::now();
          run();
          const double taken = std::chrono::duration<double>(Clock::now() - start).count();
          const double bound = 0.5 * (before + kernels::fma_limit(executor));
          state.SetIterationTime(taken);
          seconds += taken;
          limit += bound;
          share += flops * 1e-9 / taken / bound;
        }
        const auto n = static_cast<double>(state.iterations());
        state.counters["GFLOP/s"] = flops * 1e-9 * n / seconds;
        state.counters["limit"] = limit / n;
        state.counters["share_%"] = 100 * share / n;
        state.counters["GB/s"] = bytes * 1e-9 * n / seconds;
      })
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

void add_product(std::size_t m, std::size_t n, std::size_t k, kernels::Context& context,
                 const std::vector<const Contender*>& contenders) {
  const auto operands = std::make_shared<Operands>(m, n, k);
  const auto packed = std::make_shared<kernels::PackedWeights>();
  auto result = kernels::pack(operands->b.view(), context.executor());
  if (!result) panic(result.error().message.c_str());
  *packed = *std::move(result);
  const std::string shape = std::to_string(m) + "_" + std::to_string(n) + "_" + std::to_string(k);
  const double flops =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  const double bytes = 4.0 * static_cast<double>(n) * static_cast<double>(k);
  const auto add = [&](const std::string& name, std::function<void()> run) {
    run();
    check(
        name, operands->c.view(), k,
        [&](std::size_t r, std::size_t i) { return operands->a(r, i); },
        [&](std::size_t r, std::size_t i) { return operands->b(r, i); });
    measure(name, flops, bytes, context.executor(), run);
  };
  add("dense/quell/" + shape, [=, &context] {
    require(kernels::gemm_dense({{operands->a.view()}, {operands->b.view()}, operands->c.view()},
                                context));
  });
  add("packed/quell/" + shape, [=, &context] {
    require(kernels::gemm(operands->a.view(), *packed, operands->c.view(), context));
  });
  for (const Contender* contender : contenders) {
    add("dense/" + std::string(contender->name) + "/" + shape, [=] {
      contender->product(operands->a.data(), operands->b.data(), operands->c.data(), m, n, k);
    });
  }
#if defined(QUELL_BENCH_ONEDNN)
  const std::shared_ptr<Prepared> onednn = onednn_f32({m, n, k}, operands->b.data());
  if (onednn != nullptr) {
    add("packed/" + onednn->name() + "/" + shape,
        [=] { onednn->multiply(operands->a.data(), operands->c.data()); });
  }
#endif
}

/// C -= A B with B [K, N]: the trailing update of a blocked solver.
void add_update(std::size_t m, std::size_t n, std::size_t k, kernels::Context& context) {
  const auto a = std::make_shared<Matrix>(filled(m, k, 1)),
             b = std::make_shared<Matrix>(filled(k, n, 2)),
             c = std::make_shared<Matrix>(filled(m, n, 3));
  measure(
      "update/quell/" + std::to_string(m) + "_" + std::to_string(n) + "_" + std::to_string(k),
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k),
      8.0 * static_cast<double>(m) * static_cast<double>(n), context.executor(), [=, &context] {
        require(kernels::gemm_dense(
            {{a->view()}, {b->view(), true}, c->view(), kernels::Accumulate::subtract}, context));
      });
}

void add_symmetric(std::size_t tokens, std::size_t n, kernels::Context& context,
                   const std::vector<const Contender*>& contenders) {
  const auto x = std::make_shared<Matrix>(filled(tokens, n, 4)),
             h = std::make_shared<Matrix>(filled(n, n, 5));
  const std::string shape =
      std::to_string(n) + "_" + std::to_string(n) + "_" + std::to_string(tokens);
  const double flops =
      static_cast<double>(tokens) * static_cast<double>(n) * static_cast<double>(n + 1);
  const auto add = [&](const std::string& name, std::function<void()> run) {
    for (float& value : h->values()) value = 0;
    run();
    const auto column = [&](std::size_t i, std::size_t t) { return (*x)(t, i); };
    check(name, h->view(), tokens, column, column);
    measure(name, flops, 4.0 * static_cast<double>(tokens) * static_cast<double>(n),
            context.executor(), run);
  };
  add("symmetric/quell/" + shape, [=, &context] {
    require(kernels::gemm_dense({{x->view(), true},
                                 {x->view(), true},
                                 h->view(),
                                 kernels::Accumulate::add,
                                 kernels::Triangle::lower},
                                context));
  });
  for (const Contender* contender : contenders) {
    if (contender->symmetric_product == nullptr) continue;
    add("symmetric/" + std::string(contender->name) + "/" + shape,
        [=] { contender->symmetric_product(x->data(), h->data(), tokens, n); });
  }
}

}  // namespace
}  // namespace quell::bench

int main(int argc, char** argv) {
  using namespace quell;
  const char* asked = std::getenv("QUELL_BENCH_THREADS");
  const auto executor =
      make_openmp_executor(asked != nullptr ? static_cast<unsigned>(std::atoi(asked)) : 2);
  kernels::Context context(*executor);

  std::vector<const bench::Contender*> contenders = {&bench::kEigen};
#if defined(QUELL_BENCH_OPENBLAS)
  contenders.push_back(&bench::kOpenBlas);
#endif
  for (const bench::Contender* contender : contenders) {
    contender->set_threads(static_cast<int>(executor->width()));
  }

  // Defaults that make a run worth quoting; the command line may override them.
  std::vector<char*> arguments(argv, argv + argc);
  std::string defaults[] = {"--benchmark_repetitions=7",
                            "--benchmark_enable_random_interleaving=true",
                            "--benchmark_report_aggregates_only=true", "--benchmark_min_time=0.1"};
  std::size_t place = 1;
  for (std::string& text : defaults) {
    arguments.insert(arguments.begin() + static_cast<std::ptrdiff_t>(place++), text.data());
  }
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());

  std::string features;
  for (const std::string_view name : kernels::cpu_features()) features += " " + std::string(name);
  for (const kernels::FamilyReport& family : kernels::explain()) {
    for (const kernels::EntryReport& entry : family.entries) {
      if (entry.chosen && family.name == "gemm_dense") {
        benchmark::AddCustomContext(
            "entry", std::string(family.name) + "/" + std::string(kernels::to_string(entry.isa)));
      }
    }
  }
  benchmark::AddCustomContext("threads", std::to_string(executor->width()));
  benchmark::AddCustomContext("cpu_features", features);
  benchmark::AddCustomContext("compiler", __VERSION__);

  bench::add_product(512, 4096, 4096, context, contenders);
  bench::add_symmetric(2048, 4096, context, contenders);
  bench::add_product(128, 4096, 4096, context, contenders);
  bench::add_product(32, 4096, 4096, context, contenders);
  bench::add_product(1, 4096, 4096, context, contenders);
  bench::add_update(4096, 4096, 128, context);
  bench::add_update(2048, 2048, 128, context);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
