// SPDX-License-Identifier: Apache-2.0

// One decoder block over hidden states x [T, H], in place:
//
//   norms first (most models)              norms after (norm_after)
//   a = norm(x)                            a = x
//   x += o(attention(q a, k a, v a))       x = norm(x + o(attention(q a, k a, v a)))
//   m = norm(x)                            m = x
//   x += down(act(gate m) * up m)          x = norm(x + down(act(up m)))
//
// The products run on all rows of a group of sequences; attention alone looks at them one by one.

#include <algorithm>
#include <cstring>
#include <string>

#include "engine/state.hpp"
#include "quell/kernels/elementwise.hpp"

namespace quell::engine {
namespace {

// Up to so many new tokens are multiplied with a cache as it is; for more, it is read out and goes
// through the products of matrices, which read each key once for many queries.
constexpr std::size_t kCacheRows = 8;

kernels::Activation kernel_activation(model::Activation activation) {
  switch (activation) {
    case model::Activation::relu:
      return kernels::Activation::relu;
    case model::Activation::silu:
      return kernels::Activation::silu;
    case model::Activation::gelu:
      return kernels::Activation::gelu;
    case model::Activation::gelu_tanh:
      return kernels::Activation::gelu_tanh;
    case model::Activation::quick_gelu:
      return kernels::Activation::quick_gelu;
  }
  return kernels::Activation::silu;
}

Status show(Tap* tap, std::uint32_t layer, model::Site site, MatrixView<const float> x) {
  return tap == nullptr ? ok() : tap->input(layer, site, x);
}

Status show_mass(Tap& tap, std::uint32_t layer, const AttentionItem& item,
                 const AttentionShape& shape) {
  const std::size_t keys = item.mass.cols();
  const std::size_t rows = !shape.causal ? keys : keys > kMassGap ? keys - kMassGap : 0;
  std::vector<std::uint32_t> queries(keys);
  for (std::size_t key = 0; key < keys; ++key) {
    std::size_t count = keys;
    if (shape.causal) {
      const std::size_t end = shape.window == 0 ? keys : std::min(keys, key + shape.window);
      count = end > key + kMassGap ? end - key - kMassGap : 0;
    }
    queries[key] = static_cast<std::uint32_t>(count);
  }
  return tap.attention(
      layer, {item.mass, item.near, rows, queries, item.values, shape.head_dim, item.zeros});
}

}  // namespace

void Engine::State::apply_norm(const Matrix& weight, const Matrix& bias, MatrixView<const float> x,
                               MatrixView<float> y) {
  if (config.norm == model::Norm::rms) {
    kernels::rms_norm(x, weight.values(), config.norm_eps, y, context);
  } else {
    kernels::layer_norm(x, weight.values(), bias.values(), config.norm_eps, y, context);
  }
}

Status Engine::State::apply(const PackedLinear& linear, MatrixView<const float> x,
                            MatrixView<float> y) {
  if (!linear.input.changes_nothing()) {
    QUELL_TRY(input, formed.shape(x.rows(), x.cols()));
    for (std::size_t t = 0; t < x.rows(); ++t) {
      std::memcpy(input.row(t).data(), x.row(t).data(), x.cols() * sizeof(float));
    }
    QUELL_TRY(linear.input.apply(input, context));
    x = input;
  }
  QUELL_TRY(kernels::gemm(x, linear.weight, y, context));
  if (linear.bias.size() != 0) kernels::add_bias(y, linear.bias.values(), context);
  return ok();
}

Result<Engine::State::Heads> Engine::State::project_heads(const BlockWeights& weights,
                                                          MatrixView<const float> x) {
  const std::size_t q = std::size_t{config.heads} * config.head_dim;
  const std::size_t kv = std::size_t{config.kv_heads} * config.head_dim;
  QUELL_TRY(out, qkv.shape(x.rows(), q + 2 * kv));
  std::size_t col = 0;
  for (const PackedLinear& linear : weights.qkv) {
    const std::size_t rows = linear.weight.rows();
    QUELL_TRY(apply(linear, x, out.cols_from(col, rows)));
    col += rows;
  }
  const Heads heads{out.cols_from(0, q), out.cols_from(q, kv), out.cols_from(q + kv, kv)};
  if (config.head_norms) {
    normalize_heads(weights.q_norm, config.heads, heads.queries);
    normalize_heads(weights.k_norm, config.kv_heads, heads.keys);
  }
  return heads;
}

void Engine::State::normalize_heads(const Matrix& weight, std::size_t heads, MatrixView<float> x) {
  for (std::size_t h = 0; h < heads; ++h) {
    const auto columns = x.cols_from(h * config.head_dim, config.head_dim);
    kernels::rms_norm(columns, weight.values(), config.norm_eps, columns, context);
  }
}

AttentionShape Engine::State::attention_shape(std::uint32_t layer) const {
  AttentionShape shape;
  shape.heads = config.heads;
  shape.kv_heads = config.kv_heads;
  shape.head_dim = config.head_dim;
  shape.scale = config.attention_scale;
  if (config.scale_by_inverse_layer) shape.scale /= static_cast<float>(layer + 1);
  shape.softcap = config.attention_softcap;
  shape.window = config.windows.empty() ? 0 : config.windows[layer];
  shape.causal = config.causal;
  shape.weighting = &rule(layer).weighting;
  return shape;
}

Result<MatrixView<const float>> Engine::State::gates(std::uint32_t layer,
                                                     MatrixView<const float> x) {
  const std::optional<attention::Gate>& gate = rule(layer).gate;
  if (!gate) return MatrixView<const float>();
  QUELL_TRY(factors, gate_factors.shape(x.rows(), config.heads));
  executor.run(x.rows(), 1, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t t = begin; t < end; ++t) {
      for (std::size_t h = 0; h < config.heads; ++h) {
        factors(t, h) = attention::gate_factor(*gate, h, x.row(t), kernels::exp);
      }
    }
  });
  return MatrixView<const float>(factors);
}

