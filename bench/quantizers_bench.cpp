// SPDX-License-Identifier: Apache-2.0

// The offline solvers against the multiply-add limit of the machine, which is measured before and
// after every run: the clock of a server moves, and so does what neighbours leave of it. Each case
// is checked before it is timed. Times are wall times; `share` is flops / seconds / limit.
//
//   second_moment   T K (K + 1) flops: the triangle
//   cholesky        K^3 / 3
//   gptq            K^3 / 3 + 2 R K^2: factor, sweep, and judging rounding for the guard
//   scale search    what --scale search adds to the same solve
//
// Arguments of the form name/threads/K/R. Contenders: Eigen's LLT (one thread whatever is asked)
// and OpenBLAS's spotrf where it is installed.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <numeric>
#include <vector>

#include <Eigen/Dense>

#include "linalg/linalg.hpp"
#include "quell/core/random.hpp"
#include "quell/core/tensor.hpp"
#include "quell/kernels/limits.hpp"
#include "quell/quant/methods.hpp"

#if defined(QUELL_OPENBLAS)
extern "C" {
void spotrf_(const char* uplo, const int* n, float* a, const int* lda, int* info);
void openblas_set_num_threads(int threads);
}
#endif

namespace {

using quell::Executor;
using quell::Matrix;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// ---------------------------------------------------------------- the limit

/// Seconds by the wall and by the processors (all threads together).
struct Stopwatch {
  Clock::time_point begin = Clock::now();
  std::clock_t processors = std::clock();

  double seconds() const { return seconds_since(begin); }
  double processor_seconds() const {
    return static_cast<double>(std::clock() - processors) / CLOCKS_PER_SEC;
  }
};

/// Operations per second, over about 50 ms: processor time is counted in ticks of 4 ms.
struct Limit {
  double wall = 0;           // of all threads together
  double per_processor = 0;  // of one processor, by its own time
};
Limit multiply_limit(Executor& executor) {
  const Stopwatch watch;
  const double wall = 1e9 * quell::kernels::fma_limit(executor, 16);
  return {wall, wall * watch.seconds() / watch.processor_seconds()};
}

/// Times `solve` once per iteration between two measurements of the limit, after `prepare`.
template <typename Prepare, typename Solve>
void time_against_limit(benchmark::State& state, Executor& executor, double flops, Prepare prepare,
                        Solve solve) {
  std::vector<double> rates, shares, processor_shares;
  for (auto _ : state) {
    prepare();
    const Limit before = multiply_limit(executor);
    const Stopwatch watch;
    solve();
    const double seconds = watch.seconds(), processor_seconds = watch.processor_seconds();
    const Limit after = multiply_limit(executor);
    state.SetIterationTime(seconds);
    rates.push_back(flops / seconds);
    shares.push_back(flops / seconds / std::max(before.wall, after.wall));
    processor_shares.push_back(flops / processor_seconds /
                               std::max(before.per_processor, after.per_processor));
  }
  const auto median = [](std::vector<double>& v) {
    std::sort(v.begin(), v.end());
    return v.empty() ? 0.0 : v[v.size() / 2];
  };
  state.counters["GFLOP/s"] = median(rates) / 1e9;
  state.counters["share"] = median(shares);
  state.counters["cpu_share"] = median(processor_shares);
}

void fail(const quell::Error& error) {
  std::fprintf(stderr, "quantizers_bench: %s\n", error.message.c_str());
  std::exit(1);
}

// ---------------------------------------------------------------- inputs

/// Neighbours correlate and channels differ in size: a moment that is neither diagonal nor flat.
Matrix inputs(std::size_t tokens, std::size_t channels) {
  Matrix x = *Matrix::uninitialized(tokens, channels);
  quell::Random(1).fill_normal(x.values());
  const quell::Random sizes(1, 7);
  std::vector<float> size(channels);
  for (std::size_t k = 0; k < channels; ++k) {
    size[k] = static_cast<float>(std::exp(std::clamp(sizes.normal(k), -2.0, 2.0)));
  }
  for (std::size_t t = 0; t < tokens; ++t) {
    float* row = x.row(t).data();
    for (std::size_t k = 1; k < channels; ++k) row[k] = 0.7F * row[k - 1] + 0.7F * row[k];
    for (std::size_t k = 0; k < channels; ++k) row[k] *= size[k];
  }
  return x;
}

const Matrix& moment(std::size_t channels) {
  static Matrix h;
  if (h.rows() == channels) return h;
  const Matrix x = inputs(std::max<std::size_t>(channels / 2, 256), channels);
  quell::Matrix64 sum = *quell::Matrix64::zeros(channels, channels);
  const auto executor = quell::make_openmp_executor();
  quell::linalg::Context context(*executor);
  const quell::Status done = quell::linalg::accumulate_second_moment(x.view(), sum.view(), context);
  if (!done) fail(done.error());
  h = *Matrix::uninitialized(channels, channels);
  for (std::size_t i = 0; i < channels; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      h(i, j) = static_cast<float>(sum(i, j) / static_cast<double>(x.rows()));
      h(j, i) = h(i, j);
    }
  }
  return h;
}

