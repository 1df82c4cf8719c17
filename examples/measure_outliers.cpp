// SPDX-License-Identifier: Apache-2.0

// How heavy are the tails of a checkpoint's weights, and do they sit in input channels? For every
// matrix: excess kurtosis (0 for a normal distribution), the largest |w| over the mean |w|, and the
// input channel that towers most above the others.

#include <quell/core/executor.hpp>
#include <quell/io/safetensors.hpp>
#include <quell/stats/channels.hpp>
#include <quell/stats/magnitude.hpp>

#include <algorithm>
#include <cstdio>
#include <vector>

static quell::Status measure(const char* folder) {
  quell::SerialExecutor threads;
  QUELL_TRY(checkpoint, quell::io::Checkpoint::open(folder));
  std::printf("%-40s %9s %9s  %s\n", "tensor", "kurtosis", "max/mean", "largest input channel");
  for (const quell::io::TensorInfo& info : checkpoint.tensors()) {
    if (info.shape.size() != 2) continue;
    QUELL_TRY(weight, checkpoint.read_floats(info.name));  // [OC, IC]

    const auto inputs =
        quell::stats::profile_channels(weight.view(), quell::stats::Lines::columns, threads);
    const auto sizes = quell::stats::magnitudes(weight.values());
    const std::vector<double> ratios = inputs.max_abs_ratios();  // to the median channel
    const auto worst = std::max_element(ratios.begin(), ratios.end());

    std::printf("%-40s %9.2f %9.1f  %4td: %.1f times the median one\n", info.name.c_str(),
                inputs.overall().excess_kurtosis(), sizes.max_to_mean_abs(), worst - ratios.begin(),
                *worst);
  }
  return quell::ok();
}

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
