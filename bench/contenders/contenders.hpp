// SPDX-License-Identifier: Apache-2.0
#pragma once

// What others reach on the same operands, in the same table. None of these is a dependency of the
// library.

#include <cstddef>

namespace quell::bench {

/// c [m, n] = a [m, k] * b [n, k]^T, all without gaps.
using Product = void (*)(const float* a, const float* b, float* c, std::size_t m, std::size_t n,
                         std::size_t k);
/// Lower triangle of c [n, n] += x^T x with x [t, n].
using SymmetricProduct = void (*)(const float* x, float* c, std::size_t t, std::size_t n);

struct Contender {
  const char* name;
  Product product;                     // never null
  SymmetricProduct symmetric_product;  // null: has none
  void (*set_threads)(int threads);
};

extern const Contender kEigen;
#if defined(QUELL_BENCH_OPENBLAS)
extern const Contender kOpenBlas;
#endif

}  // namespace quell::bench
