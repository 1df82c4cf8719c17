// SPDX-License-Identifier: Apache-2.0

// Planning reads headers only, but for one case: models in float32 or float16 get float16 scales
// where their values allow it, and that takes a look at the values.

#include "quell/pipeline/plan.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "pipeline/input_choices.hpp"
#include "pipeline/layout_choice.hpp"
#include "pipeline/transforming.hpp"
#include "quell/calib/staged_walk.hpp"
#include "quell/grid/formats.hpp"
#include "quell/grid/groups.hpp"
#include "quell/quant/registry.hpp"
#include "quell/version.hpp"

namespace quell::pipeline {
namespace {

bool needs(const Task& task, quant::Needs what) {
  return includes(task.needs, what);
}

// Rows of these lengths are cut into groups of the largest of these that divides them.
constexpr std::uint32_t kDefaultGroups[] = {128, 64, 32};

Format format_of(std::uint32_t bits) {
  switch (bits) {
    case 2:
      return Format::int2;
    case 3:
      return Format::int3;
    case 8:
      return Format::int8full;
    default:
      return Format::int4;
  }
}

std::string problem_list(const std::vector<std::string>& problems) {
  constexpr std::size_t kShown = 20;  // one screen
  std::string text;
  for (std::size_t i = 0; i < std::min(problems.size(), kShown); ++i) {
    text += (i == 0 ? "" : "\n") + problems[i];
  }
  if (problems.size() > kShown) {
    text += "\nand " + std::to_string(problems.size() - kShown) + " more";
  }
  return text;
}

// True if scales from absmax of groups, within a factor of 4 that a search may move them, are
// normal or subnormal float16 numbers: the largest is 65504, the smallest 2^-24.
bool fits_f16(const Matrix& weight, const GridSpec& grid) {
  const float half_range = info(grid.format).absmax_divisor;
  const bool by_row = grid.per == Channel::output;
  const std::size_t run = by_row ? weight.cols() : weight.rows();
  const std::size_t runs = by_row ? weight.rows() : weight.cols();
  const std::size_t group = grid.group == 0 ? run : grid.group;
  for (std::size_t r = 0; r < runs; ++r) {
    for (std::size_t begin = 0; begin < run; begin += group) {
      float largest = 0;
      for (std::size_t i = begin; i < std::min(run, begin + group); ++i) {
        largest = std::max(largest, std::abs(by_row ? weight(r, i) : weight(i, r)));
      }
      const float scale = largest / half_range;
      if (scale * 4.0f > 65504.0f) return false;
      if (largest != 0 && scale / 4.0f < 0x1p-24f) return false;
    }
  }
  return true;
}

class Planner {
 public:
  Planner(const model::Model& model, const Recipe& recipe, const CalibrationSize& data,
          Executor& executor)
      : model_(model), recipe_(recipe), data_(data), executor_(executor) {
    hits_.assign(recipe.rules.size(), 0);
    ignore_hits_.assign(recipe.ignore.size(), 0);
  }

  Result<Plan> run(std::uint64_t shard_limit) {
    QUELL_TRY(choose_tasks());
    refuse_rotated_biases();
    QUELL_TRY(choose_layout(recipe_, plan_, problems_));
    check_patterns();
    if (plan_.tasks.empty() && problems_.empty()) {
      problems_.push_back("nothing is left to quantize: every linear layer is ignored or kept");
    }
    if (!problems_.empty()) return Error{ErrorCode::usage, problem_list(problems_)};
    QUELL_TRY(plan_files(shard_limit));
    estimate();
    return std::move(plan_);
  }

 private:
  // The linears of the model with their place.
  template <typename F>
  Status each_linear(F&& visit) {
    if (model_.blocks().empty()) {
      for (const model::Linear& linear : model_.generic_linears()) {
        QUELL_TRY(visit(linear, 0u, model::Site::qkv_in));
      }
      return ok();
    }
    for (std::uint32_t layer = 0; layer < model_.blocks().size(); ++layer) {
      for (const model::Site site : model::kSites) {
        for (const model::Linear* linear : linears_at(model_.blocks()[layer], site)) {
          QUELL_TRY(visit(*linear, layer, site));
        }
      }
    }
    return ok();
  }

