// SPDX-License-Identifier: Apache-2.0

// The order of work of `quantize`. Memory is what decides it: one block's float weights, or one
// layer's solve, but never both; moments in double only while they are summed.

#include "quell/pipeline/quantize.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <set>

#include "pipeline/prepared_layer.hpp"
#include "pipeline/run_identity.hpp"
#include "pipeline/transforming.hpp"
#include "quell/calib/collect.hpp"
#include "quell/calib/staged_walk.hpp"
#include "quell/engine/engine.hpp"
#include "quell/io/output.hpp"
#include "quell/quant/registry.hpp"
#include "quell/version.hpp"

namespace quell::pipeline {
namespace {

using Clock = std::chrono::steady_clock;

// Adds the time until it goes out of scope to a phase.
class Timed {
 public:
  explicit Timed(double& seconds) : seconds_(seconds), begin_(Clock::now()) {}
  ~Timed() { seconds_ += std::chrono::duration<double>(Clock::now() - begin_).count(); }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  double& seconds_;
  Clock::time_point begin_;
};

constexpr std::string_view kCopied = "(tensors copied unchanged)";

// |W - Q| / |W| in double, row by row.
double relative_error(MatrixView<const float> weight, const QuantizedTensor& tensor) {
  std::vector<float> row(tensor.cols());
  double error = 0, norm = 0;
  for (std::size_t r = 0; r < tensor.rows(); ++r) {
    tensor.dequantize_row(r, row);
    const auto original = weight.row(r);
    for (std::size_t c = 0; c < row.size(); ++c) {
      const double difference = static_cast<double>(original[c]) - static_cast<double>(row[c]);
      error += difference * difference;
      norm += static_cast<double>(original[c]) * static_cast<double>(original[c]);
    }
  }
  return norm > 0 ? std::sqrt(error / norm) : std::sqrt(error);
}

// One run: everything that the steps share.
class Run {
 public:
  Run(Transforming& transforming, const Recipe& recipe, const Plan& plan,
      const QuantizeOptions& options, Executor& executor, Observer& observer)
      : transforming_(transforming),
        model_(transforming.model()),
        recipe_(recipe),
        plan_(plan),
        options_(options),
        executor_(executor),
        observer_(observer) {}

  Result<QuantizeOutcome> go() {
    QUELL_TRY(limit, hidden_limit(plan_, options_.max_memory));
    QUELL_TRY(identity, run_identity(model_, recipe_, plan_, options_));
    const io::OutputFolder::Options how{options_.force, options_.resume};
    QUELL_TRY(output, io::OutputFolder::open(options_.output, plan_.folder, identity, how));
    output_ = &output;
    QUELL_TRY(copy_unchanged());
    for (const Task& task : plan_.tasks) tasks_[task.layer].push_back(&task);
    walking_ = options_.corpus != nullptr &&
               (needs(quant::Needs::second_moment) || keeps_columns() || transforming_.measures());
    if (walking_) {
      // Factors of what o and down read are chosen before v and up are quantized: no stages then.
      const bool drifts = needs(quant::Needs::drift);
      if (drifts && transforming_.measures()) {
        observer_.note(
            "targets are not corrected for what earlier layers lose beside transforms "
            "that measure");
      }
      QUELL_TRY(drifts && !transforming_.measures() ? walk_in_stages(limit) : walk_blocks(limit));
    } else {
      for (const auto& [layer, tasks] : tasks_) {
        if (!is_finished(layer, tasks)) {
          QUELL_TRY(transforming_.decide(layer, tasks, options_.statistics));
        }
        for (const Task* task : tasks) QUELL_TRY(with_statistics(*task));
        QUELL_TRY(transforming_.write_block(layer, *output_));
      }
    }
    // Blocks without anything to quantize may have been edited all the same.
    for (std::uint32_t layer = 0; layer < model_.blocks().size(); ++layer) {
      QUELL_TRY(transforming_.write_block(layer, *output_));
    }
    return finish();
  }

 private:
  bool needs(quant::Needs what) const {
    return std::any_of(plan_.tasks.begin(), plan_.tasks.end(),
                       [&](const Task& task) { return includes(task.needs, what); });
  }

