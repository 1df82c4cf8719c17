// SPDX-License-Identifier: Apache-2.0
#pragma once

// Matrix products. Two ways in: gemm_dense multiplies two matrices once (solvers, attention), pack
// + gemm multiplies many activations with one weight (an engine). Both give the same bits on every
// x86 instruction set and any number of threads (unless a caller asks for bfloat16 activations):
// each output has one accumulator to which the products are added in ascending k with fused
// multiply-add. Quantized weights are packed as they are, codes and scales, and multiplied without
// being written out as floats.

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "quell/core/dtype.hpp"
#include "quell/core/result.hpp"
#include "quell/core/view.hpp"
#include "quell/grid/quantized.hpp"
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

class PackedForm;

/// Weights rearranged for the best kernel of this machine. No checkpoint: what is kept of a model
/// is a QuantizedTensor, and packed bytes are a copy of it for machines like this one.
class PackedWeights {
 public:
  PackedWeights() noexcept;  // 0 x 0
  explicit PackedWeights(std::unique_ptr<PackedForm> form) noexcept;
  PackedWeights(PackedWeights&&) noexcept;
  PackedWeights& operator=(PackedWeights&&) noexcept;
  ~PackedWeights();

  std::size_t rows() const noexcept;  // OC
  std::size_t cols() const noexcept;  // IC
  std::size_t bytes() const noexcept { return memory().size(); }
  /// All that was packed, at a 64-byte boundary: what view_packed takes back.
  std::span<const std::byte> memory() const noexcept;
  /// What multiplies them, such as "gemm_w4a8/avx512vnni"; with kept columns it ends with
  /// " + kept_columns/avx512", say.
  std::string kernel() const;

 private:
  std::unique_ptr<PackedForm> form_;
  friend Status gemm(MatrixView<const float>, const PackedWeights&, MatrixView<float>, Context&);
};

/// Packs W [OC, IC] in float32.
Result<PackedWeights> pack(MatrixView<const float> weight, Executor& executor);

/// What packed weights are multiplied with.
enum class Activations {
  f32,   // as they are: the product of the dequantized weight, up to float32 rounding
  int8,  // each row rounded to int8 with one scale of its own (quantize_rows): several times faster
  bf16,  // each value rounded to bfloat16, to nearest even, sums in float32: faster where the
         // machine multiplies bfloat16. Within 2^-8 sum |x w| of the product of the dequantized
         // weight, and the rounding of the sums (kernels/cpu/gemm_bf16/contract.hpp). Machines may
         // differ in the bits; any number of threads gives the same, and so does a token alone.
};

/// Packs W [OC, IC] in `as`: f32, or f16 or bf16, in half the memory, with values rounded to
/// nearest even. y then has the rounding of products with quantized weights, not the bits of
/// gemm_dense. Errors: unsupported (another type; int8 activations, or bf16 ones for a weight that
/// is not bf16); numeric (a value beyond f16's 65,504, with its place); resource.
Result<PackedWeights> pack(MatrixView<const float> weight, DType as, Executor& executor,
                           Activations activations = Activations::f32);

/// Packs a quantized weight. Errors: unsupported (a grid that no kernel multiplies so, with the
/// reason), resource.
///
/// With groups down the input channels, x is multiplied by the scales of each run of output
/// channels before it is rounded to int8 or bf16, so it is rounded once for every run. With int8
/// activations and scales of two levels along a row the sum of a row is a whole number, up to
/// 140,000 input channels. Of the codebooks, iq4 takes int8 and bf16 activations, its levels being
/// whole numbers.
///
/// Kept columns are multiplied in the same call, in float32 with every kind of activations: to the
/// codes their channels of x are 0, so that they take no part in the scale of an int8 row, and
/// x[c] * w[o, c] is then added to the finished y for each kept c, ascending, with fused
/// multiply-add. A weight that is written out as floats (f32 activations, a grid that no kernel of
/// codes takes) has them in its rows, where they are added in their place.
///
/// `order`, if not empty, is the input channel that each column of `weight` multiplies: y = the sum
/// over k of x[order[k]] * w[o, k]. So columns may lie sorted by their groups (act-order), whatever
/// the order of x; x is gathered for each call. Kept columns are columns of `weight`. Further
/// error: shape (not each channel once).
Result<PackedWeights> pack(const QuantizedTensor& weight, Activations activations,
                           Executor& executor, std::span<const std::uint32_t> order = {});

/// For hosts that own all memory: how many bytes pack takes, and pack into memory of the caller at
/// a 64-byte boundary, of which as many are written. The memory outlives the result, which
/// multiplies with the same bits as what pack returns. A quantized weight that is multiplied as
/// floats is written out in memory of ours meanwhile. Further errors: shape (too little memory,
/// with both numbers), usage (alignment).
Result<std::size_t> packed_bytes(MatrixView<const float> weight, DType as = DType::f32,
                                 Activations activations = Activations::f32);
Result<std::size_t> packed_bytes(const QuantizedTensor& weight, Activations activations,
                                 std::span<const std::uint32_t> order = {});
Result<PackedWeights> pack_into(MatrixView<const float> weight, DType as,
                                std::span<std::byte> memory, Executor& executor,
                                Activations activations = Activations::f32);
Result<PackedWeights> pack_into(const QuantizedTensor& weight, Activations activations,
                                std::span<std::byte> memory, Executor& executor,
                                std::span<const std::uint32_t> order = {});

/// Weights that were packed before, in memory at a 64-byte boundary which outlives the result: a
/// file mapped, say. `bytes` are those of memory(). Nothing is read but a label and the numbers of
/// kept columns and of an order, four bytes each, which are copied: codes and scales cost nothing.
/// Bytes may be hostile: version, kind, grid and sizes are checked, and so are these copies; what
/// the label cannot tell (changed codes, changed scales) changes numbers and nothing else, so a
/// host that fears damage keeps a hash. Quantized panels serve every instruction set, floats those
/// of one width. Errors: parse, usage (alignment), unsupported (floats packed for another
/// instruction set).
Result<PackedWeights> view_packed(std::span<const std::byte> bytes);

/// y [T, OC] = x [T, IC] * W^T. Errors: shape, resource (scratch).
Status gemm(MatrixView<const float> x, const PackedWeights& weight, MatrixView<float> y,
            Context& context);

}  // namespace quell::kernels