  Status choose_tasks() {
    QUELL_TRY(plan_transforms(model_, recipe_, data_, plan_));
    std::string method = quant::take_transforms(recipe_.method).quantizer;
    if (method.empty()) {
      if (!data_.available) {
        return Error{ErrorCode::usage,
                     "no calibration data: give --calib, or choose --method rtn, which needs none"};
      }
      method = recipe_.activation_bits == 4 ? "hadamard+balanced" : "balanced";
    }
    const bool generic = model_.blocks().empty();
    const bool scales_inputs =
        std::any_of(plan_.transforms.begin(), plan_.transforms.end(), [](const std::string& name) {
          return !quant::find_transform(name)->whole_model && name != "bias_correction";
        });
    return each_linear([&](const model::Linear& linear, std::uint32_t layer,
                           model::Site site) -> Status {
      if (linear.rows == 0 || linear.cols == 0) {
        return Error{ErrorCode::shape,
                     linear.name + ": a weight of " + std::to_string(linear.rows) + " x " +
                         std::to_string(linear.cols) + " cannot be quantized",
                     {},
                     linear.name};
      }
      Task task{&linear, layer, site, method, {}, ScaleMethod::absmax};
      bool keep = false;
      bool grid_given = false, scale_type_given = recipe_.scale_type.has_value();
      task.grid.format = format_of(recipe_.bits);
      task.grid.symmetric = recipe_.symmetric;
      task.grid.per = recipe_.per.value_or(Channel::output);
      for (std::size_t r = 0; r < recipe_.rules.size(); ++r) {
        const Rule& rule = recipe_.rules[r];
        if (!matches_glob(rule.pattern, linear.name)) continue;
        ++hits_[r];
        keep = rule.keep;
        if (rule.method) task.method = *rule.method;
        if (rule.grid) {
          task.grid = *rule.grid;
          grid_given = true;
          scale_type_given = rule.scale_type_given || recipe_.scale_type.has_value();
        }
      }
      for (std::size_t i = 0; i < recipe_.ignore.size(); ++i) {
        if (!matches_glob(recipe_.ignore[i], linear.name)) continue;
        ++ignore_hits_[i];
        keep = true;
      }
      if (keep) {
        plan_.kept.push_back(linear.name);
        return ok();
      }
      QUELL_TRY(word, MethodWord::parse(task.method));
      task.method = word.quantizer;
      QUELL_TRY(choose_direction(task, grid_given));
      task.activation_bits = recipe_.activation_bits == 16 ? 0 : recipe_.activation_bits;
      if (!grid_given) choose_group(task);
      if (task.open_direction) settle_direction(task);
      choose_input(recipe_, data_.peaks, scales_inputs, word.rotate, task, plan_.notes, problems_);
      const bool feedback = needs(task, quant::Needs::second_moment);
      if (feedback && !data_.available) {
        return Error{ErrorCode::usage,
                     task.method + " needs calibration data (" + linear.name +
                         "): give --calib, or choose --method rtn, which needs none"};
      }
      if (feedback && generic) {
        return Error{ErrorCode::unsupported,
                     task.method + " needs the forward pass of " + model_.config().architecture +
                         ", which is not known here; --method rtn still quantizes its weights"};
      }
      // A wrapper does not change what the method inside takes.
      const bool searches =
          includes(quant::parse_chain(task.method)->method->needs, quant::Needs::second_moment);
      task.scale = recipe_.scale.value_or(searches ? ScaleMethod::search : ScaleMethod::absmax);
      // A rule whose grid word names a scale type has the last word; --scale-type fills the rest.
      const bool rule_scale = grid_given && scale_type_given && !recipe_.scale_type;
      if (!rule_scale) {
        if (recipe_.scale_type) {
          task.grid.scale_type = *recipe_.scale_type;
        } else {
          QUELL_TRY(choose_scale_type(task));
        }
      }
      plan_.tasks.push_back(std::move(task));
      return ok();
    });
  }

  // The mean of a rotated input is not known, and so neither what its rounding does to an output.
  void refuse_rotated_biases() {
    const bool corrects = std::find(plan_.transforms.begin(), plan_.transforms.end(),
                                    "bias_correction") != plan_.transforms.end();
    for (const Task& task : plan_.tasks) {
      if (!corrects || task.rotation == 0) continue;
      problems_.push_back(task.linear->name +
                          ": bias_correction does not know rotated inputs; leave out one of "
                          "bias_correction and hadamard");
      return;
    }
  }

