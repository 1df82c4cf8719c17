// SPDX-License-Identifier: Apache-2.0

// Two engines over the same weights, one of which clips; both go through a block before the next is
// read. What the blocks make of each other's outputs is part of the answer, so each engine carries
// its own stream.

#include "quell/pipeline/what_if.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <numeric>

#include "quell/engine/embeddings.hpp"
#include "quell/engine/engine.hpp"
#include "quell/engine/perplexity.hpp"

namespace quell::pipeline {
namespace {

constexpr std::string_view kForm =
    "; the form is clip:ZETA,GAMMA (ZETA >= 1, GAMMA <= 0, such as clip:1,-0.003) or "
    "clip:alpha=A (A >= 0, usually 2 to 4: ZETA = 1, GAMMA = -A / T for sequences of T tokens)";

Error wrong(std::string_view text, const std::string& what) {
  return Error{ErrorCode::usage,
               "--what-if " + std::string(text) + ": " + what + std::string(kForm)};
}

std::optional<float> number(std::string_view text) {
  float value = 0;
  const char* end = text.data() + text.size();
  const auto [last, failure] = std::from_chars(text.data(), end, value);
  if (failure != std::errc() || last != end || !std::isfinite(value)) return std::nullopt;
  return value;
}

/// What one engine shows of the block at hand.
class BlockTap final : public engine::Tap {
 public:
  Status input(std::uint32_t /*layer*/, model::Site site, MatrixView<const float> x) override {
    if (site == model::Site::down_in) down_in = std::max(down_in, largest(x));
    if (site != model::Site::o_in) return ok();
    for (std::size_t t = 0; t < x.rows(); ++t) {
      attended.insert(attended.end(), x.row(t).begin(), x.row(t).end());
    }
    return ok();
  }
  Status residual(std::int32_t /*layer*/, MatrixView<const float> x) override {
    stream = std::max(stream, largest(x));
    return ok();
  }
  bool wants_attention() const override { return true; }
  bool wants_zeros() const override { return true; }
  Status attention(std::uint32_t /*layer*/, const engine::AttentionMass& seen) override {
    for (const engine::AttentionZeros& head : seen.zeros) {
      zeros.visible += head.visible;
      zeros.zeros += head.zeros;
      zeros.rows += head.rows;
      zeros.empty_rows += head.empty_rows;
    }
    return ok();
  }

  double share_of_zeros() const {
    return static_cast<double>(zeros.zeros) / static_cast<double>(zeros.visible);
  }

  std::vector<float> attended;  // [T, heads * head_dim]
  float down_in = 0, stream = 0;
  engine::AttentionZeros zeros;

 private:
  /// Of what is finite.
  static float largest(MatrixView<const float> x) {
    float max = 0;
    for (std::size_t t = 0; t < x.rows(); ++t) {
      for (const float value : x.row(t)) {
        const float magnitude = std::fabs(value);
        if (magnitude > max && std::isfinite(magnitude)) max = magnitude;
      }
    }
    return max;
  }
};

double relative_change(const std::vector<float>& before, const std::vector<float>& after) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const double x = static_cast<double>(before[i]);
    const double difference = static_cast<double>(after[i]) - x;
    error += difference * difference;
    norm += x * x;
  }
  if (norm > 0) return std::sqrt(error / norm);
  return error > 0 ? 1 : 0;
}

WhatIfLayer layer_of(std::uint32_t layer, const BlockTap& before, const BlockTap& after) {
  WhatIfLayer result;
  result.layer = layer;
  result.zeros_before = before.share_of_zeros();
  result.zeros_after = after.share_of_zeros();
  result.empty_rows =
      static_cast<double>(after.zeros.empty_rows) / static_cast<double>(after.zeros.rows);
  result.output_change = relative_change(before.attended, after.attended);
  result.residual_before = before.stream;
  result.residual_after = after.stream;
  result.down_in_before = before.down_in;
  result.down_in_after = after.down_in;
  return result;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) /
         static_cast<double>(std::max<std::size_t>(values.size(), 1));
}

double largest(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

}  // namespace

Result<WhatIfClip> WhatIfClip::parse(std::string_view text) {
  constexpr std::string_view kClip = "clip:", kAlpha = "alpha=";
  if (!text.starts_with(kClip)) return wrong(text, "it does not begin with \"clip:\"");
  const std::string_view rest = text.substr(kClip.size());
  const auto not_a_number = [&](const char* name, std::string_view found) {
    return wrong(text, std::string(name) + " is \"" + std::string(found) +
                           "\", expected a number that a float32 holds");
  };
  const auto outside = [&](const char* name, std::string_view found, const char* range) {
    return wrong(text, std::string(name) + " is " + std::string(found) + ", expected " + range);
  };
  WhatIfClip clip;
  if (rest.starts_with(kAlpha)) {
    const std::string_view digits = rest.substr(kAlpha.size());
    clip.alpha = number(digits);
    if (!clip.alpha) return not_a_number("A", digits);
    if (*clip.alpha < 0) return outside("A", digits, "0 or more");
    return clip;
  }
  const std::size_t comma = rest.find(',');
  if (comma == std::string_view::npos) return wrong(text, "there is no comma between two numbers");
  const std::string_view first = rest.substr(0, comma), second = rest.substr(comma + 1);
  const auto zeta = number(first), gamma = number(second);
  if (!zeta) return not_a_number("ZETA", first);
  if (!gamma) return not_a_number("GAMMA", second);
  if (*zeta < 1) return outside("ZETA", first, "1 or more");
  if (*gamma > 0) return outside("GAMMA", second, "0 or less");
  if (!std::isfinite(*zeta - *gamma)) {
    return outside("ZETA - GAMMA", "infinite", "a number that a float32 holds");
  }
  clip.rule = {*zeta, *gamma};
  return clip;
}

