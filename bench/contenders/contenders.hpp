// SPDX-License-Identifier: Apache-2.0
#pragma once

// What others reach on the same operands, in the same table. None of these is a dependency of the
// library.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

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

/// Weights laid out once, as an engine does; multiply() is what is timed.
class Prepared {
 public:
  virtual ~Prepared() = default;
  /// x [m, k], of floats or int8 as prepared for; y [m, n].
  virtual void multiply(const void* x, float* y) = 0;
  /// Of the weights as it reads them.
  virtual std::size_t bytes() const = 0;
  virtual std::string name() const = 0;
};

struct PreparedShape {
  std::size_t m, n, k;
};

#if defined(QUELL_BENCH_ONEDNN)
/// weights [n, k]. Null where oneDNN has nothing but its plain loops.
std::unique_ptr<Prepared> onednn_f32(const PreparedShape& shape, const float* weights);
/// codes [n, k], signed, of 4 or 8 bits; scales [k / group, n]. With int8 activations y is their
/// whole numbers times the weight: one scale a token is what it has no fast kernel for.
std::unique_ptr<Prepared> onednn_quantized(const PreparedShape& shape, bool int8_activations,
                                           unsigned bits, const std::int8_t* codes,
                                           std::size_t group, const std::vector<float>& scales);
#endif

}  // namespace quell::bench