  bool keeps_columns() const {
    return std::any_of(plan_.tasks.begin(), plan_.tasks.end(),
                       [](const Task& task) { return task.kept_columns != 0; });
  }

  Status copy_unchanged() {
    if (output_->find_finished(kCopied) != nullptr) return ok();
    Timed timed(phases_.write);
    std::vector<std::string> names;
    std::vector<std::byte> buffer;
    for (const io::TensorPlan& tensor : plan_.folder.tensors) {
      const io::TensorInfo* source = model_.checkpoint().find(tensor.name);
      if (source == nullptr || source->bytes != tensor.bytes || source->dtype != tensor.dtype)
        continue;
      if (is_planned(tensor.name) || transforming_.owns(tensor.name)) continue;
      buffer.resize(static_cast<std::size_t>(source->bytes));
      QUELL_TRY(model_.checkpoint().read(*source, buffer));
      QUELL_TRY(output_->write(tensor.name, buffer));
      names.push_back(tensor.name);
    }
    QUELL_TRY(transforming_.write_frame(*output_, names));
    return output_->finish_module(kCopied, names, io::Json::object());
  }

  bool is_finished(std::uint32_t layer, const std::vector<const Task*>& tasks) const {
    return transforming_.is_finished(layer, *output_) && all_finished(tasks);
  }

  // True for tensors that the layout makes, which may share a name with one of the source.
  bool is_planned(const std::string& tensor) {
    if (made_.empty()) {
      for (const Task& task : plan_.tasks) {
        for (const io::TensorPlan& made : plan_.layout->tensors(task.module()))
          made_.insert(made.name);
      }
    }
    return made_.contains(tensor);
  }

  // Block by block: statistics of all inputs of a block, its linears, the block as it now is.
  Status walk_blocks(std::uint64_t limit) {
    QUELL_TRY(engine, make_engine());
    QUELL_TRY(walk, calib::Walk::begin(engine, *options_.corpus, limit, options_.output));
    const std::uint32_t last = tasks_.rbegin()->first;
    for (std::uint32_t layer = 0; layer <= last; ++layer) {
      const std::vector<const Task*>& tasks = tasks_[layer];
      std::map<model::Site, calib::SiteStatistics> sites;
      if (!is_finished(layer, tasks)) {
        QUELL_TRY(collected, collect(engine, walk, layer, tasks));
        sites = std::move(collected);
        Timed timed(phases_.solve);
        QUELL_TRY(transforming_.decide(layer, tasks, sites));
      } else {
        QUELL_TRY(transforming_.take_over(layer, *output_));
      }
      quantized_.clear();
      inputs_.clear();
      for (const model::Site site : model::kSites) {
        const auto found = sites.find(site);
        QUELL_TRY(solve_site(tasks, site, found != sites.end() ? &found->second : nullptr));
      }
      QUELL_TRY(transforming_.write_block(layer, *output_));
      if (layer == last) break;
      QUELL_TRY(advance(engine, walk, layer));
    }
    return ok();
  }

