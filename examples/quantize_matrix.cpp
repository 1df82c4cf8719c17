// SPDX-License-Identifier: Apache-2.0

// One huge input channel, two directions of groups. Groups along a row put the huge elements into a
// group of every row; groups down a column keep them among themselves, and the others stay fine.

#include <quell/core/executor.hpp>
#include <quell/core/random.hpp>
#include <quell/core/tensor.hpp>
#include <quell/grid/quantized.hpp>
#include <quell/grid/scale.hpp>
#include <quell/grid/spec.hpp>

#include <cmath>
#include <cstdio>

namespace {

// Root of the mean squared error over the ordinary channels, divided by that of their values.
quell::Result<double> error_beside_outlier(const quell::Matrix& weight, const char* word,
                                           std::size_t outlier, quell::Executor& threads) {
  QUELL_TRY(grid, quell::parse_grid(word));
  QUELL_TRY(scales,
            quell::choose_scales(weight.view(), grid, quell::ScaleMethod::absmax, {}, threads));
  QUELL_TRY(codes, quell::quantize_to_grid(weight.view(), grid, std::move(scales), threads));
  QUELL_TRY(back, quell::Matrix::zeros(weight.rows(), weight.cols()));
  QUELL_TRY(quell::dequantize(codes, back.view(), threads));
  double error = 0, total = 0;
  for (std::size_t r = 0; r < weight.rows(); ++r) {
    for (std::size_t c = 0; c < weight.cols(); ++c) {
      if (c == outlier) continue;
      error += std::pow(double{weight(r, c)} - double{back(r, c)}, 2);
      total += std::pow(double{weight(r, c)}, 2);
    }
  }
  std::printf("%-22s %5.2f bits per weight, relative error %.4f\n", word, codes.bits_per_weight(),
              std::sqrt(error / total));
  return std::sqrt(error / total);
}

quell::Status compare() {
  quell::SerialExecutor threads;
  const std::size_t outlier = 37;
  QUELL_TRY(weight, quell::Matrix::zeros(256, 512));  // [OC, IC]
  quell::Random(/*seed=*/1).fill_normal(weight.values());
  for (std::size_t r = 0; r < weight.rows(); ++r) weight(r, outlier) *= 60.0f;
  QUELL_TRY(per_output, error_beside_outlier(weight, "int4:sym:oc:g128", outlier, threads));
  QUELL_TRY(per_input, error_beside_outlier(weight, "int4:sym:ic:g128", outlier, threads));
  std::printf("per input channel: %.1f times smaller\n", per_output / per_input);
  return quell::ok();
}

}  // namespace

int main() {
  if (const auto done = compare(); !done) {
    std::fprintf(stderr, "%s\n", done.error().message.c_str());
    return 1;
  }
}
