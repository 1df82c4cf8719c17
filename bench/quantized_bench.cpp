// SPDX-License-Identifier: Apache-2.0

// Speed of the products with quantized weights. Few tokens: weights are cold (copies beyond the
// last cache, one after the other) and the bound is the memory's; many tokens: the weights are warm
// and the bound is that of the products of bytes, or of floats. Every iteration measures both
// bounds beside the product, so that a slow minute of a shared machine hits all; the medians of the
// iterations' shares are printed.
//
//   quantized_bench                          two threads, best instruction set
//   QUELL_ISA=avx2 quantized_bench           capped: the bounds are capped, too
//   QUELL_BENCH_THREADS=1 quantized_bench
//
// Names: activations/grid/N_K/M, the same after onednn/ where that is at hand, and pack/ for
// packing alone; grid+16 has as many kept columns. Counters: read_% is the packed weights' bytes a
// second over the read bound, share_% the operations a second over the arithmetic bound, kept_% how
// much longer the product with kept columns takes than the one without in the same rounds. With
// oneDNN, which has threads of its own, OMP_WAIT_POLICY=passive.

#include <benchmark/benchmark.h>

#include <algorithm>
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
#include "support/quantized.hpp"

namespace quell::bench {
namespace {

using Clock = std::chrono::steady_clock;
using kernels::Activations;
using kernels::PackedWeights;

constexpr std::size_t kColdBytes = std::size_t{300} << 20;

struct Case {
  Activations activations;
  const char* grid;
  std::size_t n, k, m;
  std::size_t kept = 0;  // input channels beside the codes

