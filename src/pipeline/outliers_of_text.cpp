// SPDX-License-Identifier: Apache-2.0

// Outliers of activations and attention: a corpus walks through the blocks, and every tensor is
// measured as it goes by. One block's measurements are in memory at a time; what is kept of all
// blocks is a number for each channel.

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "pipeline/life_cycle.hpp"
#include "pipeline/tensor_measure.hpp"
#include "quell/attention/heads.hpp"
#include "quell/attention/sinks.hpp"
#include "quell/calib/collect.hpp"
#include "quell/engine/engine.hpp"
#include "quell/pipeline/outliers.hpp"
#include "quell/stats/layer_outliers.hpp"

namespace quell::pipeline {
namespace {

constexpr attention::SinkRule kSink;
// A neuron of an MLP leads its layer if its maximum is this many times the median neuron's. Seen on
// five small models: 10 to 65 where a massive activation begins, below 10 elsewhere.
constexpr double kNeuronRatio = 10;
// One sequence in so many may be left out because it is not finite.
constexpr std::size_t kSequencesPerBroken = 100;

/// Where tokens stand in a corpus.
class Places {
 public:
  explicit Places(const calib::Corpus& corpus) : corpus_(corpus) {
    std::size_t at = 0;
    for (const std::uint32_t length : corpus.lengths) {
      starts_.push_back(at);
      at += length;
    }
  }
  std::size_t position(std::uint64_t row) const {
    const auto next = std::upper_bound(starts_.begin(), starts_.end(), row);
    return static_cast<std::size_t>(row) - *(next - 1);
  }
  std::int32_t token(std::uint64_t row) const { return corpus_.ids[static_cast<std::size_t>(row)]; }
  std::int32_t token(std::size_t sequence, std::size_t position) const {
    return corpus_.ids[starts_[sequence] + position];
  }

 private:
  const calib::Corpus& corpus_;
  std::vector<std::size_t> starts_;
};

/// The sequences a tensor has seen so far.
struct Seen {
  std::size_t sequences = 0;
  /// The lengths of the next sequences that have `rows` tokens together.
  std::span<const std::uint32_t> take(const std::vector<std::uint32_t>& lengths, std::size_t rows) {
    const std::size_t first = sequences;
    for (std::size_t taken = 0; taken < rows && sequences < lengths.size();) {
      taken += lengths[sequences++];
    }
    return std::span(lengths).subspan(first, sequences - first);
  }
};

/// Attention of one layer.
struct LayerAttention {
  std::size_t sequences = 0;
  std::vector<attention::HeadMeter> heads;
  bool enough = false;                          // a sequence with kSink.queries was among them
  std::map<std::int32_t, AttentionSink> later;  // by token: sinks that are not at position 0
};

class OutlierTap final : public engine::Tap {
 public:
  OutlierTap(const calib::Corpus& corpus, const OutlierOptions& options, OutlierReport& report,
             kernels::Context& context)
      : corpus_(corpus), places_(corpus), options_(options), report_(report), context_(context) {}

  Status input(std::uint32_t layer, model::Site site, MatrixView<const float> x) override {
    if (site == model::Site::down_in) QUELL_TRY(follow(layer, x, inner_layer_, &LifeCycle::inner));
    return add("layers." + std::to_string(layer) + "." + std::string(to_string(site)),
               static_cast<std::int32_t>(layer), x);
  }
  Status residual(std::int32_t layer, MatrixView<const float> x) override {
    QUELL_TRY(follow(layer, x, residual_layer_, &LifeCycle::residual));
    return add(layer < 0 ? "embedding" : "layers." + std::to_string(layer) + ".residual", layer, x);
  }
  bool wants_attention() const override { return true; }

