// SPDX-License-Identifier: Apache-2.0

// A project that takes the headers alone: quantize one matrix by hand-sized steps, link nothing.

#include <quell/core/executor.hpp>
#include <quell/core/tensor.hpp>
#include <quell/grid/quantized.hpp>
#include <quell/grid/scale.hpp>
#include <quell/grid/spec.hpp>

#include <cmath>
#include <cstdio>

namespace {

quell::Result<float> worst_error() {
  QUELL_TRY(weight, quell::Matrix::zeros(4, 64));
  for (std::size_t i = 0; i < weight.size(); ++i) {
    weight.data()[i] = static_cast<float>(i % 17) - 8.0f;
  }
  quell::SerialExecutor executor;
  QUELL_TRY(grid, quell::parse_grid("int4:sym:oc:g32"));
  QUELL_TRY(scales,
            quell::choose_scales(weight.view(), grid, quell::ScaleMethod::absmax, {}, executor));
  QUELL_TRY(codes, quell::quantize_to_grid(weight.view(), grid, std::move(scales), executor));
  QUELL_TRY(back, quell::Matrix::zeros(4, 64));
  QUELL_TRY(quell::dequantize(codes, back.view(), executor));
  float worst = 0.0f;
  for (std::size_t i = 0; i < weight.size(); ++i) {
    worst = std::fmax(worst, std::fabs(weight.data()[i] - back.data()[i]));
  }
  return worst;
}

}  // namespace

int main() {
  const auto worst = worst_error();
  if (!worst) {
    std::fprintf(stderr, "%s\n", worst.error().message.c_str());
    return 1;
  }
  // absmax 8 over the half range 7.5 makes the scale 1.067: rounding is off by half of it, and the
  // code 7.5 that the largest value would need is clamped to 7, which costs half a scale as well.
  return *worst <= 0.54f ? 0 : 1;
}
