// SPDX-License-Identifier: Apache-2.0
#pragma once

// The reference forward pass in float32. It goes block by block, so that one block's weights are
// all that must be resident: callers hold the hidden states of many sequences and carry them
// through a block together. With a key-value cache the same code generates token by token. An
// encoder goes through the same blocks; its last hidden states are its product (embeddings.hpp).

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quell/attention/rule.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/engine/input_form.hpp"
#include "quell/engine/precision.hpp"
#include "quell/engine/tap.hpp"
#include "quell/grid/spec.hpp"
#include "quell/kernels/attention.hpp"
#include "quell/kernels/context.hpp"
#include "quell/kernels/gemm.hpp"
#include "quell/model/model.hpp"

namespace quell::engine {

/// Keys and values of all layers for one sequence, grown as tokens are fed.
class Cache {
 public:
  static Result<Cache> create(const model::ModelConfig& config, std::uint32_t capacity,
                              kernels::CacheKind kind = kernels::CacheKind::f32);
  std::uint32_t length() const noexcept { return length_; }
  std::uint32_t capacity() const noexcept { return capacity_; }
  /// Of all layers together (KeyValueCache::bytes_per_token).
  std::uint64_t bytes_per_token() const noexcept;

 private:
  friend class Engine;
  std::uint32_t length_ = 0, capacity_ = 0;
  std::vector<kernels::KeyValueCache> layers_;
};

/// A linear layer, packed for the kernels.
struct PackedLinear {
  kernels::PackedWeights weight;
  Matrix bias;      // one row; empty where there is none
  InputForm input;  // what is multiplied; not what the kernel does to its input by itself
};

/// The weights of one block.
struct BlockWeights {
  std::uint32_t layer = 0;
  std::vector<PackedLinear> qkv, gate_up;
  PackedLinear o, down;
  Matrix attention_norm, attention_norm_bias, mlp_norm, mlp_norm_bias, q_norm, k_norm;
};

/// Lets a caller give other weights than the model's files (blocks that were just quantized).
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual Result<Matrix> weight(const model::Linear& linear) = 0;
  /// What that weight is multiplied with. Asked for after weight().
  virtual Result<InputForm> input(const model::Linear&) { return InputForm(); }
};

/// How products with weights are done. Inputs that a module of the checkpoint wants rounded are
/// (InputForm), where EngineOptions::round_inputs says so: with packed by the kernel, if it can.
/// What a WeightSource gives is float32 with the first three; other weights that are not quantized
/// keep their 16 bits, if they have so many, with packed and int8.
enum class Arithmetic {
  dequantized,  // weights written out as float32: the reference
  packed,       // weights as they are stored, float32 activations: the same up to rounding
  int8,         // activations rounded to int8, a scale for each token, where a kernel can do it;
                // note() tells where none could
  bf16,         // activations rounded to bfloat16, and so are weights that are no codes; note()
                // tells of codes that are multiplied with float32 ones
};

constexpr Arithmetic arithmetic_of(Precision precision) noexcept {
  return precision == Precision::bf16 ? Arithmetic::bf16 : Arithmetic::dequantized;
}

struct EngineOptions {
  bool zero_nonfinite = false;  // NaN and infinite weights read as 0; else they are errors
  Arithmetic arithmetic = Arithmetic::dequantized;
  bool round_inputs = true;  // of modules that ask for it
  /// Rounds the head to this grid (along output channels) and multiplies it as `arithmetic` says;
  /// also a head that is the embedding.
  std::optional<GridSpec> head;
  /// What generate() keeps keys and values in. Keys and values of whole sequences are rounded the
  /// same way, so that their likelihoods are those of a model with such a cache.
  kernels::CacheKind cache = kernels::CacheKind::f32;
};

class Engine {
 public:
  /// `model` and `executor` must outlive the engine. Reads the tensors outside the blocks that
  /// every pass needs (norms, positions); embedding rows and the head are read when used. Error:
  /// usage (a grid of the head with groups down input channels).
  static Result<Engine> create(const model::Model& model, Executor& executor,
                               EngineOptions options = {});
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();

