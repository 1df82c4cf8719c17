// SPDX-License-Identifier: Apache-2.0

// Four walks through the model. The first gives the states behind the last block of the original.
// The second stops at every block of the original: each of its modules is swapped for its quantized
// self, and the changed models go through the blocks behind; codes are kept, and the quantized
// model walks along, for the error on its way. The third does the same in the quantized model with
// each module put back, the fourth tries the best cures. Beside the codes nothing is kept from one
// block to the next but states.

#include "quell/pipeline/sensitivity.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "pipeline/changed_models.hpp"
#include "pipeline/cures.hpp"
#include "pipeline/damage.hpp"
#include "pipeline/error_stages.hpp"
#include "quell/calib/statistics.hpp"
#include "quell/core/random.hpp"
#include "quell/quant/registry.hpp"

namespace quell::pipeline {
namespace {

// A cure that takes away less than this share of the damage of all modules is not worth a line.
constexpr double kWorthwhile = 0.01;
// Cures of each kind that are tried. Losses of outputs tell little about tokens that attention
// looks at more than at others: the other group direction was predicted to gain 0.0018 in a value
// projection of tiny1m, whose first token is a sink, and gained 0.0040.
constexpr std::size_t kTried = 3;
constexpr std::uint64_t kNoiseSeed = 0x0151;

/// The second moments of the inputs of a block, and the first inputs themselves.
class BlockTap final : public engine::Tap {
 public:
  explicit BlockTap(kernels::Context& context) : context_(&context) {}

  Status input(std::uint32_t layer, model::Site site, MatrixView<const float> x) override {
    QUELL_TRY(first.input(layer, site, x));
    return sites_[site].add(x, true, *context_);
  }

  /// Means, brought near 1 by a power of two: no method minds, and losses neither overflow nor
  /// vanish.
  Status finish() {
    for (auto& [site, statistics] : sites_) {
      tokens = statistics.tokens;
      QUELL_TRY(mean, statistics.mean_moment());
      statistics.moment = {};
      double trace = 0;
      for (std::size_t c = 0; c < mean.rows(); ++c) trace += static_cast<double>(mean(c, c));
      if (trace > 0) {
        const int exponent = std::ilogb(trace / static_cast<double>(mean.rows()));
        for (float& value : mean.values()) value = std::ldexp(value, -exponent);
      }
      moments.emplace(site, std::move(mean));
    }
    return ok();
  }

  FirstInputs first;
  std::map<model::Site, Matrix> moments;
  std::uint64_t tokens = 0;

 private:
  kernels::Context* context_;
  std::map<model::Site, calib::SiteStatistics> sites_;
};

/// Gives the quantized modules, and the model's own weights for all others.
class QuantizedSource final : public engine::WeightSource {
 public:
  QuantizedSource(const model::Model& model, Executor& executor)
      : model_(model), executor_(executor) {}
  Result<Matrix> weight(const model::Linear& linear) override {
    const auto found = tensors.find(linear.name);
    if (found == tensors.end()) return model_.weight(linear, executor_);
    QUELL_TRY(weight, Matrix::uninitialized(linear.rows, linear.cols));
    QUELL_TRY(dequantize(found->second, weight.view(), executor_));
    return weight;
  }
  std::map<std::string, QuantizedTensor> tensors;

