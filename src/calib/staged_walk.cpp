// SPDX-License-Identifier: Apache-2.0

// Every part of a block is computed once for the original and, for the model as it becomes, once
// before a solve for its statistics and, where that changed what follows, once after it:
//
//            original                     now
//   qkv_in   norm                         norm
//   o_in     qkv, attention, o            qkv', attention
//   mlp_in   norm                         o', norm
//   down_in  gate_up, down                gate_up'
//   finish                                gate_up', down'
//
// with ' for quantized ones; drifts at o_in and down_in take one product more with the float layer.

#include "quell/calib/staged_walk.hpp"

#include <algorithm>
#include <string>

namespace quell::calib {
namespace {

using model::Site;

constexpr Site kQkv[] = {Site::qkv_in};
constexpr Site kOutput[] = {Site::o_in};
constexpr Site kUp[] = {Site::mlp_in};
constexpr Site kAttention[] = {Site::qkv_in, Site::o_in};
constexpr Site kMlp[] = {Site::mlp_in, Site::down_in};

void copy_rows(MatrixView<const float> from, MatrixView<float> to) {
  for (std::size_t t = 0; t < from.rows(); ++t) {
    std::copy_n(from.row(t).data(), from.cols(), to.row(t).data());
  }
}

}  // namespace

std::span<const Site> StagedWalk::now_reads(Site site) {
  switch (site) {
    case Site::qkv_in:
      return {};
    case Site::o_in:
      return kQkv;
    case Site::mlp_in:
      return kOutput;
    case Site::down_in:
      return kUp;
  }
  return {};
}

std::span<const Site> StagedWalk::original_reads(Site site) {
  if (site == Site::o_in) return kAttention;
  if (site == Site::down_in) return kMlp;
  return {};
}

Result<StagedWalk> StagedWalk::begin(engine::Engine& engine, const Corpus& corpus,
                                     std::uint64_t hidden_limit,
                                     const std::filesystem::path& spill_folder,
                                     std::size_t drift_tokens) {
  const model::ModelConfig& config = engine.model().config();
  const std::size_t tokens = corpus.ids.size();
  const std::size_t heads = std::size_t{config.heads} * config.head_dim;
  const std::vector<Chunk> all = chunks(corpus);
  // Chunk i is walked where a line of this slope passes a whole number; the first always is.
  const std::size_t wanted =
      tokens <= drift_tokens
          ? all.size()
          : std::max<std::size_t>(1, all.size() * drift_tokens / std::max<std::size_t>(1, tokens));
  std::vector<Part> parts;
  std::size_t longest = 0, original_tokens = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    Part part{all[i]};
    longest = std::max(longest, all[i].tokens);
    const std::size_t n = all.size();
    part.walks_original = (i * wanted + n - 1) / n != ((i + 1) * wanted + n - 1) / n;
    if (part.walks_original) {
      part.first_original = original_tokens;
      original_tokens += all[i].tokens;
    }
    parts.push_back(part);
  }
  // All of them in memory or none, as the plan counts.
  const std::uint64_t bytes = sizeof(float) * (std::uint64_t{tokens} * (config.hidden + heads) +
                                               std::uint64_t{original_tokens} * config.hidden);
  const std::uint64_t limit = bytes <= hidden_limit ? hidden_limit : 0;
  QUELL_TRY(now, HiddenStates::create(tokens, config.hidden, limit, spill_folder));
  QUELL_TRY(attended, HiddenStates::create(tokens, heads, limit, spill_folder));
  QUELL_TRY(original, HiddenStates::create(original_tokens, config.hidden, limit, spill_folder));
  StagedWalk walk(engine, corpus, std::move(now), std::move(attended), std::move(original));
  QUELL_TRY(x, Matrix::uninitialized(longest, config.hidden));
  QUELL_TRY(before, Matrix::uninitialized(longest, config.hidden));
  QUELL_TRY(heads_of_chunk, Matrix::uninitialized(longest, heads));
  walk.x_ = std::move(x);
  walk.before_ = std::move(before);
  walk.attended_ = std::move(heads_of_chunk);
  walk.parts_ = std::move(parts);
  walk.original_tokens_ = original_tokens;
  for (const Part& part : walk.parts_) {
    const MatrixView<float> rows = walk.x_.view().rows_from(0, part.chunk.tokens);
    const std::span<const std::int32_t> ids(corpus.ids);
    QUELL_TRY(engine.embed(ids.subspan(part.chunk.first_token, part.chunk.tokens),
                           walk.lengths(part), rows));
    QUELL_TRY(walk.now_.store(part.chunk.first_token, rows));
    if (part.walks_original) QUELL_TRY(walk.original_.store(part.first_original, rows));
  }
  return walk;
}

std::span<const std::uint32_t> StagedWalk::lengths(const Part& part) const {
  return std::span(corpus_->lengths).subspan(part.chunk.first_sequence, part.chunk.sequences);
}

