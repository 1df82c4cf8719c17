// SPDX-License-Identifier: Apache-2.0

#include "quell/pipeline/allocation.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "pipeline/changed_models.hpp"
#include "pipeline/damage.hpp"
#include "quell/calib/statistics.hpp"
#include "quell/engine/engine.hpp"
#include "quell/grid/formats.hpp"
#include "quell/io/export.hpp"
#include "quell/quant/registry.hpp"

namespace quell::pipeline {
namespace {

// Widths to choose from, and the one at which damage is measured: at 3 bits it stands well above
// the noise of a short text and has not yet saturated, as it does at 2.
constexpr Format kWidths[] = {Format::int2, Format::int3, Format::int4, Format::int8full};
constexpr std::size_t kMeasured = 1;
// Tokens that are run for every module; the error of a module's damage is then 3 to 10 %.
constexpr std::uint64_t kTokens = 4096;
constexpr std::uint64_t kStateBytes = 256u << 20;
// Of the mean damage: what a module is taken to do at least, where noise says that it does nothing.
constexpr double kLeastShare = 1e-3;

Error usage(std::string message) {
  return {ErrorCode::usage, std::move(message)};
}

std::string decimals(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f", value);
  return text;
}

Task with_grid(Task task, const GridSpec& grid) {
  task.grid = grid;
  return task;
}

std::uint64_t bits_of(const io::ExportLayout& layout, const io::ModulePlan& module) {
  std::uint64_t bits = 0;
  for (const io::TensorPlan& tensor : layout.tensors(module)) {
    bits += element_count(tensor.shape).value_or(0) * quell::bits(tensor.dtype);
  }
  return bits;
}

std::uint64_t bytes_of(const io::FolderPlan& folder) {
  std::uint64_t bytes = 0;
  for (const io::ShardPlan& shard : folder.shards) bytes += shard.bytes;
  return bytes;
}

/// Sums of one block's inputs.
class Moments final : public engine::Tap {
 public:
  explicit Moments(kernels::Context& context) : context_(&context) {}
  Status input(std::uint32_t, model::Site site, MatrixView<const float> x) override {
    return sites[site].add(x, true, *context_);
  }
  std::map<model::Site, calib::SiteStatistics> sites;

 private:
  kernels::Context* context_;
};

/// A module that may take any of the widths.
struct Choice {
  const Task* task = nullptr;
  std::vector<GridSpec> grids;  // by rising width
  std::vector<Option> options;  // of them
  std::vector<double> losses;   // relative, at each
  double damage = 0;            // measured at grids[measured]
  std::size_t measured = 0;
};

class Allocator {
 public:
  Allocator(const model::Model& model, const Recipe& recipe, const CalibrationSize& data,
            const calib::Corpus& corpus, bool zero_nonfinite, Executor& executor,
            Observer& observer)
      : model_(model),
        recipe_(recipe),
        data_(data),
        corpus_(calib::beginning(corpus, kTokens)),
        zero_nonfinite_(zero_nonfinite),
        executor_(executor),
        observer_(observer) {}

  Result<Allocation> run(std::uint64_t shard_limit) {
    if (recipe_.target_bits_per_weight && recipe_.target_bytes) {
      return usage("--target-bpw and --target-size exclude each other");
    }
    QUELL_TRY(plan, make_plan(model_, recipe_, data_, executor_, shard_limit));
    if (model_.blocks().empty()) {
      return Error{ErrorCode::unsupported,
                   "a target needs the forward pass of " + model_.config().architecture +
                       ", to measure which layers are sensitive; it is not known here"};
    }
    QUELL_TRY(list_choices(plan));
    QUELL_TRY(budget, budget_of(shard_limit));
    QUELL_TRY(measure());
    for (const Choice& choice : choices_) {
      if (std::isfinite(choice.damage)) continue;
      return Error{ErrorCode::numeric,
                   choice.task->linear->name + ": the damage of its quantization is not finite",
                   {},
                   choice.task->linear->name};
    }
    for (Choice& choice : choices_) predict(choice);
    return finish(budget, shard_limit);
  }

