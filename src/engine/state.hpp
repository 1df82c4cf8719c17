// SPDX-License-Identifier: Apache-2.0
#pragma once

// What an Engine holds. Private to the files that implement it.

#include <vector>

#include "engine/attention.hpp"
#include "engine/rope.hpp"
#include "engine/scratch.hpp"
#include "quell/engine/engine.hpp"

namespace quell::engine {

/// Weight and bias of a norm, one row each. Those that a model does not have are ones and zeros, so
/// that the arithmetic is the same for all.
struct NormWeights {
  Matrix weight, bias;
};

struct Engine::State {
  State(const model::Model& the_model, Executor& the_executor, EngineOptions the_options)
      : model(the_model),
        config(the_model.config()),
        executor(the_executor),
        options(the_options),
        context(the_executor),
        attention(the_executor),
        rope(the_model.config().rope) {}

  const model::Model& model;
  const model::ModelConfig& config;
  Executor& executor;
  EngineOptions options;
  kernels::Context context;
  Attention attention;
  RopeTables rope;
  std::vector<attention::AttentionRule> rules =
      std::vector<attention::AttentionRule>(1);  // one, or one for each block

  NormWeights final_norm;
  Matrix positions;   // learned positions, else empty
  Matrix token_type;  // row 0 of the table, else empty
  NormWeights embedding_norm;
  Matrix embedding;                                // small embeddings, read at the first use
  kernels::PackedWeights project_in, project_out;  // where the model has them
  std::vector<kernels::PackedWeights> head;        // slices, if kept
  mutable std::string not_rounded;  // what kept a weight from rounded activations, if anything did

  Scratch normed, qkv, attended, mlp, branch, narrow, cached, gate_factors, formed;
  kernels::KeyValueCache rounding;  // what whole sequences are rounded by, as long as the longest

  // Reading with the policy on weights that are not finite.
  Result<Matrix> tensor(const std::string& name) const;
  Result<Matrix> rows(const std::string& name, std::size_t first, std::size_t count) const;
  Result<Matrix> weight(const model::Linear& linear) const;
  Result<Matrix> bias(const model::Linear& linear) const;
  /// The layer as options.arithmetic multiplies it; its weight from `source`, if not null.
  Result<PackedLinear> linear(const model::Linear& linear, WeightSource* source) const;
  Result<PackedLinear> quantized(const io::ModulePlan& module, const QuantizedTensor& codes) const;
  Result<kernels::PackedWeights> packed(const QuantizedTensor& codes) const;
  /// One that is no codes, in `type` if the arithmetic does not want another.
  Result<kernels::PackedWeights> packed(MatrixView<const float> matrix, DType type) const;
  /// How a weight that is not quantized is packed: as it is stored, but float32 for the reference.
  DType packed_type(const std::string& tensor) const;
  /// Rows of the head that are packed together, and those from `first` on, a multiple of it.
  std::size_t head_slice() const;
  Result<kernels::PackedWeights> packed_head(std::size_t first) const;
  Result<NormWeights> norm(const model::NormTensors& names, std::size_t width) const;

  /// y = norm(x), [T, H]; y may be x.
  void apply_norm(const Matrix& weight, const Matrix& bias, MatrixView<const float> x,
                  MatrixView<float> y);
  /// y = x W^T + b.
  Status apply(const PackedLinear& linear, MatrixView<const float> x, MatrixView<float> y);

  /// The three outputs of the q, k and v linears, views of one row-major [T, q | k | v].
  struct Heads {
    MatrixView<float> queries, keys, values;
  };
  Result<Heads> project_heads(const BlockWeights& weights, MatrixView<const float> x);
  void normalize_heads(const Matrix& weight, std::size_t heads, MatrixView<float> x);
  const attention::AttentionRule& rule(std::uint32_t layer) const {
    return rules[rules.size() == 1 ? 0 : layer];
  }
  AttentionShape attention_shape(std::uint32_t layer) const;
  /// Keys and values, each [T, kv_heads * head_dim], become what options.cache keeps of them.
  Status round_as_cached(MatrixView<float> keys, MatrixView<float> values);
  /// [T, heads] from the input of the block; empty where the rule has no gate.
  Result<MatrixView<const float>> gates(std::uint32_t layer, MatrixView<const float> x);
  /// What the linears at qkv_in or mlp_in read; x itself where norms come after. Valid until the
  /// next call, as are the other views.
  Result<MatrixView<const float>> site_input(const BlockWeights& weights, model::Site site,
                                             MatrixView<const float> x);
  /// The input of o, from that of the heads.
  Result<MatrixView<float>> attend(const BlockWeights& weights,
                                   std::span<const std::uint32_t> lengths,
                                   MatrixView<const float> input, Tap* tap);
  /// The input of down, from that of the MLP.
  Result<MatrixView<float>> expand(const BlockWeights& weights, MatrixView<const float> input);
  /// x += o(input) at o_in, x += down(input) at down_in; then close_output, for norms that come
  /// after.
  Status add_output(const BlockWeights& weights, model::Site site, MatrixView<const float> input,
                    MatrixView<float> x);
  void close_output(const BlockWeights& weights, model::Site site, MatrixView<float> x);
  /// x += o(heads), then the MLP; `heads` is the output of attention.
  Status finish_block(const BlockWeights& weights, MatrixView<const float> heads,
                      MatrixView<float> x, Tap* tap);
  Status run_group(const BlockWeights& weights, std::span<const std::uint32_t> lengths,
                   MatrixView<float> x, Tap* tap);
};

}  // namespace quell::engine