Status Engine::State::round_as_cached(MatrixView<float> keys, MatrixView<float> values) {
  if (options.cache == kernels::CacheKind::f32) return ok();
  if (rounding.capacity() < keys.rows()) {
    QUELL_TRY(made, kernels::KeyValueCache::create(options.cache, config.kv_heads, config.head_dim,
                                                   keys.rows()));
    rounding = std::move(made);
  }
  QUELL_TRY(rounding.store(0, keys, values, context));
  return rounding.read(0, keys, values, context);
}

Result<MatrixView<const float>> Engine::State::site_input(const BlockWeights& weights,
                                                          model::Site site,
                                                          MatrixView<const float> x) {
  if (config.norm_after) return x;
  QUELL_TRY(target, normed.shape(x.rows(), config.hidden));
  const bool first = site == model::Site::qkv_in;
  apply_norm(first ? weights.attention_norm : weights.mlp_norm,
             first ? weights.attention_norm_bias : weights.mlp_norm_bias, x, target);
  return MatrixView<const float>(target);
}

Status Engine::State::add_output(const BlockWeights& weights, model::Site site,
                                 MatrixView<const float> input, MatrixView<float> x) {
  QUELL_TRY(sum, branch.shape(x.rows(), config.hidden));
  QUELL_TRY(apply(site == model::Site::o_in ? weights.o : weights.down, input, sum));
  kernels::add(x, sum, context);
  return ok();
}

void Engine::State::close_output(const BlockWeights& weights, model::Site site,
                                 MatrixView<float> x) {
  if (!config.norm_after) return;
  const bool first = site == model::Site::o_in;
  apply_norm(first ? weights.attention_norm : weights.mlp_norm,
             first ? weights.attention_norm_bias : weights.mlp_norm_bias, x, x);
}

Result<MatrixView<float>> Engine::State::expand(const BlockWeights& weights,
                                                MatrixView<const float> input) {
  // Two linears write one after the other, so that each half has no gaps; a fused one writes
  // [gate | up] into each row.
  const std::size_t rows = input.rows(), inner = config.intermediate;
  const bool fused = config.gated && weights.gate_up.size() == 1;
  QUELL_TRY(region, mlp.shape(config.gated ? 2 * rows : rows, inner));
  MatrixView<float> gate = region.rows_from(0, rows);
  MatrixView<float> up = config.gated ? region.rows_from(rows, rows) : gate;
  if (fused) {
    const MatrixView<float> both(region.data(), rows, 2 * inner);
    QUELL_TRY(apply(weights.gate_up[0], input, both));
    gate = both.cols_from(0, inner);
    up = both.cols_from(inner, inner);
  } else {
    QUELL_TRY(apply(weights.gate_up[0], input, gate));
    if (config.gated) QUELL_TRY(apply(weights.gate_up[1], input, up));
  }
  if (config.gated) {
    kernels::activate_and_multiply(kernel_activation(config.activation), gate, up, context);
  } else {
    kernels::activate(kernel_activation(config.activation), gate, context);
  }
  return gate;
}