  // The same with stops inside blocks, for methods that correct drifts.
  Status walk_in_stages(std::uint64_t limit) {
    QUELL_TRY(engine, make_engine());
    QUELL_TRY(walk, calib::StagedWalk::begin(engine, *options_.corpus, limit, options_.output));
    const std::uint32_t last = tasks_.rbegin()->first;
    for (std::uint32_t layer = 0; layer <= last; ++layer) {
      const std::vector<const Task*>& tasks = tasks_[layer];
      quantized_.clear();
      inputs_.clear();
      if (all_finished(tasks)) {
        for (const Task* task : tasks) QUELL_TRY(take_over(*task));
        if (layer == last) break;
        if (observer_.stop_requested()) return stopped("block " + std::to_string(layer));
        report("block " + std::to_string(layer) + ": forward");
        {
          QUELL_TRY(now, load(engine, layer, true));
          Timed timed(phases_.forward);
          QUELL_TRY(walk.advance_now(now));
        }
        QUELL_TRY(original, load(engine, layer, false));
        Timed timed(phases_.forward);
        QUELL_TRY(walk.advance_original(original));
        const double work = staged_work(model_, layer, walk.tokens(), walk.original_tokens());
        done_ += work;
        replayed_ += work;
        continue;
      }
      for (const model::Site site : model::kSites) {
        const calib::SiteWish wish = wish_at(tasks, site);
        std::optional<calib::SiteStatistics> statistics;
        {
          QUELL_TRY(now, load(engine, layer, true, calib::StagedWalk::now_reads(site)));
          QUELL_TRY(original, load(engine, layer, false, calib::StagedWalk::original_reads(site)));
          Timed timed(phases_.forward);
          report("block " + std::to_string(layer) + ": calibration, " +
                 std::string(to_string(site)));
          auto collected = walk.collect(site, now, original, wish);
          if (!collected) {
            Error error = std::move(collected).error();
            error.message = "block " + std::to_string(layer) + ", " + std::string(to_string(site)) +
                            ": " + error.message;
            return error;
          }
          statistics.emplace(*std::move(collected));
        }
        QUELL_TRY(solve_site(tasks, site, wish.profile ? &*statistics : nullptr));
      }
      done_ += staged_work(model_, layer, walk.tokens(), walk.original_tokens());
      if (layer == last) break;
      static constexpr model::Site kMlp[] = {model::Site::mlp_in, model::Site::down_in};
      QUELL_TRY(now, load(engine, layer, true, kMlp));
      Timed timed(phases_.forward);
      report("block " + std::to_string(layer) + ": forward");
      QUELL_TRY(walk.finish(now));
    }
    return ok();
  }

  Result<engine::Engine> make_engine() {
    engine::EngineOptions how;
    how.arithmetic = engine::arithmetic_of(recipe_.engine_precision);
    return engine::Engine::create(model_, executor_, how);
  }

  Error stopped(const std::string& where) const {
    return {ErrorCode::interrupted,
            "stopped before " + where + "; run the same command again to continue"};
  }

  bool finished(const Task& task) const {
    return output_->find_finished(task.linear->name) != nullptr;
  }
  bool all_finished(const std::vector<const Task*>& tasks) const {
    return std::all_of(tasks.begin(), tasks.end(),
                       [&](const Task* task) { return finished(*task); });
  }

  // A site is wanted while one of its layers is unfinished and asks for it.
  calib::SiteWish wish_at(const std::vector<const Task*>& tasks, model::Site site) const {
    calib::SiteWish wish;
    for (const Task* task : tasks) {
      const quant::Needs asked = task->needs;
      const bool moment = includes(asked, quant::Needs::second_moment);
      if (task->site != site || finished(*task) || (!moment && task->kept_columns == 0)) continue;
      wish.profile = true;
      wish.moment |= moment;
      wish.drift |= includes(asked, quant::Needs::drift);
    }
    return wish;
  }

  // The layers that read a site; `statistics` are used up: sums in double are done with once their
  // mean exists.
  Status solve_site(const std::vector<const Task*>& tasks, model::Site site,
                    calib::SiteStatistics* statistics) {
    Matrix moment, drift;
    std::vector<double> peaks;
    std::uint64_t tokens = 0;
    if (statistics != nullptr) {
      peaks = std::move(statistics->peaks);
      QUELL_TRY(mean, statistics->mean_moment());
      moment = std::move(mean);
      tokens = statistics->tokens;
      if (statistics->drift.size() != 0) {
        QUELL_TRY(mean_drift, statistics->mean_drift());
        drift = std::move(mean_drift);
      }
      *statistics = {};
    }
    for (const Task* task : tasks) {
      if (task->site != site) continue;
      if (finished(*task)) {
        QUELL_TRY(take_over(*task));
      } else {
        // No more than its own method asks for: what neighbours need differs in a resumed run.
        InputStatistics inputs{{}, {}, peaks, tokens};
        if (includes(task->needs, quant::Needs::second_moment)) inputs.moment = moment.view();
        if (includes(task->needs, quant::Needs::drift)) inputs.drift = drift.view();
        QUELL_TRY(solve(*task, inputs));
      }
    }
    return ok();
  }

