// SPDX-License-Identifier: Apache-2.0

// Statistics of the model as it is, block by block, of one part of a corpus.

#include <algorithm>

#include "quell/calib/collect.hpp"
#include "quell/engine/engine.hpp"
#include "quell/pipeline/quantize.hpp"

namespace quell::pipeline {

Status save_statistics(const model::Model& model, const calib::Corpus& corpus, std::uint32_t part,
                       std::uint32_t parts, engine::Precision precision, std::uint64_t max_memory,
                       const std::filesystem::path& file, Executor& executor, Observer& observer) {
  calib::StatisticsInfo info;
  QUELL_TRY(fingerprint, calib::model_fingerprint(model));
  info.model_fingerprint = fingerprint;
  info.corpus_fingerprint = calib::fingerprint(corpus);
  info.parts = parts;
  info.precision = precision;
  info.merged_parts = {part};
  const auto layers = static_cast<std::uint32_t>(model.blocks().size());
  for (std::uint32_t layer = 0; layer < layers; ++layer) {
    for (const model::Site site : model::kSites) {
      info.channels.emplace(calib::SiteKey{layer, site},
                            linears_at(model.blocks()[layer], site).front()->cols);
    }
  }

  // A part is a contiguous run of chunks.
  const std::vector<calib::Chunk> all = calib::chunks(corpus);
  const std::size_t first = all.size() * (part - 1) / parts, end = all.size() * part / parts;
  if (first == end) {
    return Error{ErrorCode::usage, "part " + std::to_string(part) + " of " + std::to_string(parts) +
                                       " is empty: the data has " + std::to_string(all.size()) +
                                       " chunks of up to " + std::to_string(calib::kChunkTokens) +
                                       " tokens"};
  }
  calib::Corpus mine;
  for (std::size_t c = first; c < end; ++c) {
    const auto ids = corpus.ids.begin() + static_cast<std::ptrdiff_t>(all[c].first_token);
    mine.ids.insert(mine.ids.end(), ids, ids + static_cast<std::ptrdiff_t>(all[c].tokens));
    const auto lengths =
        corpus.lengths.begin() + static_cast<std::ptrdiff_t>(all[c].first_sequence);
    mine.lengths.insert(mine.lengths.end(), lengths,
                        lengths + static_cast<std::ptrdiff_t>(all[c].sequences));
  }
  info.tokens_fed = mine.ids.size();
  QUELL_TRY(writer, calib::StatisticsWriter::create(file, std::move(info)));

  engine::EngineOptions how;
  how.arithmetic = engine::arithmetic_of(precision);
  QUELL_TRY(engine, engine::Engine::create(model, executor, how));
  const std::uint64_t limit = max_memory == 0 ? ~std::uint64_t{0} : max_memory / 4;
  const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : ".";
  QUELL_TRY(walk, calib::Walk::begin(engine, mine, limit, folder));
  for (std::uint32_t layer = 0; layer < layers; ++layer) {
    if (observer.stop_requested()) return Error{ErrorCode::interrupted, "stopped"};
    const std::string what = "block " + std::to_string(layer) + ": statistics";
    observer.progress({what, static_cast<double>(layer), static_cast<double>(layers), 0});
    QUELL_TRY(weights, engine.load_block(layer));
    QUELL_TRY(sites, walk.collect_and_advance(weights, [](std::uint32_t, model::Site) {
      return calib::SiteWish{true, true};
    }));
    for (const auto& [site, values] : sites) QUELL_TRY(writer.add({layer, site}, values));
  }
  return writer.commit();
}

}  // namespace quell::pipeline
