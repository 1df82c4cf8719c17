// SPDX-License-Identifier: Apache-2.0

// What an inference engine keeps of quell: a quantized weight packed once for this machine,
// multiplied often, on the engine's own threads and scratch memory. Compiles without exceptions and
// RTTI.

#include <quell/core/executor.hpp>
#include <quell/core/tensor.hpp>
#include <quell/grid/quantized.hpp>
#include <quell/grid/scale.hpp>
#include <quell/kernels/context.hpp>
#include <quell/kernels/gemm.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <thread>
#include <utility>
#include <vector>

// The engine's threads. It may have a pool of its own; here every call starts and joins some.
class EngineThreads final : public quell::Executor {
 public:
  explicit EngineThreads(unsigned width) : width_(width) {}
  unsigned width() const noexcept override { return width_; }

  void run(std::size_t n, std::size_t grain, quell::RangeFunction fn) override {
    const std::size_t grains = (n + grain - 1) / grain;
    std::vector<std::thread> threads;
    for (unsigned slot = 0; slot < width_; ++slot) {
      const std::size_t begin = grains * slot / width_ * grain;
      const std::size_t end = std::min(grains * (slot + 1) / width_ * grain, n);
      if (begin < end) threads.emplace_back([=] { fn(begin, end, slot); });
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  unsigned width_;
};

class Linear {
 public:
  static quell::Result<Linear> prepare(const quell::QuantizedTensor& weight,  // [OC, IC]
                                       quell::Executor& threads) {
    // For the kernels of this machine; an error says why none fits.
    QUELL_TRY(packed, quell::kernels::pack(weight, quell::kernels::Activations::int8, threads));
    return Linear(std::move(packed));
  }

  quell::Status forward(quell::MatrixView<const float> x,  // [T, IC]
                        quell::MatrixView<float> y,        // [T, OC]
                        quell::kernels::Context& context) const {
    return quell::kernels::gemm(x, packed_, y, context);  // y = x * W^T
  }

 private:
  explicit Linear(quell::kernels::PackedWeights packed) : packed_(std::move(packed)) {}
  quell::kernels::PackedWeights packed_;
};

static quell::Status multiply() {
  EngineThreads threads(2);
  QUELL_TRY(grid, quell::parse_grid("int4:sym:oc:g64"));
  QUELL_TRY(weight, quell::Matrix::zeros(384, 256));  // [OC, IC]; usually read from a checkpoint
  for (std::size_t i = 0; i < weight.size(); ++i)
    weight.data()[i] = static_cast<float>(i % 7) - 3.0f;
  QUELL_TRY(scales,
            quell::choose_scales(weight.view(), grid, quell::ScaleMethod::search, {}, threads));
  QUELL_TRY(codes, quell::quantize_to_grid(weight.view(), grid, std::move(scales), threads));
  QUELL_TRY(linear, Linear::prepare(codes, threads));

  quell::kernels::Context context(threads);
  QUELL_TRY(x, quell::Matrix::zeros(5, 256));
  QUELL_TRY(y, quell::Matrix::zeros(5, 384));
  for (std::size_t t = 0; t < x.rows(); ++t) x(t, t) = 1.0f;  // token t picks column t of W
  QUELL_TRY(linear.forward(x.view(), y.view(), context));

  std::vector<float> row(codes.cols());
  for (std::size_t oc = 0; oc < y.cols(); ++oc) {
    codes.dequantize_row(oc, row);
    for (std::size_t t = 0; t < y.rows(); ++t) {
      if (std::fabs(y(t, oc) - row[t]) > 1e-5f) {
        return quell::Error{quell::ErrorCode::verification, "the product is wrong"};
      }
    }
  }
  std::printf("5 tokens x [384, 256] in %.2f bits: right, on %u threads of the engine\n",
              codes.bits_per_weight(), threads.width());
  return quell::ok();
}

int main() {
  if (const auto done = multiply(); !done) {
    std::fprintf(stderr, "%s\n", done.error().message.c_str());
    return 1;
  }
}
