// SPDX-License-Identifier: Apache-2.0

// How factors of a site's channels become edits: who makes x, and who reads it.

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <utility>

#include "quell/core/half.hpp"
#include "quell/quant/transform.hpp"

namespace quell::quant {
namespace {

using model::Site;

// Weights and their scales move by at most this, so that 16-bit scales of ordinary weights (1e-4 to
// 1e-1) stay well inside the range of float16.
constexpr float kLargest = 0x1p10f;

const model::NormTensors& norm_before(const model::Block& block, Site site) {
  return site == Site::qkv_in ? block.attention_norm : block.mlp_norm;
}

// Rows [first, first + count) of the linear's outputs are multiplied.
model::RowMap multiply(std::vector<float> factors, std::size_t first = 0) {
  return [factors = std::move(factors), first](MatrixView<float> x, Executor& executor) -> Status {
    QUELL_ASSERT(first + factors.size() <= x.cols());
    executor.run(x.rows(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
      for (std::size_t r = begin; r < end; ++r) {
        float* row = x.row(r).data() + first;
        for (std::size_t j = 0; j < factors.size(); ++j) row[j] *= factors[j];
      }
    });
    return ok();
  };
}

// The nearest value that the type of the file can hold.
float held(float value, DType type) {
  if (type == DType::bf16) return bf16_to_float(float_to_bf16(value));
  if (type == DType::f16) return f16_to_float(float_to_f16(value));
  return value;
}

Result<std::vector<float>> checked(std::span<const float> factors, const std::string& where) {
  std::vector<float> out(factors.size());
  for (std::size_t j = 0; j < out.size(); ++j) {
    if (!(factors[j] > 0) || !std::isfinite(factors[j])) {
      return Error{ErrorCode::numeric, where + ": the factor of channel " + std::to_string(j) +
                                           " is " + std::to_string(factors[j]) +
                                           ", expected a finite number above 0"};
    }
    out[j] = std::clamp(bf16_to_float(float_to_bf16(factors[j])), 1 / kLargest, kLargest);
  }
  return out;
}

}  // namespace

std::string refuse_scaling(const model::Model& model, std::uint32_t layer, Site site) {
  const model::Block& block = model.blocks()[layer];
  const model::ModelConfig& config = model.config();
  switch (site) {
    case Site::qkv_in:
    case Site::mlp_in:
      if (config.norm_after) return "what it reads is the residual stream itself";
      if (norm_before(block, site).weight.empty()) return "the norm before it has no weights";
      return "";
    case Site::o_in:
      return "";
    case Site::down_in:
      if (config.gated || config.activation == model::Activation::relu) return "";
      return "the activation before it does not pass factors on";
  }
  return "";
}

std::size_t free_channels(const model::Model& model, std::uint32_t layer, Site site) {
  const model::ModelConfig& config = model.config();
  if (site == Site::o_in) return std::size_t{config.kv_heads} * config.head_dim;
  return linears_at(model.blocks()[layer], site).front()->cols;
}

std::size_t free_channel(const model::ModelConfig& config, Site site, std::size_t j) {
  if (site != Site::o_in) return j;
  // Query heads that share a value head are neighbours.
  const std::size_t head = j / config.head_dim, sharing = config.heads / config.kv_heads;
  return head / sharing * config.head_dim + j % config.head_dim;
}

Result<std::vector<float>> apply_scaling(const model::Model& model, std::uint32_t layer, Site site,
                                         std::span<const float> factors, model::Edits& edits) {
  const model::Block& block = model.blocks()[layer];
  const std::string where = "block " + std::to_string(layer) + ", " + std::string(to_string(site));
  if (const std::string reason = refuse_scaling(model, layer, site); !reason.empty()) {
    return Error{ErrorCode::unsupported, where + " cannot be scaled: " + reason};
  }
  if (const std::size_t expected = free_channels(model, layer, site); factors.size() != expected) {
    return Error{ErrorCode::shape, where + ": " + std::to_string(factors.size()) +
                                       " factors, expected " + std::to_string(expected)};
  }
  QUELL_TRY(chosen, checked(factors, where));

  if (site == Site::qkv_in || site == Site::mlp_in) {
    const model::NormTensors& norm = norm_before(block, site);
    QUELL_TRY(weight, model.tensor(norm.weight));
    const io::TensorInfo* info = model.checkpoint().find(norm.weight);
    const DType type = info != nullptr ? info->dtype : DType::f32;
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      float& g = weight.values()[j];
      const float divided = held(g / chosen[j], type);
      const float factor = g / divided;
      // A channel whose weight is zero, or would become zero or huge, keeps its weight.
      if (divided == 0 || !std::isfinite(divided) || !(factor > 0) || !std::isfinite(factor)) {
        chosen[j] = 1;
        continue;
      }
      chosen[j] = factor;
      g = divided;
    }
    edits.replace(norm.weight, std::move(weight));
    if (!norm.bias.empty()) {
      QUELL_TRY(bias, model.tensor(norm.bias));
      for (std::size_t j = 0; j < chosen.size(); ++j) bias.values()[j] /= chosen[j];
      edits.replace(norm.bias, std::move(bias));
    }
  } else {
    const model::Linear& producer = site == Site::o_in ? block.qkv.back() : block.gate_up.back();
    std::vector<float> inverse(chosen.size());
    for (std::size_t j = 0; j < inverse.size(); ++j) inverse[j] = 1 / chosen[j];
    // v and up are the last of what a joint weight makes.
    edits.map_outputs(producer, multiply(std::move(inverse), producer.rows - chosen.size()));
  }
  const std::vector<const model::Linear*> readers = linears_at(block, site);
  std::vector<float> all(readers.front()->cols);
  for (std::size_t j = 0; j < all.size(); ++j) {
    all[j] = chosen[free_channel(model.config(), site, j)];
  }
  for (const model::Linear* reader : readers) edits.map_inputs(*reader, multiply(all));
  return all;
}

Status Transform::edit_model(const model::Model&, model::Edits&, Executor&) const {
  return ok();
}

Result<std::vector<float>> Transform::scale_site(const SiteProblem&, Executor&) const {
  return std::vector<float>();
}

Result<std::vector<float>> Transform::bias_change(MatrixView<const float>, const QuantizedTensor&,
                                                  std::span<const double>) const {
  return std::vector<float>();
}

}  // namespace quell::quant