 private:
  // A rule that names a grid has decided.
  bool is_fixed(const Task& task) const {
    bool fixed = false;
    for (const Rule& rule : recipe_.rules) {
      if (matches_glob(rule.pattern, task.linear->name)) fixed |= rule.grid.has_value();
    }
    return fixed;
  }

  Status list_choices(const Plan& plan) {
    const io::ExportLayout* layout = plan.layout;
    const auto refuses = [&](const Task& task, const GridSpec& grid) {
      return !layout->refuse(with_grid(task, grid).module()).empty();
    };
    // Without a layout of the user's, the native one, if the default cannot hold every width.
    if (recipe_.to.empty() && layout->name != "quell") {
      for (const Task& task : plan.tasks) {
        for (const Format format : kWidths) {
          GridSpec grid = task.grid;
          grid.format = format;
          if (is_fixed(task) || !refuses(task, grid)) continue;
          layout = io::find_export_layout("quell");
          notes_.push_back(
              "--to quell, since compressed-tensors cannot hold all widths that a target chooses "
              "from; --to compressed-tensors chooses from those it can");
          break;
        }
        if (layout != plan.layout) break;
      }
    }
    layout_ = layout;
    for (const Task& task : plan.tasks) {
      tasks_.push_back(task);
      weights_ += static_cast<std::uint64_t>(task.linear->rows) * task.linear->cols;
    }
    for (const Task& task : tasks_) {
      if (is_fixed(task)) {
        fixed_bits_ += bits_of(*layout_, task.module());
        continue;
      }
      Choice choice;
      choice.task = &task;
      for (std::size_t w = 0; w < std::size(kWidths); ++w) {
        GridSpec grid = task.grid;
        grid.format = kWidths[w];
        if (refuses(task, grid)) continue;
        if (w <= kMeasured) choice.measured = choice.grids.size();
        choice.grids.push_back(grid);
        choice.options.push_back({bits_of(*layout_, with_grid(task, grid).module()), 0});
      }
      if (choice.grids.empty()) {
        return usage(task.linear->name + ": the layout " + std::string(layout_->name) +
                     " holds none of the widths 2, 3, 4 and 8 on this grid");
      }
      choices_.push_back(std::move(choice));
    }
    if (choices_.empty()) {
      return usage("a target needs a layer to choose for, and rules name the grids of all");
    }
    return ok();
  }

  /// Bits of the modules that have a choice.
  Result<std::uint64_t> budget_of(std::uint64_t shard_limit) {
    std::uint64_t least = fixed_bits_, most = fixed_bits_;
    for (const Choice& choice : choices_) {
      least += choice.options.front().bits;
      most += choice.options.back().bits;
    }
    const auto weights = static_cast<double>(std::max<std::uint64_t>(weights_, 1));
    if (recipe_.target_bits_per_weight) {
      const double target = *recipe_.target_bits_per_weight;
      const double bits = std::floor(target * weights);
      if (bits < static_cast<double>(least)) {
        return usage("--target-bpw " + decimals(target) + " is below the " +
                     decimals(static_cast<double>(least) / weights) +
                     " bits per weight of the smallest choice; choose longer groups, or more bits");
      }
      if (bits >= static_cast<double>(most)) note_most(static_cast<double>(most) / weights);
      return static_cast<std::uint64_t>(std::min(bits, static_cast<double>(most))) - fixed_bits_;
    }
    // Everything else in the files. Headers change by a few letters with the widths: finish() sees
    // to that.
    Recipe same_layout = recipe_;
    same_layout.to = layout_->name;
    QUELL_TRY(plan, make_plan(model_, same_layout, data_, executor_, shard_limit));
    std::uint64_t planned = 0;
    for (const Task& task : tasks_) planned += bits_of(*layout_, task.module());
    const std::uint64_t other = bytes_of(plan.folder) - planned / 8;
    const std::uint64_t target = *recipe_.target_bytes;
    if (target < other + (least + 7) / 8) {
      return usage("--target-size " + std::to_string(target) + " bytes is below the " +
                   std::to_string(other + (least + 7) / 8) + " of the smallest choice, of which " +
                   std::to_string(other) +
                   " are not the quantized layers'; choose longer groups, or a larger target");
    }
    const std::uint64_t bits = 8 * (target - other);
    if (bits >= most) note_most(static_cast<double>(most) / weights);
    return std::min(bits, most) - fixed_bits_;
  }

