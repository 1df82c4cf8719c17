// SPDX-License-Identifier: Apache-2.0
#pragma once

// Matrix products. Two ways in: gemm_dense multiplies two matrices once (solvers, attention), pack +
// gemm multiplies many activations with one weight (an engine). Both give the same bits on every x86
// instruction set and any number of threads: each output has one accumulator to which the products
// are added in ascending k with fused multiply-add.

#include <cstddef>
#include <memory>

#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/kernels/context.hpp"

namespace quell::kernels {

/// One operand of C = A * B^T: logically [rows, K]. `transposed`: memory holds it as [K, rows].
struct DenseOperand {
  MatrixView<const float> matrix;
  bool transposed = false;

  std::size_t rows() const noexcept { return transposed ? matrix.cols() : matrix.rows(); }
  std::size_t depth() const noexcept { return transposed ? matrix.rows() : matrix.cols(); }
};

enum class Accumulate { set, add, subtract };  // C = P, C + P, C - P with P = A * B^T
/// lower: only elements with column <= row are written (C is square and the rest is left as it is);
/// the work is about half.
enum class Triangle { full, lower };

struct DenseProduct {
  DenseOperand a;       // [M, K]
  DenseOperand b;       // [N, K]
  MatrixView<float> c;  // [M, N], aliases neither operand
  Accumulate accumulate = Accumulate::set;
  Triangle triangle = Triangle::full;
};

/// Errors: shape (sizes that disagree), resource (scratch). K = 0 with `set` gives zeros.
Status gemm_dense(const DenseProduct& product, Context& context);

/// sum += A * B^T, where each element of the product is first finished in float32, with the bits of
/// gemm_dense. For sums over more steps than float32 can hold: cut them, and add the parts here.
/// Needs scratch for both operands. Errors: shape, resource.
Status add_product(const DenseOperand& a, const DenseOperand& b, Triangle triangle,
                   MatrixView<double> sum, Context& context);

/// Weights rearranged for the best kernel of this machine. Never written to disk.
class PackedWeights {
 public:
  PackedWeights() noexcept;
  PackedWeights(PackedWeights&&) noexcept;
  PackedWeights& operator=(PackedWeights&&) noexcept;
  ~PackedWeights();

  std::size_t rows() const noexcept;   // OC
  std::size_t cols() const noexcept;   // IC
  std::size_t bytes() const noexcept;  // of packed memory

 private:
  struct State;
  std::unique_ptr<State> state_;
  friend Result<PackedWeights> pack(MatrixView<const float>, Executor&);
  friend Status gemm(MatrixView<const float>, const PackedWeights&, MatrixView<float>, Context&);
};

/// Packs W [OC, IC].
Result<PackedWeights> pack(MatrixView<const float> weight, Executor& executor);

/// y [T, OC] = x [T, IC] * W^T. Errors: shape.
Status gemm(MatrixView<const float> x, const PackedWeights& weight, MatrixView<float> y,
            Context& context);

}  // namespace quell::kernels