  const model::Model& model() const noexcept;
  kernels::Context& context() noexcept;
  const EngineOptions& options() const noexcept;

  /// How attention works from now on, in place of plain softmax: one rule for all blocks, or one
  /// for each. Errors: shape, usage (rules that do not fit the model).
  Status set_attention(std::vector<attention::AttentionRule> rules);

  /// Reads and packs block `layer`; linears come from `source` where one is given. Those that read
  /// other than `sites` are left out.
  Result<BlockWeights> load_block(std::uint32_t layer, WeightSource* source = nullptr,
                                  std::span<const model::Site> sites = model::kSites);

  /// Hidden states of `ids`, which are the concatenated sequences of `lengths`: x [sum, hidden] is
  /// filled. `first_position` is where the one sequence given continues. Errors: parse (an id
  /// outside the vocabulary, with its position), shape (an empty sequence, one longer than
  /// model::position_limit, lengths that do not add up).
  Status embed(std::span<const std::int32_t> ids, std::span<const std::uint32_t> lengths,
               MatrixView<float> x, std::uint32_t first_position = 0);

  /// One block over whole sequences, in place. Works through them in groups of whole sequences of
  /// about kGroupRows tokens, so that scratch memory does not grow with x; a tap sees the groups in
  /// turn.
  Status run_block(const BlockWeights& weights, std::span<const std::uint32_t> lengths,
                   MatrixView<float> x, Tap* tap = nullptr);
  /// The steps of run_block, for a caller that stops between them. Norms and the linears that a
  /// step names must be loaded; a view is valid until the same step is called again.
  ///   site_input(qkv_in, x)   what q, k and v read
  ///   attend(that)            qkv: what o reads
  ///   add_output(o_in, that)  o:   x += o(...)
  ///   close_output(o_in)      the norm after, where the model has one
  ///   site_input(mlp_in, x), expand(that) gate_up, add_output(down_in, that) down, close_output
  Result<MatrixView<const float>> site_input(const BlockWeights& weights, model::Site site,
                                             MatrixView<const float> x);
  Result<MatrixView<const float>> attend(const BlockWeights& weights,
                                         std::span<const std::uint32_t> lengths,
                                         MatrixView<const float> input);
  Result<MatrixView<const float>> expand(const BlockWeights& weights,
                                         MatrixView<const float> input);
  Status add_output(const BlockWeights& weights, model::Site site, MatrixView<const float> input,
                    MatrixView<float> x);
  void close_output(const BlockWeights& weights, model::Site site, MatrixView<float> x);
  /// One block over the next tokens of one sequence, reading and extending the cache. With an f32
  /// cache, the bits of the whole sequence in one pass; with f16 too, if that pass rounds as well.
  Status run_block(const BlockWeights& weights, Cache& cache, MatrixView<float> x);
  /// Call once after all blocks have seen the tokens.
  void advance(Cache& cache, std::uint32_t tokens);

  /// Final norm and head: logits [T, vocabulary]. A head of up to kKeptHeadBytes is packed at the
  /// first call and kept; a larger one is packed slice by slice at every call, so call with many
  /// rows. Error: unsupported (an encoder, which has no head).
  Status logits(MatrixView<const float> x, MatrixView<float> out);
  /// Packs the head and keeps it whatever its size (generation asks for one row at a time). Error:
  /// unsupported, as logits.
  Status keep_head();

  /// What a user should know of the weights packed so far: that some are multiplied with float32
  /// activations although rounded ones were asked for, and why the last of them is. Empty: nothing.
  std::string note() const;

  /// Bytes of all blocks and the head, if there is one, packed: what keeping everything in memory
  /// would take.
  std::uint64_t packed_bytes() const noexcept;

  static constexpr std::size_t kGroupRows = 2048;
  static constexpr std::uint64_t kKeptHeadBytes = 128u << 20;

 private:
  struct State;
  explicit Engine(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace quell::engine
