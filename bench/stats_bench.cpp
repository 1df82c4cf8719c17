// SPDX-License-Identifier: Apache-2.0

// Sums of rows and columns of a bfloat16 matrix that lies in memory, colder than any cache: in one
// pass (LineSums), with histogram and exact median on top, and by the separate calls over a decoded
// copy, which are the reference that each case is compared with before it is timed. Arguments:
// threads. Share: of the read bandwidth, measured between the repetitions.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include "pipeline/magnitude_count.hpp"
#include "quell/core/half.hpp"
#include "quell/core/random.hpp"
#include "quell/core/tensor.hpp"
#include "quell/kernels/explain.hpp"
#include "quell/kernels/limits.hpp"
#include "quell/kernels/tensor_stats.hpp"
#include "quell/stats/histogram.hpp"

namespace {

using namespace quell;
using kernels::LineSums;
using kernels::PowerSums;

// A layer of a large model; 256 MB exceed the caches that virtual machines share.
constexpr std::size_t kRows = 16384, kCols = 8192;

struct Sums {
  std::vector<PowerSums> rows{kRows}, columns{kCols};
};

const BasicMatrix<std::uint16_t>& weights() {
  static const BasicMatrix<std::uint16_t> matrix = [] {
    auto made = BasicMatrix<std::uint16_t>::uninitialized(kRows, kCols);
    if (!made) panic(made.error().message.c_str());
    // Sums of four bytes are close enough to normal, and quick to draw.
    const Random draw(1, 2);
    for (std::size_t r = 0; r < kRows; ++r) {
      for (std::size_t c = 0; c < kCols; ++c) {
        const std::uint64_t bits = draw.bits(r * kCols + c);
        int sum = -510;
        for (unsigned i = 0; i < 32; i += 8) sum += static_cast<int>((bits >> i) & 255);
        (*made)(r, c) = float_to_bf16(static_cast<float>(sum) * 1.3e-4F);
      }
    }
    return *std::move(made);
  }();
  return matrix;
}

/// One pass by blocks; `counts` has one element a thread, or none where nothing is counted.
void sum_lines(Sums& sums, std::vector<pipeline::WordCount>& counts, Executor& executor) {
  const MatrixView<const std::uint16_t> x = weights().view();
  std::fill(sums.columns.begin(), sums.columns.end(), PowerSums{});
  const std::size_t together = 2 * std::size_t{executor.width()};
  std::vector<LineSums> blocks;
  for (std::size_t i = 0; i < together; ++i) blocks.emplace_back(kCols);
  for (std::size_t start = 0; start < kRows; start += together * LineSums::kRows) {
    executor.run(together, 1, [&](std::size_t begin, std::size_t end, unsigned slot) {
      for (std::size_t i = begin; i < end; ++i) {
        blocks[i].clear();
        const std::size_t first = start + i * LineSums::kRows;
        if (first >= kRows) continue;
        const std::size_t rows = std::min(LineSums::kRows, kRows - first);
        blocks[i].add(x.rows_from(first, rows), std::span(sums.rows).subspan(first, rows),
                      counts.empty() ? std::span<std::uint32_t>() : counts[slot].counts());
      }
    });
    executor.run(kCols, 1024, [&](std::size_t begin, std::size_t end, unsigned) {
      for (std::size_t i = 0; i < together; ++i) {
        blocks[i].merge_into(std::span(sums.columns).subspan(begin, end - begin), begin);
      }
    });
  }
}

struct Spread {
  stats::LogHistogram histogram;
  float median = 0;
};

Spread spread_of(std::vector<pipeline::WordCount>& counts) {
  pipeline::MagnitudeCount all;
  for (pipeline::WordCount& part : counts) all.take(part);
  stats::QuantileSketch sketch;
  for (std::size_t word = 0; word < all.counts().size(); ++word) {
    sketch.add(bf16_to_float(static_cast<std::uint16_t>(word)), all.counts()[word]);
  }
  const std::size_t middle = pipeline::bin_of_rank(all.counts(), kRows * kCols / 2).bin;
  return {stats::LogHistogram(sketch), bf16_to_float(static_cast<std::uint16_t>(middle))};
}

Matrix decoded(Executor& executor) {
  auto made = Matrix::uninitialized(kRows, kCols);
  if (!made) panic(made.error().message.c_str());
  executor.run(kRows, 64, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t r = begin; r < end; ++r) bf16_to_float(weights().row(r), made->row(r));
  });
  return *std::move(made);
}

void separate_sums(Sums& sums, Executor& executor) {
  const Matrix x = decoded(executor);
  kernels::Context context(executor);
  kernels::row_sums(x.view(), sums.rows, context);
  kernels::column_sums(x.view(), sums.columns, context);
}