const Matrix& weight(std::size_t rows, std::size_t channels) {
  static Matrix w;
  if (w.rows() == rows && w.cols() == channels) return w;
  w = *Matrix::uninitialized(rows, channels);
  quell::Random(2).fill_normal(w.values());
  return w;
}

// ---------------------------------------------------------------- cases

void second_moment(benchmark::State& state) {
  const auto executor = quell::make_openmp_executor(static_cast<unsigned>(state.range(0)));
  const auto channels = static_cast<std::size_t>(state.range(1));
  const std::size_t tokens = quell::linalg::kMomentChunk;
  const Matrix x = inputs(tokens, channels);
  quell::Matrix64 sum = *quell::Matrix64::zeros(channels, channels);
  quell::linalg::Context context(*executor);
  const auto solve = [&] {
    const auto done = quell::linalg::accumulate_second_moment(x.view(), sum.view(), context);
    if (!done) fail(done.error());
  };
  solve();
  for (std::size_t i = 0; i < channels; i += channels / 3) {  // check
    double exact = 0, size = 0;
    for (std::size_t t = 0; t < tokens; ++t) {
      const double product = static_cast<double>(x(t, i)) * static_cast<double>(x(t, i / 2));
      exact += product;
      size += std::abs(product);
    }
    if (std::abs(sum(i, i / 2) - exact) > 1.2e-4 * size) {
      fail({quell::ErrorCode::verification, "second moment is wrong"});
    }
  }
  const double flops = static_cast<double>(tokens) * static_cast<double>(channels) *
                       static_cast<double>(channels + 1);
  time_against_limit(
      state, *executor, flops, [] {}, solve);
}

std::vector<std::uint32_t> ascending(std::size_t n) {
  std::vector<std::uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0U);
  return order;
}

/// Damped by 1 % of the mean diagonal, as gptq does.
void damped_moment(Matrix& a, std::size_t n, Executor& executor) {
  const Matrix& h = moment(n);
  double mean = 0;
  for (std::size_t k = 0; k < n; ++k) mean += static_cast<double>(h(k, k)) / static_cast<double>(n);
  const std::vector<float> added(n, static_cast<float>(0.01 * mean));
  quell::linalg::gather_lower(h.view(), ascending(n), 1.0F, added, a.view(), executor);
}

double third_of_cube(std::size_t n) {
  return static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / 3;
}

void cholesky(benchmark::State& state) {
  const auto executor = quell::make_openmp_executor(static_cast<unsigned>(state.range(0)));
  const auto n = static_cast<std::size_t>(state.range(1));
  Matrix a = *Matrix::uninitialized(n, n);
  quell::linalg::Context context(*executor);
  time_against_limit(
      state, *executor, third_of_cube(n), [&] { damped_moment(a, n, *executor); },
      [&] {
        const auto done = quell::linalg::cholesky_lower(a.view(), context);
        if (!done) fail(done.error());
      });
}

void cholesky_eigen(benchmark::State& state) {
  const auto executor = quell::make_openmp_executor(static_cast<unsigned>(state.range(0)));
  const auto n = static_cast<std::size_t>(state.range(1));
  Matrix a = *Matrix::uninitialized(n, n);
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  time_against_limit(
      state, *executor, third_of_cube(n), [&] { damped_moment(a, n, *executor); },
      [&] {
        const auto size = static_cast<Eigen::Index>(n);
        Eigen::Map<RowMajor> map(a.data(), size, size);
        Eigen::LLT<Eigen::Ref<RowMajor>> llt(map);
        benchmark::DoNotOptimize(llt.info());
      });
}

#if defined(QUELL_OPENBLAS)
void cholesky_openblas(benchmark::State& state) {
  const auto executor = quell::make_openmp_executor(static_cast<unsigned>(state.range(0)));
  const auto n = static_cast<std::size_t>(state.range(1));
  Matrix a = *Matrix::uninitialized(n, n);
  openblas_set_num_threads(static_cast<int>(state.range(0)));
  time_against_limit(
      state, *executor, third_of_cube(n), [&] { damped_moment(a, n, *executor); },
      [&] {
        const int size = static_cast<int>(n);
        int info = 0;
        spotrf_("U", &size, a.data(), &size, &info);  // column-major upper: row-major lower
        benchmark::DoNotOptimize(info);
      });
}
#endif

