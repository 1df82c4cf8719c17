// SPDX-License-Identifier: Apache-2.0

// Everything around the blocks: reading weights under the policy on non-finite ones, embeddings,
// positions, the final norm and the head. A large vocabulary is never held as floats at once: rows
// of the embedding are read as they are needed, and the head is packed in slices.

#include "quell/engine/engine.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "engine/state.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/grid/scale.hpp"
#include "quell/kernels/elementwise.hpp"

namespace quell::engine {
namespace {

// An embedding up to this size is read whole at the first use; of a larger one only the rows that
// occur.
constexpr std::uint64_t kWholeEmbeddingBytes = 32u << 20;
// Bytes of a slice of the head before packing; as many again once packed.
constexpr std::uint64_t kHeadSliceBytes = 32u << 20;

void zero_nonfinite(Matrix& matrix) {
  for (float& value : matrix.values()) {
    if ((std::bit_cast<std::uint32_t>(value) & 0x7F80'0000u) == 0x7F80'0000u) value = 0;
  }
}

Result<Matrix> under_policy(Result<Matrix> matrix, bool zero) {
  if (matrix && zero) zero_nonfinite(*matrix);
  return matrix;
}

Result<Matrix> filled(std::size_t cols, float value) {
  QUELL_TRY(matrix, Matrix::uninitialized(1, cols));
  std::fill(matrix.values().begin(), matrix.values().end(), value);
  return matrix;
}

}  // namespace

Result<Matrix> Engine::State::tensor(const std::string& name) const {
  return under_policy(model.tensor(name, options.zero_nonfinite), options.zero_nonfinite);
}

Result<Matrix> Engine::State::rows(const std::string& name, std::size_t first,
                                   std::size_t count) const {
  return under_policy(model.rows(name, first, count, options.zero_nonfinite),
                      options.zero_nonfinite);
}

Result<Matrix> Engine::State::weight(const model::Linear& linear) const {
  return under_policy(model.weight(linear, executor, options.zero_nonfinite),
                      options.zero_nonfinite);
}

Result<Matrix> Engine::State::bias(const model::Linear& linear) const {
  if (!linear.bias) return Matrix();
  return tensor(linear.name + ".bias");
}

Result<kernels::PackedWeights> Engine::State::packed(const QuantizedTensor& codes) const {
  if (options.arithmetic == Arithmetic::int8 || options.arithmetic == Arithmetic::bf16) {
    auto rounded =
        kernels::pack(codes,
                      options.arithmetic == Arithmetic::int8 ? kernels::Activations::int8
                                                             : kernels::Activations::bf16,
                      executor);
    if (rounded || rounded.error().code != ErrorCode::unsupported) return rounded;
    not_rounded = rounded.error().message;
  }
  return kernels::pack(codes, kernels::Activations::f32, executor);
}

Result<kernels::PackedWeights> Engine::State::packed(MatrixView<const float> matrix,
                                                     DType type) const {
  if (options.arithmetic != Arithmetic::bf16) return kernels::pack(matrix, type, executor);
  return kernels::pack(matrix, DType::bf16, executor, kernels::Activations::bf16);
}

Result<PackedLinear> Engine::State::quantized(const io::ModulePlan& module,
                                              const QuantizedTensor& codes) const {
  PackedLinear out;
  QUELL_TRY(input, InputForm::of(module, codes.kept().columns));
  out.input = std::move(input);
  if (!options.round_inputs) out.input.bits = 0;
  const bool recorded = out.input.bits == 8 && options.arithmetic == Arithmetic::packed;
  if (recorded || options.arithmetic == Arithmetic::int8) {
    auto ready = kernels::pack(codes, kernels::Activations::int8, executor);
    if (ready) {
      out.input.bits = 0;  // the kernel rounds
      out.weight = *std::move(ready);
      return out;
    }
    if (ready.error().code != ErrorCode::unsupported) return std::move(ready).error();
    if (!recorded) not_rounded = ready.error().message;
  }
  if (options.arithmetic == Arithmetic::dequantized) {
    QUELL_TRY(matrix, Matrix::uninitialized(codes.rows(), codes.cols()));
    QUELL_TRY(dequantize(codes, matrix.view(), executor));
    QUELL_TRY(weight, packed(std::as_const(matrix).view(), DType::f32));
    out.weight = std::move(weight);
    return out;
  }
  QUELL_TRY(weight, packed(codes));
  out.weight = std::move(weight);
  return out;
}

Result<PackedLinear> Engine::State::linear(const model::Linear& linear,
                                           WeightSource* source) const {
  PackedLinear out;
  if (source != nullptr) {
    QUELL_TRY(weight, source->weight(linear));
    if (weight.rows() != linear.rows || weight.cols() != linear.cols) {
      return Error{ErrorCode::shape,
                   linear.name + ": the weight given is " + std::to_string(weight.rows()) + " x " +
                       std::to_string(weight.cols()) + ", expected " + std::to_string(linear.rows) +
                       " x " + std::to_string(linear.cols),
                   {},
                   linear.name};
    }
    QUELL_TRY(input, source->input(linear));
    QUELL_TRY(ready, packed(std::as_const(weight).view(), DType::f32));
    out.input = std::move(input);
    out.weight = std::move(ready);
  } else if (const io::ModulePlan* const module = model.quantized().find(linear.name)) {
    QUELL_TRY(codes, model.codes(linear));
    QUELL_TRY(made, quantized(*module, *codes));
    out = std::move(made);
  } else {
    QUELL_TRY(matrix, weight(linear));
    QUELL_TRY(ready, packed(std::as_const(matrix).view(), packed_type(linear.name + ".weight")));
    out.weight = std::move(ready);
  }
  QUELL_TRY(bias, this->bias(linear));
  out.bias = std::move(bias);
  return out;
}

DType Engine::State::packed_type(const std::string& tensor) const {
  if (options.arithmetic == Arithmetic::bf16) return DType::bf16;
  // Edited values are float32 whatever the file has.
  const io::TensorInfo* info = model.is_edited(tensor) ? nullptr : model.checkpoint().find(tensor);
  const bool half = info != nullptr && (info->dtype == DType::f16 || info->dtype == DType::bf16);
  return options.arithmetic != Arithmetic::dequantized && half ? info->dtype : DType::f32;
}

std::size_t Engine::State::head_slice() const {
  const std::uint64_t row_bytes = std::uint64_t{config.embedding_width} * sizeof(float);
  return static_cast<std::size_t>(std::max<std::uint64_t>(1, kHeadSliceBytes / row_bytes));
}

Result<kernels::PackedWeights> Engine::State::packed_head(std::size_t first) const {
  const std::size_t count = std::min<std::size_t>(head_slice(), config.vocabulary - first);
  QUELL_TRY(matrix, rows(model.frame().head, first, count));
  if (!options.head) {
    return packed(std::as_const(matrix).view(), packed_type(model.frame().head));
  }
  QUELL_TRY(parameters,
            choose_scales(matrix.view(), *options.head, ScaleMethod::search, {}, executor));
  QUELL_TRY(codes, quantize_to_grid(matrix.view(), *options.head, std::move(parameters), executor));
  return packed(codes);
}

Result<NormWeights> Engine::State::norm(const model::NormTensors& names, std::size_t width) const {
  NormWeights norm;
  QUELL_TRY(weight, names.weight.empty() ? filled(width, 1) : tensor(names.weight));
  QUELL_TRY(bias, names.bias.empty() ? filled(width, 0) : tensor(names.bias));
  norm.weight = std::move(weight);
  norm.bias = std::move(bias);
  return norm;
}

Engine::Engine(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

const model::Model& Engine::model() const noexcept {
  return state_->model;
}
kernels::Context& Engine::context() noexcept {
  return state_->context;
}
const EngineOptions& Engine::options() const noexcept {
  return state_->options;
}
Status Engine::keep_head() {
  State& s = *state_;
  QUELL_TRY(model::expect_head(s.model));
  for (std::size_t first = s.head.size() * s.head_slice(); first < s.config.vocabulary;
       first += s.head_slice()) {
    QUELL_TRY(packed, s.packed_head(first));
    s.head.push_back(std::move(packed));
  }
  return ok();
}

Status Engine::set_attention(std::vector<attention::AttentionRule> rules) {
  const model::ModelConfig& config = state_->config;
  if (rules.size() != 1 && rules.size() != config.layers) {
    return Error{ErrorCode::shape, std::to_string(rules.size()) +
                                       " attention rules, expected one, or one for each of the " +
                                       std::to_string(config.layers) + " blocks"};
  }
  for (const attention::AttentionRule& rule : rules) {
    QUELL_TRY(attention::check(rule, {config.heads, config.head_dim, config.hidden}));
  }
  state_->rules = std::move(rules);
  return ok();
}

Result<Engine> Engine::create(const model::Model& model, Executor& executor,
                              EngineOptions options) {
  if (model.blocks().empty()) {
    return Error{ErrorCode::unsupported,
                 model.folder().string() +
                     ": opened for its weights alone; running it needs a known architecture",
                 model.folder().string(),
                 {}};
  }
  if (options.head && options.head->per != Channel::output) {
    return Error{ErrorCode::usage, "the grid of the head is " + to_string(*options.head) +
                                       "; its groups have to run along output channels (oc)"};
  }
  auto state = std::make_unique<State>(model, executor, options);
  const model::Frame& frame = model.frame();
  const model::ModelConfig& config = model.config();
  if (config.final_norm) {
    QUELL_TRY(norm, state->norm(frame.final_norm, config.hidden));
    state->final_norm = std::move(norm);
  }
  if (config.positions == model::Positions::learned) {
    QUELL_TRY(positions, state->tensor(frame.positions));
    state->positions = std::move(positions);
  }
  if (config.token_types != 0) {
    QUELL_TRY(token_type, state->rows(frame.token_types, 0, 1));
    state->token_type = std::move(token_type);
  }
  if (config.embedding_norm) {
    QUELL_TRY(norm, state->norm(frame.embedding_norm, config.hidden));
    state->embedding_norm = std::move(norm);
  }
  if (frame.project_in) {
    QUELL_TRY(weight, state->weight(*frame.project_in));
    QUELL_TRY(packed, kernels::pack(weight.view(), executor));
    state->project_in = std::move(packed);
  }
  if (frame.project_out) {
    QUELL_TRY(weight, state->weight(*frame.project_out));
    QUELL_TRY(packed, kernels::pack(weight.view(), executor));
    state->project_out = std::move(packed);
  }
  return Engine(std::move(state));
}

Result<BlockWeights> Engine::load_block(std::uint32_t layer, WeightSource* source,
                                        std::span<const model::Site> sites) {
  State& s = *state_;
  QUELL_ASSERT(layer < s.model.blocks().size());
  const model::Block& block = s.model.blocks()[layer];
  const model::ModelConfig& config = s.config;

  BlockWeights out;
  out.layer = layer;
  const auto wanted = [&](model::Site site) {
    return std::find(sites.begin(), sites.end(), site) != sites.end();
  };
  const auto load = [&](const std::vector<model::Linear>& linears,
                        std::vector<PackedLinear>& loaded) -> Status {
    for (const model::Linear& linear : linears) {
      QUELL_TRY(ready, s.linear(linear, source));
      loaded.push_back(std::move(ready));
    }
    return ok();
  };
  if (wanted(model::Site::qkv_in)) QUELL_TRY(load(block.qkv, out.qkv));
  if (wanted(model::Site::mlp_in)) QUELL_TRY(load(block.gate_up, out.gate_up));
  if (wanted(model::Site::o_in)) {
    QUELL_TRY(o, s.linear(block.o, source));
    out.o = std::move(o);
  }
  if (wanted(model::Site::down_in)) {
    QUELL_TRY(down, s.linear(block.down, source));
    out.down = std::move(down);
  }
  QUELL_TRY(attention_norm, s.norm(block.attention_norm, config.hidden));
  QUELL_TRY(mlp_norm, s.norm(block.mlp_norm, config.hidden));
  out.attention_norm = std::move(attention_norm.weight);
  out.attention_norm_bias = std::move(attention_norm.bias);
  out.mlp_norm = std::move(mlp_norm.weight);
  out.mlp_norm_bias = std::move(mlp_norm.bias);
  if (config.head_norms) {
    QUELL_TRY(q_norm, s.norm(block.q_norm, config.head_dim));
    QUELL_TRY(k_norm, s.norm(block.k_norm, config.head_dim));
    out.q_norm = std::move(q_norm.weight);
    out.k_norm = std::move(k_norm.weight);
  }
  return out;
}

namespace {

/// Every length against the limit of the model, every id against the vocabulary.
Status check_sequences(const model::ModelConfig& config, std::span<const std::int32_t> ids,
                       std::span<const std::uint32_t> lengths, std::uint32_t first_position) {
  const std::uint32_t limit = model::position_limit(config);
  std::size_t begin = 0;
  for (std::size_t sequence = 0; sequence < lengths.size(); ++sequence) {
    const std::size_t length = lengths[sequence];
    const std::string name = "sequence " + std::to_string(sequence);
    if (length == 0)
      return Error{ErrorCode::shape, name + " is empty, expected at least one token"};
    if (length > ids.size() - begin) {
      return Error{ErrorCode::shape, name + " has " + std::to_string(length) +
                                         " tokens, but only " + std::to_string(ids.size() - begin) +
                                         " of the " + std::to_string(ids.size()) + " ids are left"};
    }
    if (first_position + length > limit) {
      return Error{ErrorCode::shape, name + " reaches " + std::to_string(first_position + length) +
                                         " tokens, but the model has positions for " +
                                         std::to_string(limit) + "; split it"};
    }
    for (std::size_t i = 0; i < length; ++i) {
      const std::int32_t id = ids[begin + i];
      if (id >= 0 && static_cast<std::uint32_t>(id) < config.vocabulary) continue;
      return Error{ErrorCode::parse, "token id " + std::to_string(id) + " at position " +
                                         std::to_string(begin + i) + " is outside [0, " +
                                         std::to_string(config.vocabulary) + ")"};
    }
    begin += length;
  }
  if (begin != ids.size()) {
    return Error{
        ErrorCode::shape,
        std::to_string(ids.size()) + " ids, but the sequences add up to " + std::to_string(begin)};
  }
  return ok();
}

}  // namespace

Status Engine::embed(std::span<const std::int32_t> ids, std::span<const std::uint32_t> lengths,
                     MatrixView<float> x, std::uint32_t first_position) {
  State& s = *state_;
  const model::ModelConfig& config = s.config;
  QUELL_TRY(check_sequences(config, ids, lengths, first_position));
  QUELL_ASSERT(first_position == 0 || lengths.size() == 1);
  QUELL_ASSERT(x.rows() == ids.size() && x.cols() == config.hidden);
  const std::size_t width = config.embedding_width;
  const bool projected = s.model.frame().project_in.has_value();
  MatrixView<float> target = x;
  if (projected) {
    QUELL_TRY(narrow, s.narrow.shape(ids.size(), width));
    target = narrow;
  }

  const std::string& name = s.model.frame().embedding;
  const std::uint64_t bytes = std::uint64_t{config.vocabulary} * width * sizeof(float);
  if (bytes <= kWholeEmbeddingBytes) {
    if (s.embedding.size() == 0) {
      QUELL_TRY(embedding, s.tensor(name));
      s.embedding = std::move(embedding);
    }
    for (std::size_t t = 0; t < ids.size(); ++t) {
      const auto row = s.embedding.row(static_cast<std::size_t>(ids[t]));
      std::memcpy(target.row(t).data(), row.data(), width * sizeof(float));
    }
  } else {
    // Tokens in the order of their ids, so that each row of the file is read once.
    std::vector<std::size_t> order(ids.size());
    for (std::size_t t = 0; t < order.size(); ++t) order[t] = t;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return ids[a] < ids[b]; });
    Matrix row;
    for (std::size_t i = 0; i < order.size(); ++i) {
      const std::int32_t id = ids[order[i]];
      if (i == 0 || id != ids[order[i - 1]]) {
        QUELL_TRY(fresh, s.rows(name, static_cast<std::size_t>(id), 1));
        row = std::move(fresh);
      }
      std::memcpy(target.row(order[i]).data(), row.data(), width * sizeof(float));
    }
  }
  if (projected) QUELL_TRY(kernels::gemm(target, s.project_in, x, s.context));