Result<WhatIf> what_if(const model::Model& model, const calib::Corpus& corpus,
                       const WhatIfClip& clip, Executor& executor, Observer& observer) {
  WhatIf result;
  const calib::Corpus part = calib::beginning(corpus, kWhatIfTokens);
  result.tokens = part.ids.size();
  result.sequences = part.sequences();
  for (const std::uint32_t length : part.lengths) result.length = std::max(result.length, length);
  if (result.tokens == 0) {
    return Error{ErrorCode::usage, "--what-if: the text has no tokens, expected at least one"};
  }
  result.alpha = clip.alpha;
  result.rule =
      clip.alpha ? attention::ClippedSoftmax::by_length(*clip.alpha, result.length) : clip.rule;
  const auto tokens = static_cast<std::size_t>(result.tokens);
  const std::span<const std::int32_t> ids = part.ids;
  const std::span<const std::uint32_t> lengths = part.lengths;

  QUELL_TRY(original, engine::Engine::create(model, executor));
  QUELL_TRY(changed, engine::Engine::create(model, executor));
  QUELL_TRY(changed.set_attention({{result.rule, std::nullopt}}));
  QUELL_TRY(x, Matrix::uninitialized(tokens, model.config().hidden));
  QUELL_TRY(y, Matrix::uninitialized(tokens, model.config().hidden));
  QUELL_TRY(original.embed(ids, lengths, x.view()));
  std::memcpy(y.data(), x.data(), x.size() * sizeof(float));
  const auto layers = static_cast<std::uint32_t>(model.blocks().size());
  for (std::uint32_t layer = 0; layer < layers; ++layer) {
    if (observer.stop_requested()) return Error{ErrorCode::interrupted, "stopped"};
    observer.progress({"clipped attention of block " + std::to_string(layer),
                       static_cast<double>(layer), static_cast<double>(layers) + 1, 0});
    QUELL_TRY(weights, original.load_block(layer));
    BlockTap before, after;
    QUELL_TRY(original.run_block(weights, lengths, x.view(), &before));
    QUELL_TRY(changed.run_block(weights, lengths, y.view(), &after));
    result.layers.push_back(layer_of(layer, before, after));
  }
  // The comparison walks once more: it knows how to make logits in pieces.
  if (!model.has_head()) {
    QUELL_TRY(compared, engine::compare_embeddings(original, changed, ids, lengths));
    result.embeddings = {mean(compared.cosine_error), largest(compared.cosine_error)};
    return result;
  }
  QUELL_TRY(compared, engine::compare(original, changed, ids, lengths));
  const double scored = static_cast<double>(std::max<std::size_t>(compared.kl.size(), 1));
  result.predictions = {mean(compared.kl), largest(compared.kl),
                        std::exp(mean(compared.reference_nll)), std::exp(mean(compared.nll)),
                        static_cast<double>(compared.same_top) / scored};
  return result;
}

io::Json WhatIf::to_json() const {
  io::Json json = io::Json::object();
  json.set("rule", "clip");
  json.set("zeta", static_cast<double>(rule.zeta));
  json.set("gamma", static_cast<double>(rule.gamma));
  json.set("alpha", alpha ? io::Json(static_cast<double>(*alpha)) : io::Json());
  json.set("length", length);
  json.set("tokens", tokens);
  json.set("sequences", static_cast<std::uint64_t>(sequences));
  io::Json list = io::Json::array();
  for (const WhatIfLayer& each : layers) {
    list.push(io::Json::object({{"layer", each.layer},
                                {"zeros_before", each.zeros_before},
                                {"zeros_after", each.zeros_after},
                                {"empty_rows", each.empty_rows},
                                {"output_change", each.output_change},
                                {"residual_before", static_cast<double>(each.residual_before)},
                                {"residual_after", static_cast<double>(each.residual_after)},
                                {"down_in_before", static_cast<double>(each.down_in_before)},
                                {"down_in_after", static_cast<double>(each.down_in_after)}}));
  }
  json.set("layers", std::move(list));
  if (predictions) {
    json.set("kl_mean", predictions->kl_mean);
    json.set("kl_max", predictions->kl_max);
    json.set("perplexity_before", predictions->perplexity_before);
    json.set("perplexity_after", predictions->perplexity_after);
    json.set("top1_agreement", predictions->top1_agreement);
  }
  if (embeddings) {
    json.set("cosine_error_mean", embeddings->cosine_error_mean);
    json.set("cosine_error_max", embeddings->cosine_error_max);
  }
  return json;
}

}  // namespace quell::pipeline