Status Engine::State::finish_block(const BlockWeights& weights, MatrixView<const float> heads,
                                   MatrixView<float> x, Tap* tap) {
  using model::Site;
  QUELL_TRY(show(tap, weights.layer, Site::o_in, heads));
  QUELL_TRY(add_output(weights, Site::o_in, heads, x));
  close_output(weights, Site::o_in, x);
  QUELL_TRY(input, site_input(weights, Site::mlp_in, x));
  QUELL_TRY(show(tap, weights.layer, Site::mlp_in, input));
  QUELL_TRY(inner, expand(weights, input));
  QUELL_TRY(show(tap, weights.layer, Site::down_in, inner));
  QUELL_TRY(add_output(weights, Site::down_in, inner, x));
  close_output(weights, Site::down_in, x);
  return tap == nullptr ? ok() : tap->residual(static_cast<std::int32_t>(weights.layer), x);
}

Result<MatrixView<float>> Engine::State::attend(const BlockWeights& weights,
                                                std::span<const std::uint32_t> lengths,
                                                MatrixView<const float> input, Tap* tap) {
  QUELL_TRY(heads, project_heads(weights, input));
  QUELL_TRY(factors, gates(weights.layer, input));
  QUELL_TRY(out, attended.shape(input.rows(), std::size_t{config.heads} * config.head_dim));

  const bool wants_mass = tap != nullptr && tap->wants_attention();
  std::vector<Matrix64> masses;
  std::vector<AttentionZeros> zeros;
  if (wants_mass && tap->wants_zeros()) zeros.resize(lengths.size() * config.heads);
  std::vector<AttentionItem> items;
  std::size_t row = 0;
  for (const std::uint32_t length : lengths) {
    const auto queries = heads.queries.rows_from(row, length);
    const auto keys = heads.keys.rows_from(row, length);
    const auto values = heads.values.rows_from(row, length);
    // Where angles depend on the length, a cache has the keys as they come (below).
    const bool rotary = config.positions == model::Positions::rotary;
    const bool round_first = rotary && rope_depends_on_length(config.rope);
    if (round_first) QUELL_TRY(round_as_cached(keys, values));
    if (rotary) {
      QUELL_TRY(rope.prepare(length));
      const auto cosine = rope.cosine(0, length), sine = rope.sine(0, length);
      kernels::rotate(queries, config.heads, config.head_dim, cosine, sine, context);
      kernels::rotate(keys, config.kv_heads, config.head_dim, cosine, sine, context);
    }
    if (!round_first) QUELL_TRY(round_as_cached(keys, values));
    AttentionItem item{queries, keys, values, out.rows_from(row, length)};
    if (!factors.empty()) item.gates = factors.rows_from(row, length);
    if (wants_mass) {
      QUELL_TRY(mass, Matrix64::zeros(2 * std::size_t{config.heads}, length));
      masses.push_back(std::move(mass));
      item.mass = masses.back().view().rows_from(0, config.heads);
      item.near = masses.back().view().rows_from(config.heads, config.heads);
    }
    if (!zeros.empty())
      item.zeros = std::span(zeros).subspan(items.size() * config.heads, config.heads);
    items.push_back(item);
    row += length;
  }
  const AttentionShape shape = attention_shape(weights.layer);
  QUELL_TRY(attention.run(items, shape));
  for (std::size_t i = 0; i < masses.size(); ++i) {
    QUELL_TRY(show_mass(*tap, weights.layer, items[i], shape));
  }
  return out;
}

Status Engine::State::run_group(const BlockWeights& weights, std::span<const std::uint32_t> lengths,
                                MatrixView<float> x, Tap* tap) {
  QUELL_TRY(input, site_input(weights, model::Site::qkv_in, x));
  QUELL_TRY(show(tap, weights.layer, model::Site::qkv_in, input));
  QUELL_TRY(heads, attend(weights, lengths, input, tap));
  return finish_block(weights, heads, x, tap);
}

Result<MatrixView<const float>> Engine::site_input(const BlockWeights& weights, model::Site site,
                                                   MatrixView<const float> x) {
  return state_->site_input(weights, site, x);
}
Result<MatrixView<const float>> Engine::attend(const BlockWeights& weights,
                                               std::span<const std::uint32_t> lengths,
                                               MatrixView<const float> input) {
  QUELL_TRY(heads, state_->attend(weights, lengths, input, nullptr));
  return MatrixView<const float>(heads);
}
Result<MatrixView<const float>> Engine::expand(const BlockWeights& weights,
                                               MatrixView<const float> input) {
  QUELL_TRY(inner, state_->expand(weights, input));
  return MatrixView<const float>(inner);
}
Status Engine::add_output(const BlockWeights& weights, model::Site site,
                          MatrixView<const float> input, MatrixView<float> x) {
  return state_->add_output(weights, site, input, x);
}
void Engine::close_output(const BlockWeights& weights, model::Site site, MatrixView<float> x) {
  state_->close_output(weights, site, x);
}