  Result<std::map<model::Site, calib::SiteStatistics>> collect(
      engine::Engine& engine, calib::Walk& walk, std::uint32_t layer,
      const std::vector<const Task*>& tasks) {
    QUELL_TRY(weights, load(engine, layer, false));
    Timed timed(phases_.forward);
    report("block " + std::to_string(layer) + ": calibration");
    auto sites = walk.collect(weights, [&](std::uint32_t, model::Site site) {
      return transforming_.wish(wish_at(tasks, site));
    });
    if (!sites) {
      Error error = std::move(sites).error();
      error.message = "block " + std::to_string(layer) + ": " + error.message;
      return error;
    }
    done_ += block_work(model_, layer, walk.tokens()) + moment_work(model_, layer, walk.tokens());
    return sites;
  }

  // Carries the hidden states through the block as it now is, codes and all.
  Status advance(engine::Engine& engine, calib::Walk& walk, std::uint32_t layer) {
    QUELL_TRY(weights, load(engine, layer, true));
    Timed timed(phases_.forward);
    report("block " + std::to_string(layer) + ": forward");
    QUELL_TRY(walk.advance(weights));
    done_ += block_work(model_, layer, walk.tokens());
    return ok();
  }

  // A block's linears that read `sites`, as they now are or as they were.
  Result<engine::BlockWeights> load(engine::Engine& engine, std::uint32_t layer, bool as_now,
                                    std::span<const model::Site> sites = model::kSites) {
    class Source final : public engine::WeightSource {
     public:
      Source(const Run& run, bool as_now) : run_(run), as_now_(as_now) {}
      Result<Matrix> weight(const model::Linear& linear) override {
        const auto found = run_.quantized_.find(linear.name);
        if (!as_now_ || found == run_.quantized_.end()) return run_.read_weight(linear);
        QUELL_TRY(matrix, Matrix::uninitialized(linear.rows, linear.cols));
        QUELL_TRY(dequantize(found->second, matrix.view(), run_.executor_));
        return matrix;
      }
      Result<engine::InputForm> input(const model::Linear& linear) override {
        const auto found = run_.inputs_.find(linear.name);
        return !as_now_ || found == run_.inputs_.end() ? engine::InputForm() : found->second;
      }

     private:
      const Run& run_;
      bool as_now_;
    };
    Timed timed(phases_.read);
    Source source(*this, as_now);
    return engine.load_block(layer, &source, sites);
  }

  // W with the non-finite policy applied.
  Result<Matrix> read_weight(const model::Linear& linear) const {
    QUELL_TRY(weight, model_.weight(linear, executor_, options_.nonfinite != Nonfinite::error));
    if (options_.nonfinite == Nonfinite::zero) {
      for (float& value : weight.values()) {
        if (!std::isfinite(value)) value = 0;
      }
    }
    return weight;
  }

  Status with_statistics(const Task& task) {
    if (finished(task)) return take_over(task);
    const calib::StatisticsFile* file = options_.statistics;
    const calib::SiteKey key{task.layer, task.site};
    const bool feedback = includes(task.needs, quant::Needs::second_moment);
    const bool wanted = feedback || task.kept_columns != 0;
    if (file != nullptr && !said_no_drift_ && needs(quant::Needs::drift)) {
      said_no_drift_ = true;
      observer_.note(
          "statistics from a file (or saved to one) are those of the original model, so targets "
          "are not corrected for what earlier layers lose; --calib without --stats and "
          "--save-stats does that");
    }
    if (file == nullptr || !wanted || !file->info().channels.contains(key)) {
      return solve(task, {});
    }
    if (moment_key_ != key) {
      moment_ = Matrix();
      QUELL_TRY(site, file->read(key));
      transforming_.rescale(key.first, key.second, site);
      QUELL_TRY(mean, site.mean_moment());
      moment_ = std::move(mean);
      peaks_ = std::move(site.peaks);
      moment_key_ = key;
    }
    InputStatistics inputs{{}, {}, peaks_, file->info().tokens_fed};
    if (feedback) inputs.moment = moment_.view();
    return solve(task, inputs);
  }

  // For the forward pass through the block.
  Status hold(const Task& task, QuantizedTensor tensor) {
    if (!walking_) return ok();
    QUELL_TRY(input, engine::InputForm::of(task.module(), tensor.kept().columns));
    inputs_.insert_or_assign(task.linear->name, std::move(input));
    quantized_.insert_or_assign(task.linear->name, std::move(tensor));
    return ok();
  }

