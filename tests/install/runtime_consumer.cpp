// SPDX-License-Identifier: Apache-2.0

// An inference engine, built without exceptions and RTTI: it packs a weight once, multiplies with
// it, and meets a file that is not there.

#include <quell/core/executor.hpp>
#include <quell/core/tensor.hpp>
#include <quell/io/safetensors.hpp>
#include <quell/kernels/context.hpp>
#include <quell/kernels/gemm.hpp>

#include <cstdio>

#if defined(__cpp_exceptions) || defined(__cpp_rtti)
#error "this consumer is to be compiled with -fno-exceptions -fno-rtti"
#endif

namespace {

quell::Result<bool> multiplies() {
  // W [3, 2] and x [1, 2], small enough to be checked by eye.
  QUELL_TRY(weight, quell::Matrix::zeros(3, 2));
  QUELL_TRY(x, quell::Matrix::zeros(1, 2));
  QUELL_TRY(y, quell::Matrix::zeros(1, 3));
  for (std::size_t i = 0; i < weight.size(); ++i) weight.data()[i] = static_cast<float>(i);
  x.data()[0] = 10.0f;
  x.data()[1] = 1.0f;
  quell::SerialExecutor executor;
  quell::kernels::Context context(executor);
  QUELL_TRY(packed, quell::kernels::pack(weight.view(), executor));
  QUELL_TRY(quell::kernels::gemm(x.view(), packed, y.view(), context));
  return y(0, 0) == 1.0f && y(0, 1) == 23.0f && y(0, 2) == 45.0f;
}

}  // namespace

int main() {
  const auto right = multiplies();
  if (!right) {
    std::fprintf(stderr, "%s\n", right.error().message.c_str());
    return 1;
  }
  const auto absent = quell::io::Checkpoint::open("no/such/file.safetensors");
  const bool reported = !absent && absent.error().code == quell::ErrorCode::missing &&
                        !absent.error().message.empty();
  return *right && reported ? 0 : 1;
}
