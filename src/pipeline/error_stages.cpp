// SPDX-License-Identifier: Apache-2.0

#include "pipeline/error_stages.hpp"

#include "linalg/linalg.hpp"
#include "pipeline/changed_models.hpp"

namespace quell::pipeline {
namespace {

/// out = a + factor * b.
Result<Matrix> sum_of(MatrixView<const float> a, float factor, MatrixView<const float> b) {
  QUELL_TRY(out, Matrix::uninitialized(a.rows(), a.cols()));
  for (std::size_t r = 0; r < a.rows(); ++r) {
    const auto left = a.row(r), right = b.row(r);
    const auto to = out.row(r);
    for (std::size_t c = 0; c < to.size(); ++c) to[c] = left[c] + factor * right[c];
  }
  return out;
}

void halve(Matrix& matrix) {
  for (float& value : matrix.values()) value *= 0.5F;
}

/// x [n, IC] times W^T.
Result<Matrix> product(const Matrix& x, const Matrix& weight, kernels::Context& context) {
  QUELL_TRY(out, Matrix::uninitialized(x.rows(), weight.rows()));
  kernels::DenseProduct product;
  product.a = {x.view(), false};
  product.b = {weight.view(), false};
  product.c = out.view();
  QUELL_TRY(kernels::gemm_dense(product, context));
  return out;
}

}  // namespace

Status FirstInputs::input(std::uint32_t, model::Site site, MatrixView<const float> x) {
  if (inputs_.contains(site)) return ok();
  QUELL_TRY(copy, copy_of(x));
  inputs_.emplace(site, std::move(copy));
  return ok();
}

Result<ErrorStage> linear_stage(const std::string& name, std::uint32_t layer, const Matrix& weight,
                                const Matrix& decoded, const Matrix& h, const Matrix& k,
                                kernels::Context& context) {
  ErrorStage stage;
  stage.name = name;
  stage.layer = layer;
  // a = (W + E/2)(k - h), b = E (h + k)/2. From differences, not from four outputs, which would
  // cancel where the error is small.
  QUELL_TRY(difference, sum_of(k.view(), -1, h.view()));
  QUELL_TRY(middle, sum_of(k.view(), 1, h.view()));
  halve(middle);
  QUELL_TRY(error, sum_of(decoded.view(), -1, weight.view()));
  QUELL_TRY(mean, sum_of(decoded.view(), 1, weight.view()));
  halve(mean);
  QUELL_TRY(carried, product(difference, mean, context));
  QUELL_TRY(fresh, product(middle, error, context));
  QUELL_TRY(output, product(h, weight, context));
  stats::ErrorSplitSums sums;
  for (std::size_t t = 0; t < h.rows(); ++t) {
    sums.add(carried.row(t), fresh.row(t), output.row(t), difference.row(t), h.row(t));
  }
  stage.split = sums.over_all();
  stage.split_per_token = sums.per_token();
  QUELL_TRY(mean_norm, linalg::spectral_norm(mean.view(), context));
  QUELL_TRY(norm, linalg::spectral_norm(weight.view(), context));
  if (norm > 0 && mean_norm > 0) {
    const double ratio = mean_norm / norm;
    stage.weight_gain = ratio * ratio;
    stage.alignment_gain = stage.split.gain() / stage.weight_gain;
  }
  return stage;
}

Result<ErrorStage> block_stage(engine::Engine& engine, const engine::BlockWeights& original,
                               const engine::BlockWeights& quantized,
                               std::span<const std::uint32_t> lengths, MatrixView<const float> h,
                               MatrixView<const float> k) {
  ErrorStage stage;
  stage.name = "layers." + std::to_string(original.layer);
  stage.layer = original.layer;
  stage.block = true;
  QUELL_TRY(f_h, copy_of(h));
  QUELL_TRY(f_k, copy_of(k));
  QUELL_TRY(g_h, copy_of(h));
  QUELL_TRY(g_k, copy_of(k));
  QUELL_TRY(engine.run_block(original, lengths, f_h.view()));
  QUELL_TRY(engine.run_block(original, lengths, f_k.view()));
  QUELL_TRY(engine.run_block(quantized, lengths, g_h.view()));
  QUELL_TRY(engine.run_block(quantized, lengths, g_k.view()));
  stats::ErrorSplitSums sums;
  std::vector<float> carried(h.cols()), fresh(h.cols()), difference(h.cols());
  for (std::size_t t = 0; t < h.rows(); ++t) {
    for (std::size_t c = 0; c < h.cols(); ++c) {
      carried[c] = 0.5F * ((g_k(t, c) - g_h(t, c)) + (f_k(t, c) - f_h(t, c)));
      fresh[c] = 0.5F * ((g_k(t, c) - f_k(t, c)) + (g_h(t, c) - f_h(t, c)));
      difference[c] = k(t, c) - h(t, c);
    }
    sums.add(carried, fresh, f_h.row(t), difference, h.row(t));
  }
  stage.split = sums.over_all();
  stage.split_per_token = sums.per_token();
  return stage;
}

}  // namespace quell::pipeline