  Status attention(std::uint32_t layer, const engine::AttentionMass& seen) override {
    const std::size_t heads = seen.mass.rows(), sequence = attention_.sequences++;
    attention_.heads.resize(heads);
    if (seen.queries[0] == 0) return ok();
    const bool enough = seen.queries[0] >= kSink.queries;
    // Short sequences count only while there are no others.
    if (enough && !attention_.enough) {
      attention_.enough = true;
      attention_.heads.assign(heads, {});
    }
    if (enough == attention_.enough) add_heads(seen);
    for (const auto& [key, mass] : attention::find_sinks(seen.mass, seen.queries, kSink)) {
      if (key == 0) continue;  // told from all sequences together
      const std::int32_t token = places_.token(sequence, key);
      AttentionSink& sink = attention_.later[token];
      if (mass > sink.mass) sink = {layer, std::nullopt, key, token, mass, sink.sequences};
      ++sink.sequences;
    }
    return ok();
  }

  /// What became of the largest value of the residual stream in the layer at hand.
  Status follow_life(const model::Model& model, std::uint32_t layer) {
    const std::size_t first = report_.life_cycle.size();
    QUELL_TRY(life_.finish_block(model, layer, context_.executor(), report_.life_cycle));
    for (std::size_t i = first; i < report_.life_cycle.size(); ++i) {
      report_.life_cycle[i].token = places_.token(0, report_.life_cycle[i].position);
    }
    return ok();
  }

  /// Sum of x^2 of each channel of a site of the layer at hand.
  std::vector<double> energies(std::uint32_t layer, model::Site site) {
    const TensorMeasure* measure =
        find("layers." + std::to_string(layer) + "." + std::string(to_string(site)));
    return measure == nullptr ? std::vector<double>() : measure->energies();
  }

  /// Sequences with activations that are not finite, and where that began.
  const std::map<std::size_t, std::string>& broken() const { return broken_; }

  /// Moves what was measured into the report; the tap is ready for the next layer.
  void finish(std::int32_t layer) {
    for (const auto& measure : measures_) report_.activations.push_back(measure->finish());
    measures_.clear();
    seen_.clear();
    std::vector<MassiveActivation> found;
    for (const auto& [key, hit] : massive_) found.push_back(hit);
    std::stable_sort(found.begin(), found.end(),
                     [](const MassiveActivation& a, const MassiveActivation& b) {
                       return std::fabs(a.value) > std::fabs(b.value);
                     });
    report_.massive.insert(report_.massive.end(), found.begin(), found.end());
    massive_.clear();
    if (layer >= 0) finish_attention(static_cast<std::uint32_t>(layer));
    attention_ = {};
  }

 private:
  /// Hands the first sequence, which comes with the first call of a layer, to the life cycle.
  template <typename Layer>
  Status follow(Layer layer, MatrixView<const float> x, std::int64_t& last,
                Status (LifeCycle::*hand)(MatrixView<const float>)) {
    if (last == std::int64_t{layer}) return ok();
    last = std::int64_t{layer};
    return (life_.*hand)(x.rows_from(0, corpus_.lengths.front()));
  }

  Status add(const std::string& name, std::int32_t layer, MatrixView<const float> x) {
    if (measures_.empty() || find(name) == nullptr) {
      measures_.push_back(std::make_unique<TensorMeasure>(name));
    }
    Seen& seen = seen_[name];
    const std::size_t first = seen.sequences;
    const auto lengths = seen.take(corpus_.lengths, x.rows());
    const std::uint64_t broken = find(name)->nonfinite();
    const auto hits = find(name)->add(x, lengths, options_.massive, context_);
    if (find(name)->nonfinite() != broken) find_broken(name, first, lengths, x);
    for (const MassiveHit& hit : hits) {
      const std::size_t sequence = first + hit.sequence;
      MassiveActivation& to = massive_[{name, hit.channel}];
      // Hits of a sequence come largest first: only the first of a channel counts the sequence.
      const bool counted = to.sequences != 0 && last_[{name, hit.channel}] == sequence;
      last_[{name, hit.channel}] = sequence;
      if (!counted) {
        ++to.sequences;
        to.first_positions += hit.position == 0 ? 1 : 0;
      }
      if (std::fabs(hit.value) <= std::fabs(to.value)) continue;
      to.place = name;
      to.layer = layer;
      to.channel = hit.channel;
      to.position = hit.position;
      to.token = places_.token(sequence, hit.position);
      to.value = hit.value;
      to.ratio_to_median = hit.ratio_to_median;
    }
    return ok();
  }

