// SPDX-License-Identifier: Apache-2.0

// OpenBLAS as the system provides it; it chooses its kernels for the machine itself.

#include <cblas.h>

#include "contenders/contenders.hpp"

namespace quell::bench {
namespace {

int size(std::size_t value) {
  return static_cast<int>(value);
}

void product(const float* a, const float* b, float* c, std::size_t m, std::size_t n,
             std::size_t k) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, size(m), size(n), size(k), 1.0f, a, size(k),
              b, size(k), 0.0f, c, size(n));
}

void symmetric_product(const float* x, float* c, std::size_t t, std::size_t n) {
  cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, size(n), size(t), 1.0f, x, size(n), 1.0f, c,
              size(n));
}

void set_threads(int threads) {
  openblas_set_num_threads(threads);
}

}  // namespace

const Contender kOpenBlas = {"openblas", product, symmetric_product, set_threads};

}  // namespace quell::bench
