// SPDX-License-Identifier: Apache-2.0

// Eigen, compiled for the machine at hand (bench/kernels.cmake): it has no dispatch of its own.

#include <Eigen/Core>

#include "contenders/contenders.hpp"

namespace quell::bench {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Eigen::Index index(std::size_t value) {
  return static_cast<Eigen::Index>(value);
}

void product(const float* a, const float* b, float* c, std::size_t m, std::size_t n,
             std::size_t k) {
  const Eigen::Map<const RowMajor> a_map(a, index(m), index(k)), b_map(b, index(n), index(k));
  Eigen::Map<RowMajor> c_map(c, index(m), index(n));
  c_map.noalias() = a_map * b_map.transpose();
}

void symmetric_product(const float* x, float* c, std::size_t t, std::size_t n) {
  const Eigen::Map<const RowMajor> x_map(x, index(t), index(n));
  Eigen::Map<RowMajor> c_map(c, index(n), index(n));
  c_map.selfadjointView<Eigen::Lower>().rankUpdate(x_map.transpose());
}

void set_threads(int threads) {
  Eigen::setNbThreads(threads);
}

}  // namespace

const Contender kEigen = {"eigen", product, symmetric_product, set_threads};

}  // namespace quell::bench