  /// Which of the sequences from `first` on, those of `lengths`, are not finite.
  void find_broken(const std::string& name, std::size_t first,
                   std::span<const std::uint32_t> lengths, MatrixView<const float> x) {
    std::size_t row = 0;
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      for (const std::size_t end = row + lengths[s]; row < end; ++row) {
        const auto values = x.row(row);
        if (std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
          continue;
        }
        broken_.emplace(first + s, name);
      }
    }
  }

  TensorMeasure* find(const std::string& name) {
    for (const auto& measure : measures_) {
      if (measure->name() == name) return measure.get();
    }
    return nullptr;
  }

  void add_heads(const engine::AttentionMass& seen) {
    const std::size_t heads = seen.mass.rows(), kv_heads = seen.values.cols() / seen.head_dim;
    std::vector<double> norms, mass(seen.mass.cols());
    for (std::size_t h = 0; h < heads; ++h) {
      // Heads that share a key head come one after the other.
      if (h * kv_heads % heads < kv_heads) {
        norms = attention::value_norms(seen.values, h * kv_heads / heads, seen.head_dim);
      }
      for (std::size_t key = 0; key < mass.size(); ++key) {
        mass[key] = seen.mass(h, key) + seen.near(h, key);
      }
      attention_.heads[h].add(mass, norms, seen.rows, seen.queries[0]);
    }
  }

  void finish_attention(std::uint32_t layer) {
    FirstTokenMass first;
    first.layer = layer;
    std::vector<double> first_mass;
    for (const attention::HeadMeter& meter : attention_.heads) {
      const auto head = static_cast<std::uint32_t>(first_mass.size());
      const attention::HeadActivity activity = meter.activity();
      const double mass = activity.first_token_mass;
      first_mass.push_back(mass);
      first.mean += mass / static_cast<double>(attention_.heads.size());
      if (!meter.empty()) {
        report_.heads.push_back({layer, head, activity.idle_mass, mass, activity.first_value_ratio,
                                 attention::is_idle(activity)});
      }
      if (mass <= first.largest_head) continue;
      first.largest_head = mass;
      first.head = head;
    }
    report_.first_token_mass.push_back(first);
    // The mean over heads hides a single head, and sinks at position 0 are no false alarms.
    if (attention_.enough && first.largest_head >= kSink.mass) {
      const std::int32_t token = places_.token(0, 0);
      report_.sinks.push_back({layer, std::nullopt, 0, token, first.mean, attention_.sequences});
      for (std::size_t h = 0; h < first_mass.size(); ++h) {
        if (first_mass[h] < kSink.mass) continue;
        report_.sinks.push_back(
            {layer, static_cast<std::uint32_t>(h), 0, token, first_mass[h], attention_.sequences});
      }
    }
    for (const auto& [token, sink] : attention_.later) report_.sinks.push_back(sink);
  }