  void note_most(double bits_per_weight) {
    notes_.push_back("the target allows the largest choice everywhere, " +
                     decimals(bits_per_weight) + " bits per weight; more is not to be had here");
  }

  Status measure() {
    engine::EngineOptions how;
    how.zero_nonfinite = zero_nonfinite_;
    QUELL_TRY(engine, engine::Engine::create(model_, executor_, how));
    PackedBlocks blocks(engine);
    const auto layers = static_cast<std::uint32_t>(model_.blocks().size());
    const auto states = [&]() -> Result<Matrix> {
      QUELL_TRY(x, Matrix::uninitialized(corpus_.ids.size(), model_.config().hidden));
      QUELL_TRY(engine.embed(corpus_.ids, corpus_.lengths, x.view()));
      return x;
    };
    QUELL_TRY(original, states());
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
      QUELL_TRY(weights, blocks.at(layer));
      QUELL_TRY(engine.run_block(*weights, corpus_.lengths, original.view()));
    }
    QUELL_TRY(damage, Damage::create(engine, std::move(original), corpus_.lengths));
    ChangedModels changed(
        engine, blocks, corpus_.lengths, damage, kStateBytes,
        [&](std::size_t id, const DamageValue& value) { choices_[id].damage = value.mean; });
    QUELL_TRY(x, states());
    std::size_t next = 0;
    for (std::uint32_t layer = 0; layer < layers && next < choices_.size(); ++layer) {
      QUELL_TRY(behind, copy_of(x.view()));
      Moments tap(engine.context());
      QUELL_TRY(weights, blocks.at(layer));
      QUELL_TRY(engine.run_block(*weights, corpus_.lengths, behind.view(), &tap));
      std::map<model::Site, Matrix> moments;
      for (auto& [site, statistics] : tap.sites) {
        QUELL_TRY(mean, statistics.mean_moment());
        moments.emplace(site, std::move(mean));
        statistics.moment = {};
      }
      for (; next < choices_.size() && choices_[next].task->layer == layer; ++next) {
        Choice& choice = choices_[next];
        const std::string& name = choice.task->linear->name;
        if (observer_.stop_requested()) {
          return Error{ErrorCode::interrupted, "stopped while measuring " + name};
        }
        observer_.progress({"sensitivity of " + name, static_cast<double>(next),
                            static_cast<double>(choices_.size()), 0});
        QUELL_TRY(quantized, rate(choice, moments.at(choice.task->site)));
        QUELL_TRY(changed.add(next, layer, *choice.task->linear, quantized.view(), x));
      }
      QUELL_TRY(changed.finish(layer));
      x = std::move(behind);
    }
    return ok();
  }

  /// The losses of all widths; returns the weight at the one to be measured.
  Result<Matrix> rate(Choice& choice, const Matrix& moment) {
    QUELL_TRY(weight, model_.weight(*choice.task->linear, executor_, zero_nonfinite_));
    for (float& value : weight.values()) {
      if (!std::isfinite(value)) value = 0;
    }
    QUELL_TRY(quantizer,
              quant::make_quantizer(choice.task->method, {.damping = recipe_.damp_percent,
                                                          .act_order = recipe_.act_order}));
    quant::LayerProblem problem;
    problem.name = choice.task->linear->name;
    problem.weight = weight.view();
    problem.scale = choice.task->scale;
    problem.keep_direction = !choice.task->open_direction;
    problem.second_moment = moment.view();
    problem.tokens = corpus_.ids.size();
    QUELL_TRY(decoded, Matrix::uninitialized(weight.rows(), weight.cols()));
    for (std::size_t g = 0; g < choice.grids.size(); ++g) {
      problem.grid = choice.grids[g];
      QUELL_TRY(solved, quantizer->quantize(problem, executor_));
      if (!std::isfinite(solved.objective)) {
        return Error{ErrorCode::numeric,
                     problem.name + ": the loss of " + to_string(problem.grid) + " is not finite",
                     {},
                     problem.name};
      }
      choice.losses.push_back(solved.objective);
      if (g == choice.measured) QUELL_TRY(dequantize(solved.tensor, decoded.view(), executor_));
    }
    return decoded;
  }