  if (config.positions == model::Positions::learned) {
    std::size_t t = 0;
    for (const std::uint32_t length : lengths) {
      const std::size_t first = std::size_t{config.position_offset} + first_position;
      kernels::add(x.rows_from(t, length), s.positions.view().rows_from(first, length), s.context);
      t += length;
    }
  }
  if (config.token_types != 0) kernels::add_bias(x, s.token_type.values(), s.context);
  if (config.embedding_norm) {
    s.apply_norm(s.embedding_norm.weight, s.embedding_norm.bias, x, x);
  }
  return ok();
}

Status Engine::logits(MatrixView<const float> x, MatrixView<float> out) {
  State& s = *state_;
  const model::ModelConfig& config = s.config;
  QUELL_TRY(model::expect_head(s.model));
  QUELL_ASSERT(x.cols() == config.hidden);
  QUELL_ASSERT(out.rows() == x.rows() && out.cols() == config.vocabulary);
  if (x.rows() == 0) return ok();
  MatrixView<const float> input = x;
  if (config.final_norm) {
    QUELL_TRY(target, s.normed.shape(x.rows(), config.hidden));
    s.apply_norm(s.final_norm.weight, s.final_norm.bias, x, target);
    input = target;
  }
  if (s.model.frame().project_out) {
    QUELL_TRY(target, s.narrow.shape(x.rows(), config.embedding_width));
    QUELL_TRY(kernels::gemm(input, s.project_out, target, s.context));
    input = target;
  }

  const std::uint64_t row_bytes = std::uint64_t{config.embedding_width} * sizeof(float);
  if (config.vocabulary * row_bytes <= kKeptHeadBytes) QUELL_TRY(keep_head());
  for (std::size_t first = 0; first < config.vocabulary; first += s.head_slice()) {
    const std::size_t index = first / s.head_slice();
    kernels::PackedWeights fresh;
    if (index >= s.head.size()) {
      QUELL_TRY(packed, s.packed_head(first));
      fresh = std::move(packed);
    }
    const kernels::PackedWeights& weights = index < s.head.size() ? s.head[index] : fresh;
    QUELL_TRY(kernels::gemm(input, weights, out.cols_from(first, weights.rows()), s.context));
  }

  if (config.logit_softcap > 0) {
    const float cap = config.logit_softcap;
    s.executor.run(out.rows(), 1, [&](std::size_t begin, std::size_t end, unsigned) {
      for (std::size_t t = begin; t < end; ++t) {
        for (float& value : out.row(t)) value = cap * std::tanh(value / cap);
      }
    });
  }
  return ok();
}

std::string Engine::note() const {
  if (state_->not_rounded.empty()) return {};
  // The message ends with what to do, which has been done.
  const std::string_view reason =
      std::string_view(state_->not_rounded).substr(0, state_->not_rounded.rfind(';'));
  return std::string("some weights are multiplied with float32 activations, though ") +
         (state_->options.arithmetic == Arithmetic::int8 ? "int8" : "bf16") +
         " was asked for: " + std::string(reason);
}

std::uint64_t Engine::packed_bytes() const noexcept {
  const model::ModelConfig& config = state_->config;
  const EngineOptions& options = state_->options;
  // Bytes of a weight: with 4 or 8 bits a code, and up to 8 of scales in groups of 32.
  const auto bytes = [&](std::uint64_t elements, const GridSpec* grid, const std::string& tensor) {
    if (grid == nullptr) return elements * info(state_->packed_type(tensor)).bits / 8;
    return elements * (bits(grid->format) <= 4 ? 5 : 9) / 8;
  };
  std::uint64_t total = 0;
  if (state_->model.has_head()) {
    total = bytes(std::uint64_t{config.vocabulary} * config.embedding_width,
                  options.head ? &*options.head : nullptr, state_->model.frame().head);
  }
  for (const model::Block& block : state_->model.blocks()) {
    for (const model::Site site : model::kSites) {
      for (const model::Linear* linear : model::linears_at(block, site)) {
        const io::ModulePlan* module = state_->model.quantized().find(linear->name);
        const bool codes = options.arithmetic != Arithmetic::dequantized && module != nullptr;
        total += bytes(std::uint64_t{linear->rows} * linear->cols, codes ? &module->grid : nullptr,
                       linear->name + ".weight");
        if (codes) total += 2 * std::uint64_t{linear->rows} * module->kept_columns;  // f16
      }
    }
  }
  return total;
}

Result<Cache> Cache::create(const model::ModelConfig& config, std::uint32_t capacity,
                            kernels::CacheKind kind) {
  Cache cache;
  cache.capacity_ = capacity;
  for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
    QUELL_TRY(made,
              kernels::KeyValueCache::create(kind, config.kv_heads, config.head_dim, capacity));
    cache.layers_.push_back(std::move(made));
  }
  return cache;
}

std::uint64_t Cache::bytes_per_token() const noexcept {
  std::uint64_t bytes = 0;
  for (const kernels::KeyValueCache& layer : layers_) bytes += layer.bytes_per_token();
  return bytes;
}

void Engine::advance(Cache& cache, std::uint32_t tokens) {
  QUELL_ASSERT(tokens <= cache.capacity_ - cache.length_);
  cache.length_ += tokens;
}

}  // namespace quell::engine