  // The method's full name, and whether it has the direction of groups to choose: adadim asked for
  // by name, or by `--per auto` for all but the grids of rules.
  Status choose_direction(Task& task, bool grid_given) {
    QUELL_TRY(chain, quant::parse_chain(task.method));
    if (recipe_.per_auto && !grid_given && !chain.chooses_direction()) {
      QUELL_TRY(wrapped, quant::parse_chain("adadim+" + task.method));
      chain = std::move(wrapped);
    }
    task.method = chain.name();
    task.needs = chain.needs();
    task.open_direction = chain.chooses_direction();
    if (task.open_direction && recipe_.per && !grid_given) {
      return Error{ErrorCode::usage, task.method +
                                         " chooses the direction of groups of every layer, and "
                                         "--per settles it; leave one of the two out"};
    }
    return ok();
  }

  // The file is laid out before anything is solved, so the direction can stay open only where both
  // take the same bytes: where the group divides rows and columns, as a rule.
  void settle_direction(Task& task) {
    const std::size_t rows = task.linear->rows, cols = task.linear->cols;
    task.grid.per = Channel::output;
    const GroupLayout along = group_layout(task.grid, rows, cols);
    const GroupLayout down = group_layout(turned(task.grid), rows, cols);
    if (!task.grid.two_level && along.rows * along.cols == down.rows * down.cols) return;
    task.open_direction = false;
    if (cols % along.length != 0 && rows % down.length == 0) task.grid.per = Channel::input;
    if (!settled_.insert({rows, cols}).second) return;
    plan_.notes.push_back(
        task.linear->name + ": groups go " +
        (task.grid.per == Channel::output ? "along rows" : "down columns") +
        " without a choice; its " + std::to_string(rows) + " x " + std::to_string(cols) +
        " weights take " + std::to_string(along.rows * along.cols) + " groups along rows and " +
        std::to_string(down.rows * down.cols) + " down columns" +
        (task.grid.two_level ? ", and two-level scales depend on the direction" : "") +
        "; adadim chooses where a group divides both");
  }

  void choose_group(Task& task) {
    if (recipe_.group) {
      task.grid.group = *recipe_.group;
      return;
    }
    // As engines run int8 with int8: a scale for each output channel.
    if (task.activation_bits == 8 && task.grid.format == Format::int8full) {
      task.grid.group = 0;
      return;
    }
    const std::size_t rows = task.linear->rows, cols = task.linear->cols;
    std::size_t run = task.grid.per == Channel::output ? cols : rows;
    if (task.open_direction) run = std::gcd(rows, cols);
    task.grid.group = 0;
    for (const std::uint32_t group : kDefaultGroups) {
      if (run % group == 0) {
        task.grid.group = group;
        break;
      }
    }
    if (task.grid.group != kDefaultGroups[0] && chosen_.insert({run, task.grid.group}).second) {
      plan_.notes.push_back(
          "rows of " + std::to_string(run) + ": " +
          (task.grid.group == 0
               ? std::string("one group per row, since none of 128, 64, 32 divides them")
               : "groups of " + std::to_string(task.grid.group) +
                     ", the largest of 128, 64, 32 that divides them"));
    }
  }

  Status choose_scale_type(Task& task) {
    // Of two levels there is one scale per row of groups: 16 bits more cost next to nothing.
    if (task.grid.two_level) {
      task.grid.scale_type = ScaleType::f32;
      return ok();
    }
    if (model_.config().dtype == "bfloat16") {
      task.grid.scale_type = ScaleType::bf16;
      return ok();
    }
    task.grid.scale_type = ScaleType::f16;
    QUELL_TRY(weight, model_.weight(*task.linear, executor_, true));
    if (!fits_f16(weight, task.grid) ||
        (task.open_direction && !fits_f16(weight, turned(task.grid)))) {
      task.grid.scale_type = ScaleType::f32;
      plan_.notes.push_back(task.linear->name +
                            ": scales in f32, since its values leave the range of f16 scales");
    }
    return ok();
  }

  void check_patterns() {
    for (std::size_t r = 0; r < hits_.size(); ++r) {
      if (hits_[r] == 0) {
        problems_.push_back("the rule pattern \"" + recipe_.rules[r].pattern +
                            "\" matches no linear layer" + example());
      }
    }
    for (std::size_t i = 0; i < ignore_hits_.size(); ++i) {
      // Heads and embeddings are never quantized, so ignoring them by name is no mistake.
      const std::string& glob = recipe_.ignore[i];
      if (ignore_hits_[i] == 0 && !matches_glob(glob, "lm_head") &&
          !matches_glob(glob, "model.embed_tokens")) {
        problems_.push_back("the --ignore pattern \"" + glob + "\" matches no linear layer" +
                            example());
      }
    }
  }