 private:
  const model::Model& model_;
  Executor& executor_;
};

/// W + N with |N| = |W - Q|.
Result<Matrix> with_noise(const Matrix& weight, double norm, std::uint64_t stream) {
  QUELL_TRY(noisy, Matrix::uninitialized(weight.rows(), weight.cols()));
  Random(kNoiseSeed, stream).fill_normal(noisy.values());
  double squares = 0;
  for (const float value : noisy.values()) {
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  const float factor = squares > 0 ? static_cast<float>(norm / std::sqrt(squares)) : 0;
  for (std::size_t i = 0; i < noisy.size(); ++i) {
    noisy.data()[i] = weight.data()[i] + factor * noisy.data()[i];
  }
  return noisy;
}

/// What a cure gains that leaves this share of a module's damage. Where keeping the module gains
/// nothing, a cure gains nothing; two losses do not make a gain.
double share_of_kept(const ModuleSensitivity& module, double left) {
  return std::max(module.kept_gain, 0.0) * (1 - left);
}

double norm_of(const Matrix& weight) {
  double squares = 0;
  for (const float w : weight.values()) squares += static_cast<double>(w) * static_cast<double>(w);
  return std::sqrt(squares);
}

class Study {
 public:
  Study(const model::Model& model, const Plan& plan, const calib::Corpus& corpus,
        const SensitivityOptions& options, engine::Engine& engine, Executor& executor,
        Observer& observer)
      : model_(model),
        corpus_(corpus),
        options_(options),
        engine_(engine),
        executor_(executor),
        observer_(observer),
        context_(executor),
        blocks_(engine),
        codes_(model, executor),
        quantized_blocks_(engine, &codes_) {
    for (const Task& task : plan.tasks) tasks_[task.layer].push_back(&task);
    for (const Task& task : plan.tasks) total_ += 3 * changed_work(task);
  }

  Result<Sensitivity> run() {
    for (const auto& [layer, tasks] : tasks_) {
      for (const Task* task : tasks) QUELL_TRY(add_quantizer(task->method));
    }
    if (const double seconds = seconds_of(total_, executor_); seconds > 60) {
      observer_.note("sensitivity: the model runs " + std::to_string(3 * modules()) + " times on " +
                     std::to_string(corpus_.ids.size()) + " tokens, about " +
                     std::to_string(static_cast<std::uint64_t>(seconds / 60) + 1) +
                     " minutes; fewer tokens make it shorter and less exact");
    }
    found_.encoder = !model_.has_head();
    found_.tokens = corpus_.ids.size();
    QUELL_TRY(start, states());
    QUELL_TRY(original, copy_of(start.view()));
    for (std::uint32_t layer = 0; layer < layers(); ++layer) {
      QUELL_TRY(weights, blocks_.at(layer));
      QUELL_TRY(engine_.run_block(*weights, corpus_.lengths, original.view()));
    }
    QUELL_TRY(damage, Damage::create(engine_, std::move(original), corpus_.lengths));
    damage_.emplace(std::move(damage));
    QUELL_TRY(swap_modules(std::move(start)));
    QUELL_TRY(put_modules_back());
    predict();
    QUELL_TRY(try_best());
    return std::move(found_);
  }

 private:
  std::size_t modules() const {
    std::size_t count = 0;
    for (const auto& [layer, tasks] : tasks_) count += tasks.size();
    return count;
  }

  /// Of one changed model: the blocks from the task's on, and the head.
  double changed_work(const Task& task) const {
    double work = 2.0 * (model_.has_head() ? model_.config().vocabulary : 0) *
                  model_.config().hidden * static_cast<double>(corpus_.ids.size());
    for (std::uint32_t layer = task.layer; layer < layers(); ++layer) {
      work += block_work(model_, layer, corpus_.ids.size());
    }
    return work;
  }

  std::uint32_t layers() const { return static_cast<std::uint32_t>(model_.blocks().size()); }

  Status add_quantizer(const std::string& method) {
    if (quantizers_.contains(method)) return ok();
    QUELL_TRY(quantizer, quant::make_quantizer(method));
    quantizers_.emplace(method, std::move(quantizer));
    found_.method += (found_.method.empty() ? "" : ", ") + method;
    return ok();
  }

  /// Embeddings of the text, [T, hidden].
  Result<Matrix> states() {
    QUELL_TRY(x, Matrix::uninitialized(corpus_.ids.size(), model_.config().hidden));
    QUELL_TRY(engine_.embed(corpus_.ids, corpus_.lengths, x.view()));
    return x;
  }

  LinearStudy study(const Task& task, const Matrix& weight, const BlockTap& tap) {
    return LinearStudy(task, *quantizers_.at(task.method), weight, tap.moments.at(task.site),
                       tap.tokens, executor_);
  }

  /// `models`: changed ones that are about to run for this task.
  Status check_stop(const Task& task, double models) {
    observer_.progress({task.linear->name, done_, total_, 0});
    done_ += models * changed_work(task);
    if (observer_.stop_requested()) return Error{ErrorCode::interrupted, "stopped"};
    return ok();
  }

  /// x := block(x) of the original, and what its modules see.
  Result<BlockTap> walk_block(std::uint32_t layer, Matrix& x) {
    BlockTap tap(context_);
    QUELL_TRY(weights, blocks_.at(layer));
    QUELL_TRY(engine_.run_block(*weights, corpus_.lengths, x.view(), &tap));
    QUELL_TRY(tap.finish());
    return tap;
  }

  ChangedModels changed_models(PackedBlocks& blocks, ChangedModels::Done done) {
    return {engine_, blocks, corpus_.lengths, *damage_, options_.state_bytes, std::move(done)};
  }

  Status swap_modules(Matrix x) {
    QUELL_TRY(y, copy_of(x.view()));
    // Two models for each module: quantized, and with noise.
    ChangedModels swapped = changed_models(blocks_, [&](std::size_t id, const DamageValue& value) {
      ModuleSensitivity& module = found_.modules[id / 2];
      (id % 2 == 0 ? module.damage : module.noise_damage) = value.mean;
      if (id % 2 == 0) module.damage_standard_error = value.standard_error;
    });
    for (std::uint32_t layer = 0; layer < layers(); ++layer) {
      QUELL_TRY(next, copy_of(x.view()));
      QUELL_TRY(tap, walk_block(layer, next));
      for (const Task* task : tasks_[layer]) {
        QUELL_TRY(check_stop(*task, 2));
        QUELL_TRY(swap_one(*task, tap, x, swapped));
      }
      QUELL_TRY(swapped.finish(layer));

      FirstInputs changed;
      QUELL_TRY(before, copy_of(y.view()));
      {
        QUELL_TRY(quantized, quantized_blocks_.at(layer));
        QUELL_TRY(engine_.run_block(*quantized, corpus_.lengths, y.view(), &changed));
      }
      QUELL_TRY(add_stages(layer, tap.first, changed, x, before));
      x = std::move(next);
    }
    QUELL_TRY(together, damage_->measure({&y, 1}));
    found_.together = together[0].mean;
    found_.together_standard_error = together[0].standard_error;
    return ok();
  }

  /// Studies one module in front of its block.
  Status swap_one(const Task& task, const BlockTap& tap, const Matrix& x, ChangedModels& swapped) {
    QUELL_TRY(weight, model_.weight(*task.linear, executor_));
    const LinearStudy linear = study(task, weight, tap);
    QUELL_TRY(planned, linear.planned());
    QUELL_TRY(loss, linear.loss(planned.weight));
    QUELL_TRY(energy, linear.energy());
    ModuleSensitivity module;
    module.name = task.linear->name;
    module.layer = task.layer;
    module.grid = task.grid;
    module.bytes = planned.bytes;
    module.kept_bytes =
        static_cast<std::int64_t>(2 * weight.size()) - static_cast<std::int64_t>(planned.bytes);
    module.relative_error = relative_error(weight, planned.weight);
    module.output_error = energy > 0 ? std::sqrt(loss / energy) : 0;
    const std::size_t index = found_.modules.size();
    found_.modules.push_back(std::move(module));
    if (loss > 0) {
      for (const Cure::Kind kind : kCureKinds) {
        QUELL_TRY(cured, linear.cured(kind, planned));
        if (!cured) continue;
        QUELL_TRY(left, linear.loss(cured->weight));
        Cure cure;
        cure.kind = kind;
        cure.module = task.linear->name;
        cure.action = cured->action;
        cure.available = cured->available;
        cure.loss_ratio = left / loss;
        found_.modules[index].loss_ratios[kind] = cure.loss_ratio;
        cure.bytes =
            static_cast<std::int64_t>(cured->bytes) - static_cast<std::int64_t>(planned.bytes);
        found_.cures.push_back(std::move(cure));
        cured_modules_.push_back(index);
      }
    }
    QUELL_TRY(swapped.add(2 * index, task.layer, *task.linear, planned.weight.view(), x));
    const double norm = found_.modules[index].relative_error * norm_of(weight);
    QUELL_TRY(noisy, with_noise(weight, norm, index));
    QUELL_TRY(swapped.add(2 * index + 1, task.layer, *task.linear, noisy.view(), x));
    codes_.tensors.emplace(task.linear->name, std::move(planned.tensor));
    return ok();
  }

  /// x, y: states in front of the block, of the original and of the quantized model.
  Status add_stages(std::uint32_t layer, const FirstInputs& original, const FirstInputs& changed,
                    const Matrix& x, const Matrix& y) {
    for (const Task* task : tasks_[layer]) {
      QUELL_TRY(weight, model_.weight(*task->linear, executor_));
      QUELL_TRY(decoded, codes_.weight(*task->linear));
      QUELL_TRY(stage, linear_stage(task->linear->name, layer, weight, decoded,
                                    original.at(task->site), changed.at(task->site), context_));
      found_.stages.push_back(std::move(stage));
    }
    const calib::Chunk chunk = calib::chunks(corpus_).front();
    QUELL_TRY(weights, blocks_.at(layer));
    QUELL_TRY(quantized, quantized_blocks_.at(layer));
    QUELL_TRY(stage, block_stage(engine_, *weights, *quantized,
                                 std::span(corpus_.lengths).first(chunk.sequences),
                                 x.view().rows_from(0, chunk.tokens),
                                 y.view().rows_from(0, chunk.tokens)));
    found_.stages.push_back(std::move(stage));
    return ok();
  }

  Status put_modules_back() {
    QUELL_TRY(y, states());
    ChangedModels models =
        changed_models(quantized_blocks_, [&](std::size_t id, const DamageValue& value) {
          found_.modules[id].kept_gain = found_.together - value.mean;
        });
    std::size_t id = 0;
    for (std::uint32_t layer = 0; layer < layers(); ++layer) {
      for (const Task* task : tasks_[layer]) {
        QUELL_TRY(check_stop(*task, 1));
        QUELL_TRY(weight, model_.weight(*task->linear, executor_));
        QUELL_TRY(models.add(id++, layer, *task->linear, weight.view(), y));
      }
      QUELL_TRY(models.finish(layer));
      QUELL_TRY(quantized, quantized_blocks_.at(layer));
      QUELL_TRY(engine_.run_block(*quantized, corpus_.lengths, y.view()));
    }
    return ok();
  }

  /// Predicts what each cure gains from its loss.
  void predict() {
    for (std::size_t i = 0; i < found_.cures.size(); ++i) {
      found_.cures[i].gain =
          share_of_kept(found_.modules[cured_modules_[i]], found_.cures[i].loss_ratio);
    }
    rank(0);
  }

  /// Drops what gains no more than `least`; first what costs nothing, by its gain, then what costs
  /// bytes, by its gain for each of them.
  void rank(double least) {
    std::erase_if(found_.cures, [&](const Cure& cure) { return !(cure.gain > least); });
    std::stable_sort(found_.cures.begin(), found_.cures.end(), [](const Cure& a, const Cure& b) {
      const bool a_free = a.bytes <= 0, b_free = b.bytes <= 0;
      if (a_free != b_free) return a_free;
      return a_free ? a.gain > b.gain : a.gain_per_megabyte() > b.gain_per_megabyte();
    });
  }

  /// Tries the best few of each kind: alone in the original, which improves the prediction, and in
  /// the quantized model, which tells what they really gain.
  Status try_best() {
    std::map<std::string, std::vector<std::size_t>> chosen;  // by module: places in the ranking
    std::map<Cure::Kind, std::size_t> taken;
    for (std::size_t i = 0; i < found_.cures.size(); ++i) {
      const Cure& cure = found_.cures[i];
      if (++taken[cure.kind] <= kTried) chosen[cure.module].push_back(i);
    }
    QUELL_TRY(x, states());
    QUELL_TRY(y, copy_of(x.view()));
    ChangedModels alone = changed_models(blocks_, [&](std::size_t id, const DamageValue& value) {
      Cure& cure = found_.cures[id];
      const auto module =
          std::find_if(found_.modules.begin(), found_.modules.end(),
                       [&](const ModuleSensitivity& each) { return each.name == cure.module; });
      if (module->damage > 0) cure.gain = share_of_kept(*module, value.mean / module->damage);
    });
    ChangedModels in_place =
        changed_models(quantized_blocks_, [&](std::size_t id, const DamageValue& value) {
          found_.cures[id].measured_gain = found_.together - value.mean;
        });
    for (std::uint32_t layer = 0; layer < layers(); ++layer) {
      const std::vector<const Task*>& tasks = tasks_[layer];
      if (std::none_of(tasks.begin(), tasks.end(),
                       [&](const Task* task) { return chosen.contains(task->linear->name); })) {
        QUELL_TRY(weights, blocks_.at(layer));
        QUELL_TRY(engine_.run_block(*weights, corpus_.lengths, x.view()));
        QUELL_TRY(quantized, quantized_blocks_.at(layer));
        QUELL_TRY(engine_.run_block(*quantized, corpus_.lengths, y.view()));
        continue;
      }
      QUELL_TRY(before, copy_of(x.view()));
      QUELL_TRY(tap, walk_block(layer, x));
      for (const Task* task : tasks) {
        const auto found = chosen.find(task->linear->name);
        if (found == chosen.end()) continue;
        QUELL_TRY(weight, model_.weight(*task->linear, executor_));
        const LinearStudy linear = study(*task, weight, tap);
        QUELL_TRY(planned, linear.planned());
        for (const std::size_t id : found->second) {
          QUELL_TRY(cured, linear.cured(found_.cures[id].kind, planned));
          QUELL_TRY(alone.add(id, layer, *task->linear, cured->weight.view(), before));
          QUELL_TRY(in_place.add(id, layer, *task->linear, cured->weight.view(), y));
        }
      }
      QUELL_TRY(alone.finish(layer));
      QUELL_TRY(in_place.finish(layer));
      QUELL_TRY(quantized, quantized_blocks_.at(layer));
      QUELL_TRY(engine_.run_block(*quantized, corpus_.lengths, y.view()));
    }
    rank(kWorthwhile * found_.together);
    return ok();
  }

  const model::Model& model_;
  const calib::Corpus& corpus_;
  const SensitivityOptions& options_;
  engine::Engine& engine_;
  Executor& executor_;
  Observer& observer_;
  kernels::Context context_;
  PackedBlocks blocks_;
  QuantizedSource codes_;
  PackedBlocks quantized_blocks_;
  std::map<std::uint32_t, std::vector<const Task*>> tasks_;  // by layer
  std::map<std::string, std::unique_ptr<quant::Quantizer>> quantizers_;
  std::optional<Damage> damage_;
  std::vector<std::size_t> cured_modules_;  // of each cure, before they are ranked
  double done_ = 0, total_ = 0;
  Sensitivity found_;
};

io::Json number_or_null(double value) {
  return std::isfinite(value) ? io::Json(value) : io::Json();
}

}  // namespace

std::string_view to_string(Cure::Kind kind) noexcept {
  switch (kind) {
    case Cure::Kind::bits:
      return "bits";
    case Cure::Kind::direction:
      return "direction";
    case Cure::Kind::group:
      return "group";
    case Cure::Kind::kept_columns:
      return "kept_columns";
    case Cure::Kind::rotation:
      return "rotation";
    case Cure::Kind::smoothing:
      return "smoothing";
  }
  return "";
}

double ModuleSensitivity::damage_per_megabyte() const noexcept {
  return kept_bytes > 0 ? kept_gain / (static_cast<double>(kept_bytes) * 1e-6) : 0;
}

double Cure::gain_per_megabyte() const noexcept {
  if (bytes <= 0) return std::numeric_limits<double>::infinity();
  return gain / (static_cast<double>(bytes) * 1e-6);
}

double Sensitivity::sum() const noexcept {
  double sum = 0;
  for (const ModuleSensitivity& module : modules) sum += module.damage;
  return sum;
}

double Sensitivity::sum_ratio() const noexcept {
  return together > 0 ? sum() / together : 0;
}

Result<Sensitivity> measure_sensitivity(const model::Model& model, const Plan& plan,
                                        const calib::Corpus& corpus,
                                        const SensitivityOptions& options, Executor& executor,
                                        Observer& observer) {
  QUELL_TRY(engine, engine::Engine::create(model, executor));
  const calib::Corpus part = calib::beginning(corpus, options.tokens);
  Study study(model, plan, part, options, engine, executor, observer);
  return study.run();
}

io::Json Sensitivity::to_json() const {
  const char* unit = encoder ? "cosine_error" : "kl";
  io::Json json = io::Json::object();
  io::Json list = io::Json::array();
  for (const ModuleSensitivity& module : modules) {
    io::Json entry = io::Json::object();
    entry.set("name", module.name);
    entry.set("grid", to_string(module.grid));
    entry.set(unit, module.damage);
    entry.set(std::string(unit) + "_stderr", module.damage_standard_error);
    entry.set(std::string(unit) + "_per_megabyte", module.damage_per_megabyte());
    entry.set(std::string("noise_") + unit, module.noise_damage);
    entry.set("kept_gain", module.kept_gain);
    entry.set("bytes", module.bytes);
    entry.set("relative_error", module.relative_error);
    entry.set("output_error", module.output_error);
    io::Json evidence = io::Json::object();
    for (const auto& [kind, ratio] : module.loss_ratios) {
      evidence.set(std::string(pipeline::to_string(kind)), ratio);
    }
    entry.set("loss_ratios", std::move(evidence));
    list.push(std::move(entry));
  }
  json.set("sensitivity", std::move(list));
  json.set("sensitivity_method", method);
  json.set("sensitivity_tokens", tokens);
  json.set("sensitivity_together", together);
  json.set("sensitivity_sum_ratio", sum_ratio());
  io::Json actions = io::Json::array();
  for (const Cure& cure : cures) {
    io::Json entry = io::Json::object();
    entry.set("kind", std::string(to_string(cure.kind)));
    entry.set("module", cure.module);
    entry.set("action", cure.action);
    entry.set("available", cure.available);
    entry.set("loss_ratio", cure.loss_ratio);
    entry.set("bytes", cure.bytes);
    entry.set("gain", cure.gain);
    entry.set("gain_per_megabyte", number_or_null(cure.gain_per_megabyte()));
    entry.set("measured_gain", cure.measured_gain ? io::Json(*cure.measured_gain) : io::Json());
    actions.push(std::move(entry));
  }
  json.set("actions", std::move(actions));
  io::Json stage_list = io::Json::array();
  for (const ErrorStage& stage : stages) {
    const auto split = [](const stats::ErrorSplit& parts) {
      return io::Json::object({{"r_before", parts.previous},
                               {"r", parts.total()},
                               {"a", parts.carried},
                               {"b", parts.fresh},
                               {"c", parts.cross},
                               {"gain", parts.gain()}});
    };
    io::Json entry = split(stage.split);
    entry.set("name", stage.name);
    entry.set("kind", stage.block ? "block" : "linear");
    if (!stage.block) {
      entry.set("g1", stage.weight_gain);
      entry.set("g2", stage.alignment_gain);
    }
    entry.set("per_token", split(stage.split_per_token));
    stage_list.push(std::move(entry));
  }
  json.set("propagation", std::move(stage_list));
  return json;
}

}  // namespace quell::pipeline