/// Leaves in before_ what the drift at `site` is measured from.
Status StagedWalk::pass_original(Site site, const Part& part,
                                 const engine::BlockWeights& original) {
  engine::Engine& engine = *engine_;
  const MatrixView<float> x = x_.view().rows_from(0, part.chunk.tokens);
  const MatrixView<float> before = before_.view().rows_from(0, part.chunk.tokens);
  QUELL_TRY(original_.load(part.first_original, x));
  const bool attention = site == Site::qkv_in || site == Site::o_in;
  QUELL_TRY(input, engine.site_input(original, attention ? Site::qkv_in : Site::mlp_in, x));
  if (!drifts_at_output(site)) {
    copy_rows(input, before);
    return ok();
  }
  if (attention) {
    QUELL_TRY(heads, engine.attend(original, lengths(part), input));
    QUELL_TRY(engine.add_output(original, site, heads, x));
  } else {
    QUELL_TRY(inner, engine.expand(original, input));
    QUELL_TRY(engine.add_output(original, site, inner, x));
  }
  copy_rows(x, before);
  engine.close_output(original, site, x);
  return original_.store(part.first_original, x);
}

/// The input of the linears at `site`; x has the states that their output is added to.
Result<MatrixView<const float>> StagedWalk::pass_now(Site site, const Part& part,
                                                     const engine::BlockWeights& now,
                                                     MatrixView<float> x) {
  engine::Engine& engine = *engine_;
  QUELL_TRY(now_.load(part.chunk.first_token, x));
  const MatrixView<float> heads = attended_.view().rows_from(0, part.chunk.tokens);
  switch (site) {
    case Site::qkv_in:
      return engine.site_input(now, site, x);
    case Site::o_in: {
      QUELL_TRY(input, engine.site_input(now, Site::qkv_in, x));
      QUELL_TRY(out, engine.attend(now, lengths(part), input));
      copy_rows(out, heads);
      QUELL_TRY(heads_.store(part.chunk.first_token, heads));
      return out;
    }
    case Site::mlp_in: {
      QUELL_TRY(heads_.load(part.chunk.first_token, heads));
      QUELL_TRY(engine.add_output(now, Site::o_in, heads, x));
      engine.close_output(now, Site::o_in, x);
      QUELL_TRY(now_.store(part.chunk.first_token, x));
      return engine.site_input(now, site, x);
    }
    case Site::down_in: {
      QUELL_TRY(input, engine.site_input(now, Site::mlp_in, x));
      return engine.expand(now, input);
    }
  }
  return MatrixView<const float>();
}

Result<SiteStatistics> StagedWalk::collect(Site site, const engine::BlockWeights& now,
                                           const engine::BlockWeights& original, SiteWish wish) {
  SiteStatistics statistics;
  for (const Part& part : parts_) {
    if (part.walks_original) QUELL_TRY(pass_original(site, part, original));
    const MatrixView<float> x = x_.view().rows_from(0, part.chunk.tokens);
    QUELL_TRY(input, pass_now(site, part, now, x));
    if (!wish.profile && !wish.moment) continue;
    QUELL_TRY(statistics.add(input, wish.moment, engine_->context()));
    if (!wish.drift || !part.walks_original) continue;
    const MatrixView<float> before = before_.view().rows_from(0, part.chunk.tokens);
    if (drifts_at_output(site)) {
      QUELL_TRY(engine_->add_output(original, site, input, x));
      QUELL_TRY(statistics.add_drift(before, x, input, engine_->context()));
    } else {
      QUELL_TRY(statistics.add_drift(before, input, input, engine_->context()));
    }
  }
  return statistics;
}

Status StagedWalk::finish(const engine::BlockWeights& now) {
  for (const Part& part : parts_) {
    const MatrixView<float> x = x_.view().rows_from(0, part.chunk.tokens);
    QUELL_TRY(inner, pass_now(Site::down_in, part, now, x));
    QUELL_TRY(engine_->add_output(now, Site::down_in, inner, x));
    engine_->close_output(now, Site::down_in, x);
    QUELL_TRY(now_.store(part.chunk.first_token, x));
  }
  return ok();
}

Status StagedWalk::advance_now(const engine::BlockWeights& now) {
  for (const Part& part : parts_) {
    const MatrixView<float> x = x_.view().rows_from(0, part.chunk.tokens);
    QUELL_TRY(now_.load(part.chunk.first_token, x));
    QUELL_TRY(engine_->run_block(now, lengths(part), x));
    QUELL_TRY(now_.store(part.chunk.first_token, x));
  }
  return ok();
}

Status StagedWalk::advance_original(const engine::BlockWeights& original) {
  for (const Part& part : parts_) {
    if (!part.walks_original) continue;
    const MatrixView<float> x = x_.view().rows_from(0, part.chunk.tokens);
    QUELL_TRY(original_.load(part.first_original, x));
    QUELL_TRY(engine_->run_block(original, lengths(part), x));
    QUELL_TRY(original_.store(part.first_original, x));
  }
  return ok();
}

}  // namespace quell::calib