  // A layer that an earlier run finished: its codes are needed for the forward pass.
  Status take_over(const Task& task) {
    ++resumed_;
    outcomes_.push_back(
        ModuleOutcome::from_json(output_->find_finished(task.linear->name)->record));
    io::ModulePlan module = task.module();
    QUELL_TRY(grid, parse_grid(outcomes_.back().grid));
    if (task.open_direction) module.grid.per = grid.per;
    std::vector<std::vector<std::byte>> bytes;
    for (const io::TensorPlan& tensor : plan_.layout->tensors(module)) {
      QUELL_TRY(read, output_->read(tensor.name));
      bytes.push_back(std::move(read));
    }
    QUELL_TRY(tensor, plan_.layout->decode(module, bytes));
    modules_.push_back(std::move(module));
    if (task.rotation == 0 && !transforming_.is_finished(task.layer, *output_)) {
      QUELL_TRY(weight, read_weight(*task.linear));
      QUELL_TRY(transforming_.correct_bias(task, weight.view(), tensor));
    }
    QUELL_TRY(hold(task, std::move(tensor)));
    done_ += task_work(task);
    replayed_ += task_work(task);
    return ok();
  }

  Status solve(const Task& task, const InputStatistics& inputs) {
    if (observer_.stop_requested()) return stopped(task.linear->name);
    report(task.linear->name);
    const auto begin = Clock::now();
    QUELL_TRY(weight, read_weight(*task.linear));
    io::ModulePlan module = task.module();
    QUELL_TRY(layer, PreparedLayer::create(task, weight.view(), inputs, executor_));

    QUELL_TRY(quantizer, quant::make_quantizer(task.method, method_options()));
    std::optional<quant::Quantized> solved;
    {
      Timed timed(phases_.solve);
      auto result = quantizer->quantize(layer.problem(), executor_);
      if (!result) {
        Error error = std::move(result).error();
        if (error.tensor.empty()) error.tensor = task.linear->name;
        return error;
      }
      solved.emplace(*std::move(result));
      QUELL_TRY(finished, layer.finish(std::move(solved->tensor)));
      solved->tensor = std::move(finished);
    }
    Timed timed(phases_.write);
    ModuleOutcome outcome;
    outcome.name = task.linear->name;
    outcome.method = task.rotation == 0 ? task.method : "hadamard+" + task.method;
    module.grid = solved->tensor.grid();
    outcome.grid = to_string(module.grid);
    outcome.bits_per_weight = solved->tensor.bits_per_weight();
    outcome.objective = solved->objective;
    outcome.objective_rtn = solved->objective_rtn;
    outcome.objective_other_direction = solved->objective_other_direction;
    outcome.relative_error = relative_error(layer.target(), solved->tensor);
    outcome.damping = solved->damping;
    outcome.dead_inputs = solved->dead_inputs;
    outcome.guarded_rows = solved->guarded_rows;
    if (task.activation_bits != 0) outcome.activation_bits = task.activation_bits;
    outcome.kept_columns = task.kept_columns;
    outcome.fallback = solved->fallback;
    if (!outcome.fallback.empty()) observer_.note(task.linear->name + ": " + outcome.fallback);
    if (task.rotation == 0) {
      QUELL_TRY(transforming_.correct_bias(task, weight.view(), solved->tensor));
    }

    QUELL_TRY(encoded, plan_.layout->encode(solved->tensor));
    const std::vector<io::TensorPlan> tensors = plan_.layout->tensors(module);
    std::vector<std::string> names;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      QUELL_TRY(output_->write(tensors[i].name, encoded[i]));
      names.push_back(tensors[i].name);
    }
    outcome.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    QUELL_TRY(output_->finish_module(task.linear->name, names, outcome.to_json()));
    outcomes_.push_back(std::move(outcome));
    modules_.push_back(std::move(module));
    QUELL_TRY(hold(task, std::move(solved->tensor)));
    done_ += task_work(task);
    report(task.linear->name);
    return ok();
  }

  quant::MethodOptions method_options() const {
    quant::MethodOptions options;
    options.damping = recipe_.damp_percent;
    options.act_order = recipe_.act_order;
    options.direction_by_rounding = recipe_.direction_by_rounding;
    return options;
  }

  void report(const std::string& what) {
    observer_.progress({what, done_, std::max(plan_.work, done_), replayed_});
  }