  std::string example() const {
    if (plan_.tasks.empty()) return "";
    return "; layers are named like " + plan_.tasks.front().linear->name;
  }

  Status plan_files(std::uint64_t shard_limit) {
    std::vector<io::TensorPlan> tensors;
    std::set<std::string> replaced;
    std::uint64_t weights = 0;
    double bits = 0;
    for (const Task& task : plan_.tasks) {
      replaced.insert(task.linear->name + ".weight");
      const std::uint64_t count = static_cast<std::uint64_t>(task.linear->rows) * task.linear->cols;
      weights += count;
      for (io::TensorPlan& tensor : plan_.layout->tensors(task.module())) {
        const auto elements = element_count(tensor.shape);
        bits += static_cast<double>(elements.value_or(0)) * quell::bits(tensor.dtype);
        tensors.push_back(std::move(tensor));
      }
    }
    plan_.bits_per_weight = bits / static_cast<double>(std::max<std::uint64_t>(weights, 1));
    // Tensors of modules that are quantized already are replaced by whatever the new layout calls
    // them.
    for (const io::ModulePlan& module : model_.quantized().modules()) replaced.insert(module.name);
    for (const io::TensorInfo& tensor : model_.checkpoint().tensors()) {
      if (replaced.contains(tensor.name)) continue;
      // A tied head that the checkpoint holds as well.
      if (plan_.own_head && tensor.name == quant::kUntiedHead) continue;
      const std::size_t dot = tensor.name.rfind('.');
      const bool old_codes = dot != std::string::npos &&
                             replaced.contains(tensor.name.substr(0, dot)) &&
                             !tensor.name.ends_with(".bias");
      if (old_codes) continue;
      const DType type = plan_.transforms.empty() ? tensor.dtype : edited_type(model_, tensor);
      tensors.push_back({tensor.name, type, tensor.shape});
      if (plan_.own_head && tensor.name == model_.frame().embedding) {
        tensors.push_back({std::string(quant::kUntiedHead), tensor.dtype, tensor.shape});
        plan_.notes.push_back("the head gets weights of its own, " +
                              std::to_string(tensor.bytes >> 20) +
                              " MiB: the transforms make it differ from the embedding");
      }
    }
    std::stable_sort(tensors.begin(), tensors.end(),
                     [](const auto& a, const auto& b) { return natural_less(a.name, b.name); });
    const io::MetadataEntry metadata[] = {{"quantized_by", "quell " QUELL_VERSION}};
    QUELL_TRY(folder, io::plan_folder(std::move(tensors), shard_limit, metadata));
    plan_.folder = std::move(folder);
    plan_.bits_per_weight_total =
        8.0 * static_cast<double>(plan_.folder.total_bytes) /
        static_cast<double>(std::max<std::uint64_t>(model_.parameters(), 1));
    return ok();
  }

  // Digits compare as numbers, so that layers.10 follows layers.9 and shards hold layers in order.
  static bool natural_less(std::string_view a, std::string_view b) {
    std::size_t i = 0, j = 0;
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    while (i < a.size() && j < b.size()) {
      if (is_digit(a[i]) && is_digit(b[j])) {
        std::size_t end_a = i, end_b = j;
        while (end_a < a.size() && is_digit(a[end_a])) ++end_a;
        while (end_b < b.size() && is_digit(b[end_b])) ++end_b;
        const std::string_view x = a.substr(i, end_a - i), y = b.substr(j, end_b - j);
        if (x.size() != y.size()) return x.size() < y.size();
        if (x != y) return x < y;
        i = end_a;
        j = end_b;
      } else {
        if (a[i] != b[j]) return a[i] < b[j];
        ++i;
        ++j;
      }
    }
    return a.size() - i < b.size() - j;
  }

  void estimate();