  bool cold() const { return m <= 8; }
};

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

Matrix tokens(std::size_t m, std::size_t k) {
  Matrix x = require(Matrix::uninitialized(m, k));
  std::uint64_t state = 1;
  for (float& value : x.values()) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = static_cast<float>(static_cast<std::int64_t>(state) >> 40) * 0x1p-23f;
  }
  for (std::size_t r = 0; r < m; ++r) x(r, 7) *= 100.0f;  // an outlier channel
  return x;
}

/// The product of the dequantized weight in double. Rounding a token to int8 moves each of its
/// values by at most half a step; with groups down the input channels the step is that of the
/// scaled token, at most 9 times the other (scales lie in 0.01 .. 0.09).
bool agrees(const QuantizedTensor& weight, MatrixView<const float> x, MatrixView<const float> y,
            Activations activations) {
  std::vector<float> row(weight.cols());
  for (std::size_t i = 0; i < 40; ++i) {
    const std::size_t o = i * 7919 % weight.rows(), t = i * 104729 % x.rows();
    weight.dequantize_row(o, row);
    double exact = 0, magnitudes = 0, most = 0, weights = 0;
    for (std::size_t k = 0; k < row.size(); ++k) {
      const double w = static_cast<double>(row[k]), v = static_cast<double>(x(t, k));
      exact += w * v;
      magnitudes += std::fabs(w * v);
      weights += std::fabs(w);
      most = std::max(most, std::fabs(v));
    }
    const double step = activations == Activations::int8
                            ? most / 127 * (weight.grid().per == Channel::input ? 9.0 : 1.0)
                            : 0;
    const double bound =
        0.5 * step * weights + 2.0 * static_cast<double>(row.size()) * 0x1p-24 * magnitudes;
    if (!(std::fabs(static_cast<double>(y(t, o)) - exact) <= bound)) {
      std::fprintf(stderr, "element (%zu, %zu) is %g, expected %g within %g\n", t, o,
                   static_cast<double>(y(t, o)), exact, bound);
      return false;
    }
  }
  return true;
}

/// What is timed: one of several copies of the same weights, so that none is in a cache.
struct Contestant {
  std::vector<std::function<void()>> copies;
  std::vector<std::function<void()>> plain;  // without kept columns, if these are the question
  std::size_t bytes = 0;                     // of one
  std::string name;
};

void time(benchmark::State& state, const Case& c, const Contestant& contestant,
          Executor& executor) {
  const AlignedBytes other = require(AlignedBytes::allocate(kColdBytes));
  std::fill(const_cast<std::byte*>(other.data()),
            const_cast<std::byte*>(other.data()) + other.size(), std::byte{1});
  const double operations =
      2.0 * static_cast<double>(c.m) * static_cast<double>(c.n) * static_cast<double>(c.k);
  const std::size_t calls = c.cold() ? std::max<std::size_t>(contestant.copies.size() / 2, 1) : 1;
  std::size_t next = 0;
  std::vector<double> rates, bytes, read_shares, shares, costs;
  const auto seconds = [&](const std::vector<std::function<void()>>& copies) {
    const auto start = Clock::now();
    for (std::size_t i = 0; i < calls; ++i) copies[next++ % copies.size()]();
    return std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(calls);
  };
  for (auto _ : state) {
    const double read = c.cold() ? kernels::read_limit(executor, other.data(), kColdBytes / 2) : 0;
    const double arithmetic = c.activations == Activations::int8 ? kernels::int8_limit(executor)
                                                                 : kernels::fma_limit(executor);
    // Who comes first finds the caches as the bounds left them, so they take turns.
    const bool later = !contestant.plain.empty() && rates.size() % 2 == 1;
    const double before = later ? seconds(contestant.plain) : 0;
    const double taken = seconds(contestant.copies);
    if (!contestant.plain.empty()) {
      costs.push_back(100 * (taken / (later ? before : seconds(contestant.plain)) - 1));
    }
    state.SetIterationTime(taken);
    rates.push_back(operations / taken * 1e-9);
    bytes.push_back(static_cast<double>(contestant.bytes) / taken * 1e-9);
    if (c.cold()) read_shares.push_back(100 * bytes.back() / read);
    shares.push_back(100 * rates.back() / arithmetic);
  }
  state.SetLabel(contestant.name);
  state.counters["GOP/s"] = median(rates);
  state.counters["share_%"] = median(shares);
  if (!costs.empty()) state.counters["kept_%"] = median(costs);
  if (c.cold()) {
    state.counters["GB/s"] = median(bytes);
    state.counters["read_%"] = median(read_shares);
  }
}

std::vector<PackedWeights> pack_copies(const QuantizedTensor& weight, const Case& c,
                                       Executor& executor) {
  std::vector<PackedWeights> copies;
  do {
    copies.push_back(require(kernels::pack(weight, c.activations, executor)));
  } while (c.cold() && copies.size() * copies[0].bytes() < kColdBytes);
  return copies;
}

void measure(benchmark::State& state, const Case& c, Executor& executor) {
  std::vector<std::uint32_t> kept;  // evenly spread, the outlier channel first
  for (std::size_t i = 0; i < c.kept; ++i) {
    kept.push_back(static_cast<std::uint32_t>(7 + i * (c.k - 7) / c.kept));
  }
  const GridSpec grid = *parse_grid(c.grid);
  const QuantizedTensor weight = test::random_keeping(grid, c.n, c.k, kept, 1);
  const std::vector<PackedWeights> copies = pack_copies(weight, c, executor);
  std::vector<PackedWeights> plain;
  if (c.kept != 0) plain = pack_copies(test::random_quantized(grid, c.n, c.k, 1), c, executor);
  const Matrix x = tokens(c.m, c.k);
  Matrix y = require(Matrix::uninitialized(c.m, c.n));
  kernels::Context context(executor);
  if (!kernels::gemm(x.view(), copies[0], y.view(), context) ||
      !agrees(weight, x.view(), y.view(), c.activations)) {
    state.SkipWithError("a wrong product is not timed");
    return;
  }
  Contestant contestant{{}, {}, copies[0].bytes(), std::string(copies[0].kernel())};
  const auto product = [&](const PackedWeights& weights) {
    return [&] {
      const Status done = kernels::gemm(x.view(), weights, y.view(), context);
      if (!done) panic(done.error().message.c_str());
    };
  };
  for (const PackedWeights& copy : copies) contestant.copies.push_back(product(copy));
  for (const PackedWeights& copy : plain) contestant.plain.push_back(product(copy));
  time(state, c, contestant, executor);
}

#if defined(QUELL_BENCH_ONEDNN)
/// The same weights in oneDNN, symmetric and with groups along a row. int8 activations are given to
/// it rounded already, with one scale for all tokens: less work than ours.
void measure_onednn(benchmark::State& state, const Case& c, Executor& executor) {
  const GridSpec grid = *parse_grid(c.grid);
  const QuantizedTensor weight = test::random_quantized(grid, c.n, c.k, 1);
  std::vector<std::int8_t> codes(c.n * c.k);
  std::vector<std::uint8_t> row(c.k);
  const int zero = 1 << (bits(grid.format) - 1);
  for (std::size_t r = 0; r < c.n; ++r) {
    weight.unpack_row(r, row);
    for (std::size_t i = 0; i < c.k; ++i) {
      codes[r * c.k + i] = static_cast<std::int8_t>(row[i] - zero);
    }
  }
  const std::size_t groups = group_layout(grid, c.n, c.k).cols;
  std::vector<float> scales(groups * c.n);
  for (std::size_t g = 0; g < groups; ++g) {
    for (std::size_t r = 0; r < c.n; ++r) {
      scales[g * c.n + r] = weight.parameters().scales[r * groups + g];
    }
  }
  const bool rounded = c.activations == Activations::int8;
  Matrix x = tokens(c.m, c.k);
  std::vector<std::int8_t> whole(c.m * c.k);
  for (std::size_t i = 0; rounded && i < whole.size(); ++i) {
    whole[i] = static_cast<std::int8_t>(std::lround(x.values()[i]));
    x.values()[i] = whole[i];
  }
  Matrix y = require(Matrix::uninitialized(c.m, c.n));
  const void* from = rounded ? static_cast<const void*>(whole.data()) : x.data();
  std::vector<std::unique_ptr<Prepared>> copies;
  do {
    copies.push_back(onednn_quantized({c.m, c.n, c.k}, rounded, bits(grid.format), codes.data(),
                                      c.k / groups, scales));
    if (copies.back() == nullptr) {
      state.SkipWithError("it has only its plain loops for this");
      return;
    }
  } while (c.cold() && copies.size() * copies[0]->bytes() < kColdBytes);
  copies[0]->multiply(from, y.data());
  if (!agrees(weight, x.view(), y.view(), Activations::f32)) {
    state.SkipWithError("a wrong product is not timed");
    return;
  }
  Contestant contestant{{}, {}, copies[0]->bytes(), copies[0]->name()};
  for (const auto& copy : copies) {
    contestant.copies.push_back([&copy, from, &y] { copy->multiply(from, y.data()); });
  }
  time(state, c, contestant, executor);
}
#endif

/// Packing, counted in source codes read, a byte each.
void measure_packing(benchmark::State& state, const Case& c, Executor& executor) {
  const QuantizedTensor weight = test::random_quantized(*parse_grid(c.grid), c.n, c.k, 1);
  std::vector<double> rates;
  for (auto _ : state) {
    const auto start = Clock::now();
    const PackedWeights packed = require(kernels::pack(weight, c.activations, executor));
    const double taken = std::chrono::duration<double>(Clock::now() - start).count();
    state.SetIterationTime(taken);
    rates.push_back(static_cast<double>(c.n) * static_cast<double>(c.k) / taken * 1e-9);
  }
  state.counters["Gcodes/s"] = median(rates);
}

int main_of(int argc, char** argv) {
  const char* wanted = std::getenv("QUELL_BENCH_THREADS");
  const auto executor = make_openmp_executor(wanted != nullptr ? std::atoi(wanted) : 2);
  constexpr std::size_t kShapes[][2] = {{4096, 4096}, {14336, 4096}, {4096, 14336}};
  const std::pair<Activations, const char*> kGrids[] = {
      {Activations::int8, "int4:sym:oc:g128"}, {Activations::int8, "int4:sym:oc:g32"},
      {Activations::int8, "int4:sym:oc:row"},  {Activations::int8, "int4:asym:oc:g128"},
      {Activations::int8, "int4:sym:ic:g128"}, {Activations::int8, "int8:sym:oc:row"},
      {Activations::int8, "int8:sym:oc:g128"}, {Activations::int8, "int4:sym:oc:g32:u4"},
      {Activations::int8, "iq4:sym:oc:g32"},   {Activations::f32, "int4:sym:oc:g128"},
      {Activations::f32, "int4:sym:oc:g32"},   {Activations::f32, "int4:sym:ic:g128"}};
  const auto add = [&executor](const std::string& who, const Case& each, auto measured) {
    const std::string name = who + (each.activations == Activations::int8 ? "int8/" : "f32/") +
                             each.grid + (each.kept != 0 ? "+" + std::to_string(each.kept) : "") +
                             "/" + std::to_string(each.n) + "_" + std::to_string(each.k) + "/" +
                             std::to_string(each.m);
    benchmark::RegisterBenchmark(
        name.c_str(),
        [each, measured, &executor](benchmark::State& state) { measured(state, each, *executor); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond)
        ->MinTime(0.3);
  };
  for (const auto& [activations, grid] : kGrids) {
    for (const auto& shape : kShapes) {
      for (const std::size_t m : {1, 8, 32, 128, 512}) {
        const Case each = {activations, grid, shape[0], shape[1], m};
        if (m == 1) add("pack/", each, measure_packing);
        add("", each, measure);
#if defined(QUELL_BENCH_ONEDNN)
        const GridSpec spec = *parse_grid(grid);
        if (spec.symmetric && spec.per == Channel::output && !spec.two_level &&
            info(spec.format).codebook == nullptr) {
          add("onednn/", each, measure_onednn);
        }
#endif
      }
    }
  }
  for (const std::size_t m : {1, 512}) {
    add("", {Activations::int8, "int4:sym:oc:g128", 4096, 4096, m, 16}, measure);
    add("", {Activations::f32, "int4:sym:oc:g128", 4096, 4096, m, 16}, measure);
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
