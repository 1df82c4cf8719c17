// SPDX-License-Identifier: Apache-2.0

// How heavy are the tails of a checkpoint's weights, and do they sit in input channels? For every
// matrix: excess kurtosis (0 for a normal distribution), the largest |w| over the mean |w|, and the
// input channel that towers most above the others.

#include <quell/core/executor.hpp>
#include <quell/io/safetensors.hpp>
#include <quell/kernels/context.hpp>
#include <quell/kernels/tensor_stats.hpp>

#include <algorithm>
#include <cstdio>
#include <vector>

namespace {

// From plain power sums: the fourth central moment over the squared variance, minus 3.
double excess_kurtosis(const quell::kernels::PowerSums& s) {
  const double n = static_cast<double>(s.count), mean = s.sum / n;
  const double second = s.sum2 / n - mean * mean;
  const double fourth = s.sum4 / n - 4 * mean * s.sum3 / n + 6 * mean * mean * s.sum2 / n -
                        3 * mean * mean * mean * mean;
  return fourth / (second * second) - 3;
}

quell::Status measure(const char* folder) {
  QUELL_TRY(checkpoint, quell::io::Checkpoint::open(folder));
  quell::SerialExecutor threads;
  quell::kernels::Context context(threads);
  std::printf("%-42s %9s %9s  %s\n", "tensor", "kurtosis", "max/mean", "largest input channel");
  for (const quell::io::TensorInfo& info : checkpoint.tensors()) {
    if (info.shape.size() != 2) continue;
    QUELL_TRY(weight, checkpoint.read_floats(info.name));  // [OC, IC]
    const auto all = quell::kernels::power_sums(weight.view(), context);
    std::vector<quell::kernels::PowerSums> columns(weight.cols());
    quell::kernels::column_sums(weight.view(), columns, context);

    std::vector<float> maxima;
    for (const auto& column : columns) maxima.push_back(column.max_abs);
    const auto largest = std::max_element(maxima.begin(), maxima.end());
    const auto channel = largest - maxima.begin();
    const float top = *largest;
    std::nth_element(maxima.begin(), maxima.begin() + maxima.size() / 2, maxima.end());
    const float median = maxima[maxima.size() / 2];
    std::printf("%-42s %9.2f %9.1f  %4td: %.1f times the median one\n", info.name.c_str(),
                excess_kurtosis(all),
                double{all.max_abs} * static_cast<double>(all.count) / all.sum_abs, channel,
                double{top} / double{median});
  }
  return quell::ok();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: measure_outliers MODEL-FOLDER\n");
    return 2;
  }
  if (const auto done = measure(argv[1]); !done) {
    std::fprintf(stderr, "%s\n", done.error().message.c_str());
    return 1;
  }
}