  const calib::Corpus& corpus_;
  const Places places_;
  const OutlierOptions& options_;
  OutlierReport& report_;
  kernels::Context& context_;
  std::vector<std::unique_ptr<TensorMeasure>> measures_;  // of one layer, in order
  std::map<std::string, Seen> seen_;
  std::map<std::pair<std::string, std::size_t>, MassiveActivation> massive_;  // by place, channel
  std::map<std::pair<std::string, std::size_t>, std::size_t> last_;  // sequence of its last hit
  std::map<std::size_t, std::string> broken_;
  LayerAttention attention_;
  LifeCycle life_;
  std::int64_t residual_layer_ = -2, inner_layer_ = -2;  // that life_ has seen
};

/// The tensors "layers.N.<place>" in order of layers.
std::vector<const TensorOutliers*> at_place(const OutlierReport& report, const std::string& place) {
  std::vector<const TensorOutliers*> found;
  for (const TensorOutliers& tensor : report.activations) {
    if (tensor.name.ends_with("." + place)) found.push_back(&tensor);
  }
  return found;
}

void fill_value(ChannelOutlier& outlier, const TensorOutliers& tensor, const Places& places) {
  const std::size_t channel = outlier.channel.channel;
  const std::uint64_t row = tensor.channel_argmax[channel];
  outlier.value = static_cast<float>(tensor.channel_max[channel]);
  outlier.position = places.position(row);
  outlier.token = places.token(row);
}

/// Systematic channels of the stream that blocks pass on, and neurons that lead their layer.
void find_channels(const model::ModelConfig& config, const OutlierOptions& options,
                   const Places& places, OutlierReport& report) {
  // Where the norm follows the sum, the stream is normed after every block: what the next block
  // reads.
  const std::string stream = config.norm_after ? "qkv_in" : "residual";
  const auto layers = at_place(report, stream);
  std::vector<std::vector<double>> maxima;
  for (const TensorOutliers* layer : layers) maxima.push_back(layer->channel_max);
  for (auto& channel : stats::find_systematic_channels(maxima, options.systematic)) {
    ChannelOutlier outlier;
    outlier.place = stream;
    outlier.channel = std::move(channel);
    const std::vector<double>& ratios = outlier.channel.ratios;
    const auto best = std::max_element(ratios.begin(), ratios.end()) - ratios.begin();
    outlier.layer = static_cast<std::int32_t>(best);
    fill_value(outlier, *layers[static_cast<std::size_t>(best)], places);
    report.channels.push_back(std::move(outlier));
  }
  const auto inner = at_place(report, "down_in");
  for (std::size_t l = 0; l < inner.size(); ++l) {
    const std::vector<double>& channels = inner[l]->channel_max;
    const double middle = stats::median(channels);
    if (!(middle > 0)) continue;
    for (std::size_t c = 0; c < channels.size(); ++c) {
      if (channels[c] <= kNeuronRatio * middle) continue;
      ChannelOutlier outlier;
      outlier.kind = ChannelOutlier::Kind::neuron;
      outlier.place = inner[l]->name;
      outlier.layer = static_cast<std::int32_t>(l);
      outlier.channel.channel = c;
      outlier.channel.layers = 1;
      outlier.channel.ratios = {channels[c] / middle};
      fill_value(outlier, *inner[l], places);
      report.channels.push_back(std::move(outlier));
    }
  }
}

/// The share of outliers among the scores of a block's weights. Weights are read twice, since the
/// mean comes first and a block in float32 may be a large part of the memory.
Result<double> block_outlier_ratio(const model::Model& model, std::uint32_t layer, OutlierTap& tap,
                                   Executor& executor) {
  stats::ScoreSums sums;
  std::uint64_t above = 0;
  for (const bool counting : {false, true}) {
    for (const model::Site site : model::kSites) {
      const std::vector<double> energies = tap.energies(layer, site);
      for (const model::Linear* linear : linears_at(model.blocks()[layer], site)) {
        QUELL_TRY(weight, model.weight(*linear, executor, true));
        const stats::ScoredWeight scored{weight.view(), energies};
        if (counting) {
          above += stats::scores_above(scored, stats::kOwloreThreshold * sums.mean());
        } else {
          sums.merge(stats::score_sums(scored));
        }
      }
    }
  }
  return stats::LayerOutliers{sums, above}.percent();
}

/// Adds what the corpus shows to the report; returns the sequences that are not finite.
Result<std::map<std::size_t, std::string>> measure_all(const model::Model& model,
                                                       const calib::Corpus& corpus,
                                                       const OutlierOptions& options,
                                                       OutlierReport& report, Executor& executor,
                                                       Observer& observer) {
  report.tokens = corpus.ids.size();
  report.sequences = corpus.sequences();
  report.precision = options.precision;
  engine::EngineOptions how;
  how.arithmetic = engine::arithmetic_of(options.precision);
  QUELL_TRY(engine, engine::Engine::create(model, executor, how));
  QUELL_TRY(walk, calib::Walk::begin(engine, corpus, options.hidden_limit, options.spill_folder));
  kernels::Context context(executor);
  OutlierTap tap(corpus, options, report, context);
  QUELL_TRY(walk.show(-1, tap));
  tap.finish(-1);
  const auto layers = static_cast<std::uint32_t>(model.blocks().size());
  for (std::uint32_t layer = 0; layer < layers; ++layer) {
    if (observer.stop_requested()) return Error{ErrorCode::interrupted, "stopped"};
    observer.progress({"activations of block " + std::to_string(layer), static_cast<double>(layer),
                       static_cast<double>(layers), 0});
    QUELL_TRY(weights, engine.load_block(layer));
    QUELL_TRY(walk.advance(weights, &tap));
    // After a norm, sizes of one block and the next have nothing to do with each other.
    if (!model.config().norm_after) QUELL_TRY(tap.follow_life(model, layer));
    QUELL_TRY(ratio, block_outlier_ratio(model, layer, tap, executor));
    report.blocks.push_back({layer, ratio, 0});
    tap.finish(static_cast<std::int32_t>(layer));
  }
  std::vector<double> ratios;
  for (const BlockOutliers& block : report.blocks) ratios.push_back(block.outlier_ratio);
  const std::vector<double> shares = stats::sampling_probabilities(ratios).p;
  for (std::size_t l = 0; l < shares.size(); ++l) report.blocks[l].sampling_probability = shares[l];
  find_channels(model.config(), options, Places(corpus), report);
  return tap.broken();
}

}  // namespace