Status Engine::run_block(const BlockWeights& weights, std::span<const std::uint32_t> lengths,
                         MatrixView<float> x, Tap* tap) {
  std::size_t total = 0;
  for (const std::uint32_t length : lengths) total += length;
  if (total != x.rows() || x.cols() != state_->config.hidden) {
    return Error{ErrorCode::shape, "run_block: hidden states are " + std::to_string(x.rows()) +
                                       " x " + std::to_string(x.cols()) + ", expected " +
                                       std::to_string(total) + " x " +
                                       std::to_string(state_->config.hidden)};
  }
  std::size_t row = 0;
  for (std::size_t begin = 0; begin < lengths.size();) {
    std::size_t end = begin, rows = 0;
    while (end < lengths.size() && (end == begin || rows + lengths[end] <= kGroupRows)) {
      rows += lengths[end++];
    }
    if (rows != 0) {
      QUELL_TRY(state_->run_group(weights, lengths.subspan(begin, end - begin),
                                  x.rows_from(row, rows), tap));
    }
    row += rows;
    begin = end;
  }
  return ok();
}

Status Engine::run_block(const BlockWeights& weights, Cache& cache, MatrixView<float> x) {
  State& s = *state_;
  const model::ModelConfig& config = s.config;
  const std::size_t rows = x.rows(), before = cache.length_, total = before + rows;
  if (total > cache.capacity_ || x.cols() != config.hidden) {
    return Error{ErrorCode::shape, "run_block: " + std::to_string(rows) + " tokens after " +
                                       std::to_string(before) + " do not fit a cache of " +
                                       std::to_string(cache.capacity_)};
  }
  if (rows == 0) return ok();
  QUELL_TRY(input, s.site_input(weights, model::Site::qkv_in, x));
  QUELL_TRY(heads, s.project_heads(weights, input));
  QUELL_TRY(factors, s.gates(weights.layer, input));

  // Where angles depend on the length of the sequence, keys are kept as they come and all rotated
  // again at each step: what was rotated for a shorter sequence is wrong for a longer one.
  const bool rotary = config.positions == model::Positions::rotary;
  const bool rotate_late = rotary && rope_depends_on_length(config.rope);
  if (rotary) {
    QUELL_TRY(s.rope.prepare(static_cast<std::uint32_t>(total)));
    const auto cosine = s.rope.cosine(before, rows), sine = s.rope.sine(before, rows);
    kernels::rotate(heads.queries, config.heads, config.head_dim, cosine, sine, s.context);
    if (!rotate_late) {
      kernels::rotate(heads.keys, config.kv_heads, config.head_dim, cosine, sine, s.context);
    }
  }
  kernels::KeyValueCache& layer = cache.layers_[weights.layer];
  QUELL_TRY(layer.store(before, heads.keys, heads.values, s.context));
  QUELL_TRY(out, s.attended.shape(rows, std::size_t{config.heads} * config.head_dim));
  const AttentionShape shape = s.attention_shape(weights.layer);
  if (rows <= kCacheRows && !rotate_late) {
    const AttentionItem item{heads.queries, {}, {}, out, factors};
    QUELL_TRY(attend_over_cache(item, layer, total, shape, s.context));
    return s.finish_block(weights, out, x, nullptr);
  }
  MatrixView<float> all_keys = heads.keys, all_values = heads.values;
  // An f32 cache has at first just what was put into it.
  if (before != 0 || layer.kind() != kernels::CacheKind::f32) {
    QUELL_TRY(read, s.cached.shape(2 * total, heads.keys.cols()));
    all_keys = read.rows_from(0, total);
    all_values = read.rows_from(total, total);
    QUELL_TRY(layer.read(0, all_keys, all_values, s.context));
  }
  if (rotate_late) {
    kernels::rotate(all_keys, config.kv_heads, config.head_dim, s.rope.cosine(0, total),
                    s.rope.sine(0, total), s.context);
  }
  const AttentionItem item{heads.queries, all_keys, all_values, out, factors};
  QUELL_TRY(s.attention.run({&item, 1}, shape));
  return s.finish_block(weights, out, x, nullptr);
}

}  // namespace quell::engine
