// SPDX-License-Identifier: Apache-2.0

#include "quell/engine/generate.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "quell/core/random.hpp"
#include "quell/engine/perplexity.hpp"

namespace quell::engine {
namespace {

/// The blocks in order: kept, or read again every time.
class Blocks {
 public:
  Blocks(Engine& engine, WeightSource* source, bool keep)
      : engine_(engine), source_(source), keep_(keep) {}

  /// What is kept.
  Status load() {
    for (std::uint32_t layer = 0; keep_ && layer < engine_.model().config().layers; ++layer) {
      QUELL_TRY(weights, engine_.load_block(layer, source_));
      kept_.push_back(std::move(weights));
    }
    return keep_ ? engine_.keep_head() : ok();
  }

  Status run(Cache& cache, MatrixView<float> x) {
    const std::uint32_t layers = engine_.model().config().layers;
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
      if (layer < kept_.size()) {
        QUELL_TRY(engine_.run_block(kept_[layer], cache, x));
        continue;
      }
      QUELL_TRY(weights, engine_.load_block(layer, source_));
      QUELL_TRY(engine_.run_block(weights, cache, x));
    }
    engine_.advance(cache, static_cast<std::uint32_t>(x.rows()));
    return ok();
  }

 private:
  Engine& engine_;
  WeightSource* source_;
  bool keep_;
  std::vector<BlockWeights> kept_;
};

}  // namespace

std::int32_t choose_token(std::span<const float> logits, double temperature, double uniform) {
  const std::size_t top = top_token(logits);
  if (temperature <= 0) return static_cast<std::int32_t>(top);
  const double max = static_cast<double>(logits[top]);
  const auto share = [&](float logit) {
    return std::exp((static_cast<double>(logit) - max) / temperature);
  };
  double total = 0;
  for (const float logit : logits) total += share(logit);
  double left = uniform * total;
  for (std::size_t token = 0; token < logits.size(); ++token) {
    left -= share(logits[token]);
    if (left < 0) return static_cast<std::int32_t>(token);
  }
  return static_cast<std::int32_t>(top);  // rounding used up the whole distribution
}

Result<std::vector<std::int32_t>> generate(Engine& engine, std::span<const std::int32_t> prompt,
                                           const GenerateOptions& options) {
  const model::ModelConfig& config = engine.model().config();
  QUELL_TRY(model::expect_head(engine.model()));
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature)) {
    return Error{ErrorCode::usage,
                 "temperature is " + std::to_string(options.temperature) + ", expected 0 or more"};
  }
  if (prompt.empty()) {
    return Error{ErrorCode::usage, "the prompt is empty, expected at least one token"};
  }
  const std::uint64_t limit = model::position_limit(config);
  const std::uint64_t wanted = prompt.size() + std::uint64_t{options.tokens};
  const auto capacity =
      static_cast<std::uint32_t>(std::max<std::uint64_t>(prompt.size(), std::min(limit, wanted)));

  const bool keep = engine.packed_bytes() <= options.memory_bytes;
  Blocks blocks(engine, options.source, keep);
  QUELL_TRY(blocks.load());
  if (options.on_loaded) options.on_loaded();
  std::vector<std::int32_t> out;
  QUELL_TRY(x, Matrix::uninitialized(prompt.size(), config.hidden));
  const auto prompt_length = static_cast<std::uint32_t>(prompt.size());
  QUELL_TRY(engine.embed(prompt, {&prompt_length, 1}, x.view()));
  QUELL_TRY(cache, Cache::create(config, capacity, engine.options().cache));
  QUELL_TRY(logits, Matrix::uninitialized(1, config.vocabulary));
  QUELL_TRY(blocks.run(cache, x.view()));
  auto last = x.view().rows_from(prompt.size() - 1, 1);

  const Random random(options.seed);
  while (out.size() < options.tokens) {
    QUELL_TRY(engine.logits(last, logits.view()));
    for (const float logit : logits.values()) {
      if (std::isfinite(logit)) continue;
      return Error{ErrorCode::numeric, "the logits of new token " + std::to_string(out.size()) +
                                           " are not finite; the weights overflow float32"};
    }
    const std::int32_t token =
        choose_token(logits.values(), options.temperature, random.uniform(out.size()));
    if (std::find(options.stop.begin(), options.stop.end(), token) != options.stop.end()) break;
    out.push_back(token);
    if (options.on_token && !options.on_token(token)) break;
    if (out.size() == options.tokens || cache.length() == capacity) break;
    const std::uint32_t one = 1;
    last = x.view().rows_from(0, 1);
    QUELL_TRY(engine.embed({&token, 1}, {&one, 1}, last, cache.length()));
    QUELL_TRY(blocks.run(cache, last));
  }
  return out;
}

}  // namespace quell::engine
