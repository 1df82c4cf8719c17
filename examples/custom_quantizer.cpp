// SPDX-License-Identifier: Apache-2.0

// A method of your own is a class with three functions. This one rounds stochastically, so that the
// error has mean zero, and is compared with rounding to nearest on the same weight.

#include <quell/core/executor.hpp>
#include <quell/core/random.hpp>
#include <quell/core/tensor.hpp>
#include <quell/grid/quantized.hpp>
#include <quell/grid/scale.hpp>
#include <quell/quant/methods.hpp>
#include <quell/quant/quantizer.hpp>

#include <cmath>
#include <cstdio>
#include <memory>

class StochasticRounding final : public quell::quant::Quantizer {
 public:
  std::string_view name() const override { return "stochastic"; }
  quell::quant::Needs needs() const override { return quell::quant::Needs::weights_only; }

  quell::Result<quell::quant::Quantized> quantize(const quell::quant::LayerProblem& layer,
                                                  quell::Executor& threads) const override {
    const quell::MatrixView<const float> w = layer.weight;  // [OC, IC]
    QUELL_TRY(scales, quell::choose_scales(w, layer.grid, layer.scale, {}, threads));
    const std::size_t group = layer.grid.group == 0 ? w.cols() : layer.grid.group;
    // Move every weight by up to half a step; rounding to nearest then goes up with the probability
    // of the part behind the point. The numbers depend on the place alone, not on the thread.
    QUELL_TRY(moved, quell::Matrix::zeros(w.rows(), w.cols()));
    for (std::size_t r = 0; r < w.rows(); ++r) {
      for (std::size_t c = 0; c < w.cols(); ++c) {
        const float step = std::fabs(scales.scales[r * scales.cols + c / group]);
        const double uniform = random_.uniform(r * w.cols() + c);
        moved(r, c) = w(r, c) + step * static_cast<float>(uniform - 0.5);
      }
    }
    QUELL_TRY(codes, quell::quantize_to_grid(moved.view(), layer.grid, std::move(scales), threads));
    return quell::quant::Quantized(std::move(codes));
  }

 private:
  quell::Random random_{/*seed=*/7};
};

static quell::Result<double> mean_error(const quell::quant::Quantizer& method,
                                        const quell::quant::LayerProblem& layer,
                                        quell::Executor& threads) {
  QUELL_TRY(done, method.quantize(layer, threads));
  QUELL_TRY(back, quell::Matrix::zeros(layer.weight.rows(), layer.weight.cols()));
  QUELL_TRY(quell::dequantize(done.tensor, back.view(), threads));
  double sum = 0, squares = 0;
  for (std::size_t r = 0; r < back.rows(); ++r) {
    for (std::size_t c = 0; c < back.cols(); ++c) {
      const double error = double{back(r, c)} - double{layer.weight(r, c)};
      sum += error;
      squares += error * error;
    }
  }
  const double n = static_cast<double>(back.size());
  std::printf("%-12s mean error %+.5f, root mean square %.5f\n", std::string(method.name()).c_str(),
              sum / n, std::sqrt(squares / n));
  return std::fabs(sum / n);
}

static quell::Status compare() {
  quell::SerialExecutor threads;
  QUELL_TRY(weight, quell::Matrix::zeros(64, 256));
  // The narrow grid [-7, 7] makes the step 1 here: two in three weights lie 0.3 steps above a code,
  // which nearest rounding always cuts off.
  for (std::size_t i = 0; i < weight.size(); ++i) weight.data()[i] = i % 3 == 0 ? 7.0f : 2.3f;
  QUELL_TRY(grid, quell::parse_grid("int4n:sym:oc:g64"));
  quell::quant::LayerProblem layer;
  layer.name = "example";
  layer.weight = weight.view();
  layer.grid = grid;
  QUELL_TRY(nearest, mean_error(*quell::quant::rtn(), layer, threads));
  QUELL_TRY(stochastic, mean_error(StochasticRounding(), layer, threads));
  if (stochastic > nearest) {
    return quell::Error{quell::ErrorCode::verification,
                        "stochastic rounding has the larger mean error"};
  }
  return quell::ok();
}

int main() {
  if (const auto done = compare(); !done) {
    std::fprintf(stderr, "%s\n", done.error().message.c_str());
    return 1;
  }
}