void gptq(benchmark::State& state, quell::ScaleMethod scale, const char* grid) {
  const auto executor = quell::make_openmp_executor(static_cast<unsigned>(state.range(0)));
  const auto channels = static_cast<std::size_t>(state.range(1));
  const auto rows = static_cast<std::size_t>(state.range(2));
  quell::quant::LayerProblem layer;
  layer.name = "bench";
  layer.weight = weight(rows, channels).view();
  layer.second_moment = moment(channels).view();
  layer.grid = *quell::parse_grid(grid);
  layer.scale = scale;
  const auto method = quell::quant::gptq();
  double ratio = 0;
  const double n = static_cast<double>(channels);
  const double flops = n * n * n / 3 + 2 * static_cast<double>(rows) * n * n;
  time_against_limit(
      state, *executor, flops, [] {},
      [&] {
        const auto solved = method->quantize(layer, *executor);
        if (!solved) fail(solved.error());
        ratio = solved->objective / solved->objective_rtn;
        if (!(ratio < 1)) fail({quell::ErrorCode::verification, "gptq is no better than rounding"});
      });
  state.counters["loss/rtn"] = ratio;
}

/// The default, with a drift as of inputs that have lost a twentieth: its time beside gptq's.
void balanced(benchmark::State& state) {
  const auto executor = quell::make_openmp_executor(static_cast<unsigned>(state.range(0)));
  const auto channels = static_cast<std::size_t>(state.range(1));
  const auto rows = static_cast<std::size_t>(state.range(2));
  auto drift = quell::Matrix::uninitialized(channels, channels);
  if (!drift) fail(drift.error());
  for (std::size_t i = 0; i < drift->size(); ++i) {
    drift->data()[i] = 0.05F * moment(channels).data()[i];
  }
  quell::quant::LayerProblem layer;
  layer.name = "bench";
  layer.weight = weight(rows, channels).view();
  layer.second_moment = moment(channels).view();
  layer.drift = drift->view();
  layer.grid = *quell::parse_grid("int4:sym:oc:g128");
  layer.scale = quell::ScaleMethod::search;
  const auto method = quell::quant::balanced();
  // Measured right before each: what plain gptq takes.
  const auto plain = quell::quant::gptq();
  quell::quant::LayerProblem simple = layer;
  simple.scale = quell::ScaleMethod::absmax;
  double times = 0;
  for (auto _ : state) {
    auto begin = Clock::now();
    if (const auto solved = plain->quantize(simple, *executor); !solved) fail(solved.error());
    const double before = seconds_since(begin);
    begin = Clock::now();
    if (const auto solved = method->quantize(layer, *executor); !solved) fail(solved.error());
    const double taken = seconds_since(begin);
    state.SetIterationTime(taken);
    times += taken / before;
  }
  state.counters["gptq_times"] = times / static_cast<double>(state.iterations());
}

void rtn(benchmark::State& state, quell::ScaleMethod scale, const char* grid) {
  const auto executor = quell::make_openmp_executor(static_cast<unsigned>(state.range(0)));
  const auto channels = static_cast<std::size_t>(state.range(1));
  const auto rows = static_cast<std::size_t>(state.range(2));
  quell::quant::LayerProblem layer;
  layer.name = "bench";
  layer.weight = weight(rows, channels).view();
  layer.grid = *quell::parse_grid(grid);
  layer.scale = scale;
  const auto method = quell::quant::rtn();
  for (auto _ : state) {
    const auto begin = Clock::now();
    const auto solved = method->quantize(layer, *executor);
    if (!solved) fail(solved.error());
    state.SetIterationTime(seconds_since(begin));
  }
  state.counters["Melements/s"] = benchmark::Counter(static_cast<double>(rows * channels) / 1e6,
                                                     benchmark::Counter::kIsIterationInvariantRate);
}

void solver_sizes(benchmark::internal::Benchmark* b) {
  b->UseManualTime()->Unit(benchmark::kMillisecond)->Args({1, 4096})->Args({2, 4096});
}
void layer_sizes(benchmark::internal::Benchmark* b) {
  b->UseManualTime()->Unit(benchmark::kMillisecond);
  for (const int threads : {1, 2}) {
    b->Args({threads, 4096, 4096})->Args({threads, 4096, 1024})->Args({threads, 2048, 5632});
  }
}

BENCHMARK(second_moment)->Apply(solver_sizes);
BENCHMARK(cholesky)->Apply(solver_sizes);
BENCHMARK(cholesky_eigen)->Apply(solver_sizes);
#if defined(QUELL_OPENBLAS)
BENCHMARK(cholesky_openblas)->Apply(solver_sizes);
#endif
BENCHMARK_CAPTURE(gptq, absmax, quell::ScaleMethod::absmax, "int4:sym:oc:g128")->Apply(layer_sizes);
BENCHMARK_CAPTURE(gptq, search, quell::ScaleMethod::search, "int4:sym:oc:g128")->Apply(layer_sizes);
BENCHMARK(balanced)->Apply(layer_sizes);
BENCHMARK_CAPTURE(gptq, per_input, quell::ScaleMethod::absmax, "int4:sym:ic:g128")
    ->Apply(layer_sizes);
BENCHMARK_CAPTURE(rtn, absmax, quell::ScaleMethod::absmax, "int4:sym:oc:g128")->Apply(layer_sizes);
BENCHMARK_CAPTURE(rtn, search, quell::ScaleMethod::search, "int4:sym:oc:g128")->Apply(layer_sizes);

}  // namespace

BENCHMARK_MAIN();