  double mean_damage() const {
    double sum = 0;
    for (const Choice& choice : choices_) sum += std::max(choice.damage, 0.0);
    return sum / static_cast<double>(choices_.size());
  }

  void predict(Choice& choice) const {
    const double measured = std::max(choice.damage, kLeastShare * mean_damage());
    const double at = choice.losses[choice.measured];
    for (std::size_t g = 0; g < choice.grids.size(); ++g) {
      // What lies on the measured grid loses nothing there and nobody knows how much elsewhere.
      choice.options[g].damage = at > 0                 ? measured * choice.losses[g] / at
                                 : choice.losses[g] > 0 ? mean_damage()
                                                        : 0;
    }
  }

  Result<Allocation> finish(std::uint64_t budget, std::uint64_t shard_limit) {
    std::vector<std::vector<Option>> options;
    for (const Choice& choice : choices_) options.push_back(choice.options);
    for (;;) {
      const std::vector<std::size_t> chosen = choose_options(options, budget);
      if (chosen.empty()) {
        return usage("--target-size " + std::to_string(*recipe_.target_bytes) +
                     " bytes is a little below the smallest choice");
      }
      Allocation allocation = allocation_of(chosen);
      QUELL_TRY(plan, make_plan(model_, allocation.recipe, data_, executor_, shard_limit));
      const std::uint64_t bytes = bytes_of(plan.folder);
      if (recipe_.target_bytes && bytes > *recipe_.target_bytes) {
        const std::uint64_t over = 8 * (bytes - *recipe_.target_bytes);
        budget = budget > over ? budget - over : 0;
        continue;
      }
      std::map<std::string, std::size_t> counts;
      for (std::size_t m = 0; m < choices_.size(); ++m) {
        ++counts[std::string(info(choices_[m].grids[chosen[m]].format).name)];
      }
      std::string summary;
      for (const auto& [format, count] : counts) {
        summary += (summary.empty() ? "" : ", ") + std::to_string(count) + " of " + format;
      }
      notes_.push_back("target: " + decimals(plan.bits_per_weight) + " bits per weight, " +
                       std::to_string(bytes) + " bytes of files; modules: " + summary);
      allocation.bits_per_weight = plan.bits_per_weight;
      allocation.notes = std::move(notes_);
      return allocation;
    }
  }

  Allocation allocation_of(const std::vector<std::size_t>& chosen) const {
    Allocation allocation;
    allocation.recipe = recipe_;
    allocation.recipe.to = layout_->name;
    // The rules say it all, and a recipe that is read back chooses nothing anew.
    allocation.recipe.target_bits_per_weight.reset();
    allocation.recipe.target_bytes.reset();
    for (std::size_t m = 0; m < choices_.size(); ++m) {
      const Choice& choice = choices_[m];
      Rule rule;
      rule.pattern = choice.task->linear->name;
      rule.method = (choice.task->rotation != 0 ? "hadamard+" : "") + choice.task->method;
      rule.grid = choice.grids[chosen[m]];
      rule.scale_type_given = true;
      allocation.recipe.rules.push_back(std::move(rule));
      allocation.predicted += choice.options[chosen[m]].damage;
    }
    return allocation;
  }

  const model::Model& model_;
  const Recipe& recipe_;
  const CalibrationSize& data_;
  calib::Corpus corpus_;
  bool zero_nonfinite_;
  Executor& executor_;
  Observer& observer_;
  const io::ExportLayout* layout_ = nullptr;
  std::vector<Task> tasks_;
  std::vector<Choice> choices_;
  std::uint64_t weights_ = 0, fixed_bits_ = 0;
  std::vector<std::string> notes_;
};

}  // namespace

Result<Allocation> allocate(const model::Model& model, const Recipe& recipe,
                            const CalibrationSize& data, const calib::Corpus& corpus,
                            bool zero_nonfinite, Executor& executor, Observer& observer,
                            std::uint64_t shard_limit) {
  return Allocator(model, recipe, data, corpus, zero_nonfinite, executor, observer)
      .run(shard_limit);
}

}  // namespace quell::pipeline