Status measure_activations(const model::Model& model, const calib::Corpus& corpus,
                           const OutlierOptions& options, OutlierReport& report, Executor& executor,
                           Observer& observer) {
  const std::vector<TensorOutliers> weights = report.weights;
  QUELL_TRY(broken, measure_all(model, corpus, options, report, executor, observer));
  if (broken.empty()) return ok();
  // What a broken sequence has in common with the others is measured already, so all is done again
  // without it. Sequences do not see each other: the others stay finite.
  const auto& [first, place] = *broken.begin();
  const std::string what = std::to_string(broken.size()) + " of " +
                           std::to_string(corpus.sequences()) +
                           " sequences have activations that are not finite, the first one " +
                           std::to_string(first) + " (counted from 0), from " + place + " on";
  if (broken.size() * kSequencesPerBroken > corpus.sequences()) {
    return Error{ErrorCode::numeric,
                 what + "; one in " + std::to_string(kSequencesPerBroken) +
                     " would be left out. The model overflows float32 there: look at its weights "
                     "with `quell outliers` and no text, or leave such texts out"};
  }
  observer.note(what + "; left out");
  calib::Corpus rest;
  std::size_t at = 0;
  for (std::size_t s = 0; s < corpus.sequences(); ++s) {
    const auto begin = corpus.ids.begin() + static_cast<std::ptrdiff_t>(at);
    at += corpus.lengths[s];
    if (broken.contains(s)) continue;
    rest.ids.insert(rest.ids.end(), begin, begin + corpus.lengths[s]);
    rest.lengths.push_back(corpus.lengths[s]);
  }
  report = {};
  report.weights = weights;
  for (const auto& [sequence, where] : broken) report.excluded.push_back({sequence, where});
  QUELL_TRY(measure_all(model, rest, options, report, executor, observer));
  return ok();
}

}  // namespace quell::pipeline