Spread separate_spread(Executor& executor) {
  const Matrix x = decoded(executor);
  stats::QuantileSketch sketch;
  std::vector<float> magnitudes;
  magnitudes.reserve(x.size());
  for (std::size_t r = 0; r < kRows; ++r) {
    sketch.add(x.row(r));
    for (const float value : x.row(r)) magnitudes.push_back(std::fabs(value));
  }
  const auto middle = magnitudes.begin() + static_cast<std::ptrdiff_t>(magnitudes.size() / 2);
  std::nth_element(magnitudes.begin(), middle, magnitudes.end());
  return {stats::LogHistogram(sketch), *middle};
}

// 2^-19: what runs in float may be off.
bool close(double a, double b, double magnitudes) {
  return std::fabs(a - b) <= 0x1p-19 * magnitudes;
}
bool agree(const PowerSums& a, const PowerSums& b) {
  return a.count == b.count && a.nonfinite == b.nonfinite && a.max_abs == b.max_abs &&
         close(a.sum_abs, b.sum_abs, b.sum_abs);
}
bool agree(const Sums& a, const Sums& b) {
  for (std::size_t r = 0; r < kRows; ++r) {
    if (!agree(a.rows[r], b.rows[r])) return false;
  }
  for (std::size_t c = 0; c < kCols; ++c) {
    const PowerSums &x = a.columns[c], &y = b.columns[c];
    if (!agree(x, y) || !close(x.sum, y.sum, y.sum_abs) || !close(x.sum2, y.sum2, y.sum2) ||
        !close(x.sum4, y.sum4, y.sum4) ||
        !close(x.sum3, y.sum3, y.sum2 * static_cast<double>(y.max_abs))) {
      return false;
    }
  }
  return true;
}

/// Times `work` beside the read limit, turn by turn, so that a slow phase of the machine hits both.
template <typename Work>
void time(benchmark::State& state, Executor& executor, Work work) {
  constexpr double kBytes = double{2} * kRows * kCols;
  const auto* bytes = reinterpret_cast<const std::byte*>(weights().data());
  std::vector<double> limits, rates;
  for (auto _ : state) {
    state.PauseTiming();
    limits.push_back(kernels::read_limit(executor, bytes, 2 * kRows * kCols));
    state.ResumeTiming();
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    rates.push_back(kBytes / taken.count() * 1e-9);
  }
  const auto median = [](std::vector<double>& values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  };
  state.counters["GB/s"] = median(rates);
  state.counters["read_GB/s"] = median(limits);
  state.counters["share"] = median(rates) / median(limits);
}

void one_pass(benchmark::State& state, bool spread) {
  const auto executor = make_openmp_executor(static_cast<unsigned>(state.range(0)));
  std::vector<pipeline::WordCount> counts(spread ? executor->width() : 0);
  Sums sums;
  {
    Sums expected;
    separate_sums(expected, *executor);
    sum_lines(sums, counts, *executor);
    if (!agree(sums, expected)) return state.SkipWithError("sums differ");
  }
  if (spread) {
    const Spread found = spread_of(counts), expected = separate_spread(*executor);
    if (found.median != expected.median || !(found.histogram == expected.histogram)) {
      return state.SkipWithError("histograms or medians differ");
    }
  }
  time(state, *executor, [&] {
    sum_lines(sums, counts, *executor);
    if (spread) benchmark::DoNotOptimize(spread_of(counts));
  });
}

void separate(benchmark::State& state, bool spread) {
  const auto executor = make_openmp_executor(static_cast<unsigned>(state.range(0)));
  Sums sums;
  time(state, *executor, [&] {
    separate_sums(sums, *executor);
    if (spread) benchmark::DoNotOptimize(separate_spread(*executor));
  });
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const auto add = [](const char* name, auto run) {
    auto* bench = benchmark::RegisterBenchmark(name, run);
    bench->UseRealTime()->Unit(benchmark::kMillisecond);
    const unsigned all = make_openmp_executor()->width();
    for (unsigned threads = 1; threads <= all; threads *= 2) bench->Arg(threads);
  };
  add("bf16/sums_and_magnitudes", [](benchmark::State& s) { one_pass(s, false); });
  add("bf16/sums_and_magnitudes/histogram_median", [](benchmark::State& s) { one_pass(s, true); });
  add("bf16/sums_and_sums/separate_calls", [](benchmark::State& s) { separate(s, false); });
  add("bf16/sums_and_sums/histogram_median/separate_calls",
      [](benchmark::State& s) { separate(s, true); });
  std::string features;
  for (const std::string_view name : kernels::cpu_features()) features += " " + std::string(name);
  benchmark::AddCustomContext("cpu_features", features);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