  Result<QuantizeOutcome> finish() {
    Timed timed(phases_.write);
    std::vector<std::string> ignored = plan_.kept;
    if (!model_.tied_head() && !model_.frame().head.empty()) {
      std::string head = model_.frame().head;
      if (head.ends_with(".weight")) head.resize(head.size() - std::string_view(".weight").size());
      ignored.push_back(head);
    }
    for (const model::Linear& linear : model_.frame().unread) ignored.push_back(linear.name);
    io::Json config = model_.config_json();
    config.set("quantization_config", plan_.layout->config(modules_, ignored));
    if (transforming_.unties_head()) config.set("tie_word_embeddings", false);

    QuantizeOutcome outcome;
    for (const char* name :
         {"generation_config.json", "tokenizer.json", "tokenizer_config.json",
          "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
          "tokenizer.model", "chat_template.jinja", "chat_template.json",
          "preprocessor_config.json", "vocab.txt", "pooling.json"}) {
      const std::filesystem::path file = model_.folder() / name;
      std::error_code failure;
      if (!std::filesystem::is_regular_file(file, failure)) continue;
      QUELL_TRY(output_->copy_file(file));
    }
    outcome.output = options_.output;
    outcome.bytes = plan_.folder.total_bytes;
    outcome.bits_per_weight = plan_.bits_per_weight;
    outcome.modules = std::move(outcomes_);
    outcome.resumed = resumed_;
    if (walking_) outcome.engine_precision = recipe_.engine_precision;
    if (options_.statistics != nullptr && needs(quant::Needs::second_moment)) {
      outcome.engine_precision = options_.statistics->info().precision;
    }
    io::Json document = io::Json::object();
    document.set("schema", 1);
    document.set("quell_version", QUELL_VERSION);
    document.set("recipe", recipe_.to_json());
    document.set("quantize", outcome.to_json());
    // Seconds differ from run to run, so the report is not part of the hash.
    QUELL_TRY(output_->add_file("quell-report.json", document.dump(1) + "\n", false));
    QUELL_TRY(hash, output_->complete(config.dump(2) + "\n"));
    outcome.hash = hash;
    outcome.phases = phases_;
    return outcome;
  }

  Transforming& transforming_;
  const model::Model& model_;  // as edited
  const Recipe& recipe_;
  const Plan& plan_;
  const QuantizeOptions& options_;
  Executor& executor_;
  Observer& observer_;
  io::OutputFolder* output_ = nullptr;
  std::map<std::uint32_t, std::vector<const Task*>> tasks_;
  bool said_no_drift_ = false;
  bool walking_ = false;                              // the forward pass needs the codes of a block
  std::map<std::string, QuantizedTensor> quantized_;  // of the block at hand
  std::map<std::string, engine::InputForm> inputs_;   // and what they are multiplied with
  Matrix moment_;                                     // read from statistics, shared by its layers
  std::vector<double> peaks_;                         // the same
  std::optional<calib::SiteKey> moment_key_;
  std::set<std::string> made_;
  std::vector<ModuleOutcome> outcomes_;
  std::vector<io::ModulePlan> modules_;  // as they were written
  std::size_t resumed_ = 0;
  double done_ = 0, replayed_ = 0;
  Phases phases_;
};

}  // namespace

Result<std::uint64_t> hidden_limit(const Plan& plan, std::uint64_t max_memory) {
  if (max_memory == 0) return ~std::uint64_t{0};
  if (plan.fixed_memory > max_memory) {
    return Error{ErrorCode::resource, "--max-memory of " + std::to_string(max_memory >> 20) +
                                          " MiB is too little for this model: at least " +
                                          std::to_string((plan.fixed_memory >> 20) + 1) +
                                          " MiB are needed"};
  }
  return max_memory - plan.fixed_memory;
}

Result<QuantizeOutcome> quantize(const model::Model& model, const Recipe& recipe, const Plan& plan,
                                 const QuantizeOptions& options, Executor& executor,
                                 Observer& observer) {
  QUELL_TRY(transforming, Transforming::begin(model, recipe, plan, executor));
  return Run(*transforming, recipe, plan, options, executor, observer).go();
}

}  // namespace quell::pipeline