  const model::Model& model_;
  const Recipe& recipe_;
  const CalibrationSize& data_;
  Executor& executor_;
  Plan plan_;
  std::vector<std::string> problems_;
  std::vector<std::size_t> hits_, ignore_hits_;
  std::set<std::pair<std::size_t, std::uint32_t>> chosen_;
  std::set<std::pair<std::size_t, std::size_t>> settled_;
};

// Bytes that are needed at once, beyond hidden states, as the run proceeds: the larger of a forward
// pass (weights of a block, moments of its inputs, activations of a chunk) and a solve (moments,
// the weight, its factor and its workspace). Measured peaks lie within 15 % below.
void Planner::estimate() {
  constexpr std::uint64_t kProgram = 48u << 20;  // code, threads' stacks, the allocator
  const model::ModelConfig& config = model_.config();
  const bool measures = includes(plan_.transform_needs, quant::Needs::activation_ranges);
  bool walks = measures, drifts = false;
  std::map<std::uint32_t, std::vector<const Task*>> layers;
  for (const Task& task : plan_.tasks) {
    plan_.work += task_work(task);
    walks |= needs(task, quant::Needs::second_moment) || task.kept_columns != 0;
    drifts |= data_.sequential && !measures && needs(task, quant::Needs::drift);
    layers[task.layer].push_back(&task);
  }
  std::uint64_t forward = 0, solve = 0;
  for (const auto& [layer, tasks] : layers) {
    std::uint64_t largest_weight = 0, widest = 0, largest_solve = 0;
    std::map<model::Site, std::uint64_t> moments, weights;  // by input
    for (const Task* task : tasks) {
      const std::uint64_t rows = task->linear->rows, cols = task->linear->cols;
      const bool moment = needs(*task, quant::Needs::second_moment) ||
                          includes(plan_.transform_needs, quant::Needs::second_moment);
      const bool refines = needs(*task, quant::Needs::drift);
      const std::uint64_t drift_rows = !(drifts && refines)                              ? 0
                                       : calib::StagedWalk::drifts_at_output(task->site) ? rows
                                                                                         : cols;
      std::uint64_t& sums = moments[task->site];
      sums = std::max(sums, 8 * cols * ((moment ? cols : 0) + drift_rows));
      largest_weight = std::max(largest_weight, 4 * rows * cols);
      widest = std::max(widest, cols);
      // Mean moment and factor in float32; weight, errors, targets and codes of the layer.
      // With drift its mean and the corrected weight. Refinement holds another tensor, and errors,
      // slopes, levels and codes of panels of 256 rows, one a thread.
      const std::uint64_t panels =
          refines
              ? rows * cols + 13 * cols * std::min<std::uint64_t>(rows, 256ull * executor_.width())
              : 0;
      const std::uint64_t corrected = drift_rows != 0 ? 4 * cols * drift_rows + 4 * rows * cols : 0;
      // Of two directions the first result waits for the second.
      const std::uint64_t waiting = task->open_direction ? 3 * rows * cols : 0;
      // Copies of weight, moment and drift without kept columns, or rotated.
      const std::uint64_t changed = task->kept_columns == 0 && task->rotation == 0
                                        ? 0
                                        : 4 * cols * (rows + (moment ? cols : 0) + drift_rows);
      largest_solve = std::max(largest_solve, (moment ? 12 * cols * cols : 0) + corrected +
                                                  14 * rows * cols + panels + waiting + changed);
    }
    std::uint64_t all_moments = 0, block = 0;
    for (const auto& [site, bytes] : moments) {
      all_moments = drifts ? std::max(all_moments, bytes) : all_moments + bytes;
    }
    // Of the whole block: what stays in floating point goes through the forward pass as well.
    if (!model_.blocks().empty()) {
      for (const model::Site site : model::kSites) {
        for (const model::Linear* linear : linears_at(model_.blocks()[layer], site)) {
          weights[site] += (recipe_.engine_precision == engine::Precision::bf16 ? 2ull : 4ull) *
                           linear->rows * linear->cols;
        }
      }
    }
    for (const auto& [site, bytes] : weights) block += bytes;
    if (drifts) {
      // In stages: what was quantized beside what it was.
      using model::Site;
      block = std::max({block, 2 * weights[Site::qkv_in] + weights[Site::o_in],
                        2 * weights[Site::mlp_in] + weights[Site::down_in]});
    }
    const std::uint64_t row_of_walk =
        drifts ? 2ull * config.hidden + std::uint64_t{config.heads} * config.head_dim : 0;
    const std::uint64_t activations =
        data_.sequential
            ? 4 * data_.longest *
                  (4ull * config.hidden + 3ull * config.intermediate + widest + row_of_walk)
            : 0;
    if (data_.sequential) {
      forward = std::max(forward,
                         block + largest_weight + all_moments + 4 * widest * widest + activations);
    }
    solve = std::max(solve, (drifts ? 0 : all_moments) + largest_solve +
                                (data_.sequential ? activations / 2 : 0));
  }
  const std::uint64_t embedding_rows =
      data_.sequential ? 4ull * config.embedding_width * 32'768 : 0;
  plan_.fixed_memory = kProgram + std::max(forward, solve) + embedding_rows;
  // States of the model as it becomes; in stages what o reads too, and those of the original.
  const std::uint64_t original =
      drifts ? std::min<std::uint64_t>(data_.tokens, calib::kDriftTokens) : 0;
  const std::uint64_t heads = drifts ? std::uint64_t{config.heads} * config.head_dim : 0;
  plan_.hidden_bytes = data_.sequential
                           ? 4 * (data_.tokens * (config.hidden + heads) + original * config.hidden)
                           : 0;
  if (data_.sequential && walks) {
    for (std::uint32_t layer = 0; layer < model_.blocks().size(); ++layer) {
      if (drifts) {
        plan_.work += staged_work(model_, layer, data_.tokens, original);
        continue;
      }
      // The walk collects and advances every block; the last one leads nowhere.
      const bool last = layer + 1 == model_.blocks().size();
      plan_.work += (last ? 1 : 2) * block_work(model_, layer, data_.tokens) +
                    moment_work(model_, layer, data_.tokens);
    }
  }
  plan_.seconds_estimate = seconds_of(plan_.work, executor_);
}

}  // namespace

double seconds_of(double work, const Executor& executor) {
  // Half of what two cores of a current server do in float32 with AVX-512.
  constexpr double kOperationsPerSecond = 7.5e10;
  return work / (kOperationsPerSecond * executor.width());
}

double block_work(const model::Model& model, std::uint32_t layer, std::uint64_t tokens) {
  double weights = 0;
  for (const model::Site site : model::kSites) {
    for (const model::Linear* linear : linears_at(model.blocks()[layer], site)) {
      weights += static_cast<double>(linear->rows) * static_cast<double>(linear->cols);
    }
  }
  return 2 * weights * static_cast<double>(tokens);
}

double moment_work(const model::Model& model, std::uint32_t layer, std::uint64_t tokens) {
  double work = 0;
  for (const model::Site site : model::kSites) {
    const auto cols = static_cast<double>(linears_at(model.blocks()[layer], site).front()->cols);
    work += static_cast<double>(tokens) * cols * (cols + 1);
  }
  return work;
}

double staged_work(const model::Model& model, std::uint32_t layer, std::uint64_t tokens,
                   std::uint64_t original_tokens) {
  // What staged_walk.cpp passes: gate and up twice, the rest once; of the original everything, and
  // o and down again for the drift; two drifts of hidden inputs, two of outputs.
  double once = 0, again = 0, drift = 0;
  const model::Block& block = model.blocks()[layer];
  for (const model::Site site : model::kSites) {
    for (const model::Linear* linear : linears_at(block, site)) {
      const double weights = static_cast<double>(linear->rows) * static_cast<double>(linear->cols);
      once += weights;
      if (site == model::Site::mlp_in) again += weights;
      if (site == model::Site::o_in || site == model::Site::down_in) drift += 2 * weights;
    }
  }
  const auto hidden = static_cast<double>(block.down.rows);
  drift += 2 * hidden * hidden;
  return 2 * (once + again) * static_cast<double>(tokens) +
         2 * (once + drift) * static_cast<double>(original_tokens) +
         moment_work(model, layer, tokens);
}

double task_work(const Task& task) {
  const double rows = static_cast<double>(task.linear->rows);
  const double cols = static_cast<double>(task.linear->cols);
  // Rounding touches every weight a few dozen times; the sweep multiplies triangles (twice, for the
  // guard) and factors the moment. Correcting a target is a product, two solves and a factor;
  // refining it about four products.
  double work = 100 * rows * cols;
  if (needs(task, quant::Needs::second_moment)) {
    work += cols * cols * cols / 3 + 2 * rows * cols * cols;
  }
  if (needs(task, quant::Needs::drift)) {
    work += cols * cols * cols / 3 + 12 * rows * cols * cols;
  }
  return task.open_direction ? 2 * work : work;
}

Result<Plan> make_plan(const model::Model& model, const Recipe& recipe, const CalibrationSize& data,
                       Executor& executor, std::uint64_t shard_limit) {
  return Planner(model, recipe, data, executor).run(shard_limit);
}

}  // namespace quell::pipeline
